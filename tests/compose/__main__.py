"""`scripts/test-compose` runs this beside the containers that it started: looks at them, then holds a conversation.

python -m tests.compose CLONE        with COMPOSE_PROJECT_NAME and PORT in the environment
"""

import json
import os
import re
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from tests.compose.project import READY_SECONDS, container, containers, docker, expect, step, wait_healthy, wait_until
from tests.compose.settings import look_at_settings, try_wrong_settings

from moorage.cli.api_client import ApiClient, ApiProblem, Event, Pending, Unreachable
from moorage.cli.follower import Follower

_URL = f"http://127.0.0.1:{os.environ['PORT']}"
_SOCKET = "/var/run/docker.sock"
_PLAIN_USERS = ("migrate", "server", "worker")
_OURS = ("init", "broker", *_PLAIN_USERS)
_USER = "sailor"
_SLOW = "echo begun && sleep 8 && python hello.py && df --block-size=1M --output=size /tmp"
_ROOMY_TMP_MB = "300"  # of the profile `roomy` that scripts/test-compose defines
_LOGIN = """
import psycopg
with psycopg.connect(open("/run/secrets/server/database_url").read().strip()) as c:
    rights = "rolsuper OR rolbypassrls OR rolcreaterole"
    print(c.execute(f"SELECT {rights} FROM pg_roles WHERE rolname = current_user").fetchone())
"""


def main() -> None:
    clone = Path(sys.argv[1])
    client = ApiClient(_URL)
    step("The server answers", lambda: wait_ready(client))
    step("A browser gets the web UI", look_at_web_ui)
    step("Each container holds what it needs, and no more", look_at_containers)
    step("Secrets are with those who need them", look_at_secrets)
    step("Settings reach those whom they are for", look_at_settings)
    Conversation(client, clone).hold()
    step("Settings that cannot be meant are refused in words", lambda: try_wrong_settings(clone))
    step("What the doctor says in the server's container", ask_doctor)
    print("test-compose: all as expected")  # noqa: T201


def post(path: str, body: dict[str, Any], *, token: str = "") -> dict[str, Any]:
    answer = httpx.post(_URL + path, json=body, headers={"authorization": f"Bearer {token}"} if token else {})
    expect(answer.is_success, f"{path}: {answer.status_code} {answer.text}")
    return answer.json()


def wait_ready(client: ApiClient) -> None:
    def is_ready() -> bool:
        try:
            client.ready()
        except (ApiProblem, Unreachable):
            return False
        return True

    wait_until(is_ready, "the server is ready")


def look_at_web_ui() -> None:
    with httpx.Client(base_url=_URL, headers={"accept": "text/html"}, follow_redirects=True) as browser:
        page = browser.get("/")
        expect(page.url.path == "/app/", f"/ leads to {page.url}")
        script = re.search('src="(/app/assets/[^"]+)"', page.text)
        expect(script is not None and browser.get(script[1]).is_success, f"no script in {page.text}")


def look_at_containers() -> None:
    found = containers()
    for service, item in found.items():
        host, mounts = item["HostConfig"], {mount["Destination"]: mount for mount in item["Mounts"]}
        holds_engine = any(mount.get("Source") == _SOCKET for mount in mounts.values())
        expect(holds_engine == (service == "broker"), f"{service}: mounts {list(mounts)}")
        holds_files = "/data/workspaces" in mounts or "/data/shared_files" in mounts
        expect(holds_files == (service == "broker"), f"{service}: mounts {list(mounts)}")
        ports = [binding["HostIp"] for bindings in (host["PortBindings"] or {}).values() for binding in bindings]
        expect(ports == (["127.0.0.1"] if service == "server" else []), f"{service}: publishes on {ports}")
        expect(host["CapDrop"] == ["ALL"], f"{service}: drops {host['CapDrop']}")
        expect(any("no-new-privileges" in option for option in host["SecurityOpt"]), f"{service}: may gain rights")
        if service in _OURS:
            expect(host["ReadonlyRootfs"], f"{service}: its root can be written")
        if service in _PLAIN_USERS:
            expect(item["Config"]["User"] == "moorage", f"{service}: runs as {item['Config']['User']!r}")
    expect(found["broker"]["HostConfig"]["NetworkMode"] == "none", "the broker has a network")
    expect(found.keys() == {*_OURS, "postgres"}, f"there are {sorted(found)}")


def look_at_secrets() -> None:
    server = container("server")
    expect(docker("exec", server, "id", "-u").strip() == "1000", "the server is not a plain user")
    expect(not docker("exec", server, "ls", "/run/secrets/owner", may_fail=True), "the server sees the owner's")
    expect("(False,)" in docker("exec", server, "python3", "-c", _LOGIN), "the server's login has rights of an owner")
    told = docker("exec", server, "cat", "/run/secrets/server/secret_key", "/run/secrets/server/database_url").split()
    for service in ("server", "worker"):
        said = json.dumps(containers()[service]["Config"])
        expect(not any(secret in said for secret in told), f"{service}: a secret is in its description")
    expect(not docker("exec", container("broker"), "ls", "/run/secrets/server", may_fail=True), "the broker sees any")


def ask_doctor() -> None:
    said = docker("exec", container("server"), "moorage", "doctor", "--json", may_fail=True)
    findings = [json.loads(line) for line in said.splitlines()]
    for finding in findings:
        if finding["status"] != "ok":
            print(f"test-compose:   {finding['name']}: {finding['detail']}")  # noqa: T201
    expect([item for item in findings if item["name"] == "sandbox" and item["status"] != "fail"], said)


class Conversation:
    """A user's, while the broker and the worker are restarted under it."""

    def __init__(self, client: ApiClient, clone: Path) -> None:
        self._client = client
        self._clone = clone
        self._events: list[Event] = []
        self._thread_id = ""
        self._on_output: Callable[[], None] | None = None

    def hold(self) -> None:
        step("A user registers and opens a session", self._log_in)
        follower = Follower(
            self._client, self._thread_id, after=0, show=self._seen, notice=lambda _: None, patience=READY_SECONDS
        )
        step("The agent asks to write a file", lambda: follower.send("Please write a small program and run it."))
        step("The broker is restarted", lambda: self._restart("broker"))
        step("The file is approved", lambda: self._approve(follower, "write_file"))
        step("The worker is restarted", lambda: self._restart("worker"))
        step("The command is approved; the broker is killed under it", lambda: self._run_command(follower))
        step("The session is deleted, and its files with it", self._delete)

    def _log_in(self) -> None:
        """With an assistant whose sandboxes have the operator's profile."""
        account = {"username": _USER, "password": secrets.token_urlsafe(18)}
        self._client.register(**account)
        token = post("/api/auth/login", account)["access_token"]
        self._client.use_token(token)
        roomy = {"graph_id": "agent", "name": "Roomy", "context": {"sandbox_profile": "roomy"}}
        assistant_id = post("/assistants", roomy, token=token)["assistant_id"]
        session = {"title": "Compose", "assistant_id": assistant_id}
        self._thread_id = post("/api/sessions", session, token=token)["thread_id"]

    def _seen(self, event: Event) -> None:
        self._events.append(event)
        if event.type == "tool_output" and self._on_output:
            act, self._on_output = self._on_output, None
            act()

    def _restart(self, service: str) -> None:
        docker("restart", "--time", "35", container(service))
        if service == "broker":
            wait_healthy(service)

    def _kill_broker(self) -> None:
        broker = container("broker")
        docker("kill", "--signal", "KILL", broker)
        docker("start", broker)
        wait_healthy("broker")

    def _pending(self, tool: str) -> Pending:
        pending = self._client.get_state(self._thread_id).pending
        expect([item.tool_name for item in pending] == [tool], f"not one {tool} waits: {pending}, {self._tail()}")
        return pending[0]

    def _approve(self, follower: Follower, tool: str) -> None:
        item = self._pending(tool)
        status = follower.resume([{"interrupt_id": item.id, "digest": item.digest, "type": "approve"}])
        expect(status == "interrupted", f"the run ended {status}: {self._tail()}")

    def _run_command(self, follower: Follower) -> None:
        item = self._pending("execute")
        edited = {"edited_action": {"name": "execute", "args": {"command": _SLOW}}}
        self._on_output = self._kill_broker
        status = follower.resume([{"interrupt_id": item.id, "digest": item.digest, "type": "edit", **edited}])
        expect(self._on_output is None, f"the command's output did not come as it ran: {self._tail()}")
        result = next(event.data for event in reversed(self._events) if event.type == "tool_result")
        expect(status == "success" and result.get("exit_code") == 0, f"the run ended {status}: {result}")
        expect("5050" in result["result"], f"the command printed {result['result']!r}")
        expect(_ROOMY_TMP_MB in result["result"].split(), f"/tmp is not as the profile says: {result['result']!r}")

    def _delete(self) -> None:
        workspace = self._clone / "workspaces" / _USER / self._thread_id
        expect(workspace.exists(), f"{workspace} is not there")
        storage = dict(entry.split("=", 1) for entry in containers()["broker"]["Config"]["Env"])["SANDBOX_STORAGE"]
        expect(workspace.is_mount() == (storage == "loop"), f"storage is {storage}, and {workspace} is no mount")
        print(f"test-compose:   storage: {storage}")  # noqa: T201
        self._client.delete_session(self._thread_id)
        expect(not workspace.exists(), f"{workspace} is still there")

    def _tail(self) -> list[tuple[str, object]]:
        return [(event.type, event.data) for event in self._events[-5:]]


if __name__ == "__main__":
    main()

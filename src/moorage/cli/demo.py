"""`moorage demo`: one whole conversation over HTTP against a server of its own, every step of it checked."""

import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from moorage.cli.api_client import ApiClient, Event, Pending
from moorage.cli.display import approval_text, printable
from moorage.cli.follower import Follower
from moorage.cli.server_process import ServerProcess, open_server
from moorage.cli.terminal import EXIT_FAILED
from moorage.errors import AppError

_MODEL = "scripted:write-and-run"
_USER = "demo"
_ADDED = "edited by the human"
_READY_SECONDS = 60.0
_PATIENCE_SECONDS = 10.0


class StepFailed(AppError):
    """Something was not as it must be; `detail` says what."""

    code = "demo_step_failed"


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the temporary folder with data and log in place")] = False,
) -> None:
    """Start a server, play one conversation with a scripted model and a real sandbox, check every step, stop it.

    Exit codes: 0 all went as expected; 1 not, with the reason and the end of the server's log.
    """
    began = time.monotonic()
    with open_server(_MODEL, keep=keep) as server:
        if keep:
            typer.echo(f"Folder: {server.folder}")
        try:
            _play(server)
        except AppError as error:
            _give_up(server, error.detail)
        except KeyboardInterrupt:
            _give_up(server, "interrupted")
    typer.secho(f"All as expected, in {time.monotonic() - began:.1f} s.", fg="green")


def _play(server: ServerProcess) -> None:
    steps = _Steps()
    with steps.step("Start a server: embedded Postgres, a real sandbox, a scripted model"):
        url = server.wait_ready(seconds=_READY_SECONDS, progress=lambda waited: _say(f"waiting, {waited:.0f} s ..."))
    with ApiClient(url) as client:
        _Scene(client, server, steps).play(url)
    with steps.step("Stop the server with SIGTERM"):
        code = server.stop()
        _expect(code == 0, f"the server's exit code is {code}")


class _Steps:
    """Numbers the steps, times them and marks how they went."""

    def __init__(self) -> None:
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Generator[None]:
        self._number += 1
        typer.echo(f"{self._number:2}. {title}")
        began = time.monotonic()
        try:
            yield
        except AppError:
            typer.secho("    ✗", fg="red")
            raise
        typer.secho(f"    ✓ {time.monotonic() - began:.2f} s", fg="green")


class _Scene:
    """The conversation, step by step."""

    def __init__(self, client: ApiClient, server: ServerProcess, steps: _Steps) -> None:
        self._client = client
        self._server = server
        self._step = steps.step
        self._events: list[Event] = []
        self._thread_id = ""

    def play(self, url: str) -> None:
        self._log_in(url)
        self._open_session()
        follower = Follower(
            self._client,
            self._thread_id,
            after=0,
            show=self._events.append,
            notice=_say,
            patience=_PATIENCE_SECONDS,
        )
        written = self._ask(follower)
        command = self._approve_file(follower, written)
        self._edit_command(follower, command)
        self._check_file(written)
        self._check_history(follower)
        self._delete()

    def _log_in(self, url: str) -> None:
        with self._step(f"Ask {url}/info what it is"):
            info = self._client.info()
            sandbox, note = str(info["sandbox"]), info.get("sandbox_note")
            _say(f"version {info['version']}, model {info['model']}")
            _say(f"sandbox {sandbox}" + (f": {note}" if note else ""))
            _expect(info["model"] == _MODEL, "it runs another model")
        password = secrets.token_urlsafe(18)
        with self._step("Register a user and log in"):
            self._client.register(_USER, password)
            self._client.login(_USER, password)

    def _open_session(self) -> None:
        with self._step("Open a session"):
            self._thread_id = self._client.open_session(title="Demo")
            _say(self._thread_id)
            _expect(self._thread_id.startswith(f"{_USER}-"), "the session's id does not name its owner")

    def _ask(self, follower: Follower) -> Pending:
        with self._step("Send a message and read the stream until something needs approval"):
            status = self._run(lambda: follower.send("Please write a small program and run it."))
            _expect(status == "interrupted", f"the run ended with status {status}, not interrupted")
            _expect(self._events[0].type == "message_received", "the stream does not begin with message_received")
            return self._only_pending("write_file")

    def _approve_file(self, follower: Follower, written: Pending) -> Pending:
        with self._step("Approve the file; the agent goes on to a command"):
            status = self._run(lambda: follower.resume([_decision(written, "approve")]))
            _expect(self._result("write_file")["status"] == "success", "write_file did not succeed")
            _expect(status == "interrupted", f"the run ended with status {status}, not interrupted")
            return self._only_pending("execute")

    def _edit_command(self, follower: Follower, asked: Pending) -> None:
        command = f"{asked.tool_input['command']} && echo {_ADDED}"
        with self._step(f"Approve the command, but edited: {command}"):
            edited = {"edited_action": {"name": "execute", "args": {"command": command}}}
            status = self._run(lambda: follower.resume([_decision(asked, "edit") | edited]))
            result = self._result("execute")
            _say("the sandbox says:")
            for line in str(result["result"]).splitlines():
                _say(f"  {line}")
            _expect(status == "success", f"the run ended with status {status}")
            _expect(result.get("exit_code") == 0, f"the command's exit code is {result.get('exit_code')}")
            _expect("5050" in result["result"] and _ADDED in result["result"], "the output is not the expected one")
            _expect(result.get("executed_input") == {"command": command}, "the edit is not recorded")
        with self._step("Read the agent's last word"):
            told = self._last_answer()
            _say(told)
            _expect(_ADDED in told, "the agent does not tell the edited command's output")

    def _check_file(self, written: Pending) -> None:
        path = self._server.workspaces / _USER / self._thread_id / "hello.py"
        with self._step(f"Find the file on this machine: {path}"):
            content = _read_file(path)
            _expect(content == written.tool_input["content"], "its content is not what was approved")

    def _check_history(self, follower: Follower) -> None:
        with self._step("List the session's messages"):
            roles = [item["role"] for item in self._client.list_messages(self._thread_id)]
            _say(", ".join(roles))
            _expect(
                roles[0] == "user" and roles.count("tool") == 2 and roles[-1] == "assistant", "they are not all there"
            )
        with self._step("Ask a question that needs the history"):
            status = self._run(lambda: follower.send("What did you do so far?"))
            told = self._last_answer()
            _say(told)
            _expect(status == "success" and "hello.py" in told and _ADDED in told, "the agent does not remember")

    def _delete(self) -> None:
        with self._step("Delete the session, and its workspace with it"):
            self._client.delete_session(self._thread_id)
            folder = self._server.workspaces / _USER / self._thread_id
            _expect(not folder.exists(), f"{folder} is still there")

    def _run(self, follow: Callable[[], str]) -> str:
        """Follow a run; checks that its events came in order."""
        start = len(self._events)
        status = follow()
        fresh = self._events[start:]
        _say("events: " + _counted([event.type for event in fresh]))
        seqs = [event.seq for event in fresh if event.seq is not None]
        _expect(seqs == sorted(set(seqs)) and fresh[-1].type == "run_end", "the events are not in order")
        return status

    def _only_pending(self, tool_name: str) -> Pending:
        pending = self._client.get_state(self._thread_id).pending
        _expect([item.tool_name for item in pending] == [tool_name], f"not one {tool_name} waits for approval")
        announced = [item for event in self._events if event.type == "interrupt" for item in event.data["interrupts"]]
        _expect(announced[-1]["digest"] == pending[0].digest, "what waits is not what the stream announced")
        for line in approval_text(pending[0], number=1, total=1).splitlines():
            _say(line)
        return pending[0]

    def _last_answer(self) -> str:
        told = [e.text("final_content") for e in self._events if e.type == "message_complete" and e.is_root]
        _expect(bool(told), "the agent has said nothing")
        return told[-1]

    def _result(self, tool_name: str) -> dict[str, Any]:
        calls = {event.text("call_id") for event in self._events if event.text("tool_name") == tool_name}
        found = [e for e in self._events if e.type == "tool_result" and e.text("call_id") in calls]
        _expect(bool(found), f"there is no result of {tool_name}")
        return found[-1].data


def _decision(item: Pending, kind: str) -> dict[str, Any]:
    return {"interrupt_id": item.id, "digest": item.digest, "type": kind}


def _counted(names: list[str]) -> str:
    return ", ".join(f"{name} x{names.count(name)}" if names.count(name) > 1 else name for name in dict.fromkeys(names))


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise StepFailed(f"it cannot be read: {error.strerror}") from error


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise StepFailed(otherwise)


def _say(text: str) -> None:
    for line in printable(text).splitlines():
        typer.echo(f"      {line}")


def _give_up(server: ServerProcess, reason: str) -> None:
    typer.secho(f"moorage demo: {reason}", err=True, fg="red")
    typer.echo(f"The end of the server's log:\n{server.log_tail()}", err=True)
    raise typer.Exit(EXIT_FAILED)

"""An HTTP client of a running server, with the few calls that the command line makes."""

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Self, cast

import httpx

from moorage.cli.sse_reader import Frame, SseReader
from moorage.errors import AppError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 45.0  # the server sends a heartbeat every 15 s: three missed ones mean that it is gone


class ApiProblem(AppError):
    """The server refused; `status` is the HTTP status, `code` and `detail` are the server's."""

    def __init__(self, status: int, detail: str, *, code: str = "http_error") -> None:
        super().__init__(detail, code=code)
        self.status = status


class Unreachable(AppError):
    """The server does not answer, or stopped in the middle of an answer."""

    code = "unreachable"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a session. `seq` is None only for `stream_closed`, which is not in the log."""

    type: str
    data: dict[str, Any]
    seq: int | None

    def text(self, key: str) -> str:
        value = self.data.get(key)
        return value if isinstance(value, str) else ""

    @property
    def is_root(self) -> bool:
        """Whether it is the session's own agent that speaks, not a sub-agent."""
        return "parent_call_id" not in self.data


@dataclass(frozen=True, slots=True)
class Pending:
    """What waits for a human."""

    id: str
    call_id: str
    tool_name: str
    tool_input: dict[str, Any]
    description: str
    allowed_decisions: tuple[str, ...]
    facts: dict[str, Any]
    digest: str

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> Self:
        return cls(
            id=item["id"],
            call_id=item["call_id"],
            tool_name=item["tool_name"],
            tool_input=item["tool_input"],
            description=item.get("description", ""),
            allowed_decisions=tuple(item["allowed_decisions"]),
            facts=item.get("facts", {}),
            digest=item["digest"],
        )


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session as of `last_seq`."""

    thread_id: str
    status: str
    run_status: str
    pending: list[Pending]
    last_seq: int


class ApiClient:
    """One user's view of a server. Every call raises ApiProblem or Unreachable."""

    def __init__(self, url: str, *, token: str | None = None, transport: httpx.BaseTransport | None = None) -> None:
        """`transport` replaces the network, for tests."""
        base = httpx.URL(url.rstrip("/"))
        self._http = httpx.Client(
            base_url=base,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=not _is_loopback(base.host),  # a proxy has no business between us and this machine
            transport=transport,
        )
        if token is not None:
            self.use_token(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def use_token(self, token: str) -> None:
        self._http.headers["Authorization"] = f"Bearer {token}"

    def register(self, username: str, password: str) -> str:
        return self._call("POST", "/api/auth/register", {"username": username, "password": password})["user_id"]

    def login(self, username: str, password: str) -> None:
        """Log in; the token stays in this object."""
        answer = self._call("POST", "/api/auth/login", {"username": username, "password": password})
        self.use_token(answer["access_token"])

    def info(self) -> dict[str, Any]:
        return self._call("GET", "/info")

    def ready(self) -> dict[str, Any]:
        """What `/readyz` says; ApiProblem with status 503 while the server is not ready."""
        return self._call("GET", "/readyz")

    def open_session(self, *, title: str = "") -> str:
        return self._call("POST", "/api/sessions", {"title": title})["thread_id"]

    def find_latest_session(self) -> str | None:
        """The active session that was used last."""
        items = self._call("GET", "/api/sessions?limit=50")["items"]
        return next((item["thread_id"] for item in items if item["status"] == "active"), None)

    def get_state(self, thread_id: str) -> SessionState:
        answer = self._call("GET", f"/api/sessions/{thread_id}/state")
        thread = answer["thread"]
        return SessionState(
            thread_id=thread["thread_id"],
            status=thread["status"],
            run_status=thread["run_status"],
            pending=[Pending.from_json(item) for item in answer["pending"]],
            last_seq=answer["last_seq"],
        )

    def list_messages(self, thread_id: str) -> list[dict[str, Any]]:
        return self._call("GET", f"/api/sessions/{thread_id}/messages?limit=100")["items"]

    def cancel(self, thread_id: str) -> None:
        """Stop what runs, what is queued and what waits for approval."""
        self._call("POST", f"/api/sessions/{thread_id}/cancel")

    def delete_session(self, thread_id: str) -> None:
        self._call("DELETE", f"/api/sessions/{thread_id}")

    def resume(self, thread_id: str, decisions: Sequence[dict[str, Any]]) -> str:
        """Answer approvals together; the id of the run that continues."""
        return self._call("POST", f"/api/resume/{thread_id}", {"decisions": list(decisions)})["run_id"]

    @contextmanager
    def chat(self, thread_id: str, message: str, *, idempotency_key: str) -> Generator[Iterator[Event]]:
        """Send a message and read its run. Repeating it with the same key reads the same run again."""
        headers = {"Idempotency-Key": idempotency_key}
        with self._stream("POST", f"/api/chat/{thread_id}", headers, {"message": message}) as events:
            yield events

    @contextmanager
    def events(self, thread_id: str, *, after: int) -> Generator[Iterator[Event]]:
        """Read all of the session's events after a seq, then live."""
        with self._stream("GET", f"/api/sessions/{thread_id}/events", {"Last-Event-ID": str(after)}) as events:
            yield events

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _refuse_problem(response)
        return _json_object(response) if response.content else {}

    @contextmanager
    def _stream(
        self, method: str, path: str, headers: dict[str, str], body: dict[str, Any] | None = None
    ) -> Generator[Iterator[Event]]:
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=SILENCE_SECONDS)
        request = self._http.build_request(
            method, path, headers={"Accept": "text/event-stream", **headers}, json=body, timeout=timeout
        )
        try:
            response = self._http.send(request, stream=True)
            try:
                if response.is_error:
                    response.read()
                _refuse_problem(response)
                yield _events(response)
            finally:
                response.close()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        reason = str(error) or type(error).__name__
        return Unreachable(f"The server at {self._http.base_url} does not answer: {reason}")


def _events(response: httpx.Response) -> Iterator[Event]:
    reader = SseReader()
    for chunk in response.iter_bytes():
        for frame in reader.feed(chunk):
            yield _event(frame)


def _event(frame: Frame) -> Event:
    seq = int(frame.id) if frame.id is not None and frame.id.isascii() and frame.id.isdigit() else None
    data: object = json.loads(frame.data)
    return Event(frame.event, cast("dict[str, Any]", data) if isinstance(data, dict) else {}, seq)


def _refuse_problem(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = _json_object(response)
    except ApiProblem:
        problem = {}
    detail = str(problem.get("detail") or f"The server answered {response.status_code} {response.reason_phrase}")
    fields = cast("list[dict[str, Any]]", problem.get("errors") or [])
    if fields:
        places = (".".join(map(str, field.get("loc", []))) + ": " + str(field.get("msg", "")) for field in fields)
        detail = f"{detail} ({'; '.join(places)})"
    raise ApiProblem(response.status_code, detail, code=str(problem.get("code", "http_error")))


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer: object = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ApiProblem(response.status_code, f"{response.url} is not a Moorage server: its answer is no JSON object")
    return cast("dict[str, Any]", answer)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

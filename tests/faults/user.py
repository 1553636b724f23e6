"""A user whose network and servers fail: what is sent, what was acknowledged, and what the event log said."""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
from tests.api.harness import Event, read_events
from tests.faults.scripts import Script, script
from tests.faults.server import Server
from tests.faults.waiting import POLL_SECONDS

__all__ = ["Event", "Sent", "Thread", "User", "persist", "read_events"]

# What a client must bear while a server or Postgres is away.
OUTAGE = (502, 503)
LAST = ("success", "interrupted", "error", "timeout", "cancelled")


@dataclass(frozen=True)
class Sent:
    """An acknowledged message."""

    message_id: str
    run_id: str
    seq: int
    mark: str


class User:
    """Logged in once; the token holds on every server of the database."""

    def __init__(self, name: str, token: str) -> None:
        self.name = name
        self._token = token

    def client(self, server: Server) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        headers = {"authorization": f"Bearer {self._token}"}
        return httpx.AsyncClient(base_url=server.url, timeout=20, headers=headers, limits=limits)

    async def new_thread(self, server: Server) -> "Thread":
        async with self.client(server) as client:
            reply = await persist(lambda: client.post("/api/sessions"))
        assert reply.status_code == 201, reply.text
        return Thread(self, server, reply.json()["thread_id"])


class Thread:
    """A thread as its owner sees it through `server`, which may be another one later."""

    def __init__(self, user: User, server: Server, thread_id: str) -> None:
        self.user = user
        self.server = server
        self.id = thread_id
        self.events: list[Event] = []
        self.sent: list[Sent] = []

    async def post(self, path: str, *, key: str | None = None, **body: Any) -> httpx.Response:
        """One attempt, whatever comes of it."""
        headers = {"idempotency-key": key} if key else {}
        async with self.user.client(self.server) as client:
            return await client.post(path.format(id=self.id), json=body, headers=headers)

    async def get(self, path: str, **parameters: Any) -> Any:
        async with self.user.client(self.server) as client:
            reply = await persist(lambda: client.get(path.format(id=self.id), params=parameters))
        assert reply.status_code == 200, reply.text
        return reply.json()

    async def say(
        self, content: Script, *, strategy: str | None = None, seconds: float = 60, approving: bool = False
    ) -> Sent:
        """Send a message until it is acknowledged, with the same Idempotency-Key each time.

        When `approving`, a thread that waits for its user is answered rather than an error.
        """
        key, body = uuid.uuid4().hex, _chat_body(content, strategy)
        deadline = time.monotonic() + seconds
        while True:
            with suppress(httpx.TransportError, Unacknowledged):
                reply = await self._say_once(content, body, key)
                if isinstance(reply, Sent):
                    self.sent.append(reply)
                    return reply
                if approving and reply.status_code == 409:
                    await self.approve()
                else:
                    assert reply.status_code in OUTAGE, f"{reply.status_code} {reply.text}"
            assert time.monotonic() < deadline, "the message was not acknowledged"
            await asyncio.sleep(POLL_SECONDS)

    async def try_to_say(self, content: Script, *, strategy: str | None = None) -> Sent | int:
        """One attempt: the acknowledgement, or the status of the refusal."""
        reply = await self._say_once(content, _chat_body(content, strategy), uuid.uuid4().hex)
        if isinstance(reply, Sent):
            self.sent.append(reply)
            return reply
        return reply.status_code

    async def _say_once(self, content: Script, body: dict[str, Any], key: str) -> Sent | httpx.Response:
        """Reads no further than the acknowledgement."""
        headers = {"idempotency-key": key}
        async with (
            self.user.client(self.server) as client,
            client.stream("POST", f"/api/chat/{self.id}", json=body, headers=headers) as reply,
        ):
            if reply.status_code != 200:
                await reply.aread()
                return reply
            async for event in read_events(reply):
                if event.type == "stream_closed":  # the server stops; the message may or may not be stored
                    break
                assert event.type == "message_received", event
                assert event.id is not None
                return Sent(event.data["message_id"], event.data["run_id"], event.id, content.mark)
        raise Unacknowledged

    async def play(self, *steps: Any, seconds: float = 40, **options: Any) -> list[Event]:
        """Have the model make these calls, approve whatever asks, and answer the events until the thread rests."""
        before = len(self.events)
        await self.say(script(*steps, **options))
        await self.settle(seconds=seconds)
        return self.events[before:]

    async def settle(self, *, seconds: float = 40) -> str:
        """Approve what asks until nothing is queued, runs or waits; answers the thread's run status."""
        deadline = time.monotonic() + seconds
        while True:
            session = await self.get("/api/sessions/{id}")
            match session["run_status"]:
                case "busy":
                    await asyncio.sleep(POLL_SECONDS * 3)
                case "interrupted":
                    await self.approve()
                case status:
                    await self.catch_up()
                    return status
            assert time.monotonic() < deadline, f"the thread does not rest: {session}"

    async def approve(self) -> None:
        """Approve all that is pending; somebody's earlier attempt may have arrived."""
        key = uuid.uuid4().hex
        reply = await persist(lambda: self.post("/api/resume/{id}", key=key, action="continue"))
        assert reply.status_code in (200, 409), reply.text

    async def cancel(self) -> httpx.Response:
        return await self.post("/api/sessions/{id}/cancel")

    async def pending(self) -> list[dict[str, Any]]:
        return (await self.get("/api/sessions/{id}/state"))["pending"]

    async def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = await self.get("/api/sessions/{id}/messages", limit=100, **({"cursor": cursor} if cursor else {}))
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def catch_up(self) -> list[Event]:
        """All events that are stored now."""
        session = await self.get("/api/sessions/{id}")
        if session["last_seq"] > self.seen:
            await self.until(lambda event: event.id == session["last_seq"], seconds=150)
        return self.events

    @property
    def seen(self) -> int:
        return self.events[-1].id or 0 if self.events else 0

    async def until(self, wanted: Callable[[Event], bool], *, seconds: float = 40) -> Event:
        """The first event, of those read before too, that is `wanted`; through outages, without a gap or a copy."""
        if found := next((event for event in self.events if wanted(event)), None):
            return found
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(httpx.TransportError, TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    if found := await self._follow(wanted):
                        return found
            await asyncio.sleep(POLL_SECONDS)
        kinds = [f"{event.id} {event.type}" for event in self.events[-30:]]
        raise AssertionError(f"not within {seconds:g} s; the last events are {kinds}")

    async def until_type(self, kind: str, *, run_id: str | None = None, seconds: float = 40) -> Event:
        return await self.until(
            lambda event: event.type == kind and run_id in (None, event.data.get("run_id")), seconds=seconds
        )

    async def until_end(self, run_id: str, *, seconds: float = 40) -> str:
        """The status that this run ends with."""
        return (await self.until_type("run_end", run_id=run_id, seconds=seconds)).data["status"]

    async def _follow(self, wanted: Callable[[Event], bool]) -> Event | None:
        headers = {"last-event-id": str(self.seen)}
        async with (
            self.user.client(self.server) as client,
            client.stream("GET", f"/api/sessions/{self.id}/events", headers=headers) as reply,
        ):
            if reply.status_code in OUTAGE:
                return None
            assert reply.status_code == 200, await reply.aread()
            async for event in read_events(reply):
                if event.type == "stream_closed":
                    return None
                assert event.id == self.seen + 1, f"{event} came after {self.seen}"
                self.events.append(event)
                if wanted(event):
                    return event
        return None


class Unacknowledged(Exception):
    """The stream ended before its first event."""


async def persist(
    attempt: Callable[[], Any], *, seconds: float = 150, refusals: tuple[int, ...] = OUTAGE
) -> httpx.Response:
    """Try again while nobody answers or the answer is that of an outage."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.TransportError):
            reply: httpx.Response = await attempt()
            if reply.status_code not in refusals:
                return reply
        assert time.monotonic() < deadline, f"nobody answers within {seconds:g} s"
        await asyncio.sleep(POLL_SECONDS)


def _chat_body(content: Script, strategy: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"message": str(content)}
    return {**body, "multitask_strategy": strategy} if strategy else body

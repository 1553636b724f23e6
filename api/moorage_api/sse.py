"""From the event log to Server-Sent Events: replay, then live, heartbeats, and a word before an early end."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import orjson
from sse_starlette.sse import EventSourceResponse

from moorage.errors import InvalidPayload, Unauthenticated, Unavailable
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId
from moorage.threads import EventsForgotten, ReaderLagged

HEARTBEAT_SECONDS = 15.0
RECHECK_SECONDS = 14.0  # asked at a batch or a heartbeat: with what passes until the next one, less than 30 s
_HEARTBEAT = b": heartbeat\n\n"

EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events",
        "content": {
            "text/event-stream": {
                "itemSchema": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in ("event", "data", "id")},
                    "required": ["data"],
                }
            }
        },
    }
}
"""How the API's description shows a stream."""

type Batches = AsyncGenerator[list[StoredEvent]]
type Recheck = Callable[[], Awaitable[object]]


def event_stream(batches: Batches, *, after: int, recheck: Recheck, run_id: RunId | None = None) -> EventSourceResponse:
    """Stream a followed thread. With `run_id`: only that run's events, closing after its last one.

    `recheck` raises Unauthenticated when the reader may not read any more; it is asked every half minute.
    """
    frames = _frames(batches, after=after, recheck=recheck, run_id=run_id)
    return EventSourceResponse(frames, ping=0, headers={"Cache-Control": "no-store"})


def frame(event: StoredEvent) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.type.encode(), event.data)


def closing_frame(reason: str, last_seq: int) -> bytes:
    """The only frame without an id: it is not in the log."""
    return b"event: stream_closed\ndata: %s\n\n" % orjson.dumps({"reason": reason, "last_seq": last_seq})


def last_event_id(header: str | None, query: str | None) -> int:
    """The seq after which to read: `Last-Event-ID` wins over `after`. Raises InvalidPayload unless it is a number."""
    text = header if header is not None else query
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidPayload("Last-Event-ID and after take the id of an event: a number")
    return int(text)


async def _frames(batches: Batches, *, after: int, recheck: Recheck, run_id: RunId | None) -> AsyncIterator[bytes]:
    seen, allowed = after, Allowed(recheck)
    async with aclosing(batches):
        try:
            async for batch in batches:
                if not await allowed.still():
                    yield closing_frame("unauthorized", seen)
                    return
                if not batch:
                    yield _HEARTBEAT
                    continue
                seen = batch[-1].seq
                chosen = [event for event in batch if _is_shown(event, run_id)]
                if chosen:
                    yield b"".join(map(frame, chosen))
                if run_id is not None and any(event.type is EventType.RUN_END for event in chosen):
                    return
        except ReaderLagged as error:
            yield closing_frame("lagged", error.last_seq)
        except EventsForgotten as error:
            yield closing_frame("gap", error.last_seq)
        else:
            yield closing_frame("server_restart", seen)


def _is_shown(event: StoredEvent, run_id: RunId | None) -> bool:
    return event.type is not EventType.GRAPH and (run_id is None or event.run_id == run_id)


class Allowed:
    """Whether the reader may still read, asked now and then."""

    def __init__(self, recheck: Recheck) -> None:
        self._recheck = recheck
        self._checked = time.monotonic()

    async def still(self) -> bool:
        if time.monotonic() - self._checked < RECHECK_SECONDS:
            return True
        try:
            await self._recheck()
        except Unauthenticated:
            return False
        except Unavailable:  # nobody can tell now, and no event comes either: ask again with the next batch
            return True
        self._checked = time.monotonic()
        return True

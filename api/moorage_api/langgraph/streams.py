"""Runs over HTTP as LangGraph's clients read them: a run's stream, a whole thread's, and the answer to who waits.

All follow the log. A stream that the server cannot go on with ends without `end`: its client sees that the run is not
over, and comes back with the id of the last frame that it has.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing

import orjson
from sse_starlette.sse import EventSourceResponse

from moorage.errors import Unavailable
from moorage.events import StoredEvent
from moorage.runs.run import Run
from moorage.threads import EventsForgotten, ReaderLagged
from moorage_api.langgraph.legacy import LegacyProjection
from moorage_api.langgraph.legacy_frames import ALL_OF_IT, FrameId, frame_id
from moorage_api.langgraph.results import RunOutcome
from moorage_api.langgraph.sources import HEARTBEAT_SECONDS, Source
from moorage_api.langgraph.thread_reader import ThreadReader
from moorage_api.sse import Allowed

__all__ = ["Source", "run_result", "run_stream", "thread_stream"]

HEARTBEAT = b": heartbeat\r\n\r\n"
_UNAUTHORIZED = {"error": "unauthenticated", "message": "The login is not valid any more"}

type Stop = Callable[[], Awaitable[None]]


class _Progress:
    """Whether a stream came to the end of its run: if not, its client may have gone away early."""

    def __init__(self) -> None:
        self.ended = False


def run_stream(
    source: Source,
    run: Run,
    *,
    modes: Collection[str],
    subgraphs: bool = False,
    last_event_id: str | None = None,
    on_disconnect: Stop | None = None,
    stateless: bool = False,
) -> EventSourceResponse:
    """A run's frames in these modes, without any in those that it was created with, up to its end.

    After `last_event_id` come exactly the frames that followed it. `on_disconnect` is awaited when the client goes away
    before the end. Raises InvalidPayload for an id that is none.
    """
    projection = source.projection(run, modes, subgraphs=subgraphs, after=frame_id(last_event_id))
    progress = _Progress()
    frames = _run_frames(source, run, projection, progress)
    return _response(frames, progress, on_disconnect, _headers(source, run, "stream", stateless=stateless))


def run_result(
    source: Source, run: Run, *, on_disconnect: Stop | None = None, stateless: bool = False
) -> EventSourceResponse:
    """The values that a run ends with, as JSON, when it has ended; whitespace keeps the connection open until then."""
    progress = _Progress()
    headers = _headers(source, run, "join", stateless=stateless)
    body = _result(source, run, progress)
    return _response(body, progress, on_disconnect, headers, media_type="application/json")


def thread_stream(
    source: Source, *, modes: Collection[str] = ("run_modes",), last_event_id: str | None = None
) -> EventSourceResponse:
    """All runs of the thread as they come, each in its own modes; never ends by itself.

    It begins with what happens from now on, or after `last_event_id`. With `lifecycle` alone it tells only which runs
    start and end. State updates from outside are in no run, and are not told.
    """
    live = (source.thread.last_seq, ALL_OF_IT)
    after = frame_id(last_event_id) if last_event_id is not None else live
    frames = _thread_frames(ThreadReader(source, modes, after), source, after)
    return _response(frames, _Progress(), None, {})


def _response(
    body: AsyncGenerator[bytes],
    progress: _Progress,
    on_disconnect: Stop | None,
    headers: dict[str, str],
    media_type: str = "text/event-stream",
) -> EventSourceResponse:
    async def client_left(_message: object) -> None:
        if on_disconnect is not None and not progress.ended:
            await on_disconnect()

    return EventSourceResponse(
        body,
        ping=0,
        media_type=media_type,
        headers={**headers, "Cache-Control": "no-store"},
        client_close_handler_callable=client_left,
    )


def _headers(source: Source, run: Run, tail: str, *, stateless: bool) -> dict[str, str]:
    """Where clients come back to; relative, as they refuse any other origin."""
    own = f"/threads/{source.thread.wire_id}/runs/{run.run_id}"
    return {"Location": f"/runs/{run.run_id}/stream" if stateless and tail == "stream" else f"{own}/{tail}",
            "Content-Location": f"/runs/{run.run_id}" if stateless and tail == "stream" else own}  # fmt: skip


async def _run_frames(
    source: Source, run: Run, projection: LegacyProjection, progress: _Progress
) -> AsyncGenerator[bytes]:
    allowed, quiet = Allowed(source.recheck), _Quiet()
    async with aclosing(source.follow(run.first_seq - 1)) as batches:
        try:
            async for batch in batches:
                if not await allowed.still():
                    yield _error(_UNAUTHORIZED)
                    return
                if chunk := await projection.frames(batch) or quiet.heartbeat(batch):
                    quiet.sent()
                    yield chunk
                if projection.ended:
                    progress.ended = True
                    return
        except (ReaderLagged, Unavailable):
            return
        except EventsForgotten:
            progress.ended = True
            yield projection.forgotten(await source.final())


async def _result(source: Source, run: Run, progress: _Progress) -> AsyncGenerator[bytes]:
    outcome = RunOutcome(run.run_id, load=source.load, final=source.final)
    allowed, quiet, after = Allowed(source.recheck), _Quiet(), run.first_seq - 1
    while not outcome.ended:
        async with aclosing(source.follow(after)) as batches:
            try:
                async for batch in batches:
                    if not await allowed.still():
                        yield orjson.dumps({"__error__": _UNAUTHORIZED})
                        return
                    await outcome.read(batch)
                    after = batch[-1].seq if batch else after
                    if outcome.ended:
                        break
                    if quiet.heartbeat(batch):
                        quiet.sent()
                        yield b"\n"
                else:
                    return  # the server stops: the client sees that no body came, and joins again
            except ReaderLagged:
                continue
            except EventsForgotten:
                break
    progress.ended = True
    yield await outcome.body()


async def _thread_frames(reader: ThreadReader, source: Source, after: FrameId) -> AsyncGenerator[bytes]:
    allowed, quiet = Allowed(source.recheck), _Quiet()
    async with aclosing(reader.follow(after)) as batches:
        try:
            async for batch in batches:
                if not await allowed.still():
                    yield _error(_UNAUTHORIZED)
                    return
                if chunk := await reader.frames(batch) or quiet.heartbeat(batch):
                    quiet.sent()
                    yield chunk
        except (ReaderLagged, Unavailable):
            return
        except EventsForgotten as error:
            yield _error({"error": error.code, "message": error.detail})


class _Quiet:
    """Says when a client has heard nothing for long enough."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def sent(self) -> None:
        self._last = time.monotonic()

    def heartbeat(self, batch: list[StoredEvent]) -> bytes:
        return HEARTBEAT if not batch or time.monotonic() - self._last > HEARTBEAT_SECONDS else b""


def _error(body: dict[str, str]) -> bytes:
    """The only frame without an id: it is not of the log."""
    return b"event: error\r\ndata: %b\r\n\r\n" % orjson.dumps(body)

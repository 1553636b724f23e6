"""What a stream says besides events, and when it asks whether its reader may still read."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import orjson
import pytest

from moorage.errors import Unauthenticated, Unavailable
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId, ThreadId
from moorage.threads import EventsForgotten, ReaderLagged
from moorage_api import sse

THREAD, RUN = ThreadId("alice-550e8400-e29b-41d4-a716-446655440000"), RunId("run")
type Recheck = Callable[[], Awaitable[object]]


def event(seq: int) -> StoredEvent:
    return StoredEvent(THREAD, seq, RUN, EventType.TODO_UPDATE, b"{}")


async def batches(*items: list[StoredEvent] | Exception) -> AsyncGenerator[list[StoredEvent]]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        yield item


async def allow() -> None:
    return None


async def frames(*items: list[StoredEvent] | Exception, recheck: Recheck = allow) -> list[str]:
    stream = sse.event_stream(batches(*items), after=0, recheck=recheck)
    return [bytes(frame).decode() async for frame in stream.body_iterator]  # type: ignore[arg-type]


def closed(reason: str, last_seq: int) -> str:
    return f"event: stream_closed\ndata: {orjson.dumps({'reason': reason, 'last_seq': last_seq}).decode()}\n\n"


async def test_a_stream_that_the_server_ends_says_where_it_was() -> None:
    found = await frames([event(1), event(2)], [], [event(3)])
    assert found[1] == ": heartbeat\n\n"
    assert found[-1] == closed("server_restart", 3)


async def test_a_reader_that_fell_behind_is_told_where_to_go_on() -> None:
    assert (await frames([event(1), event(2)], ReaderLagged(2)))[-1] == closed("lagged", 2)


async def test_a_reader_of_forgotten_events_is_told_the_threads_last() -> None:
    assert await frames(EventsForgotten(40)) == [closed("gap", 40)]


async def test_a_reader_who_may_not_read_any_more_gets_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0)
    answers = iter([None, Unauthenticated("disabled")])

    async def recheck() -> None:
        if error := next(answers):
            raise error

    assert (await frames([event(1)], [event(2)], recheck=recheck))[1:] == [closed("unauthorized", 1)]


async def test_a_stream_outlives_a_database_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "RECHECK_SECONDS", 0)

    async def recheck() -> None:
        raise Unavailable("Postgres does not answer")

    assert len(await frames([event(1)], [event(2)], recheck=recheck)) == 3


def test_what_passes_between_two_questions_is_less_than_half_a_minute() -> None:
    assert sse.RECHECK_SECONDS + sse.HEARTBEAT_SECONDS < 30

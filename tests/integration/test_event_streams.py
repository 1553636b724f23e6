"""Readers of the event log: bounded however slow they are, woken across processes, exact when they come back."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres import event_readers
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.notices import Notices
from moorage.adapters.postgres.pool import Connection, Database
from moorage.claims import Claim
from moorage.errors import Unavailable
from moorage.events import EventType, RunEvent, StoredEvent, run_event
from moorage.ids import ThreadId, UserId
from moorage.threads import ReaderLagged

type Batches = AsyncGenerator[list[StoredEvent]]


class Counting(Database):
    """The real database, which counts how often the table of events is read, and can be away."""

    def __init__(self, real: Database) -> None:
        self.__dict__.update(real.__dict__)
        self.reads = 0
        self.away = False

    async def tenant_rows(self, user_id: UserId, *args: object) -> list[dict[str, object]]:
        self.reads += 1
        if self.away:
            raise Unavailable("Postgres does not answer")
        return await super().tenant_rows(user_id, *args)  # type: ignore[arg-type]

    @asynccontextmanager
    async def system_transaction(self) -> AsyncGenerator[Connection]:
        if self.away:
            raise Unavailable("Postgres does not answer")
        async with super().system_transaction() as connection:
            yield connection


@dataclass
class Reading:
    """What somebody who follows a thread has seen."""

    batches: Batches
    seqs: list[int] = field(default_factory=list)

    async def until(self, seq: int) -> list[int]:
        async with asyncio.timeout(20):
            while not self.seqs or self.seqs[-1] < seq:
                self.seqs += [event.seq for event in await anext(self.batches)]
        return self.seqs


@asynccontextmanager
async def reading(log: PostgresEventLog, thread_id: ThreadId, *, after: int = 0) -> AsyncGenerator[Reading]:
    async with aclosing(log.follow(thread_id, after=after, idle=60)) as batches:
        yield Reading(batches)


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


@pytest.fixture
def log(ports: Ports) -> PostgresEventLog:
    assert isinstance(ports.log, PostgresEventLog)
    return ports.log


def events(count: int, *, size: int = 10) -> list[RunEvent]:
    return [run_event(EventType.CONTENT_STREAM, {"content_delta": "x" * size}) for _ in range(count)]


async def write(log: PostgresEventLog, claim: Claim, count: int, *, size: int = 10) -> None:
    """In many small commits, as a run does."""
    for _ in range(0, count, 500):
        await log.append(claim, events(min(500, count), size=size))


@pytest.mark.parametrize(("count", "size"), [(event_readers.BUFFER_EVENTS + 500, 10), (1500, 10_000)])
async def test_who_does_not_read_holds_no_memory_and_is_told_that_it_fell_behind(
    ports: Ports, log: PostgresEventLog, count: int, size: int
) -> None:
    claim = await ports.running()
    async with reading(log, claim.thread_id) as reader:
        await reader.until(1)
        await log.append(claim, events(1))
        await reader.until(2)
        await write(log, claim, count, size=size)
        assert log.readers.buffered_bytes == 0
        with pytest.raises(ReaderLagged) as lagged:
            await reader.until(count)
    seen = reader.seqs
    assert lagged.value.last_seq == seen[-1]
    async with reading(log, claim.thread_id, after=lagged.value.last_seq) as again:
        seen += await again.until(2 + count)
    assert seen == list(range(1, 3 + count))


async def test_the_buffer_of_a_slow_reader_stays_within_its_bound(ports: Ports, log: PostgresEventLog) -> None:
    claim = await ports.running()
    async with reading(log, claim.thread_id) as reader:
        await reader.until(1)
        for _ in range(12):
            await log.append(claim, events(100, size=10_000))
            assert log.readers.buffered_bytes <= event_readers.BUFFER_BYTES


async def test_one_burst_beyond_the_bound_is_no_falling_behind_for_who_waits(
    ports: Ports, log: PostgresEventLog
) -> None:
    claim = await ports.running()
    async with reading(log, claim.thread_id) as reader:
        await reader.until(1)
        waiting = asyncio.create_task(reader.until(12_001))
        await log.append(claim, events(12_000))
        assert await waiting == list(range(1, 12_002))


async def test_a_slow_reader_of_what_is_stored_is_never_behind(ports: Ports, log: PostgresEventLog) -> None:
    """It is given the table at its own pace."""
    claim = await ports.running()
    await write(log, claim, 3000)
    other = PostgresEventLog(log.readers._database)
    async with reading(other, claim.thread_id) as reader:
        await reader.until(1)
        await write(log, claim, 12_000)
        assert await reader.until(15_001) == list(range(1, 15_002))


async def test_a_batch_of_large_events_is_cut_by_its_size(ports: Ports, log: PostgresEventLog) -> None:
    claim = await ports.running()
    await log.append(claim, events(100, size=100_000))
    async with aclosing(log.follow(claim.thread_id, after=1, idle=60)) as batches:
        first = await anext(batches)
        assert 1 <= len(first) < 10
        seqs = [event.seq for event in first]
        while seqs[-1] < 101:
            seqs += [event.seq for event in await anext(batches)]
    assert seqs == list(range(2, 102))


async def test_a_run_that_was_just_started_here_is_followed_without_a_look_into_the_table(
    ports: Ports, log: PostgresEventLog, database: Database
) -> None:
    counting = Counting(database)
    here = PostgresEventLog(counting)
    claim = await ports.running()
    here.publish(await log.read(claim.thread_id, after=0, limit=1))
    async with reading(here, claim.thread_id) as reader:
        assert await reader.until(1) == [1]
        await log.append(claim, events(1))
        here.publish(await log.read(claim.thread_id, after=1, limit=1))
        assert await reader.until(2) == [1, 2]
    assert counting.reads == 0


async def test_a_reader_waits_for_a_postgres_that_is_away(
    ports: Ports, log: PostgresEventLog, database: Database
) -> None:
    counting = Counting(database)
    here = PostgresEventLog(counting)
    counting.away = True
    claim = await ports.running()
    async with reading(here, claim.thread_id) as reader:
        assert await asyncio.wait_for(anext(reader.batches), 10) == []
        counting.away = False
        assert await reader.until(1) == [1]


# Across processes: two logs that know each other only through Postgres ------------------------------------------------


@asynccontextmanager
async def another_process(database: Database, url: str) -> AsyncGenerator[PostgresEventLog]:
    """A log that hears notices, and never polls."""
    notices = Notices(url, process="another process")
    log = PostgresEventLog(database, notices)
    running = asyncio.create_task(notices.run_forever())
    await asyncio.wait_for(notices.listening.wait(), 10)
    yield log
    running.cancel()
    await asyncio.wait([running])


async def test_a_notice_wakes_the_readers_of_another_process(
    ports: Ports, log: PostgresEventLog, database: Database, database_url: str
) -> None:
    claim = await ports.running()
    async with another_process(database, database_url) as elsewhere, reading(elsewhere, claim.thread_id) as reader:
        await reader.until(1)
        for seq in range(2, 30):
            await log.append(claim, events(1))
            assert await reader.until(seq) == list(range(1, seq + 1))


async def test_a_commit_of_more_threads_than_a_notice_can_name_makes_all_poll(
    ports: Ports, log: PostgresEventLog, database: Database, database_url: str
) -> None:
    claims = [await ports.running() for _ in range(150)]
    async with another_process(database, database_url) as elsewhere:
        polling = asyncio.create_task(elsewhere.poll_forever())
        async with reading(elsewhere, claims[0].thread_id) as reader:
            await reader.until(1)
            await asyncio.gather(*(log.append(claim, events(1)) for claim in claims))
            await reader.until(2)
        polling.cancel()


async def test_a_reader_who_changes_servers_at_every_step_sees_each_event_once(
    ports: Ports, log: PostgresEventLog, database: Database, database_url: str
) -> None:
    claim = await ports.running()
    async with another_process(database, database_url) as elsewhere:
        writing = asyncio.create_task(write(log, claim, 20_000))
        seen: list[int] = []
        for turn in range(20):
            here = (log, elsewhere)[turn % 2]
            async with reading(here, claim.thread_id, after=seen[-1] if seen else 0) as reader:
                seen += await reader.until((seen[-1] if seen else 0) + 1)
        await writing
        async with reading(elsewhere, claim.thread_id, after=seen[-1]) as reader:
            seen += await reader.until(20_001) if seen[-1] < 20_001 else []
    assert seen == list(range(1, 20_002))

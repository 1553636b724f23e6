import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta

import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim, ClaimLost
from moorage.errors import Unavailable
from moorage.events import EventType, Message, Role, RunEvent, StoredEvent, run_event
from moorage.ids import RunId, ThreadId, new_run_id, new_thread_id
from moorage.runs.run import Outcome, RunStatus

DONE = Outcome(RunStatus.SUCCESS)


@pytest.fixture(params=["memory", "postgres"])
async def ports(request: pytest.FixtureRequest, database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports(request.param, database) as found:
        yield found


def said(number: int) -> RunEvent:
    return run_event(EventType.TODO_UPDATE, {"n": number})


def numbers(events: list[StoredEvent]) -> list[int]:
    return [json.loads(event.data)["n"] for event in events if event.type is EventType.TODO_UPDATE]


class Reader:
    """Follows a thread and waits, not for ever, until it has seen something."""

    def __init__(self, batches: AsyncIterator[list[StoredEvent]]) -> None:
        self._batches = batches
        self.seen: list[StoredEvent] = []

    async def until(self, seq: int) -> list[StoredEvent]:
        async with asyncio.timeout(10):
            while not self.seen or self.seen[-1].seq < seq:
                self.seen += await anext(self._batches)
        return self.seen


@asynccontextmanager
async def following(ports: Ports, thread_id: ThreadId, *, after: int = 0) -> AsyncIterator[Reader]:
    async with aclosing(ports.log.follow(thread_id, after=after, idle=60)) as batches:
        yield Reader(batches)


async def append_many(ports: Ports, claim: Claim, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        await ports.log.append(claim, [said(number)])


async def test_what_was_appended_is_read_in_order(ports: Ports) -> None:
    claim = await ports.running()
    await ports.log.append(claim, [said(0), said(1)])
    await ports.log.append(claim, [said(2)])
    found = await ports.log.read(claim.thread_id, after=1, limit=10)
    assert [(event.seq, event.run_id) for event in found] == [(seq, claim.run_id) for seq in (2, 3, 4)]
    assert numbers(found) == [0, 1, 2]


async def test_data_comes_back_byte_for_byte(ports: Ports) -> None:
    claim = await ports.running()
    event = run_event(EventType.CONTENT_STREAM, {"content_delta": 'a"\\\n\t汉字🎉\u2028\x7f', "b": [1.5, None, {}]})
    await ports.log.append(claim, [event])
    [found] = await ports.log.read(claim.thread_id, after=1, limit=1)
    assert found.data == event.data


async def test_a_read_stops_at_its_limit(ports: Ports) -> None:
    claim = await ports.running()
    await ports.log.append(claim, [said(n) for n in range(5)])
    assert [event.seq for event in await ports.log.read(claim.thread_id, after=2, limit=2)] == [3, 4]


async def test_reading_past_the_end_or_an_unknown_thread_finds_nothing(ports: Ports) -> None:
    claim = await ports.running()
    assert await ports.log.read(claim.thread_id, after=1, limit=5) == []
    unknown = ThreadId("alice-550e8400-e29b-41d4-a716-446655440000")
    assert await ports.log.read(unknown, after=0, limit=5) == []


async def test_many_runs_at_once_get_seqs_without_gaps(ports: Ports) -> None:
    claims = [await ports.running() for _ in range(5)]
    async with asyncio.TaskGroup() as group:
        for claim in claims:
            group.create_task(append_many(ports, claim, 20))
    for claim in claims:
        found = await ports.log.read(claim.thread_id, after=0, limit=100)
        assert [event.seq for event in found] == list(range(1, 22))
        assert numbers(found) == list(range(20))


async def test_a_reader_gets_what_is_stored_and_then_what_comes(ports: Ports) -> None:
    claim = await ports.running()
    await append_many(ports, claim, 3)
    async with following(ports, claim.thread_id) as reader:
        await reader.until(4)
        await append_many(ports, claim, 3, first=3)
        assert numbers(await reader.until(7)) == list(range(6))


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(ports: Ports) -> None:
    claim = await ports.running()
    writing = asyncio.create_task(append_many(ports, claim, 60))
    seqs: list[int] = []
    while not seqs or seqs[-1] < 61:
        after = seqs[-1] if seqs else 0
        async with following(ports, claim.thread_id, after=after) as reader:
            seqs += [event.seq for event in await reader.until(after + 1)]
    await writing
    assert seqs == list(range(1, 62))


async def test_a_reader_who_starts_in_the_middle_of_writing_sees_each_event_once(ports: Ports) -> None:
    claim = await ports.running()

    async def read() -> list[int]:
        async with following(ports, claim.thread_id) as reader:
            return [event.seq for event in await reader.until(101)]

    async with asyncio.TaskGroup() as group:
        group.create_task(append_many(ports, claim, 100))
        readers: list[asyncio.Task[list[int]]] = []
        for _ in range(10):
            readers.append(group.create_task(read()))
            await ports.log.read(claim.thread_id, after=0, limit=1)
    assert [reader.result() for reader in readers] == [list(range(1, 102))] * 10


async def test_a_reader_far_behind_catches_up(ports: Ports) -> None:
    claim = await ports.running()
    async with following(ports, claim.thread_id) as reader:
        await reader.until(1)
        for first in range(0, 5000, 500):
            await ports.log.append(claim, [said(n) for n in range(first, first + 500)])
        assert numbers(await reader.until(5001)) == list(range(5000))


async def test_a_quiet_thread_gives_empty_batches(ports: Ports) -> None:
    claim = await ports.running()
    async with aclosing(ports.log.follow(claim.thread_id, after=1, idle=0.01)) as batches, asyncio.timeout(5):
        assert await anext(batches) == []
        assert await anext(batches) == []
        await ports.log.append(claim, [said(0)])
        while not (batch := await anext(batches)):
            pass
    assert numbers(batch) == [0]


async def test_readers_of_one_thread_do_not_hear_of_another(ports: Ports) -> None:
    mine, other = await ports.running(), await ports.running()
    async with following(ports, mine.thread_id) as reader:
        await append_many(ports, other, 3)
        await append_many(ports, mine, 1)
        assert {event.thread_id for event in await reader.until(2)} == {mine.thread_id}


async def test_closing_the_readers_ends_all_and_every_later_one(ports: Ports) -> None:
    claim = await ports.running()

    async def read_to_the_end() -> None:
        async for _ in ports.log.follow(claim.thread_id, after=0, idle=60):
            told.set()

    told = asyncio.Event()
    reading = asyncio.create_task(read_to_the_end())
    async with asyncio.timeout(5):
        await told.wait()
        ports.log.close_readers()
        await reading
        await read_to_the_end()


async def test_who_holds_no_claim_writes_nothing(ports: Ports) -> None:
    claim = await ports.running()
    for stranger in (
        Claim(claim.run_id, claim.thread_id, ALICE, claim.generation - 1),
        Claim(claim.run_id, claim.thread_id, ALICE, claim.generation + 1),
        Claim(new_run_id(), claim.thread_id, ALICE, claim.generation),
    ):
        with pytest.raises(ClaimLost):
            await ports.log.append(stranger, [said(0)])
    assert await ports.events(claim.thread_id) == [(1, "message_received")]


async def test_nothing_can_be_said_after_the_end_of_a_run(ports: Ports) -> None:
    claim = await ports.running()
    await ports.queue.finish(claim, DONE)
    with pytest.raises(ClaimLost):
        await ports.log.append(claim, [said(0)])
    assert (await ports.events(claim.thread_id))[-1] == (2, "run_end")


async def test_what_is_said_while_a_run_ends_comes_before_its_end_or_is_refused(ports: Ports) -> None:
    for _ in range(20):
        claim = await ports.running()
        said_late = (ports.log.append(claim, [said(n)]) for n in range(3))
        await asyncio.gather(ports.queue.finish(claim, DONE), *said_late, return_exceptions=True)
        events = await ports.events(claim.thread_id)
        assert [kind for _, kind in events].index("run_end") == len(events) - 1
        assert [seq for seq, _ in events] == list(range(1, len(events) + 1))


async def test_nothing_can_be_said_in_a_deleted_thread(ports: Ports) -> None:
    claim = await ports.running()
    await ports.delete_thread(claim.thread_id)
    with pytest.raises(ClaimLost):
        await ports.log.append(claim, [said(0)])
    assert await ports.events(claim.thread_id) == []


async def test_a_lost_claim_does_not_disturb_others_in_the_same_commit(ports: Ports) -> None:
    held = [await ports.running() for _ in range(3)]
    lost = Claim(RunId(held[0].run_id), held[0].thread_id, ALICE, 99)
    appends = [ports.log.append(claim, [said(1)]) for claim in (lost, *held)]
    refused, *stored = await asyncio.gather(*appends, return_exceptions=True)
    assert isinstance(refused, ClaimLost)
    assert stored == [None, None, None]


async def test_an_ended_run_cannot_take_the_place_of_its_successor_in_a_commit(ports: Ports) -> None:
    old = await ports.running()
    await ports.submit(old.thread_id)
    await ports.queue.finish(old, DONE)
    [new] = await ports.claim()
    for order in ((old, new), (new, old)):
        results = await asyncio.gather(
            *(ports.log.append(claim, [said(claim.generation)]) for claim in order), return_exceptions=True
        )
        assert [type(result) for result in results] == [ClaimLost if claim is old else type(None) for claim in order]
    found = await ports.log.read(old.thread_id, after=3, limit=10)
    assert {event.run_id for event in found} == {new.run_id}


# What only Postgres can get wrong -----------------------------------------------------------------------------------


@pytest.fixture
async def postgres(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


@pytest.mark.parametrize("bad", [b'"\x00"', b'"\xff"'])
async def test_a_write_that_postgres_refuses_fails_for_its_own_run_only(postgres: Ports, bad: bytes) -> None:
    good, evil = await postgres.running(), await postgres.running()
    event = RunEvent(EventType.TOOL_RESULT, bad)
    refused, stored = await asyncio.gather(
        postgres.log.append(evil, [event]), postgres.log.append(good, [said(1)]), return_exceptions=True
    )
    assert isinstance(refused, Unavailable)
    assert stored is None
    await postgres.log.append(good, [said(2)])
    assert numbers(await postgres.log.read(good.thread_id, after=1, limit=5)) == [1, 2]


@pytest.mark.parametrize("bad", ["x\x00y", "x\ud800y"])
async def test_a_message_with_broken_characters_is_stored_without_them(postgres: Ports, bad: str) -> None:
    claim = await postgres.running()
    message = Message(bad, Role.ASSISTANT, bad, thinking=bad, tool_calls=[{"a": bad}], call_id=bad, usage={"n": 1})
    await postgres.log.append(claim, [run_event(EventType.MESSAGE_COMPLETE, {"text": bad}, message=message)])
    assert (await postgres.events(claim.thread_id))[-1] == (2, "message_complete")


async def test_readers_hear_of_what_another_process_wrote(postgres: Ports, database: Database) -> None:
    claim = await postgres.running()
    other = PostgresEventLog(database)
    writing = asyncio.create_task(other.write_forever())
    async with following(postgres, claim.thread_id) as reader:
        await reader.until(1)
        await other.append(claim, [said(5)])
        assert numbers(await reader.until(2)) == [5]
    writing.cancel()
    await asyncio.wait([writing])


async def test_who_writes_when_the_writer_stops_is_told(database: Database, add_user: AddUser) -> None:
    await add_user(ALICE)
    async with open_ports("postgres", database) as ports:
        claim = await ports.running()
        waiting = asyncio.create_task(ports.log.append(claim, [said(1)]))
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(ports.log.append(claim, [said(1)]), 5)


async def test_a_writer_that_gave_up_waiting_does_not_stop_the_log(postgres: Ports) -> None:
    claim = await postgres.running()
    for _ in range(5):
        impatient = asyncio.create_task(postgres.log.append(claim, [said(1)]))
        await asyncio.sleep(0)
        impatient.cancel()
    await asyncio.wait_for(postgres.log.append(claim, [said(2)]), 5)
    seqs = [event.seq for event in await postgres.log.read(claim.thread_id, after=0, limit=100)]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_each_message_is_counted_and_in_the_history_at_its_seq(postgres: Ports, database: Database) -> None:
    claim = await postgres.running()
    message = Message("m1", Role.ASSISTANT, "hi")
    await postgres.log.append(claim, [said(0), run_event(EventType.MESSAGE_COMPLETE, {}, message=message)])
    async with database.system_transaction() as connection:
        found = await (
            await connection.execute("SELECT id, position FROM messages WHERE role = 'assistant'")
        ).fetchall()
        counted = await (await connection.execute("SELECT message_count, last_seq FROM threads")).fetchall()
    assert found == [{"id": "m1", "position": 3}]
    assert counted == [{"message_count": 2, "last_seq": 3}]


async def test_a_lease_that_ran_out_still_holds_until_somebody_ends_it(postgres: Ports) -> None:
    claim = await postgres.running(lease=timedelta(seconds=-1))
    await postgres.log.append(claim, [said(0)])
    await postgres.queue.recover_lost(max_attempts=3)
    with pytest.raises(ClaimLost):
        await postgres.log.append(claim, [said(1)])


async def test_a_thread_that_is_not_there_yet_is_waited_for(ports: Ports) -> None:
    thread_id = new_thread_id(ALICE)
    async with aclosing(ports.log.arrival(thread_id, idle=0.01)) as looks:
        assert not await anext(looks)
    async with asyncio.timeout(10), aclosing(ports.log.arrival(thread_id, idle=60)) as looks:
        arrived = asyncio.ensure_future(anext(looks))
        await asyncio.sleep(0)
        await ports.new_thread(thread_id)
        assert await arrived


async def test_nobody_waits_for_a_thread_once_the_log_is_closed(ports: Ports) -> None:
    looks = ports.log.arrival(new_thread_id(ALICE), idle=60)
    waiting = asyncio.ensure_future(anext(looks, None))
    await asyncio.sleep(0)
    ports.log.close_readers()
    async with asyncio.timeout(10):
        assert await waiting is None

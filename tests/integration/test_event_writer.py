"""The group-commit writer when Postgres fails it: nothing is lost, nothing stored twice."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Connection, Database
from moorage.claims import Claim, ClaimLost
from moorage.errors import Unavailable
from moorage.events import EventType, Message, Role, RunEvent, run_event
from moorage.runs.run import Outcome, RunStatus


class Failing(Database):
    """The real database, whose connection breaks before or after the commit of as many transactions as are planned."""

    def __init__(self, real: Database) -> None:
        self.__dict__.update(real.__dict__)
        self.before_commit = 0
        self.after_commit = 0
        self.away = False
        self.tried = asyncio.Event()

    @asynccontextmanager
    async def system_pipeline(self) -> AsyncGenerator[Connection]:
        self.tried.set()
        if self.away:
            raise Unavailable("Postgres does not answer")
        async with super().system_pipeline() as connection:
            yield connection
            if self.before_commit:
                self.before_commit -= 1
                raise Unavailable("Postgres does not answer")
        if self.after_commit:
            self.after_commit -= 1
            raise Unavailable("Postgres does not answer")

    async def ping(self) -> None:
        if self.away:
            raise Unavailable("Postgres does not answer")
        await super().ping()


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


@pytest.fixture
def failing(database: Database) -> Failing:
    return Failing(database)


@pytest.fixture
async def log(failing: Failing) -> AsyncGenerator[PostgresEventLog]:
    """A log on the failing database."""
    async with writing(PostgresEventLog(failing)) as found:
        yield found


@asynccontextmanager
async def writing(log: PostgresEventLog) -> AsyncGenerator[PostgresEventLog]:
    writer = asyncio.create_task(log.write_forever())
    yield log
    writer.cancel()
    await asyncio.wait([writer])


def said(text: str) -> RunEvent:
    return run_event(EventType.TODO_UPDATE, {"text": text})


async def texts(ports: Ports, claim: Claim) -> list[str]:
    found = await ports.log.read(claim.thread_id, after=1, limit=10_000)
    assert [event.seq for event in found] == list(range(2, len(found) + 2))
    return [event.data.decode() for event in found]


def data(*said_texts: str) -> list[str]:
    return [said(text).data.decode() for text in said_texts]


async def test_what_was_not_committed_is_stored_by_the_next_try(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    claim = await ports.running()
    failing.before_commit = 3
    await log.append(claim, [said("a"), said("b")])
    assert await texts(ports, claim) == data("a", "b")


async def test_what_was_committed_although_the_answer_was_lost_is_not_stored_again(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    claim = await ports.running()
    failing.after_commit = 1
    await log.append(claim, [said("same"), said("same")])
    await log.append(claim, [said("same")])
    assert await texts(ports, claim) == data("same", "same", "same")


async def test_messages_are_counted_once_when_an_answer_is_lost(
    ports: Ports, failing: Failing, log: PostgresEventLog, database: Database
) -> None:
    claim = await ports.running()
    failing.after_commit = 1
    message = Message("m1", Role.ASSISTANT, "hi", duration_ms=12)
    await log.append(claim, [run_event(EventType.MESSAGE_COMPLETE, {}, message=message)])
    async with database.system_transaction() as connection:
        counted = await (await connection.execute("SELECT message_count, last_seq FROM threads")).fetchall()
        stored = await (await connection.execute("SELECT duration_ms FROM messages WHERE id = 'm1'")).fetchall()
    assert counted == [{"message_count": 2, "last_seq": 2}]
    assert stored == [{"duration_ms": 12}]


async def test_many_runs_lose_and_double_nothing_while_tries_fail_both_ways(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    claims = [await ports.running() for _ in range(5)]

    async def speak(claim: Claim) -> None:
        for number in range(20):
            failing.before_commit = max(failing.before_commit, number % 3 == 0)
            failing.after_commit = max(failing.after_commit, number % 4 == 0)
            await log.append(claim, [said(str(number))])

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for claim in claims:
            group.create_task(speak(claim))
    for claim in claims:
        assert await texts(ports, claim) == data(*map(str, range(20)))


async def test_what_is_said_while_postgres_is_away_waits_in_order(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    claim = await ports.running()
    failing.away = True
    waiting = [asyncio.create_task(log.append(claim, [said(str(number))])) for number in range(3)]
    await failing.tried.wait()
    waiting += [asyncio.create_task(log.append(claim, [said(str(number))])) for number in range(3, 6)]
    failing.tried.clear()
    await failing.tried.wait()
    assert not any(task.done() for task in waiting)
    failing.away = False
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert await texts(ports, claim) == data(*map(str, range(6)))


async def test_patience_ends(ports: Ports, failing: Failing) -> None:
    claim = await ports.running()
    failing.away = True
    async with writing(PostgresEventLog(failing, patience=0.2)) as log:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(log.append(claim, [said("a")]), 10)
        failing.away = False
        await asyncio.wait_for(log.append(claim, [said("b")]), 10)
    assert await texts(ports, claim) == data("b")


async def test_a_claim_that_is_lost_while_postgres_is_away_stays_lost(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    claim = await ports.running()
    failing.away = True
    waiting = asyncio.create_task(log.append(claim, [said("late")]))
    await failing.tried.wait()
    await ports.queue.finish(claim, Outcome(RunStatus.SUCCESS))
    failing.away = False
    with pytest.raises(ClaimLost):
        await asyncio.wait_for(waiting, 10)


async def test_what_was_committed_before_the_run_ended_counts_as_said(
    ports: Ports, failing: Failing, log: PostgresEventLog
) -> None:
    """The answer was lost, the run ended elsewhere, and only then the writer comes back to ask."""
    claim = await ports.running()
    failing.after_commit = 1
    waiting = asyncio.create_task(log.append(claim, [said("a")]))
    async with asyncio.timeout(10):
        while not await ports.log.read(claim.thread_id, after=1, limit=1):
            pass
    await ports.queue.finish(claim, Outcome(RunStatus.SUCCESS))
    await asyncio.wait_for(waiting, 10)


_REFUSE_EVIL = """
CREATE FUNCTION refuse_evil() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.content = 'evil' THEN
        RAISE EXCEPTION 'this is more than a row can hold' USING ERRCODE = 'program_limit_exceeded';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER refuse_evil BEFORE INSERT ON messages FOR EACH ROW EXECUTE FUNCTION refuse_evil();
"""


@pytest.fixture
async def evil(database_url: str) -> AsyncGenerator[RunEvent]:
    """An event with a message that Postgres cannot hold: it says so with an error that sounds temporary."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(_REFUSE_EVIL)
        yield run_event(EventType.MESSAGE_COMPLETE, {}, message=Message("m", Role.ASSISTANT, "evil"))
        await connection.execute("DROP FUNCTION refuse_evil CASCADE")


async def test_what_postgres_cannot_hold_fails_at_once_and_alone(
    ports: Ports, log: PostgresEventLog, evil: RunEvent
) -> None:
    theirs, ours = await ports.running(), await ports.running()
    refused, stored = await asyncio.wait_for(
        asyncio.gather(log.append(theirs, [evil]), log.append(ours, [said("a")]), return_exceptions=True), 20
    )
    assert isinstance(refused, Unavailable)
    assert stored is None
    assert await texts(ports, ours) == data("a")


async def test_a_message_of_very_many_words_is_stored(ports: Ports, log: PostgresEventLog) -> None:
    """A search index holds about a megabyte of distinct words: beyond its reach a message is stored all the same."""
    claim = await ports.running()
    words = " ".join(f"ก{number:x}ฮฮฮฮฮฮฮฮฮฮ" for number in range(60_000))
    event = run_event(EventType.MESSAGE_COMPLETE, {}, message=Message("m", Role.ASSISTANT, words))
    assert await asyncio.wait_for(log.append(claim, [event]), 20) is None


async def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(
    ports: Ports, database: Database, database_url: str
) -> None:
    claims = [await ports.running() for _ in range(4)]
    log = PostgresEventLog(database)

    async def speak(claim: Claim, killer: psycopg.AsyncConnection) -> None:
        for number in range(40):
            saying = asyncio.create_task(log.append(claim, [said(str(number)), said(str(number))]))
            if number % 8 == 5:
                await killer.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'moorage' AND datname = current_database()"
                )
            await saying

    async with (
        asyncio.timeout(60),
        writing(log),
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as killer,
        asyncio.TaskGroup() as group,
    ):
        for claim in claims:
            group.create_task(speak(claim, killer))
    for claim in claims:
        assert await texts(ports, claim) == data(*(str(number) for number in range(40) for _ in range(2)))

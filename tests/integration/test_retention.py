"""What is forgotten after its time, and what stays."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.retention import forget_events
from moorage.claims import Claim
from moorage.events import EventType, run_event
from moorage.ids import ThreadId, new_run_id
from moorage.runs.run import Outcome, RunStatus
from moorage.threads import EventsForgotten

MONTH = timedelta(days=30)


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


async def say(ports: Ports, claim: Claim, count: int) -> None:
    await ports.log.append(claim, [run_event(EventType.TODO_UPDATE, {"n": number}) for number in range(count)])


async def finished(ports: Ports, *, events: int = 0) -> ThreadId:
    """A thread whose one run said `events` things between its first and its last."""
    claim = await ports.running()
    if events:
        await say(ports, claim, events)
    await ports.queue.finish(claim, Outcome(RunStatus.SUCCESS))
    return claim.thread_id


async def age(database: Database, thread_id: ThreadId, *, up_to: int = 1_000_000) -> None:
    """Make a thread's events up to a seq 40 days old."""
    async with database.system_transaction() as connection:
        await connection.execute("SET LOCAL ROLE NONE")
        for statement in (
            "ALTER TABLE run_events NO FORCE ROW LEVEL SECURITY",
            "UPDATE run_events SET created_at = now() - interval '40 days' WHERE thread_id = %(id)s AND seq <= %(seq)s",
            "ALTER TABLE run_events FORCE ROW LEVEL SECURITY",
            "ALTER TABLE threads NO FORCE ROW LEVEL SECURITY",
            "UPDATE threads SET created_at = now() - interval '40 days' WHERE thread_id = %(id)s",
            "ALTER TABLE threads FORCE ROW LEVEL SECURITY",
        ):
            await connection.execute(statement, {"id": thread_id, "seq": up_to} if "%" in statement else None)


async def first_seq(database: Database, thread_id: ThreadId) -> int:
    async with database.system_transaction() as connection:
        cursor = await connection.execute("SELECT first_seq FROM threads WHERE thread_id = %s", [thread_id])
        row = await cursor.fetchone()
    assert row is not None
    return row["first_seq"]


async def seqs(ports: Ports, thread_id: ThreadId) -> list[int]:
    return [event.seq for event in await ports.log.read(thread_id, after=0, limit=20_000)]


async def test_old_events_go_and_the_thread_says_from_where_on_it_has_some(ports: Ports, database: Database) -> None:
    thread = await finished(ports, events=8)
    await age(database, thread, up_to=6)
    assert await forget_events(database, older_than=MONTH) == 6
    assert await seqs(ports, thread) == [7, 8, 9, 10]
    assert await first_seq(database, thread) == 7
    assert await forget_events(database, older_than=MONTH) == 0


async def test_more_events_than_a_batch_go_in_several(ports: Ports, database: Database) -> None:
    thread = await finished(ports, events=11_000)
    await age(database, thread)
    assert await forget_events(database, older_than=MONTH) == 11_002
    assert await first_seq(database, thread) == 11_003
    claim = await ports.running(thread)
    assert await seqs(ports, claim.thread_id) == [11_003]


async def test_young_events_stay(ports: Ports, database: Database) -> None:
    thread = await finished(ports)
    assert await forget_events(database, older_than=MONTH) == 0
    assert await seqs(ports, thread) == [1, 2]


async def test_nothing_is_forgotten_when_it_is_to_be_kept_for_ever(ports: Ports, database: Database) -> None:
    thread = await finished(ports)
    await age(database, thread)
    assert await forget_events(database, older_than=timedelta()) == 0
    assert await seqs(ports, thread) == [1, 2]


async def test_a_thread_with_a_run_keeps_all(ports: Ports, database: Database) -> None:
    thread = await finished(ports)
    await ports.submit(thread)
    await age(database, thread)
    assert await forget_events(database, older_than=MONTH) == 0


async def test_a_thread_that_waits_for_approval_keeps_all(ports: Ports, database: Database) -> None:
    thread = await finished(ports)
    await age(database, thread)
    async with database.tenant_transaction(ALICE) as connection:
        await connection.execute(
            "INSERT INTO interrupts (id, thread_id, owner_id, run_id, call_id, tool_name, tool_input, digest,"
            " allowed_decisions, expires_at) VALUES (repeat('0', 32), %s, %s, %s, 'c', 't', '{}', '', '{}', now())",
            [thread, ALICE, new_run_id()],
        )
    assert await forget_events(database, older_than=MONTH) == 0


async def test_who_asks_for_forgotten_events_is_told_so(ports: Ports, database: Database) -> None:
    thread = await finished(ports, events=8)
    await age(database, thread, up_to=6)
    await forget_events(database, older_than=MONTH)
    log = PostgresEventLog(database)  # of a server that remembers nothing of the thread
    for after in (0, 5):
        async with aclosing(log.follow(thread, after=after, idle=60)) as batches:
            with pytest.raises(EventsForgotten) as refused:
                await anext(batches)
        assert refused.value.last_seq == 10
    async with aclosing(log.follow(thread, after=6, idle=60)) as batches:
        assert [event.seq for event in await anext(batches)] == [7, 8, 9, 10]


async def test_answers_to_repeated_requests_go_after_a_day(database: Database, add_user: AddUser) -> None:
    await add_user(ALICE)
    async with database.tenant_transaction(ALICE) as connection:
        for key, old in (("old", "25 hours"), ("young", "23 hours")):
            await connection.execute(
                "INSERT INTO idempotency_keys VALUES (%s, %s, '', '{}', now() - %s::interval)", [ALICE, key, old]
            )
    await forget_events(database, older_than=timedelta())
    async with database.system_transaction() as connection:
        rows = await (await connection.execute("SELECT key FROM idempotency_keys")).fetchall()
    assert [row["key"] for row in rows] == ["young"]

"""Crons on Postgres: one run for an occurrence, whoever fires it, and what becomes of those that cannot run."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg import AsyncConnection
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres.crons import PostgresCronTable
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.assistants import UnknownAssistant
from moorage.crons import (
    Cron,
    CronChange,
    CronFilter,
    CronNotFound,
    Crons,
    InvalidSchedule,
    NewCron,
    OnRunCompleted,
    TooManyCrons,
    check_schedule,
)
from moorage.errors import AppError
from moorage.ids import ThreadId, UserId
from moorage.run_request import RunRequest
from moorage.runs.run import BusyPolicy

BOB = UserId("al-ice")
REQUEST = RunRequest(messages=({"type": "human", "content": "hello", "id": "1"},), metadata={"m": 1})


class Harbour:
    """Crons of a server that executes nothing, so that its runs stay queued."""

    def __init__(self, database: Database, ports: Ports) -> None:
        self.database = database
        self.ports = ports
        self.stopped: list[str] = []
        self.gone: set[str] = set()
        self.crons = self.another(quota=0)

    def another(self, *, quota: int = 0, session_quota: int = 0) -> Crons:
        """Those of another process."""
        table = PostgresCronTable(
            self.database,
            PostgresEventLog(self.database),
            on_submitted=self.ports.queue.wake,
            queue_limit=2,
            session_quota=session_quota,
            session_life=3600,
        )
        return Crons(
            table,
            quota=quota,
            clock=lambda: datetime.now(UTC),
            check_assistant=self._check_assistant,
            hear_stop=self.stopped.append,
        )

    async def _check_assistant(self, _owner: UserId, assistant_id: str) -> None:
        if assistant_id in self.gone:
            raise UnknownAssistant

    async def new(self, thread_id: ThreadId | None = None, *, schedule: str = "*/5 * * * *", **more: Any) -> Cron:
        new = NewCron("agent", check_schedule(schedule, None, None), {}, REQUEST, BusyPolicy.ENQUEUE, {}, thread_id)
        values = {name: getattr(new, name) for name in NewCron.__slots__} | more
        return await self.crons.create(ALICE, NewCron(**values))

    async def make_due(self, cron: Cron, *, ago: timedelta = timedelta(minutes=1)) -> None:
        async with self.database.tenant_transaction(ALICE) as connection:
            statement = "UPDATE crons SET next_run_date = date_trunc('minute', now()) - %s WHERE cron_id = %s"
            await connection.execute(statement, [ago, cron.cron_id])

    async def new_due(self, thread_id: ThreadId | None = None, **more: Any) -> Cron:
        cron = await self.new(thread_id, **more)
        await self.make_due(cron)
        return cron

    async def now(self, cron: Cron) -> Cron:
        return await self.crons.get(ALICE, cron.cron_id)

    async def runs(self) -> list[dict[str, Any]]:
        async with self.database.tenant_transaction(ALICE) as connection:
            return await (await connection.execute("SELECT * FROM runs ORDER BY queue_no")).fetchall()

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.database.system_transaction() as connection:
            await connection.execute(statement, values)  # pyright: ignore[reportArgumentType]


@pytest.fixture
async def harbour(database: Database, add_user: AddUser) -> AsyncGenerator[Harbour]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as ports:
        yield Harbour(database, ports)


async def test_a_due_cron_starts_a_run_on_its_thread_and_moves_on(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new_due(thread_id)
    assert await harbour.crons.fire_due() == 1
    [run] = await harbour.runs()
    assert (run["thread_id"], run["assistant_id"], run["status"]) == (thread_id, "agent", "queued")
    assert run["metadata"] == {"m": 1, "cron_id": cron.cron_id}
    after = await harbour.now(cron)
    assert after.next_run_date is not None
    assert after.next_run_date > datetime.now(UTC)
    assert after.last_run_id == str(run["run_id"])
    assert await harbour.crons.fire_due() == 0
    assert [event for _, event in await harbour.ports.events(thread_id)] == ["message_received"]


async def test_two_servers_that_fire_at_once_start_one_run(harbour: Harbour) -> None:
    for thread_id in (None, await harbour.ports.new_thread()):
        await harbour.new_due(thread_id)
    fired = await asyncio.gather(*(harbour.another().fire_due() for _ in range(6)))
    assert sum(fired) == 2
    assert len(await harbour.runs()) == 2


async def test_a_server_that_dies_in_between_leaves_the_cron_due(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new_due(thread_id)
    async with harbour.database.tenant_transaction(ALICE) as connection:
        await connection.execute("SELECT FROM threads WHERE thread_id = %s FOR UPDATE", [thread_id])
        dying = asyncio.create_task(harbour.crons.fire_due())
        await wait_for_a_waiting_one(connection)
        dying.cancel()
        await asyncio.wait([dying])
    assert await harbour.runs() == []
    assert (await harbour.now(cron)).next_run_date != cron.next_run_date
    assert await harbour.crons.fire_due() == 1
    assert len(await harbour.runs()) == 1


async def wait_for_a_waiting_one(connection: AsyncConnection[Any]) -> None:
    """Until another transaction waits for a lock that this one holds."""
    waiting = "SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid))"
    async with asyncio.timeout(10):
        while not (await connection.execute(waiting)).rowcount:
            pass


async def test_what_was_missed_for_a_day_is_made_up_for_once(harbour: Harbour) -> None:
    cron = await harbour.new(await harbour.ports.new_thread())
    await harbour.make_due(cron, ago=timedelta(days=1))
    assert await harbour.crons.fire_due() == 1
    assert await harbour.crons.fire_due() == 0


async def test_without_a_thread_each_run_has_a_new_one(harbour: Harbour) -> None:
    cron = await harbour.new(on_run_completed=OnRunCompleted.DELETE)
    for _ in range(2):
        await harbour.make_due(cron)
        await harbour.crons.fire_due()
    first, second = await harbour.runs()
    assert first["thread_id"] != second["thread_id"]
    assert first["ephemeral"] is True
    async with harbour.database.tenant_transaction(ALICE) as connection:
        rows = await (await connection.execute("SELECT metadata FROM threads")).fetchall()
    assert [row["metadata"] for row in rows] == [{"cron_id": cron.cron_id}] * 2


async def test_a_thread_to_be_kept_counts_as_a_session_and_the_cron_waits_for_room(harbour: Harbour) -> None:
    cron = await harbour.new_due(on_run_completed=OnRunCompleted.KEEP)
    await harbour.ports.new_thread()
    assert await harbour.another(session_quota=1).fire_due() == 0
    after = await harbour.now(cron)
    assert after.enabled
    assert after.last_error is not None
    assert "sessions are active" in after.last_error
    await harbour.make_due(cron)
    assert await harbour.another(session_quota=2).fire_due() == 1
    [run] = await harbour.runs()
    assert run["ephemeral"] is False
    assert (await harbour.now(cron)).last_error is None


async def test_each_run_brings_messages_with_ids_of_their_own(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new(thread_id)
    for _ in range(2):
        await harbour.make_due(cron, ago=timedelta(minutes=len(await harbour.runs())))
        await harbour.crons.fire_due()
    async with harbour.database.tenant_transaction(ALICE) as connection:
        rows = await (await connection.execute("SELECT id FROM messages")).fetchall()
    assert len({row["id"] for row in rows}) == 2


async def test_a_thread_that_waits_for_an_approval_keeps_it(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new_due(thread_id)
    async with harbour.database.tenant_transaction(ALICE) as connection:
        await connection.execute(
            "INSERT INTO interrupts (id, thread_id, owner_id, run_id, call_id, tool_name, tool_input, digest,"
            " allowed_decisions, expires_at) VALUES (%s, %s, %s, %s, 'c', 'execute', '{}', '', '{}', now() + '1 hour')",
            ["0" * 32, thread_id, ALICE, str(uuid.uuid4())],
        )
    assert await harbour.crons.fire_due() == 0
    after = await harbour.now(cron)
    assert after.enabled
    assert after.last_error is not None
    assert "approval" in after.last_error
    assert after.next_run_date is not None
    assert after.next_run_date > datetime.now(UTC)


async def test_a_cron_of_a_closed_thread_is_given_up_with_a_reason(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new_due(thread_id)
    await harbour.ports.close_thread(thread_id)
    assert await harbour.crons.fire_due() == 0
    after = await harbour.now(cron)
    assert (after.enabled, after.disabled_reason) == (False, "This session is closed")


async def test_a_cron_of_a_disabled_user_is_given_up_with_a_reason(harbour: Harbour) -> None:
    cron = await harbour.new_due()
    await harbour.execute("UPDATE users SET is_active = false WHERE user_id = %s", ALICE)
    assert await harbour.crons.fire_due() == 0
    after = await harbour.now(cron)
    assert (after.enabled, after.disabled_reason) == (False, "The user is disabled")


async def test_a_cron_whose_assistant_is_gone_is_given_up_with_a_reason(harbour: Harbour) -> None:
    cron = await harbour.new_due(assistant_id="gone")
    harbour.gone.add("gone")
    assert await harbour.crons.fire_due() == 0
    after = await harbour.now(cron)
    assert not after.enabled
    assert "No such assistant" in (after.disabled_reason or "")


async def test_a_cron_with_a_schedule_nobody_understands_any_more_is_given_up(harbour: Harbour) -> None:
    broken, sound = await harbour.new_due(), await harbour.new_due()
    async with harbour.database.tenant_transaction(ALICE) as connection:
        await connection.execute("UPDATE crons SET schedule = '? ?' WHERE cron_id = %s", [broken.cron_id])
    assert await harbour.crons.fire_due() == 1
    assert not (await harbour.now(broken)).enabled
    assert (await harbour.now(sound)).enabled


async def test_a_run_that_finds_too_many_waiting_is_left_out(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    for _ in range(2):
        await harbour.ports.submit(thread_id)
    cron = await harbour.new_due(thread_id)
    assert await harbour.crons.fire_due() == 0
    assert (await harbour.now(cron)).enabled
    assert len(await harbour.runs()) == 2


async def test_a_run_that_interrupts_another_says_so(harbour: Harbour) -> None:
    claim = await harbour.ports.running()
    await harbour.new_due(claim.thread_id, policy=BusyPolicy.INTERRUPT)
    assert await harbour.crons.fire_due() == 1
    assert harbour.stopped == [f"{claim.run_id} interrupt"]


async def test_enabling_a_cron_counts_from_now_on_and_forgets_why_it_was_given_up(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new_due(thread_id)
    await harbour.ports.close_thread(thread_id)
    await harbour.crons.fire_due()
    await harbour.make_due(cron)
    new = NewCron("agent", cron.schedule, {}, REQUEST, cron.policy, {}, thread_id)
    changed = await harbour.crons.change(await harbour.now(cron), CronChange(new, restarts=True))
    assert changed.enabled
    assert changed.disabled_reason is None
    assert changed.next_run_date is not None
    assert changed.next_run_date > datetime.now(UTC)


async def test_a_change_of_something_else_leaves_the_next_time_as_it_is(harbour: Harbour) -> None:
    cron = await harbour.new()
    new = NewCron("agent", cron.schedule, {}, REQUEST, cron.policy, {"n": 2})
    changed = await harbour.crons.change(cron, CronChange(new, restarts=False))
    assert changed.metadata == {"n": 2}
    assert changed.next_run_date == cron.next_run_date


async def test_crons_end_with_their_thread(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    cron = await harbour.new(thread_id)
    await harbour.ports.delete_thread(thread_id)
    with pytest.raises(CronNotFound):
        await harbour.now(cron)


async def test_a_cron_that_would_never_run_is_refused(harbour: Harbour) -> None:
    past = check_schedule("@daily", None, datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(InvalidSchedule, match="end_time"):
        await harbour.crons.create(ALICE, NewCron("agent", past, {}, REQUEST, BusyPolicy.ENQUEUE, {}))


async def test_a_user_sees_no_crons_of_another(harbour: Harbour, add_user: AddUser) -> None:
    await add_user(BOB)
    cron = await harbour.new()
    assert await harbour.crons.count(BOB, CronFilter()) == 0
    assert await harbour.crons.search(BOB, CronFilter(), limit=10) == []
    for refused in (harbour.crons.get(BOB, cron.cron_id), harbour.crons.delete(BOB, cron.cron_id)):
        with pytest.raises(CronNotFound):
            await refused
    assert await harbour.crons.count(ALICE, CronFilter()) == 1


async def test_beyond_the_quota_no_cron_is_made(harbour: Harbour) -> None:
    harbour.crons = harbour.another(quota=2)
    results = await asyncio.gather(*(harbour.new() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(result, TooManyCrons) for result in results) == 3
    assert not [result for result in results if isinstance(result, BaseException) and not isinstance(result, AppError)]


async def test_crons_are_found_by_what_they_are(harbour: Harbour) -> None:
    thread_id = await harbour.ports.new_thread()
    on_thread = await harbour.new(thread_id, metadata={"kind": "a"})
    other = await harbour.new(enabled=False, metadata={"kind": "b"})
    for wanted, expected in (
        (CronFilter(), [other, on_thread]),
        (CronFilter(thread_id=thread_id), [on_thread]),
        (CronFilter(enabled=False), [other]),
        (CronFilter(metadata={"kind": "a"}), [on_thread]),
        (CronFilter(assistant_id="x"), []),
    ):
        found = await harbour.crons.search(ALICE, wanted, limit=10)
        assert [cron.cron_id for cron in found] == [cron.cron_id for cron in expected]
        assert await harbour.crons.count(ALICE, wanted) == len(expected)

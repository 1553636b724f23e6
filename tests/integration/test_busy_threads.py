"""Which threads have work, so that nobody stops their sandboxes; and that none gets any while one is being stopped."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from structlog.testing import capture_logs
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres import pool, sandbox_uses
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.pool import Database
from moorage.errors import Unavailable
from moorage.ids import ThreadId, UserId, new_thread_id, user_place
from moorage.runs.run import Outcome, RunStatus
from moorage.sandboxes.port import fencing_token


@pytest.fixture(autouse=True)
def connections_are_always_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tests here leave broken ones behind, which the pool else trusts for a moment."""
    monkeypatch.setattr(pool, "_FRESH_SECONDS", -1)


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


@pytest.fixture
def threads(database: Database) -> BusyThreads:
    return BusyThreads(database)


async def test_a_thread_is_busy_from_its_message_to_the_end_of_its_run(ports: Ports, threads: BusyThreads) -> None:
    thread_id, idle = await ports.new_thread(), await ports.new_thread()
    assert await threads.busy([thread_id, idle]) == set()
    await ports.submit(thread_id)
    assert await threads.busy([thread_id, idle]) == {thread_id}
    [claim] = await ports.claim()
    assert await threads.busy([thread_id, idle]) == {thread_id}
    await ports.queue.finish(claim, Outcome(RunStatus.SUCCESS))
    assert await threads.busy([thread_id, idle]) == set()


async def test_no_message_is_accepted_while_a_thread_is_held_idle(ports: Ports, threads: BusyThreads) -> None:
    thread_id = await ports.new_thread()
    async with threads.hold_idle([thread_id]) as held:
        assert held == {thread_id}
        submitting = asyncio.create_task(ports.submit(thread_id))
        other = await ports.submit(await ports.new_thread())
        assert other.run_id
        assert not submitting.done()
        assert await threads.busy([thread_id]) == set()
    await submitting
    assert await threads.busy([thread_id]) == {thread_id}


async def test_a_busy_thread_is_not_held(ports: Ports, threads: BusyThreads) -> None:
    thread_id, idle = await ports.new_thread(), await ports.new_thread()
    await ports.submit(thread_id)
    async with threads.hold_idle([thread_id, idle]) as held:
        assert held == {idle}


async def test_a_thread_that_is_held_already_is_left_alone(ports: Ports, threads: BusyThreads) -> None:
    thread_id = await ports.new_thread()
    async with threads.hold_idle([thread_id]), threads.hold_idle([thread_id]) as held:
        assert held == set()


async def test_what_has_no_row_has_no_runs(ports: Ports, threads: BusyThreads) -> None:
    gone, place = new_thread_id(ALICE), user_place(ALICE)
    async with threads.hold_idle([gone, place]) as held:
        assert held == {gone, place}


async def test_a_user_s_own_place_exists_as_long_as_the_user(ports: Ports, threads: BusyThreads) -> None:
    thread_id, gone, place = await ports.new_thread(), new_thread_id(ALICE), user_place(ALICE)
    nobody_s = user_place(UserId("nobody"))
    assert await threads.existing([thread_id, gone, place, nobody_s]) == {thread_id, place}


async def test_a_run_waits_for_a_postgres_that_is_away_and_others_are_told_so(
    ports: Ports, threads: BusyThreads, database_url: str, postgres_url: str
) -> None:
    thread_id = await ports.new_thread()
    async with _away(database_url, postgres_url):
        asked = asyncio.create_task(threads.existing([thread_id]))
        token = fencing_token.set(1)
        asked_by_a_run = asyncio.create_task(threads.existing([thread_id]))
        fencing_token.reset(token)
        with pytest.raises(Unavailable):
            await asked
        assert not asked_by_a_run.done()
    assert await asyncio.wait_for(asked_by_a_run, 30) == {thread_id}


async def test_a_run_that_makes_room_waits_for_a_postgres_that_is_away_and_others_are_told_so(
    ports: Ports, threads: BusyThreads, database_url: str, postgres_url: str
) -> None:
    thread_id = await ports.new_thread()

    async def hold() -> set[ThreadId]:
        async with threads.hold_idle([thread_id]) as held:
            return held

    async with _away(database_url, postgres_url):
        token = fencing_token.set(1)
        asked_by_a_run = asyncio.create_task(hold())  # first: it would be told first
        fencing_token.reset(token)
        asked = asyncio.create_task(hold())
        with pytest.raises(Unavailable):
            await asked
        assert not asked_by_a_run.done()
    assert await asyncio.wait_for(asked_by_a_run, 30) == {thread_id}


async def test_a_postgres_that_goes_away_under_who_holds_threads_is_no_error_of_theirs(
    ports: Ports, threads: BusyThreads, database_url: str, postgres_url: str
) -> None:
    thread_id = await ports.new_thread()
    async with threads.hold_idle([thread_id]) as held, _away(database_url, postgres_url):
        pass
    assert held == {thread_id}


async def test_what_goes_wrong_under_who_holds_threads_is_theirs_to_see(ports: Ports, threads: BusyThreads) -> None:
    thread_id = await ports.new_thread()
    with pytest.raises(Unavailable, match="theirs"):
        async with threads.hold_idle([thread_id]):
            raise Unavailable("theirs")
    async with threads.hold_idle([thread_id]) as held:
        assert held == {thread_id}


async def test_a_thread_through_whose_sandbox_files_are_moved_is_not_idle_until_that_has_ended(
    ports: Ports, threads: BusyThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_uses, "_AFTER_SECONDS", 0)
    thread_id, place = await ports.new_thread(), user_place(ALICE)
    for one in (thread_id, place):
        async with threads.in_use(one), threads.in_use(one):
            async with threads.in_use(one):
                await _until(lambda one=one: threads.hold_idle([one]), set())
            async with threads.hold_idle([one]) as held:
                assert held == set()
        async with threads.hold_idle([one]) as held:
            assert held == {one}


async def test_a_use_whose_process_died_ends_by_itself(
    ports: Ports, threads: BusyThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_uses, "_AFTER_SECONDS", 0)
    monkeypatch.setattr(sandbox_uses, "_MARK_SECONDS", 0.5)
    thread_id = await ports.new_thread()
    async with threads.in_use(thread_id):  # and it prolongs nothing any more
        await _until(lambda: threads.hold_idle([thread_id]), set())
        await _until(lambda: threads.hold_idle([thread_id]), {thread_id})


async def test_a_postgres_that_is_away_hinders_no_use(
    ports: Ports, threads: BusyThreads, database_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_uses, "_AFTER_SECONDS", 0)
    thread_id = await ports.new_thread()
    with capture_logs() as logged:
        async with _away(database_url, postgres_url), threads.in_use(thread_id):
            await asyncio.wait_for(_logged(logged, "sandbox_use_not_marked"), 30)


async def _until(hold: Callable[[], AbstractAsyncContextManager[set[ThreadId]]], wanted: set[ThreadId]) -> None:
    async with asyncio.timeout(30):
        while True:
            async with hold() as held:
                if held == wanted:
                    return
            await asyncio.sleep(0.01)


async def _logged(logs: Sequence[Mapping[str, Any]], event: str) -> None:
    while True:
        if any(line["event"] == event for line in logs):
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def _away(database_url: str, postgres_url: str) -> AsyncGenerator[None]:
    """Nobody is connected to the database, nor can be."""
    name = str(conninfo_to_dict(database_url)["dbname"])
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            yield
        finally:
            await connection.execute(allow.format(sql.Identifier(name), sql.Literal(True)))

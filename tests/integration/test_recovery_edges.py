"""Rare orders of events around a lost, stopped or late run: each once cost a message, an answer or a run."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from deepagents.backends.protocol import ExecuteResponse
from tests.conftest import AddUser
from tests.fake_agent import calls
from tests.faults.waiting import eventually
from tests.integration.runs_harness import ALICE, APPROVE, PATIENCE, Harbor, end_of, open_harbor
from tests.integration.test_recovery import (
    SCRIPT,
    assert_told_once,
    command_started,
    execute,
    lose_the_worker,
    results,
    seen_results,
)

from moorage.adapters.postgres.journal import PostgresJournal
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_endings import LOCK_THREAD
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.submissions import LOCK_RUNS
from moorage.runs.run import BusyPolicy
from moorage.sandboxes.port import SandboxDied
from moorage.threads import ThreadRunStatus

type Open = Callable[..., AbstractAsyncContextManager[Harbor]]


@pytest.fixture
async def harbor(database: Database, add_user: AddUser) -> AsyncGenerator[Harbor]:
    await add_user(ALICE)
    async with open_harbor(database, SCRIPT, workers=2) as found:
        yield found


@pytest.fixture
async def open_with(database: Database, add_user: AddUser) -> Open:
    await add_user(ALICE)
    return lambda script, **options: open_harbor(database, script, **options)


def said(harbor: Harbor) -> list[str]:
    """What the model was shown last of the user's messages."""
    return [message.text for message in harbor.agent.model.seen[-1] if message.type == "human"]


# What a lost run left behind ----------------------------------------------------------------------------------------


async def test_a_sub_agent_that_was_broken_off_is_not_said_to_have_never_run(open_with: Open) -> None:
    async with open_with(SCRIPT) as harbor:
        harbor.sandbox.hold["ls"] = asyncio.Event()
        thread = await harbor.new_thread()
        await harbor.say(thread, "sub")
        decided = await harbor.answer(thread, s1=APPROVE)
        await command_started(harbor)
        await harbor.cancel(thread)
        assert end_of(await harbor.told(thread, decided)) == "cancelled"
        await harbor.say(thread, "hello")
        assert "not run" not in seen_results(harbor)["t1"]


# Late, at once, or in the wrong moment ------------------------------------------------------------------------------


async def test_a_message_after_an_approval_expired_and_before_that_was_noticed_tells_its_end_once(
    open_with: Open,
) -> None:
    async with open_with(SCRIPT, approval_ttl=timedelta(milliseconds=1)) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "run")
        assert end_of(await harbor.say(thread, "hello")) == "success"
        await harbor.approval_store.expire()
        assert "not decide in time" in seen_results(harbor)["c1"]
        assert results(await harbor.everything(thread)) == {"c1": "rejected"}
        await assert_told_once(harbor, thread)


async def test_a_message_that_waits_behind_an_approval_goes_on_when_that_expires(open_with: Open) -> None:
    release = asyncio.Event()

    async def ask() -> Any:
        await release.wait()
        return calls(execute("ls"))

    async with open_with({"go": [ask, "done"]}, approval_ttl=timedelta(milliseconds=1)) as harbor:
        thread = await harbor.new_thread()
        first = await harbor.start(thread)
        second = await harbor.start(thread, "hello")
        release.set()
        assert end_of(await harbor.told(thread, first)) == "interrupted"
        await eventually(harbor.approval_store.expire, seconds=PATIENCE, what="the approval's time is up")
        harbor.queue.wake()
        assert end_of(await harbor.told(thread, second)) == "success"
        assert "not decide in time" in seen_results(harbor)["c1"]
        await assert_told_once(harbor, thread)


async def test_a_message_that_interrupts_does_not_wait_for_what_the_stopped_run_came_to_ask(
    open_with: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending, go_on, finish = asyncio.Event(), asyncio.Event(), PostgresRunQueue.finish

    async def finish_late(queue: PostgresRunQueue, *values: Any) -> None:
        ending.set()
        await go_on.wait()
        await finish(queue, *values)

    async with open_with(SCRIPT) as harbor:
        monkeypatch.setattr(PostgresRunQueue, "finish", finish_late)
        thread = await harbor.new_thread()
        stopped = await harbor.start(thread, "run")
        await asyncio.wait_for(ending.wait(), PATIENCE)
        started = await harbor.start(thread, "hello", policy=BusyPolicy.INTERRUPT)
        go_on.set()
        assert end_of(await harbor.told(thread, stopped)) == "cancelled"
        assert end_of(await harbor.told(thread, started)) == "success"
        assert await harbor.approvals.pending(ALICE, thread.thread_id) == []
        assert (await harbor.thread(thread.thread_id)).run_status is ThreadRunStatus.IDLE


@pytest.mark.parametrize("policy", [BusyPolicy.INTERRUPT, BusyPolicy.ROLLBACK])
async def test_a_message_stops_a_run_that_is_between_two_workers(
    open_with: Open, policy: BusyPolicy, database: Database
) -> None:
    reached = asyncio.Event()

    async def never() -> str:
        reached.set()
        await asyncio.Event().wait()
        return ""

    async with open_with({"go": [never]}) as harbor:
        thread = await harbor.new_thread()
        stopped = await harbor.start(thread)
        await asyncio.wait_for(reached.wait(), PATIENCE)
        await harbor.workers[0].stop(patience=0)
    async with open_harbor(database, {"go": [never]}, workers=0) as harbor:
        started = await harbor.start(thread, "instead", policy=policy)
    async with open_harbor(database, {"go": [never]}) as harbor:
        told = await harbor.told(thread, stopped)
        assert end_of(told) == "cancelled"
        assert told[-1].data.get("rolled_back") == (True if policy is BusyPolicy.ROLLBACK else None)
        assert end_of(await harbor.told(thread, started)) == "success"


async def test_readers_are_told_that_a_broken_off_message_begins_anew(open_with: Open, database: Database) -> None:
    reached = asyncio.Event()

    async def first_time() -> str:
        if not reached.is_set():
            reached.set()
            await asyncio.Event().wait()
        return "the answer"

    async with open_with({"go": [first_time]}) as harbor:
        thread = await harbor.new_thread()
        started = await harbor.start(thread)
        await asyncio.wait_for(reached.wait(), PATIENCE)
        await harbor.workers[0].stop(patience=0)
    async with open_harbor(database, {"go": [first_time]}) as harbor:
        told = await harbor.told(thread, started)
        assert [event.data.get("attempt") for event in told if event.type == "agent_start"] == [None, 2]


# Two workers, two connections ---------------------------------------------------------------------------------------


async def test_a_lease_that_is_renewed_in_the_last_moment_is_not_taken_away(harbor: Harbor) -> None:
    harbor.sandbox.hold["ls"] = asyncio.Event()
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    decided = await harbor.answer(thread, c1=APPROVE)
    await command_started(harbor)
    async with harbor.database.system_transaction() as connection:
        await connection.execute("UPDATE runs SET lease_expires_at = now() - interval '1 s' WHERE status = 'running'")
    async with harbor.database.system_transaction() as connection:
        await connection.execute("UPDATE runs SET lease_expires_at = now() + interval '30 s' WHERE status = 'running'")
        reaping = asyncio.create_task(harbor.queue.recover_lost(max_attempts=3))
        await blocked(harbor)
    await reaping
    harbor.sandbox.hold["ls"].set()
    told = await harbor.told(thread, decided)
    assert (results(told), end_of(told)) == ({"c1": "success"}, "success")
    assert harbor.cleaned == []


async def test_a_worker_that_took_its_own_lost_run_again_does_not_stop_it_for_the_lease_that_it_lost(
    open_with: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answer, heartbeat = asyncio.Event(), asyncio.Event(), PostgresRunQueue.heartbeat

    async def heard_late(queue: PostgresRunQueue, *values: Any, **options: Any) -> Any:
        stops = await heartbeat(queue, *values, **options)
        if stops:
            asked.set()
            await answer.wait()
        return stops

    monkeypatch.setattr(PostgresRunQueue, "heartbeat", heard_late)
    thinking, go_on, claim = asyncio.Queue[int](), asyncio.Event(), PostgresRunQueue.claim

    async def claim_after(queue: PostgresRunQueue, *values: Any, **options: Any) -> Any:
        await asked.wait()
        return await claim(queue, *values, **options)

    async def think() -> str:
        thinking.put_nowait(1)
        await go_on.wait()
        return "done"

    async with open_with({"go": [think]}, lease=timedelta(seconds=0.6)) as harbor, asyncio.timeout(PATIENCE):
        thread = await harbor.new_thread()
        started = await harbor.start(thread)
        await thinking.get()
        monkeypatch.setattr(PostgresRunQueue, "claim", claim_after)
        await lose_the_worker(harbor)
        await thinking.get()
        answer.set()
        await asyncio.sleep(0.05)  # a stop would come now
        go_on.set()
        assert end_of(await harbor.told(thread, started)) == "success"


async def test_a_tool_starts_while_its_thread_is_locked_so_it_deadlocks_with_nobody_who_stops_the_run(
    harbor: Harbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    reached, locked, start = asyncio.Event(), asyncio.Event(), PostgresJournal.start

    async def start_later(journal: PostgresJournal, *values: Any) -> float:
        reached.set()
        await locked.wait()
        return await start(journal, *values)

    monkeypatch.setattr(PostgresJournal, "start", start_later)
    decided = await harbor.answer(thread, c1=APPROVE)
    await asyncio.wait_for(reached.wait(), PATIENCE)
    async with harbor.database.system_transaction() as connection:
        await connection.execute(LOCK_THREAD, [thread.thread_id])
        locked.set()
        await command_started(harbor)
        await connection.execute(LOCK_RUNS, [thread.thread_id])
    assert results(await harbor.told(thread, decided)) == {"c1": "success"}


# Steps that are left in the middle ----------------------------------------------------------------------------------


async def test_a_worker_that_stops_leaves_a_sub_agent_between_its_steps(open_with: Open, database: Database) -> None:
    script = {**SCRIPT, "inner": [calls(execute("ls", "s1")), calls(execute("pwd", "s2")), "sub done"]}
    async with open_with(script) as harbor:
        harbor.sandbox.hold["ls"] = asyncio.Event()
        thread = await harbor.new_thread()
        await harbor.say(thread, "sub")
        decided = await harbor.answer(thread, s1=APPROVE)
        await command_started(harbor)
        stopping = asyncio.create_task(harbor.workers[0].stop(patience=PATIENCE))
        await asyncio.sleep(0)  # it has asked its run to end
        harbor.sandbox.hold["ls"].set()
        await stopping
    async with open_harbor(database, script) as harbor:
        told = await harbor.told(thread, decided)
        assert (end_of(told), results(told)) == ("interrupted", {"s1": "success"})
        assert harbor.sandbox.ran == []
        told = await harbor.told(thread, await harbor.answer(thread, s2=APPROVE))
        assert (end_of(told), results(told)) == ("success", {"s2": "success", "t1": "success"})
        await assert_told_once(harbor, thread)


async def test_a_call_under_which_the_sandbox_died_is_not_run_again(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    harbor.sandbox.failures["a"] = SandboxDied("gone")
    assert end_of(await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))) == "error"
    del harbor.sandbox.failures["a"]
    told = await harbor.told(thread, await harbor.answer(thread, c2=APPROVE))
    assert (results(told), end_of(told)) == ({"c1": "outcome_unknown", "c2": "success"}, "success")
    assert harbor.sandbox.ran == ["b"]


async def test_a_large_result_is_told_at_once_and_once(open_with: Open) -> None:
    async with open_with(SCRIPT) as harbor:
        harbor.sandbox.answers["ls"] = ExecuteResponse(output="x" * 100_000, exit_code=0)
        thread = await harbor.new_thread()
        await harbor.say(thread, "run")
        began = asyncio.get_running_loop().time()
        told = await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
        assert (end_of(told), results(told)) == ("success", {"c1": "success"})
        assert asyncio.get_running_loop().time() - began < 4
        await harbor.say(thread, "hello")
        await assert_told_once(harbor, thread)


async def blocked(harbor: Harbor) -> None:
    """Wait until some connection waits for another one's lock."""
    async with asyncio.timeout(PATIENCE):
        while True:
            async with harbor.database.system_transaction() as connection:
                row = await (
                    await connection.execute("SELECT count(*) AS n FROM pg_locks WHERE NOT granted")
                ).fetchone()
            if row and row["n"]:
                return
            await asyncio.sleep(0.01)

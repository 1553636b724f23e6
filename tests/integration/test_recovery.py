"""Runs that lose their worker, their sandbox or their turn: what the next one makes of what was left."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.integration.runs_harness import ALICE, APPROVE, PATIENCE, REJECT, Harbor, Told, end_of, open_harbor, types

from moorage.adapters.postgres.pool import Database
from moorage.approvals import Decided, InterruptStatus
from moorage.rules import Match, Remember
from moorage.runs.run import BusyPolicy, Started
from moorage.sandboxes.port import SandboxUnavailable
from moorage.threads import Thread, ThreadRunStatus

type Open = Callable[..., AbstractAsyncContextManager[Harbor]]


def execute(command: str, call_id: str = "c1") -> Any:
    return call("execute", call_id, command=command)


SCRIPT = {
    "run": [calls(execute("ls")), "done"],
    "two": [calls(execute("a", "c1"), execute("b", "c2")), "done"],
    "same ids": [calls(execute("a")), calls(execute("b")), "done"],
    "sub": [calls(call("task", "t1", description="inner", subagent_type="general-purpose")), "done"],
    "inner": [calls(execute("ls", "s1")), "sub done"],
    "write": [calls(call("write_file", "c1", file_path="/workspace/a", content="new")), "done"],
}


@pytest.fixture
async def harbor(database: Database, add_user: AddUser) -> AsyncGenerator[Harbor]:
    await add_user(ALICE)
    async with open_harbor(database, SCRIPT, workers=2) as found:
        yield found


@pytest.fixture
async def alone(database: Database, add_user: AddUser) -> AsyncGenerator[Harbor]:
    """With one worker, which hears of a stop at once."""
    await add_user(ALICE)
    async with open_harbor(database, SCRIPT) as found:
        yield found


@pytest.fixture
async def open_with(database: Database, add_user: AddUser) -> Open:
    await add_user(ALICE)
    return lambda script, **options: open_harbor(database, script, **options)


async def lose_the_worker(harbor: Harbor) -> None:
    """As if its lease had run out while it was frozen: another one takes what it runs, and it does not know yet."""
    async with harbor.database.system_transaction() as connection:
        await connection.execute("UPDATE runs SET lease_expires_at = now() - interval '1 s' WHERE status = 'running'")
    assert await harbor.queue.recover_lost(max_attempts=3) == 1


async def command_started(harbor: Harbor, command: str = "ls") -> None:
    async with asyncio.timeout(PATIENCE):
        while command not in harbor.sandbox.ran:
            await harbor.sandbox.started.wait()
            harbor.sandbox.started.clear()


def results(told: list[Told]) -> dict[str, str]:
    return {event.data["call_id"]: event.data["status"] for event in told if event.type == "tool_result"}


def seen_results(harbor: Harbor) -> dict[str, str]:
    """What the model was shown last of each call."""
    shown = harbor.agent.model.seen[-1]
    return {message.tool_call_id: message.text for message in shown if isinstance(message, ToolMessage)}


async def assert_told_once(harbor: Harbor, thread: Thread) -> None:
    """The log has no gap, each result is told once, and each message is in the history once."""
    told = await harbor.everything(thread)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    made = [event.data["message_id"] for event in told if event.type == "tool_result"]
    assert len(made) == len(set(made))
    history = await harbor.threads.messages(thread, limit=100, cursor=None)
    ids = [item.message.id for item in history.items]
    assert len(ids) == len(set(ids))


async def lost_in_a_command(harbor: Harbor, text: str = "run") -> tuple[Thread, Decided]:
    """A thread whose approved command was started by a worker that is then lost."""
    harbor.sandbox.hold["ls"] = asyncio.Event()
    thread = await harbor.new_thread()
    await harbor.say(thread, text)
    decided = await harbor.answer(thread, **({"c1": APPROVE} if text == "run" else {"s1": APPROVE}))
    await command_started(harbor)
    await lose_the_worker(harbor)
    return thread, decided


# A worker is lost ---------------------------------------------------------------------------------------------------


async def test_a_lost_model_call_is_made_again_and_its_message_is_there_once(open_with: Open) -> None:
    reached = asyncio.Event()

    async def first_time() -> str:
        if not reached.is_set():
            reached.set()
            await asyncio.Event().wait()
        return "the answer"

    async with open_with({"go": [first_time]}, workers=2) as harbor:
        thread = await harbor.new_thread()
        started = await harbor.start(thread)
        await asyncio.wait_for(reached.wait(), PATIENCE)
        await lose_the_worker(harbor)
        told = await harbor.told(thread, started)
        assert end_of(told) == "success"
        assert [event.data.get("attempt") for event in told if event.type == "agent_start"] == [None, 2]
        assert [message.text for message in harbor.agent.model.seen[-1] if message.type == "human"] == ["go"]
        assert harbor.cleaned == [thread.thread_id]
        [token] = harbor.cleaned_under
        assert token is not None, "what a lost worker left is killed in the name of the claim that took over"
        await assert_told_once(harbor, thread)


@pytest.mark.parametrize("text", ["run", "sub"])
async def test_a_command_that_died_with_its_worker_is_not_run_again_and_the_model_is_told(
    harbor: Harbor, text: str
) -> None:
    thread, decided = await lost_in_a_command(harbor, text)
    told = await harbor.told(thread, decided)
    call_id = "c1" if text == "run" else "s1"
    assert (results(told)[call_id], end_of(told)) == ("outcome_unknown", "success")
    assert harbor.sandbox.ran == ["ls"]
    shown = [message.text for seen in harbor.agent.model.seen for message in seen if isinstance(message, ToolMessage)]
    assert any(text.startswith("outcome_unknown: ") for text in shown)
    await assert_told_once(harbor, thread)


async def test_the_lost_worker_writes_nothing_when_it_comes_back(harbor: Harbor) -> None:
    thread, decided = await lost_in_a_command(harbor)
    await harbor.told(thread, decided)
    before = await harbor.everything(thread)
    harbor.sandbox.hold["ls"].set()
    async with asyncio.timeout(PATIENCE):
        while any(worker.active for worker in harbor.workers):
            await harbor.queue.wait_for_work(at_most=0.01)
    assert await harbor.everything(thread) == before
    assert end_of(await harbor.say(thread, "hello")) == "success"
    assert seen_results(harbor)["c1"].startswith("outcome_unknown")


async def test_a_result_that_reached_the_journal_only_is_replayed(harbor: Harbor, monkeypatch: Any) -> None:
    """The worker is lost between the tool's end and the checkpoint: whatever it saves from then on is refused."""
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    finished = harbor.journal_finish(monkeypatch)
    decided = await harbor.answer(thread, c1=APPROVE)
    await asyncio.wait_for(finished.wait(), PATIENCE)
    await lose_the_worker(harbor)
    harbor.let_go.set()
    told = await harbor.told(thread, decided)
    assert (results(told), end_of(told)) == ({"c1": "success"}, "success")
    assert (harbor.sandbox.ran, seen_results(harbor)) == (
        ["ls"],
        {"c1": "ran ls\n[Command succeeded with exit code 0]"},
    )
    await assert_told_once(harbor, thread)


async def test_two_messages_of_one_turn_may_use_the_same_call_id(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "same ids")
    for command in ("a", "b"):
        await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
        assert harbor.sandbox.ran[-1] == command
    assert harbor.sandbox.ran == ["a", "b"]
    await assert_told_once(harbor, thread)


# A run fails in the middle ------------------------------------------------------------------------------------------


async def test_a_failure_of_one_call_leaves_the_other_question_open_and_runs_nothing_twice(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    harbor.sandbox.failures["a"] = SandboxUnavailable("no engine")
    assert end_of(await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))) == "error"
    pending = await harbor.approvals.pending(ALICE, thread.thread_id)
    assert [item.raised.call_id for item in pending] == ["c2"]
    del harbor.sandbox.failures["a"]
    told = await harbor.told(thread, await harbor.answer(thread, c2=APPROVE))
    assert (results(told), end_of(told)) == ({"c1": "success", "c2": "success"}, "success")
    assert sorted(harbor.sandbox.ran) == ["a", "b"]


async def test_what_a_cancelled_command_did_is_told_to_the_model_with_the_next_message(alone: Harbor) -> None:
    harbor = alone
    harbor.sandbox.hold["b"] = asyncio.Event()
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    decided = await harbor.answer(thread, c1=APPROVE, c2=APPROVE)
    await command_started(harbor, "b")
    async with asyncio.timeout(PATIENCE):
        while "c1" not in results(await harbor.everything(thread)):
            await harbor.queue.wait_for_work(at_most=0.01)
    await harbor.cancel(thread)
    assert end_of(await harbor.told(thread, decided)) == "cancelled"
    await harbor.say(thread, "hello")
    shown = seen_results(harbor)
    assert shown["c1"].startswith("ran a")
    assert shown["c2"].startswith("outcome_unknown")
    await assert_told_once(harbor, thread)


# Busy threads -------------------------------------------------------------------------------------------------------


async def test_an_interrupting_message_keeps_what_the_stopped_run_did(alone: Harbor) -> None:
    harbor = alone
    harbor.sandbox.hold["b"] = asyncio.Event()
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    decided = await harbor.answer(thread, c1=APPROVE, c2=APPROVE)
    await command_started(harbor, "b")
    started = await harbor.start(thread, "hello", policy=BusyPolicy.INTERRUPT)
    assert end_of(await harbor.told(thread, decided)) == "cancelled"
    assert end_of(await harbor.told(thread, started)) == "success"
    assert set(seen_results(harbor)) == {"c1", "c2"}


async def test_a_rollback_undoes_the_message_and_its_history(open_with: Open) -> None:
    reached = asyncio.Event()

    async def never() -> str:
        reached.set()
        await asyncio.Event().wait()
        return ""

    async with open_with({"go": [calls(call("ls", "c1", path="/")), never]}) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "hello")
        stopped = await harbor.start(thread, "go")
        await asyncio.wait_for(reached.wait(), PATIENCE)
        started: Started = await harbor.start(thread, "instead", policy=BusyPolicy.ROLLBACK)
        told = await harbor.told(thread, stopped)
        assert (end_of(told), told[-1].data["rolled_back"]) == ("cancelled", True)
        assert end_of(await harbor.told(thread, started)) == "success"
        shown = [message.text for message in harbor.agent.model.seen[-1] if message.type in ("human", "tool")]
        assert shown == ["hello", "instead"]
        history = await harbor.threads.messages(thread, limit=100, cursor=None)
        assert [item.message.content for item in history.items] == ["hello", "ok", "instead", "ok"]
        assert (await harbor.thread(thread.thread_id)).message_count == 4


async def test_a_message_can_reject_what_waits_and_the_model_learns_of_it(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    told = await harbor.told(thread, await harbor.start(thread, "hello", policy=BusyPolicy.REJECT_AND_CONTINUE))
    assert types(told)[0] == "message_received"
    assert end_of(told) == "success"
    assert all("not run" in text for text in seen_results(harbor).values())
    assert (set(seen_results(harbor)), harbor.sandbox.ran) == ({"c1", "c2"}, [])
    assert await harbor.approvals.pending(ALICE, thread.thread_id) == []
    await assert_told_once(harbor, thread)


# Approvals ----------------------------------------------------------------------------------------------------------


async def test_an_approval_that_nobody_decided_expires_without_a_model_call(open_with: Open) -> None:
    async with open_with(SCRIPT, approval_ttl=timedelta(milliseconds=1)) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread, "run")
        calls_made = len(harbor.agent.model.seen)
        assert await harbor.approval_store.expire() == 1
        assert len(harbor.agent.model.seen) == calls_made
        assert (await harbor.thread(thread.thread_id)).run_status is ThreadRunStatus.IDLE
        assert results(await harbor.everything(thread)) == {"c1": "rejected"}
        await harbor.say(thread, "hello")
        assert "not decide in time" in seen_results(harbor)["c1"]
        assert harbor.sandbox.ran == []
        await assert_told_once(harbor, thread)


async def test_a_remembered_answer_lets_the_same_command_run_and_says_who_decided(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    await harbor.told(thread, await harbor.answer(thread, c1=harbor.remembering(APPROVE, Remember(Match.SAME))))
    told = await harbor.say(thread, "run")
    assert end_of(told) == "success"
    [decision] = [event.data for event in told if event.type == "decision"]
    assert (decision["type"], decision["decided_by"]) == ("approve", ALICE)
    assert decision["decided_via"].startswith("rule:")
    assert harbor.sandbox.ran == ["ls", "ls"]


async def test_a_remembered_refusal_is_told_without_asking(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    await harbor.told(thread, await harbor.answer(thread, c1=harbor.remembering(REJECT, Remember(Match.SAME))))
    told = await harbor.say(thread, "run")
    assert (results(told), end_of(told), harbor.sandbox.ran) == ({"c1": "rejected"}, "success", [])


async def test_a_file_that_changed_between_the_decision_and_the_write_is_asked_again(
    harbor: Harbor, monkeypatch: Any
) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "write")
    monkeypatch.setattr("moorage.agent.gate.file_hash", _another_hash)
    told = await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
    assert (end_of(told), results(told)) == ("interrupted", {})
    monkeypatch.undo()
    [again] = await harbor.approvals.pending(ALICE, thread.thread_id)
    page = await harbor.approvals.search(ALICE, status=None, thread_id=thread.thread_id, limit=10, cursor=None)
    earlier = next(item for item in page.items if item.raised.id != again.raised.id)
    assert (earlier.status, earlier.decision) == (InterruptStatus.SUPERSEDED, {"type": "approve"})
    told = await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
    assert (end_of(told), results(told)) == ("success", {"c1": "success"})


async def _another_hash(*_: Any) -> str:
    return "0" * 64


async def test_many_calls_of_one_turn_start_side_by_side(open_with: Open) -> None:
    names = [f"c{number}" for number in range(12)]
    script = {"go": [calls(*(execute(name, name) for name in names)), "done"]}
    async with open_with(script) as harbor:
        thread = await harbor.new_thread()
        await harbor.say(thread)
        together = asyncio.Event()
        harbor.sandbox.hold = dict.fromkeys(names, together)
        decided = await harbor.answer(thread, **dict.fromkeys(names, APPROVE))
        async with asyncio.timeout(PATIENCE):
            while set(harbor.sandbox.ran) < set(names):
                await harbor.sandbox.started.wait()
                harbor.sandbox.started.clear()
        together.set()
        assert end_of(await harbor.told(thread, decided)) == "success"
        assert sorted(harbor.sandbox.ran) == sorted(names)

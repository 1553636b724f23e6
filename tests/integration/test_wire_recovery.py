"""Runs of the LangGraph wire that lose their worker, are undone or forged: nothing lost, nothing run unasked."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.integration.runs_harness import ALICE, APPROVE, PATIENCE, REJECT, Harbor, Told, end_of, open_harbor
from tests.integration.test_recovery import assert_told_once, lose_the_worker
from tests.integration.test_wire_runs import EVERYTHING, folded, graph_events, run, start, state, texts

from moorage.adapters.postgres.pool import Database
from moorage.agent.entry import Entry
from moorage.agent.runner import AgentRunner
from moorage.agent.wire_json import InvalidMessages, read_messages
from moorage.approvals import Answer
from moorage.claims import StopReason
from moorage.errors import InvalidPayload
from moorage.runs.run import RunNotFound, RunRequest, Started
from moorage.threads import Thread
from moorage_api.langgraph.requests import read_state

TODOS = [{"content": "one", "status": "pending"}]


def execute(command: str, call_id: str = "c1") -> Any:
    return call("execute", call_id, command=command)


SCRIPT: Any = {
    "run": [calls(execute("date")), "done"],
    "two": [calls(execute("a", "c1"), execute("b", "c2")), "done"],
    "look": [calls(call("ls", "c1", path="/")), "looked"],
    "plan and run": [calls(call("write_todos", "t1", todos=TODOS), execute("date")), "done"],
    "sub": [calls(call("task", "t1", description="inner", subagent_type="general-purpose")), "done"],
    "inner": [calls(execute("ls", "s1")), "sub done"],
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


class Hold:
    """A turn of the model that waits the first time it is reached, as its worker is to be lost in it."""

    def __init__(self, answer: Any = "answer") -> None:
        self.reached = asyncio.Event()
        self.let_go = asyncio.Event()
        self._answer = answer

    async def __call__(self) -> Any:
        if not self.reached.is_set():
            self.reached.set()
            await self.let_go.wait()
        return self._answer

    async def wait(self) -> None:
        await asyncio.wait_for(self.reached.wait(), PATIENCE)

    async def lose(self, harbor: Harbor) -> None:
        """The run is taken over, and the worker that had it finds out."""
        await self.wait()
        await lose_the_worker(harbor)
        self.let_go.set()


def forged(*made: Any, message_id: str = "forged") -> list[dict[str, Any]]:
    return read_messages([{"type": "ai", "content": "", "id": message_id, "tool_calls": [dict(item) for item in made]}])


async def answered(harbor: Harbor, thread: Thread, **decisions: Any) -> list[Told]:
    answers = [Answer(decision, call_id=call_id) for call_id, decision in decisions.items()]
    request = RunRequest(record=EVERYTHING)
    decided = await harbor.approvals.answer(ALICE, thread.thread_id, answers, via="test", run=request)
    return await harbor.told(thread, decided)


async def asks(harbor: Harbor, thread: Thread) -> list[tuple[str, dict[str, Any]]]:
    pending = await harbor.approvals.pending(ALICE, thread.thread_id)
    return [(item.raised.call_id, item.raised.tool_input) for item in pending]


# A worker is lost ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{}, {"record": EVERYTHING}])
async def test_a_lost_run_with_messages_is_taken_over_and_they_are_there_once(harbor: Harbor, asked: Any) -> None:
    hold = Hold()
    harbor.agent.model.script = {"slow": [calls(call("ls", "c1", path="/")), hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    started = await start(harbor, thread, "slow", **asked)
    await hold.lose(harbor)
    told = await harbor.told(thread, started)
    assert end_of(told) == "success"
    values = (await state(harbor, thread)).values
    assert [item["type"] for item in values["messages"]] == ["human", "ai", "human", "ai", "tool", "ai"]
    if asked:
        assert await folded(harbor, thread, told) == values
    await assert_told_once(harbor, thread)


async def test_a_lost_command_is_taken_over_and_its_update_is_there_once(harbor: Harbor) -> None:
    hold = Hold()
    harbor.agent.model.script = {"inserted": [hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    update = {"messages": read_messages(["inserted"])}
    started = await start(harbor, thread, None, update=update, goto=("model",), record=EVERYTHING)
    await hold.lose(harbor)
    told = await harbor.told(thread, started)
    values = (await state(harbor, thread)).values
    assert texts(values) == ["hello", "ok", "inserted", "answer"]
    assert await folded(harbor, thread, told) == values


@pytest.mark.parametrize("text", ["other", None])
async def test_a_lost_branch_goes_on_where_it_was(harbor: Harbor, text: str | None) -> None:
    hold = Hold()
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "first", record=EVERYTHING)
    place = next(item for item in graph_events(told, "checkpoints") if item["next"] == (["model"] if not text else []))
    await run(harbor, thread, "second")
    harbor.agent.model.script = {"other": [hold], "first": [hold]}
    checkpoint_id = place["config"]["configurable"]["checkpoint_id"]
    started = await start(harbor, thread, text, checkpoint_id=checkpoint_id, record=EVERYTHING)
    await hold.lose(harbor)
    told = await harbor.told(thread, started)
    values = (await state(harbor, thread)).values
    assert texts(values) == (["first", "ok", "other", "answer"] if text else ["first", "answer"])
    assert await folded(harbor, thread, told) == values


@pytest.mark.parametrize("asked", [{"interrupt_before": ("tools",)}, {"interrupt_after": ("model",)}])
async def test_a_run_that_was_lost_where_it_was_to_stop_still_stops_there(
    harbor: Harbor, asked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await harbor.new_thread()
    finish, stopped = harbor.queue.finish, asyncio.Event()

    async def lost_first(*values: Any) -> None:
        if not stopped.is_set():
            stopped.set()
            await harbor.let_go.wait()
        await finish(*values)

    monkeypatch.setattr(harbor.queue, "finish", lost_first)
    started = await start(harbor, thread, "look", **asked)
    await asyncio.wait_for(stopped.wait(), PATIENCE)
    await lose_the_worker(harbor)
    harbor.let_go.set()
    assert end_of(await harbor.told(thread, started)) == "interrupted"
    assert (await state(harbor, thread)).next == ["tools"]
    assert end_of(await run(harbor, thread, None)) == "success"


@pytest.mark.parametrize("removes", [False, True])
async def test_a_state_update_that_was_lost_after_it_was_made_is_made_once(
    harbor: Harbor, removes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    first = (await state(harbor, thread)).values["messages"][0]["id"]
    made, lost = asyncio.Event(), AgentRunner.update

    async def lost_first(*values: Any) -> Any:
        found = await lost(*values)
        if not made.is_set():
            made.set()
            await harbor.let_go.wait()
        return found

    monkeypatch.setattr(AgentRunner, "update", lost_first)
    given = [{"type": "remove", "id": first}] if removes else ["by hand"]
    values = {"messages": read_messages(given)}
    updating = asyncio.create_task(harbor.runs.update_state(thread, values, as_node="model", checkpoint_id=None))
    await asyncio.wait_for(made.wait(), PATIENCE)
    await lose_the_worker(harbor)
    harbor.let_go.set()
    await asyncio.wait_for(updating, PATIENCE)
    assert texts((await state(harbor, thread)).values) == (["ok"] if removes else ["hello", "ok", "by hand"])


# What is recorded ---------------------------------------------------------------------------------------------------


async def test_what_the_input_changes_beside_messages_is_recorded(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    told = await run(harbor, thread, "again", values={"todos": TODOS}, record=EVERYTHING)
    assert await folded(harbor, thread, told) == (await state(harbor, thread)).values


async def test_messages_that_the_input_removes_or_replaces_are_recorded(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    first, second = (item["id"] for item in (await state(harbor, thread)).values["messages"])
    given = [{"type": "remove", "id": second}, {"type": "human", "content": "hi", "id": first}, "again"]
    told = await harbor.told(
        thread,
        await harbor.runs.start(
            thread, None, request=RunRequest(messages=tuple(read_messages(given)), record=EVERYTHING)
        ),
    )
    values = (await state(harbor, thread)).values
    assert texts(values) == ["hi", "again", "ok"]
    assert await folded(harbor, thread, told) == values


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
async def test_answers_one_after_the_other_are_told_at_once_and_fold_to_the_state(
    harbor: Harbor, order: tuple[str, str]
) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "two")
    with capture_logs() as logs:
        await answered(harbor, thread, **{order[0]: APPROVE})
        told = await answered(harbor, thread, **{order[1]: APPROVE})
    assert end_of(told) == "success"
    assert [item for item in logs if item["event"] == "told_before_saved"] == []
    assert await folded(harbor, thread, told) == (await state(harbor, thread)).values


@pytest.mark.parametrize("order", [("c1", "c2"), ("c2", "c1")])
async def test_what_goes_on_after_a_pause_is_told_as_it_happens_and_only_what_is_new(
    harbor: Harbor, order: tuple[str, str]
) -> None:
    hold = Hold()
    harbor.agent.model.script = {"two": [SCRIPT["two"][0], hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    await run(harbor, thread, "two", record=EVERYTHING)
    await answered(harbor, thread, **{order[0]: APPROVE})
    going_on = asyncio.create_task(answered(harbor, thread, **{order[1]: APPROVE}))
    await hold.wait()
    async with asyncio.timeout(2):
        while sum(item.type == "tool_result" for item in await harbor.everything(thread)) < 2:
            await harbor.queue.wait_for_work(at_most=0.01)
    hold.let_go.set()
    told = await going_on
    sent = [item["id"] for change in graph_events(told, "values") for item in change.get("messages", [])]
    results = [item["id"] for item in (await state(harbor, thread)).values["messages"][4:]]
    assert sorted(sent) == sorted(results)


async def test_what_a_finished_call_wrote_beside_a_pause_is_in_the_recorded_state(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "plan and run")
    told = await answered(harbor, thread, c1=APPROVE)
    values = (await state(harbor, thread)).values
    assert values["todos"] == TODOS
    assert await folded(harbor, thread, told) == values


async def test_what_subagents_do_is_told_at_once(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    with capture_logs() as logs:
        await run(harbor, thread, "sub", record=EVERYTHING)
        told = await answered(harbor, thread, s1=APPROVE)
    assert end_of(told) == "success"
    assert [item for item in logs if item["event"] == "told_before_saved"] == []
    assert await folded(harbor, thread, told) == (await state(harbor, thread)).values


async def test_a_message_of_the_model_in_the_input_is_told_at_once(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    given = ["hello", {"type": "ai", "content": "said before"}, "again"]
    with capture_logs() as logs:
        started = await harbor.runs.start(
            thread, None, request=RunRequest(messages=tuple(read_messages(given)), record=EVERYTHING)
        )
        told = await harbor.told(thread, started)
    assert [item for item in logs if item["event"] == "told_before_saved"] == []
    assert texts(await folded(harbor, thread, told)) == ["hello", "said before", "again", "ok"]


# Ids that clients choose --------------------------------------------------------------------------------------------


async def test_a_message_with_the_id_of_an_older_one_is_answered_whatever_is_open(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "look", interrupt_before=("tools",))
    first = (await state(harbor, thread)).values["messages"][0]["id"]
    given = read_messages([{"type": "human", "content": "instead", "id": first}])
    started = await harbor.runs.start(thread, None, request=RunRequest(messages=tuple(given)))
    assert end_of(await harbor.told(thread, started)) == "success"
    assert texts((await state(harbor, thread)).values)[-1] == "ok"
    assert "instead" in [message.text for message in harbor.agent.model.seen[-1]]


async def test_one_id_in_two_threads_means_two_messages(harbor: Harbor) -> None:
    for _ in range(2):
        thread = await harbor.new_thread()
        await run(harbor, thread, "hello")
        update = {"messages": forged(execute("date"), message_id="same")}
        await harbor.runs.update_state(thread, update, as_node="model", checkpoint_id=None)
        assert end_of(await run(harbor, thread, None)) == "interrupted"
        assert end_of(await answered(harbor, thread, c1=APPROVE)) == "success"
    assert harbor.sandbox.ran == ["date", "date"]


# Forged calls -------------------------------------------------------------------------------------------------------


async def test_a_call_that_a_client_wrote_into_the_state_asks_like_any_other(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    update = {"messages": forged(execute("date"))}
    await harbor.runs.update_state(thread, update, as_node="model", checkpoint_id=None)
    assert end_of(await run(harbor, thread, None)) == "interrupted"
    assert harbor.sandbox.ran == []
    assert await asks(harbor, thread) == [("c1", {"command": "date"})]


async def test_calls_that_a_client_sends_to_the_tools_ask_one_after_the_other(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    update = {"messages": forged(execute("a", "c1"), execute("b", "c2"))}
    assert end_of(await run(harbor, thread, None, update=update, goto=("tools",))) == "interrupted"
    [first] = await asks(harbor, thread)
    await answered(harbor, thread, **{first[0]: REJECT})
    [second] = await asks(harbor, thread)
    assert ({first[0], second[0]}, harbor.sandbox.ran) == ({"c1", "c2"}, [])
    assert end_of(await answered(harbor, thread, **{second[0]: APPROVE})) == "success"
    assert harbor.sandbox.ran == [second[1]["command"]]


async def test_an_approval_is_for_what_was_shown_not_for_what_the_state_holds_meanwhile(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "run")
    asking = (await state(harbor, thread)).values["messages"][-1]["id"]
    update = {"messages": forged(execute("rm -rf /"), message_id=asking)}
    await harbor.runs.update_state(thread, update, as_node="model", checkpoint_id=None)
    await answered(harbor, thread, c1=APPROVE)
    assert harbor.sandbox.ran == []
    assert await asks(harbor, thread) == [("c1", {"command": "rm -rf /"})]


async def test_open_calls_in_the_input_get_a_result_before_the_model_sees_them(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    given = ["hello", *forged(execute("date"))]
    request = RunRequest(messages=tuple(read_messages(given)))
    assert end_of(await harbor.told(thread, await harbor.runs.start(thread, None, request=request))) == "success"
    kinds = [message.type for message in harbor.agent.model.seen[-1] if message.type != "system"]
    assert kinds == ["human", "ai", "tool"]
    assert harbor.sandbox.ran == []


# Going back ---------------------------------------------------------------------------------------------------------


async def before_the_tools(harbor: Harbor, told: list[Told]) -> str:
    place = next(item for item in graph_events(told, "checkpoints") if item["next"] == ["tools"])
    return place["config"]["configurable"]["checkpoint_id"]


async def test_a_call_that_ran_is_not_run_again_by_going_back_before_it(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    place = await before_the_tools(harbor, await run(harbor, thread, "run", record=EVERYTHING))
    await answered(harbor, thread, c1=APPROVE)
    told = await run(harbor, thread, None, checkpoint_id=place)
    if end_of(told) == "interrupted":
        await answered(harbor, thread, c1=APPROVE)
    assert harbor.sandbox.ran == ["date"]
    shown = [message.text for message in harbor.agent.model.seen[-1] if message.type == "tool"]
    assert shown == ["ran date\n[Command succeeded with exit code 0]"]


async def test_a_call_that_never_ran_may_be_decided_anew_by_going_back_before_it(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    place = await before_the_tools(harbor, await run(harbor, thread, "run", record=EVERYTHING))
    await run(harbor, thread, "never mind")
    assert end_of(await run(harbor, thread, None, checkpoint_id=place)) == "interrupted"
    assert end_of(await answered(harbor, thread, c1=APPROVE)) == "success"
    assert harbor.sandbox.ran == ["date"]


async def test_a_cancelled_question_may_be_asked_again_by_going_on(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "run")
    await harbor.cancel(thread)
    told = await run(harbor, thread, None)
    assert (end_of(told) == "interrupted") == (await asks(harbor, thread) != [])
    if end_of(told) == "interrupted":
        assert end_of(await answered(harbor, thread, c1=APPROVE)) == "success"


async def test_lists_show_the_state_that_an_update_left(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "plan and run")
    later = [{"content": "two", "status": "completed"}]
    await harbor.runs.update_state(thread, {"todos": later}, as_node="model", checkpoint_id=None)
    async with harbor.database.tenant_transaction(ALICE) as connection:
        row = await (await connection.execute("SELECT state_values FROM threads")).fetchone()
    assert row is not None
    assert row["state_values"]["todos"] == later


async def test_a_thread_whose_time_is_over_stays_for_as_long_as_it_is_busy(harbor: Harbor) -> None:
    hold = Hold()
    harbor.agent.model.script = {"slow": [hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello", ephemeral=True)
    async with harbor.database.system_transaction() as connection:
        await connection.execute("UPDATE threads SET expires_at = now() - interval '1 s'")
    started = await start(harbor, thread, "slow")
    await hold.wait()
    assert await harbor.threads.expire() == 0
    hold.let_go.set()
    assert end_of(await harbor.told(thread, started)) == "success"
    assert await harbor.threads.expire() == 1


# Undone -------------------------------------------------------------------------------------------------------------


async def undone(harbor: Harbor, thread: Thread, started: Started, hold: Hold) -> None:
    await hold.wait()
    await harbor.runs.stop_run(await harbor.runs.get(thread, started.run_id), StopReason.ROLLBACK)
    await harbor.told(thread, started)


async def test_the_first_run_of_a_thread_is_rolled_back_to_nothing(alone: Harbor) -> None:
    harbor, hold = alone, Hold()
    harbor.agent.model.script = {"slow": [hold]}
    thread = await harbor.new_thread()
    await undone(harbor, thread, await start(harbor, thread, "slow", record=EVERYTHING), hold)
    assert (await state(harbor, thread)).place is None
    assert end_of(await run(harbor, thread, "hello")) == "success"
    assert texts((await state(harbor, thread)).values) == ["hello", "ok"]


async def test_a_command_that_is_rolled_back_leaves_nothing_in_the_state(alone: Harbor) -> None:
    harbor, hold = alone, Hold()
    harbor.agent.model.script = {"inserted": [hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    update = {"messages": read_messages(["inserted"])}
    await undone(harbor, thread, await start(harbor, thread, None, update=update, goto=("model",)), hold)
    assert texts((await state(harbor, thread)).values) == ["hello", "ok"]
    await run(harbor, thread, "again")
    assert texts((await state(harbor, thread)).values) == ["hello", "ok", "again", "ok"]


async def test_a_resumed_run_is_rolled_back_to_the_pause_and_its_command_is_not_run_again(alone: Harbor) -> None:
    harbor, hold = alone, Hold()
    harbor.agent.model.script = {"run": [calls(execute("date")), hold]}
    thread = await harbor.new_thread()
    await run(harbor, thread, "run")
    decided = await harbor.answer(thread, c1=APPROVE)
    await undone(harbor, thread, Started(decided.run_id, decided.first_seq), hold)
    assert end_of(await run(harbor, thread, "hello")) == "success"
    assert harbor.sandbox.ran == ["date"]


async def test_a_queued_run_that_is_rolled_back_is_forgotten_with_its_message(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    later = await start(harbor, thread, "later", after_seconds=3600)
    await harbor.runs.stop_run(await harbor.runs.get(thread, later.run_id), StopReason.ROLLBACK)
    with pytest.raises(RunNotFound):
        await harbor.runs.get(thread, later.run_id)
    history = await harbor.threads.messages(thread, limit=100, cursor=None)
    assert [item.message.content for item in history.items] == ["hello", "ok"]
    assert texts((await state(harbor, thread)).values) == ["hello", "ok"]


async def test_a_command_takes_the_place_of_what_the_graph_stood_before(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "run")
    update = {"messages": read_messages(["inserted"])}
    told = await run(harbor, thread, None, update=update, goto=("model",), record=EVERYTHING)
    values = (await state(harbor, thread)).values
    assert (end_of(told), texts(values)[3:]) == ("success", ["inserted", "ok"])
    assert [message["type"] for message in values["messages"]] == ["human", "ai", "tool", "human", "ai"]
    assert [message.type for message in harbor.agent.model.seen[-1]][-4:] == ["human", "ai", "tool", "human"]
    assert await folded(harbor, thread, told) == values
    assert await asks(harbor, thread) == []


async def test_a_command_is_given_again_when_it_was_lost_before_it_began(
    harbor: Harbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "run")
    cleared, clear = asyncio.Event(), Entry._cleared

    async def lost_first(entry: Entry) -> Any:
        found = await clear(entry)
        if not cleared.is_set():
            cleared.set()
            await harbor.let_go.wait()
        return found

    monkeypatch.setattr(Entry, "_cleared", lost_first)
    update = {"messages": read_messages(["inserted"])}
    started = await start(harbor, thread, None, update=update, goto=("model",), record=EVERYTHING)
    await asyncio.wait_for(cleared.wait(), PATIENCE)
    await lose_the_worker(harbor)
    harbor.let_go.set()
    told = await harbor.told(thread, started)
    values = (await state(harbor, thread)).values
    assert [message["type"] for message in values["messages"]] == ["human", "ai", "tool", "human", "ai"]
    assert await folded(harbor, thread, told) == values


async def test_a_run_that_is_rolled_back_while_it_waits_for_its_turn_leaves_nothing(harbor: Harbor) -> None:
    hold = Hold()
    harbor.agent.model.script = {"slow": [hold]}
    thread = await harbor.new_thread()
    running = await start(harbor, thread, "slow")
    await hold.wait()
    waiting = await start(harbor, thread, "later")
    await harbor.runs.stop_run(await harbor.runs.get(thread, waiting.run_id), StopReason.ROLLBACK)
    assert (await harbor.told(thread, waiting))[-1].data["rolled_back"]
    hold.let_go.set()
    await harbor.told(thread, running)
    history = await harbor.threads.messages(thread, limit=100, cursor=None)
    assert [item.message.content for item in history.items] == ["slow", "answer"]
    assert (await harbor.thread(thread.thread_id)).message_count == 2


async def test_a_message_at_the_latest_checkpoint_keeps_what_finished_calls_said(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "two")
    await answered(harbor, thread, c1=APPROVE)
    place = (await state(harbor, thread)).place
    assert place is not None
    told = await run(harbor, thread, "never mind", checkpoint_id=place.checkpoint_id, record=EVERYTHING)
    values = (await state(harbor, thread)).values
    assert [message["type"] for message in values["messages"]] == ["human", "ai", "tool", "tool", "human", "ai"]
    assert texts(values)[2].startswith("ran a")
    assert await folded(harbor, thread, told) == values


async def test_what_was_asked_on_a_branch_that_was_left_is_answered_and_runs_nothing(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "hello", record=EVERYTHING)
    place = graph_events(told, "checkpoints")[-1]["config"]["configurable"]["checkpoint_id"]
    await run(harbor, thread, "run")
    await harbor.runs.update_state(thread, {"messages": read_messages(["x"])}, as_node=None, checkpoint_id=place)
    assert end_of(await answered(harbor, thread, c1=APPROVE)) == "success"
    assert (harbor.sandbox.ran, texts((await state(harbor, thread)).values)) == ([], ["hello", "ok", "x"])
    assert end_of(await run(harbor, thread, "hello")) == "success"


# Input that makes no sense ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{"files": {"/a": 1}}, {"todos": "x"}, {"jump_to": "tools"}, {"unknown": 1}])
async def test_a_thread_takes_messages_after_input_that_its_graph_cannot_read(harbor: Harbor, values: Any) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    await run(harbor, thread, "bad", values=values, record=EVERYTHING)
    assert end_of(await run(harbor, thread, "good")) == "success"
    assert (await state(harbor, thread)).values["messages"]


@pytest.mark.parametrize("files", ["x", None, ["x"]])
def test_files_that_would_make_the_state_unreadable_are_refused(files: Any) -> None:
    with pytest.raises(InvalidPayload):
        read_state({"files": files}, "values")


@pytest.mark.parametrize("ids", [[None], [7], [""], ["c1", "c1"]])
def test_calls_that_cannot_be_told_apart_are_refused(ids: list[Any]) -> None:
    made = [{"name": "execute", "args": {"command": str(n)}, "id": call_id} for n, call_id in enumerate(ids)]
    with pytest.raises(InvalidMessages):
        read_messages([{"type": "ai", "content": "", "tool_calls": made}])

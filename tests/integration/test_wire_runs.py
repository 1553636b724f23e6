"""What clients of the LangGraph wire ask of runs: recorded state, branches, commands, pauses, updates, stops."""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest
from tests.fake_agent import Script, call, calls
from tests.integration.runs_harness import ALICE, APPROVE, Harbor, Told, end_of, open_harbor, types

from moorage.adapters.postgres.checkpoint_reader import ThreadReader
from moorage.adapters.postgres.pool import Database
from moorage.agent.states import Place, States, ThreadState
from moorage.agent.wire_json import read_messages
from moorage.approvals import Answer
from moorage.assistants import get_assistant
from moorage.claims import StopReason
from moorage.errors import AppError, Conflict, InvalidPayload
from moorage.runs.run import ApprovalPending, BusyPolicy, Record, RunNotFound, RunRequest, RunStatus, Started
from moorage.threads import Thread
from moorage_api.langgraph.values import StateFold

EVERYTHING = tuple(Record)
SCRIPT: Script = {
    "look": [calls(call("ls", "c1", path="/"), text="Looking."), "looked"],
    "ask": [calls(call("execute", "c1", command="date")), "done"],
    "plan": [calls(call("write_todos", "c1", todos=[{"content": "one", "status": "pending"}])), "planned"],
}


@pytest.fixture
async def harbor(database: Database, add_user: Any) -> AsyncGenerator[Harbor]:
    await add_user("alice")
    async with open_harbor(database, SCRIPT) as harbor:
        yield harbor


async def run(harbor: Harbor, thread: Thread, text: str | None, **asked: Any) -> list[Told]:
    return await harbor.told(thread, await start(harbor, thread, text, **asked))


async def start(
    harbor: Harbor, thread: Thread, text: str | None, *, policy: BusyPolicy = BusyPolicy.ENQUEUE, **asked: Any
) -> Started:
    messages = tuple(read_messages([text])) if text is not None else ()
    request = RunRequest(messages=messages, **asked)
    return await harbor.runs.start(thread, None, policy=policy, request=request)


def states(harbor: Harbor) -> States:
    async def load(_owner: Any, assistant_id: str) -> Any:
        return get_assistant(assistant_id)

    reader = partial(ThreadReader, harbor.database)
    return States(harbor.agent.agents, reader, load, fallback=get_assistant("agent"))


async def state(harbor: Harbor, thread: Thread, checkpoint_id: str | None = None) -> ThreadState:
    if checkpoint_id is not None:
        return await states(harbor).at(thread, Place(checkpoint_id))
    return await states(harbor).latest(thread)


def texts(values: dict[str, Any]) -> list[str]:
    return [message["content"] for message in values["messages"]]


def graph_events(told: list[Told], kind: str) -> list[Any]:
    return [event.data["data"] for event in told if event.type == "graph" and event.data["kind"] == kind]


async def folded(harbor: Harbor, thread: Thread, told: list[Told]) -> dict[str, Any]:
    async def load(checkpoint_id: str) -> dict[str, Any]:
        return (await state(harbor, thread, checkpoint_id)).values

    fold = StateFold(load)
    for event in told:
        if event.type == "graph" and event.data["kind"] == "values" and not event.data["ns"]:
            await fold.apply((), event.data["data"])
    return fold.values() or {}


async def test_the_recorded_changes_fold_to_the_state_that_is_saved(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    for text in ("look", "plan", "hello"):
        told = await run(harbor, thread, text, record=EVERYTHING)
        assert end_of(told) == "success"
        assert await folded(harbor, thread, told) == (await state(harbor, thread)).values
    assert (await harbor.thread(thread.thread_id)).state_updated_at is not None


async def test_changes_fold_to_the_state_after_a_pause_and_its_answer_too(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    asked = await run(harbor, thread, "ask", record=EVERYTHING)
    assert end_of(asked) == "interrupted"
    assert await folded(harbor, thread, asked) == (await state(harbor, thread)).values
    decided = await harbor.approvals.answer(
        ALICE, thread.thread_id, [Answer(APPROVE, call_id="c1")], via="test", run=RunRequest(record=EVERYTHING)
    )
    told = await harbor.told(thread, decided)
    assert end_of(told) == "success"
    assert await folded(harbor, thread, told) == (await state(harbor, thread)).values


async def test_a_run_that_asks_for_nothing_of_langgraph_records_nothing_of_it(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    assert "graph" not in types(await harbor.say(thread, "look"))


async def test_what_nodes_write_and_which_checkpoints_they_leave_is_recorded(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "look", record=EVERYTHING)
    nodes = [node for update in graph_events(told, "updates") for node in update]
    assert [node for node in nodes if node in ("model", "tools")] == ["model", "tools", "model"]
    last = graph_events(told, "checkpoints")[-1]["config"]["configurable"]["checkpoint_id"]
    place = (await state(harbor, thread)).place
    assert place is not None
    assert place.checkpoint_id == last
    assert {item["name"] for item in graph_events(told, "tasks")} >= {"model", "tools"}


async def test_the_threads_state_but_for_messages_is_kept_beside_it(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "plan")
    async with harbor.database.tenant_transaction(ALICE) as connection:
        row = await (await connection.execute("SELECT state_values FROM threads")).fetchone()
    assert row is not None
    assert row["state_values"]["todos"] == [{"content": "one", "status": "pending"}]


async def test_a_run_branches_off_at_a_checkpoint(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "first", record=EVERYTHING)
    after_first = graph_events(told, "checkpoints")[-1]["config"]["configurable"]["checkpoint_id"]
    await run(harbor, thread, "second")
    told = await run(harbor, thread, "other second", checkpoint_id=after_first, record=EVERYTHING)
    assert texts((await state(harbor, thread)).values) == ["first", "ok", "other second", "ok"]
    assert texts(await folded(harbor, thread, told)) == ["first", "ok", "other second", "ok"]


async def test_a_run_without_input_goes_on_from_a_checkpoint(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "first", record=EVERYTHING)
    before_model = next(item for item in graph_events(told, "checkpoints") if item["next"] == ["model"])
    again = await run(harbor, thread, None, checkpoint_id=before_model["config"]["configurable"]["checkpoint_id"])
    assert end_of(again) == "success"
    values = (await state(harbor, thread)).values
    assert texts(values) == ["first", "ok"]
    assert values["messages"][1]["id"] != graph_events(told, "updates")[-2].get("model", {}).get("id")


async def test_a_run_stops_before_a_node_where_its_client_wants_it_and_goes_on_without_input(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, "look", interrupt_before=("tools",))
    assert end_of(told) == "interrupted"
    assert (await state(harbor, thread)).next == ["tools"]
    assert (await harbor.thread(thread.thread_id)).run_status == "interrupted"
    assert end_of(await run(harbor, thread, None)) == "success"
    assert texts((await state(harbor, thread)).values)[-1] == "looked"


async def test_a_message_after_such_a_stop_gives_the_open_call_a_result(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "look", interrupt_before=("tools",))
    assert end_of(await run(harbor, thread, "never mind")) == "success"
    kinds = [message["type"] for message in (await state(harbor, thread)).values["messages"]]
    assert kinds == ["human", "ai", "tool", "human", "ai"]


async def test_a_command_updates_the_state_and_goes_to_a_node(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "first")
    update = {"messages": read_messages(["inserted"])}
    assert end_of(await run(harbor, thread, None, update=update, goto=("model",))) == "success"
    assert texts((await state(harbor, thread)).values) == ["first", "ok", "inserted", "ok"]


async def test_new_input_takes_the_place_of_what_waits_for_approval(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "ask")
    told = await run(harbor, thread, "never mind")
    assert end_of(told) == "success"
    assert harbor.sandbox.ran == []
    assert await harbor.approvals.pending(ALICE, thread.thread_id) == []


async def test_going_on_without_input_is_refused_while_something_waits_for_approval(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "ask")
    with pytest.raises(ApprovalPending):
        await start(harbor, thread, None)


async def test_a_state_update_is_seen_by_the_next_run_and_leaves_what_waits_answerable(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "ask")
    values = {"messages": read_messages(["by hand"])}
    made = await harbor.runs.update_state(thread, values, as_node="model", checkpoint_id=None)
    now = await state(harbor, thread)
    assert now.place is not None
    assert now.place.checkpoint_id == made
    assert texts(now.values)[-1] == "by hand"
    assert (await harbor.thread(thread.thread_id)).run_status == "interrupted"
    assert len(await harbor.approvals.pending(ALICE, thread.thread_id)) == 1


async def test_a_state_update_of_a_node_that_is_not_there_is_refused_and_changes_nothing(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello")
    before = await state(harbor, thread)
    with pytest.raises(InvalidPayload):
        await harbor.runs.update_state(thread, {"messages": []}, as_node="nowhere", checkpoint_id=None)
    assert await state(harbor, thread) == before
    assert (await harbor.thread(thread.thread_id)).run_status == "idle"
    assert end_of(await run(harbor, thread, "hello again")) == "success"


async def test_a_busy_thread_takes_no_state_update(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    hold = harbor.sandbox.hold.setdefault("date", asyncio.Event())
    await _asked(harbor, thread)
    await harbor.answer(thread, c1=APPROVE)
    await harbor.sandbox.started.wait()
    with pytest.raises(Conflict):
        await harbor.runs.update_state(thread, {"messages": []}, as_node=None, checkpoint_id=None)
    hold.set()


async def _asked(harbor: Harbor, thread: Thread) -> None:
    assert end_of(await run(harbor, thread, "ask")) == "interrupted"


async def test_one_queued_run_is_ended_and_the_others_stay(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    later = [await start(harbor, thread, f"later {n}", after_seconds=3600) for n in range(2)]
    runs = await harbor.runs.active(ALICE, thread=thread)
    assert [item.run_id for item in runs] == [item.run_id for item in later]
    await harbor.runs.stop_run(runs[0])
    assert end_of(await harbor.told(thread, later[0])) == "cancelled"
    assert [item.run_id for item in await harbor.runs.active(ALICE, thread=thread)] == [later[1].run_id]


async def test_a_delayed_run_lets_others_go_first(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    later = await start(harbor, thread, "later", after_seconds=3600)
    assert end_of(await run(harbor, thread, "now")) == "success"
    assert (await harbor.runs.get(thread, later.run_id)).status is RunStatus.QUEUED


async def test_the_running_run_is_stopped_alone(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    harbor.sandbox.hold["date"] = asyncio.Event()
    await _asked(harbor, thread)
    decided = await harbor.answer(thread, c1=APPROVE)
    await harbor.sandbox.started.wait()
    after = await start(harbor, thread, "after")
    await harbor.runs.stop_run(await harbor.runs.get(thread, decided.run_id))
    assert end_of(await harbor.told(thread, decided)) == "cancelled"
    assert end_of(await harbor.told(thread, after)) == "success"


async def test_a_run_that_is_rolled_back_leaves_nothing_in_the_state(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "first")
    thinking = asyncio.Event()

    async def think() -> None:
        thinking.set()
        await asyncio.Event().wait()

    harbor.agent.model.script = {**SCRIPT, "slow": [think]}
    started = await start(harbor, thread, "slow")
    await thinking.wait()
    await harbor.runs.stop_run(await harbor.runs.get(thread, started.run_id), StopReason.ROLLBACK)
    assert texts((await state(harbor, thread)).values) == ["first", "ok"]


async def test_runs_are_listed_newest_first_without_state_updates_and_forgotten(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = [await run(harbor, thread, "one", metadata={"n": 1}), await run(harbor, thread, "two")]
    await harbor.runs.update_state(thread, {"messages": read_messages(["x"])}, as_node="model", checkpoint_id=None)
    found = await harbor.runs.search(thread)
    assert [item.run_id for item in found] == [told[1][0].run_id, told[0][0].run_id]
    assert found[1].metadata == {"n": 1}
    assert await harbor.runs.search(thread, statuses=[RunStatus.ERROR]) == []
    await harbor.runs.delete(found[0], thread)
    with pytest.raises(RunNotFound):
        await harbor.runs.get(thread, found[0].run_id)


async def test_a_run_that_takes_its_thread_along_lets_it_expire_when_it_has_ended(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "hello", ephemeral=True)
    expires = (await harbor.thread(thread.thread_id)).expires_at
    assert expires is not None


async def test_input_that_the_graph_does_not_take_ends_the_run_in_words(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await run(harbor, thread, None)
    assert end_of(told) == "error"
    assert [event.data["code"] for event in told if event.type == "error"] == ["invalid_update"]


async def test_who_goes_on_after_an_answer_is_who_asked(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await run(harbor, thread, "ask", context={"instruction": "Be brief."})
    await start(harbor, thread, "later", assistant_id="deep", after_seconds=3600)
    decided = await harbor.answer(thread, c1=APPROVE)
    assert end_of(await harbor.told(thread, decided)) == "success"
    assert harbor.contexts == [{"instruction": "Be brief."}] * 2
    assert (await harbor.runs.get(thread, decided.run_id)).assistant_id == "agent"


async def test_a_run_of_another_users_thread_is_not_found(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    started = await start(harbor, thread, "hello")
    with pytest.raises(AppError):
        await harbor.runs.get_anywhere(type(ALICE)("al"), started.run_id)

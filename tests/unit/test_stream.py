import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from tests.fake_agent import FakeAgent, call, calls, data, kinds

from moorage.adapters.memory_journal import MemoryJournal
from moorage.agent.context import RunContext
from moorage.agent.stream import MAX_OUTPUT_BYTES, MAX_RESULT_CHARACTERS, Delta, PartReader
from moorage.events import EventType, Role, RunEvent
from moorage.ids import RunId, ThreadId

APPROVE = {"type": "approve"}
TASK = calls(call("task", "t1", description="sub", subagent_type="general-purpose"))
type Events = list[Delta | RunEvent]


def execute(command: str, call_id: str = "c1") -> Any:
    return call("execute", call_id, command=command)


def text_of(events: Events, parent: str | None = None) -> str:
    return "".join(item.text for item in events if isinstance(item, Delta) and item.parent_call_id == parent)


def read(*parts: dict[str, Any]) -> Events:
    context = RunContext(MemoryJournal(ThreadId("t")), max_steps=1)
    reader = PartReader(RunId("run"), "agent", context, clock=lambda: 0.0, model="m")
    return [event for part in parts for event in reader.read({"type": "custom", "ns": (), "data": part})]


def output(delta: str, stream: str = "stdout", call_id: str = "c1") -> dict[str, Any]:
    return {"kind": "output", "call_id": call_id, "stream": stream, "delta": delta}


def result(text: str) -> dict[str, Any]:
    return {"kind": "result", "call_id": "c1", "message_id": "m1", "report": {"status": "success", "result": text}}


async def test_a_text_answer_is_deltas_and_one_complete_message() -> None:
    events = await FakeAgent({"hi": ["hello there friend"]}).say("hi")
    assert kinds(events) == ["delta", "delta", "delta", "message_complete"]
    [complete] = data(events, "message_complete")
    assert complete["final_content"] == text_of(events) == "hello there friend"
    assert complete["metadata"]["usage"] == {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    assert {item.message_id for item in events if isinstance(item, Delta)} == {complete["message_id"]}


async def test_a_complete_message_goes_to_the_history_with_its_calls_once() -> None:
    turn = calls(call("ls", "c1", path="/"), call("ls", "c2", path="/"), text="look")
    events = await FakeAgent({"go": [turn, "done"]}).say("go")
    stored = [event.message for event in events if isinstance(event, RunEvent) and event.message]
    assistant = [message for message in stored if message.role is Role.ASSISTANT]
    assert [call["call_id"] for call in assistant[0].tool_calls or []] == ["c1", "c2"]
    assert len({message.id for message in stored}) == len(stored)


async def test_a_turn_of_calls_without_text_is_in_the_history_too() -> None:
    events = await FakeAgent({"go": [calls(call("ls", "c1", path="/")), "done"]}).say("go")
    stored = [event.message.role for event in events if isinstance(event, RunEvent) and event.message]
    assert stored == [Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]


async def test_a_call_is_told_before_its_result() -> None:
    events = await FakeAgent({"go": [calls(call("ls", "c1", path="/")), "done"]}).say("go")
    assert kinds(events) == ["tool_call", "tool_result", "delta", "message_complete"]
    [said] = [event.message.id for event in events if isinstance(event, RunEvent) and event.message][:1]
    assert data(events, "tool_call") == [
        {"call_id": "c1", "message_id": said, "tool_name": "ls", "tool_input": {"path": "/"}, "agent": "agent"}
    ]
    [done] = data(events, "tool_result")
    assert (done["call_id"], done["status"], done["agent"]) == ("c1", "success", "agent")


async def test_each_parallel_call_has_one_call_and_one_result() -> None:
    made = [call("ls", f"c{n}", path="/workspace") for n in range(4)]
    events = await FakeAgent({"go": [calls(*made), "done"]}).say("go")
    for kind in ("tool_call", "tool_result"):
        assert sorted(item["call_id"] for item in data(events, kind)) == ["c0", "c1", "c2", "c3"]


async def test_an_interrupt_is_raised_once_and_after_its_call() -> None:
    agent = FakeAgent({"go": [calls(execute("a", "c1"), execute("b", "c2")), "done"]})
    events = await agent.say("go")
    assert kinds(events) == ["tool_call", "tool_call"]
    assert set(agent.asked) == {"c1", "c2"}


async def test_interrupts_stand_in_the_order_of_their_calls() -> None:
    made = [execute(f"n{n}", f"c{n}") for n in range(6)]
    agent = FakeAgent({"go": [calls(*made), "done"]})
    await agent.say("go")
    assert list(agent.asked) == [f"c{n}" for n in range(6)]


async def test_resuming_repeats_nothing_that_was_told_before_the_pause() -> None:
    agent = FakeAgent({"go": [calls(execute("a", "c1"), call("ls", "c2", path="/"), text="first"), "done"]})
    before = await agent.say("go")
    after = await agent.answer(c1=APPROVE)
    assert [item["call_id"] for item in data(before, "tool_result")] == ["c2"]
    assert kinds(after) == ["tool_result", "delta", "message_complete"]
    assert data(after, "tool_result")[0]["call_id"] == "c1"


async def test_what_still_waits_is_raised_again_after_a_partial_answer() -> None:
    agent = FakeAgent({"go": [calls(execute("a", "c1"), execute("b", "c2")), "done"]})
    await agent.say("go")
    ids = {item.call_id: item.id for item in agent.reader.interrupts.values()}
    await agent.answer(c1=APPROVE)
    assert {item.call_id: item.id for item in agent.reader.interrupts.values()} == {"c2": ids["c2"]}


async def test_what_a_sub_agent_does_carries_the_call_that_started_it() -> None:
    agent = FakeAgent({"go": [TASK, "done"], "sub": [calls(call("ls", "s1", path="/")), "sub done"]})
    events = await agent.say("go")
    assert text_of(events, "t1") == "sub done"
    assert text_of(events) == "done"
    for kind in ("tool_call", "tool_result"):
        parents = {item["call_id"]: item.get("parent_call_id") for item in data(events, kind)}
        assert parents == {"t1": None, "s1": "t1"}
    assert data(events, "agent_start") == [{"run_id": "run", "agent": "general-purpose", "parent_call_id": "t1"}]


async def test_the_history_holds_the_root_conversation_only() -> None:
    agent = FakeAgent({"go": [TASK, "done"], "sub": [calls(call("ls", "s1", path="/")), "sub done"]})
    stored = [event.message for event in await agent.say("go") if isinstance(event, RunEvent) and event.message]
    assert [(message.role, message.content) for message in stored] == [
        (Role.ASSISTANT, ""),
        (Role.TOOL, "sub done"),
        (Role.ASSISTANT, "done"),
    ]


async def test_two_sub_agents_at_once_are_told_apart() -> None:
    tasks = [call("task", f"t{n}", description=f"sub{n}", subagent_type="general-purpose") for n in (1, 2)]
    agent = FakeAgent({"go": [calls(*tasks), "done"], "sub1": ["one is done"], "sub2": ["two is done"]})
    events = await agent.say("go")
    assert (text_of(events, "t1"), text_of(events, "t2")) == ("one is done", "two is done")
    completes = {item.get("parent_call_id"): item["final_content"] for item in data(events, "message_complete")}
    assert completes == {"t1": "one is done", "t2": "two is done", None: "done"}


async def test_a_sub_agents_interrupt_names_its_agent_and_its_call() -> None:
    agent = FakeAgent({"go": [TASK, "done"], "sub": [calls(execute("ls", "s1")), "sub done"]})
    await agent.say("go")
    [raised] = agent.reader.interrupts.values()
    assert (raised.agent, raised.parent_call_id, raised.call_id) == ("general-purpose", "t1", "s1")
    after = await agent.answer(s1=APPROVE)
    assert {item["call_id"]: item.get("parent_call_id") for item in data(after, "tool_result")} == {
        "s1": "t1",
        "t1": None,
    }
    assert data(after, "tool_call") == []


async def test_a_plan_is_told_as_todos() -> None:
    todos = [{"content": "x", "status": "in_progress"}]
    events = await FakeAgent({"go": [calls(call("write_todos", "c1", todos=todos)), "done"]}).say("go")
    assert data(events, "todo_update") == [{"todos": todos, "agent": "agent"}]


async def test_live_output_comes_before_the_result() -> None:
    agent = FakeAgent({"go": [calls(execute("make")), "done"]})
    agent.sandbox.live["make"] = [("stdout", "compiling\n"), ("stderr", "warning\n")]
    await agent.say("go")
    events = await agent.answer(c1=APPROVE)
    assert [(item["stream"], item["delta"]) for item in data(events, "tool_output")] == agent.sandbox.live["make"]
    assert kinds(events)[:3] == ["tool_output", "tool_output", "tool_result"]


async def test_reasoning_is_streamed_apart_and_kept_with_the_message() -> None:
    thought = AIMessage("42", additional_kwargs={"reasoning_content": "hmm"})
    events = await FakeAgent({"hi": [thought]}).say("hi")
    assert "".join(item.thinking for item in events if isinstance(item, Delta)) == "hmm"
    assert [event.message.thinking for event in events if isinstance(event, RunEvent) and event.message] == ["hmm"]


async def test_summarising_the_history_is_not_shown_as_an_answer() -> None:
    agent = FakeAgent({"go": ["word" * 5000]}, context_tokens=30_000)
    for _ in range(12):
        before = len(agent.model.seen)
        events = await agent.say("go")
        if len(agent.model.seen) > before + 1:
            break
    else:
        pytest.fail("nothing was summarised")
    [complete] = data(events, "message_complete")
    assert text_of(events) == complete["final_content"] == "word" * 5000
    assert {item.message_id for item in events if isinstance(item, Delta)} == {complete["message_id"]}


def test_output_is_kept_up_to_its_limit_and_then_said_to_be_cut() -> None:
    events = read(*(output("x" * 10_000) for _ in range(20)))
    told = data(events, "tool_output")
    assert sum(len(item.get("delta", "")) for item in told) == MAX_OUTPUT_BYTES
    assert [item for item in told if "truncated" in item] == [
        {"call_id": "c1", "stream": "stdout", "truncated": True, "agent": "agent"}
    ]
    assert told[-1].get("truncated")


def test_each_call_and_each_stream_has_a_limit_of_its_own() -> None:
    big = "x" * MAX_OUTPUT_BYTES
    told = data(read(output(big), output(big, "stderr"), output(big, call_id="c2")), "tool_output")
    assert [len(item["delta"]) for item in told] == [MAX_OUTPUT_BYTES] * 3


@given(st.lists(st.text(st.characters(exclude_categories=()), max_size=30), max_size=20))
def test_output_below_the_limit_is_told_whole(deltas: list[str]) -> None:
    told = "".join(item["delta"] for item in data(read(*map(output, deltas)), "tool_output"))
    clean = "".join(deltas).replace("\x00", "").encode("utf-8", "replace").decode()
    assert told == clean


@pytest.mark.parametrize(("said", "told"), [("a\x00b", "ab"), ("a\ud800b", "a?b"), ("\udfff", "?")])
def test_broken_characters_in_output_end_no_run(said: str, told: str) -> None:
    assert data(read(output(said)), "tool_output")[0]["delta"] == told
    assert data(read(result(said)), "tool_result")[0]["result"] == told


@given(st.text(st.sampled_from("aé汉🎉"), min_size=1), st.integers(0, 8))
def test_output_is_cut_between_characters(text: str, short_of: int) -> None:
    told = data(read(output("x" * (MAX_OUTPUT_BYTES - short_of)), output(text)), "tool_output")
    kept = "".join(item.get("delta", "") for item in told[1:])
    assert text.startswith(kept)
    assert len(kept.encode()) <= short_of
    assert (kept == text) or told[-1].get("truncated")


def test_a_huge_result_is_cut() -> None:
    [told] = data(read(result("x" * (MAX_RESULT_CHARACTERS + 1))), "tool_result")
    assert told["result"] == "x" * MAX_RESULT_CHARACTERS + "\n[cut]"


@pytest.mark.parametrize("part", [None, "text", 5, {}, {"kind": "other"}, ["kind"]])
def test_what_other_middleware_writes_is_ignored(part: Any) -> None:
    assert read(part) == []


async def test_every_event_is_json_of_the_vocabulary() -> None:
    agent = FakeAgent({"go": [TASK, "done"], "sub": [calls(execute("ls", "s1")), "sub done"]})
    events = [*await agent.say("go"), *await agent.answer(s1=APPROVE)]
    for event in events:
        if isinstance(event, RunEvent):
            assert event.type in EventType
            assert isinstance(json.loads(event.data), dict)

"""The v3 protocol as a projection of the event log: what each event is to its clients."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from moorage.errors import InvalidInput
from moorage.events import EventType, StoredEvent, encode
from moorage.ids import RunId, ThreadId
from moorage_api.langgraph.v3 import Projection
from moorage_api.langgraph.v3_frames import FRAMES_PER_EVENT, Filter, Frame
from moorage_api.langgraph.values import StateFold

RUN = RunId("11111111-1111-4111-8111-111111111111")
THREAD = "99999999-9999-4999-8999-999999999999"
AT = datetime(2026, 1, 1, tzinfo=UTC)
TASK = ["tools:aaaa"]
STARTED = (EventType.AGENT_START, {"run_id": RUN, "agent": "agent"})
ENDED = (EventType.RUN_END, {"run_id": RUN, "status": "success", "usage": {}})

type Said = tuple[EventType, dict[str, Any]]


def graph(kind: str, data: Any, ns: Iterable[str] = ()) -> Said:
    return EventType.GRAPH, {"kind": kind, "ns": list(ns), "data": data}


def words(text: str, message_id: str = "m1", **more: Any) -> Said:
    return EventType.CONTENT_STREAM, {"message_id": message_id, "content_delta": text, "agent": "agent", **more}


def whole(text: str, message_id: str = "m1", **more: Any) -> Said:
    told = {"message_id": message_id, "final_content": text, "agent": "agent", "metadata": {"model": "m", "usage": {}}}
    return EventType.MESSAGE_COMPLETE, {**told, **more}


def call(call_id: str = "c1", name: str = "execute", **more: Any) -> Said:
    return EventType.TOOL_CALL, {
        "call_id": call_id,
        "tool_name": name,
        "tool_input": {"x": 1},
        "agent": "agent",
        **more,
    }


def result(call_id: str = "c1", status: str = "success", **more: Any) -> Said:
    told = {"call_id": call_id, "message_id": f"r-{call_id}", "status": status, "result": "out", "duration_ms": 1}
    return EventType.TOOL_RESULT, {**told, "agent": "agent", **more}


def asked(call_id: str = "c1", **more: Any) -> dict[str, Any]:
    told = {"id": f"{call_id:0>32}", "call_id": call_id, "tool_name": "execute", "tool_input": {}, "description": "d"}
    return {**told, "allowed_decisions": ["approve", "edit"], "agent": "agent", **more}


def checkpoint(checkpoint_id: str, step: int = 0) -> Said:
    config = {"configurable": {"checkpoint_id": checkpoint_id, "checkpoint_ns": ""}}
    return graph("checkpoints", {"config": config, "metadata": {"step": step, "source": "loop"}, "parent_config": None})


async def nothing(_checkpoint_id: str) -> dict[str, Any]:
    raise AssertionError("nothing is to be loaded")


async def project(*said: Said) -> list[Frame]:
    projection = Projection(THREAD, StateFold(nothing))
    frames: list[Frame] = []
    for seq, (kind, data) in enumerate(said, start=1):
        frames += await projection.read(StoredEvent(ThreadId(f"alice-{THREAD}"), seq, RUN, kind, encode(data), AT))
    return frames


def told(frames: Iterable[Frame], method: str) -> list[Any]:
    return [frame.data for frame in frames if frame.method == method]


def brief(frames: Iterable[Frame]) -> list[str]:
    return [f"{frame.method} {frame.data.get('event', '')}".strip() for frame in frames]


async def test_frames_are_numbered_by_their_event_and_their_place_in_it() -> None:
    frames = await project(STARTED, words("Hi"), ENDED)
    assert [divmod(frame.seq, FRAMES_PER_EVENT) for frame in frames] == [(1, 0), (2, 0), (2, 1), (2, 2), (3, 0), (3, 1)]
    assert frames[1].event_id == f"{THREAD}.{2 * FRAMES_PER_EVENT}"
    assert frames[0].timestamp == round(AT.timestamp() * 1000)


async def test_lifecycle_names_its_run_where_clients_read_it() -> None:
    frames = await project(STARTED, ENDED)
    assert [frame.event_id.split(":")[:2] for frame in frames] == [["synth", RUN]] * 2
    assert [frame.data["event"] for frame in frames] == ["running", "completed"]


async def test_a_message_comes_in_blocks_that_do_not_interleave() -> None:
    frames = await project(STARTED, words("", thinking_delta="Hm"), words("Hel"), words("lo"), whole("Hello"), ENDED)
    messages = told(frames, "messages")
    assert [(item["event"], item.get("index")) for item in messages] == [
        ("message-start", None),
        ("content-block-start", 0), ("content-block-delta", 0), ("content-block-finish", 0),
        ("content-block-start", 1), ("content-block-delta", 1), ("content-block-delta", 1), ("content-block-finish", 1),
        ("message-finish", None),
    ]  # fmt: skip
    assert messages[3]["content"] == {"type": "reasoning", "reasoning": "Hm"}
    assert messages[7]["content"] == {"type": "text", "text": "Hello"}


async def test_calls_belong_to_the_message_that_made_them() -> None:
    messages = told(await project(STARTED, words("Look"), whole("Look"), call("c1"), call("c2"), ENDED), "messages")
    blocks = [item["content"] for item in messages if item["event"] == "content-block-finish"]
    assert [block.get("id") for block in blocks] == [None, "c1", "c2"]
    assert blocks[1] == {"type": "tool_call", "id": "c1", "name": "execute", "args": {"x": 1}}
    assert messages[-1]["event"] == "message-finish"


async def test_a_message_of_calls_alone_gets_its_id_from_the_graph() -> None:
    made = {"type": "ai", "id": "m9", "tool_calls": [{"id": "c1"}], "usage_metadata": {"total_tokens": 3}}
    frames = await project(STARTED, call("c1"), graph("updates", {"model": {"messages": [made]}}))
    messages = told(frames, "messages")
    assert messages[0] == {"event": "message-start", "role": "ai", "id": "m9"}
    assert messages[-1]["usage"] == {"total_tokens": 3}
    assert frames[-1].method == "updates"


async def test_messages_at_once_are_told_apart() -> None:
    frames = await project(STARTED, words("a", "m1"), words("b", "m2", parent_call_id="t1"), words("c", "m1"))
    deltas = [frame for frame in frames if frame.data.get("event") == "content-block-delta"]
    assert [(frame.namespace, frame.data["message_id"]) for frame in deltas] == [
        ((), "m1"),
        (("tools:t1",), "m2"),
        ((), "m1"),
    ]


async def test_what_a_lost_server_was_saying_is_taken_back() -> None:
    frames = await project(STARTED, words("Hel"), (STARTED[0], {**STARTED[1], "attempt": 2}), words("Hi", "m2"))
    assert brief(frames)[4:7] == ["messages error", "lifecycle running", "messages message-start"]
    assert frames[4].data["message_id"] == "m1"


async def test_a_pause_is_asked_then_told_then_shown() -> None:
    frames = await project(
        STARTED,
        graph("values", {"from": None, "set": {"todos": []}, "messages": [{"id": "a", "type": "ai"}]}),
        (EventType.INTERRUPT, {"interrupts": [asked("c1"), asked("c2", parent_call_id="t1")]}),
        (EventType.RUN_END, {"run_id": RUN, "status": "interrupted", "usage": {}}),
    )
    assert brief(frames)[1:] == ["input.requested", "input.requested", "lifecycle interrupted", "values"]
    assert frames[2].namespace == ("tools:t1",)
    payload = frames[1].data["payload"]
    assert (payload["type"], payload["tool_call_id"], payload["name"]) == ("tool_approval", "c1", "execute")
    kinds = [form["properties"]["type"]["const"] for form in payload["response_schema"]["oneOf"]]
    assert kinds == ["approve", "edit"]


async def test_a_question_that_comes_again_after_its_run_is_no_new_one() -> None:
    ended = (EventType.RUN_END, {"run_id": RUN, "status": "interrupted", "usage": {}})
    again = (EventType.INTERRUPT, {"interrupts": [asked("c1", digest="new")]})
    assert told(await project(STARTED, ended, again), "input.requested") == []


async def test_a_decision_says_that_its_question_is_answered() -> None:
    decided = {"interrupt_id": "i1", "call_id": "c1", "type": "approve", "decided_via": "api"}
    assert told(await project((EventType.DECISION, decided)), "input.answered") == [{"interrupt_ids": ["i1"]}]


async def test_a_gated_call_starts_when_it_was_approved() -> None:
    entered = graph("call", {"call_id": "c1", "name": "execute"}, TASK)
    approved = (EventType.DECISION, {"interrupt_id": "i1", "call_id": "c1", "type": "approve", "decided_via": "api"})
    given = graph(
        "tasks", {"id": "aaaa", "name": "tools", "input": [{"id": "c1", "name": "execute", "args": {"x": 2}}]}
    )
    assert told(await project(STARTED, entered), "tools") == []
    [started] = told(await project(approved, STARTED, given, entered), "tools")
    assert (started["event"], started["input"]) == ("tool-started", {"x": 2})


async def test_a_rejected_call_never_started() -> None:
    rejected = (EventType.DECISION, {"interrupt_id": "i1", "call_id": "c1", "type": "reject", "decided_via": "api"})
    entered = graph("call", {"call_id": "c1", "name": "execute"}, TASK)
    frames = await project(rejected, STARTED, entered, result(status="rejected"))
    assert told(frames, "tools") == []
    assert frames[-1].namespace == ("tools:c1",)


async def test_a_tool_tells_its_start_its_output_and_its_result() -> None:
    output = {"call_id": "c1", "stream": "stdout", "delta": "o", "agent": "agent"}
    frames = await project(STARTED, call(), (EventType.TOOL_OUTPUT, output), result(exit_code=0))
    assert [item["event"] for item in told(frames, "tools")] == ["tool-started", "tool-output-delta", "tool-finished"]
    assert told(frames, "tools")[-1]["output"]["artifact"] == {"exit_code": 0}
    message = [frame for frame in frames if frame.namespace == ("tools:c1",)]
    assert message[0].data == {"event": "message-start", "role": "tool", "id": "r-c1", "tool_call_id": "c1"}
    assert message[2].data["delta"] == {"type": "text-delta", "text": "out"}


async def test_a_sub_agent_lives_in_the_namespace_of_its_task() -> None:
    entered = graph("call", {"call_id": "t1", "name": "task", "subagent": "helper"}, TASK)
    frames = await project(STARTED, entered, words("hi", "m2", parent_call_id="t1"), result("t1"), ENDED)
    below = [frame for frame in frames if frame.namespace == tuple(TASK)]
    assert brief(below)[0] == "lifecycle started"
    assert below[0].data["cause"] == {"type": "toolCall", "tool_call_id": "t1"}
    assert "messages message-start" in brief(below)
    assert "lifecycle completed" in brief(below)


async def test_a_state_comes_after_its_checkpoint() -> None:
    first, second = graph("values", {"from": None, "set": {"a": 1}}), graph("values", {"set": {"a": 2}})
    frames = await project(STARTED, first, checkpoint("k1", 3), second, graph("tasks", {"id": "x", "name": "model"}))
    assert brief(frames)[1:] == ["checkpoints", "values", "values", "tasks"]
    assert told(frames, "values") == [{"a": 1}, {"a": 2}]
    assert told(frames, "checkpoints") == [{"id": "k1", "step": 3, "source": "loop"}]


async def test_a_state_holds_no_interrupts() -> None:
    frames = await project(STARTED, graph("values", {"from": None, "set": {"__interrupt__": [1], "a": 1}}), ENDED)
    assert told(frames, "values") == [{"a": 1}]


@pytest.mark.parametrize(
    ("status", "phase"), [("error", "failed"), ("timeout", "failed"), ("cancelled", "interrupted")]
)
async def test_how_a_run_ends(status: str, phase: str) -> None:
    failed = (EventType.ERROR, {"code": "step_limit", "detail": "too many steps", "run_id": RUN})
    ended = (EventType.RUN_END, {"run_id": RUN, "status": status, "usage": {}})
    last = (await project(STARTED, words("Hel"), failed, ended))[-1]
    assert last.data["event"] == phase
    assert last.data.get("error") == ("too many steps" if phase == "failed" else None)


async def test_a_run_that_was_cancelled_in_the_queue_says_nothing() -> None:
    assert await project((EventType.RUN_END, {"run_id": RUN, "status": "cancelled", "usage": {}})) == []


def frame(method: str, *namespace: str, **data: Any) -> Frame:
    return Frame(THREAD, 1, method, namespace, 0, data)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Filter.of(["values"]), True),
        (Filter.of(["messages"]), False),
        (Filter.of(["values"], [[]], 0), False),
        (Filter.of(["values"], [[]], 1), True),
        (Filter.of(["values"], [["tools"]]), True),
        (Filter.of(["values"], [["tools:1"]]), True),
        (Filter.of(["values"], [["tools:2"]]), False),
        (Filter.of(["values"], [["tools:1", "model"]]), False),
    ],
)
def test_a_subscription_gets_its_channels_and_namespaces(wanted: Filter, found: bool) -> None:
    assert wanted.takes(frame("values", "tools:1")) is found


def test_custom_events_have_names() -> None:
    named = frame("custom", name="plan", payload=1)
    assert Filter.of(["custom"]).takes(named)
    assert Filter.of(["custom:plan"]).takes(named)
    assert not Filter.of(["custom:other"]).takes(named)


def test_questions_and_their_answers_are_the_input_channel() -> None:
    assert Filter.of(["input"]).takes(frame("input.requested"))
    assert Filter.of(["input"]).takes(frame("input.answered"))


@pytest.mark.parametrize("channels", [[], ["nonsense"], ["custom:"], ["values", "debug"]])
def test_channels_that_there_are_not_are_refused(channels: list[str]) -> None:
    with pytest.raises(InvalidInput):
        Filter.of(channels)

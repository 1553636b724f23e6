"""A run's events as frames of the legacy LangGraph SSE, in the shapes that were captured of the official server."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from moorage.errors import InvalidPayload
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId, ThreadId
from moorage.run_request import Record
from moorage_api.langgraph.legacy import LegacyProjection
from moorage_api.langgraph.legacy_frames import START, FrameId, frame_id
from moorage_api.langgraph.legacy_places import ShownRun
from moorage_api.langgraph.modes import read_modes, records_for

THREAD = ThreadId("alice-550e8400-e29b-41d4-a716-446655440000")
RUN = ShownRun(RunId("run-1"), "550e8400-e29b-41d4-a716-446655440000", "assistant-1", recorded=frozenset(Record))
UNRECORDED = ShownRun(RUN.run_id, RUN.thread_id, RUN.assistant_id, recorded=frozenset())
HUMAN = {"content": "hi", "type": "human", "id": "h1"}
FINAL = {"messages": [HUMAN], "todos": []}
NOW = datetime(2026, 11, 21, tzinfo=UTC)
CHECKPOINT = "1f1e5c2c-72d8-6847-bfff-87aaa240a8a6"

type Frame = tuple[str, Any, str]


class Log:
    """Events of one thread, with seqs that begin at 5."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    def add(self, kind: str, data: dict[str, Any], run_id: str = RUN.run_id) -> "Log":
        seq = 5 + len(self.events)
        self.events.append(StoredEvent(THREAD, seq, RunId(run_id), EventType(kind), orjson.dumps(data), NOW))
        return self

    def graph(self, kind: str, data: Any, ns: tuple[str, ...] = ()) -> "Log":
        return self.add("graph", {"kind": kind, "ns": list(ns), "data": data})

    def started(self) -> "Log":
        self.add("message_received", {"message_id": "h1", "content": "hi"})
        return self.add("agent_start", {"run_id": RUN.run_id, "agent": "agent"})

    def said(self, text: str, message_id: str = "m1", **more: Any) -> "Log":
        return self.add("content_stream", {"message_id": message_id, "content_delta": text, "agent": "agent", **more})

    def complete(self, text: str, message_id: str = "m1", **more: Any) -> "Log":
        usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        about = {"model": "scripted", "usage": usage, "response_time": 0.1}
        data = {"message_id": message_id, "final_content": text, "agent": "agent", "metadata": about}
        return self.add("message_complete", {**data, **more})

    def called(self, call_id: str, tool: str = "execute", message_id: str = "m1", **more: Any) -> "Log":
        data = {"call_id": call_id, "message_id": message_id, "tool_name": tool, "tool_input": {"command": "ls"}}
        return self.add("tool_call", {**data, "agent": "agent", **more})

    def result(self, call_id: str, status: str = "success", **more: Any) -> "Log":
        data = {"call_id": call_id, "message_id": f"r-{call_id}", "status": status, "result": "out", "duration_ms": 1}
        return self.add("tool_result", {**data, "agent": "agent", **more})

    def interrupt(self, *numbers: int) -> "Log":
        return self.add("interrupt", {"interrupts": [pending(number) for number in numbers]})

    def ended(self, status: str = "success") -> "Log":
        return self.add("run_end", {"run_id": RUN.run_id, "status": status, "usage": {}})


def pending(number: int) -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "call_id": f"call_{number}",
        "tool_name": "execute",
        "tool_input": {"command": "ls"},
        "description": "Run ls",
        "allowed_decisions": ["approve", "reject"],
    }


async def load(checkpoint_id: str) -> dict[str, Any]:
    return {"messages": [{"id": "old", "content": checkpoint_id}]}


async def final() -> dict[str, Any]:
    return FINAL


def projection(*modes: str, run: ShownRun = RUN, after: FrameId = START, **more: Any) -> LegacyProjection:
    return LegacyProjection(run, modes, load=load, final=final, after=after, **more)


def parsed(chunk: bytes) -> list[Frame]:
    """Frames as a client reads them; each is three CRLF lines and an empty one."""
    found: list[Frame] = []
    for part in chunk.split(b"\r\n\r\n")[:-1]:
        name, data, number = part.split(b"\r\n")
        assert (name[:7], data[:6], number[:4]) == (b"event: ", b"data: ", b"id: ")
        found.append((name[7:].decode(), orjson.loads(data[6:]), number[4:].decode()))
    return found


async def shown(log: Log, *modes: str, **more: Any) -> list[tuple[str, Any]]:
    return [(name, data) for name, data, _ in parsed(await projection(*modes, **more).frames(log.events))]


def named(frames: list[tuple[str, Any]], name: str) -> list[Any]:
    return [data for found, data in frames if found == name]


async def test_metadata_comes_when_the_run_starts_and_end_comes_last() -> None:
    log = Log().started().ended()
    chunk = await projection("values").frames(log.events[:1])
    assert chunk == b""
    assert await shown(log, "updates") == [("metadata", {"run_id": "run-1", "attempt": 1}), ("end", None)]


async def test_frames_are_crlf_lines_with_an_id_per_event_and_place() -> None:
    chunk = await projection("custom").frames(Log().started().events)
    assert chunk == b'event: metadata\r\ndata: {"run_id":"run-1","attempt":1}\r\nid: 6-0\r\n\r\n'


async def test_tools_tell_what_becomes_of_each_call() -> None:
    output = {"call_id": "c1", "stream": "stdout", "delta": "o", "agent": "agent"}
    log = Log().started().called("c1").called("c2").add("tool_output", output).result("c1").result("c2", "rejected")
    told = named(await shown(log.ended(), "tools"), "tools")
    assert [(each["event"], each["toolCallId"], each["name"]) for each in told] == [
        ("on_tool_start", "c1", "execute"),
        ("on_tool_start", "c2", "execute"),
        ("on_tool_event", "c1", "execute"),
        ("on_tool_end", "c1", "execute"),
        ("on_tool_error", "c2", "execute"),
    ]
    assert told[2]["data"]["delta"] == "o"
    assert told[3]["output"]["content"] == "out"


async def test_text_comes_as_chunks_with_their_place_in_the_graph() -> None:
    log = Log().started().said("He").said("y", thinking_delta="hm").complete("Hey").ended()
    frames = named(await shown(log, "messages-tuple"), "messages")
    chunk, metadata = frames[0]
    assert list(chunk) == [
        "content", "additional_kwargs", "response_metadata", "type", "name", "id", "tool_calls", "invalid_tool_calls",
        "usage_metadata", "tool_call_chunks", "chunk_position",
    ]  # fmt: skip
    assert (chunk["content"], chunk["type"], chunk["id"]) == ("He", "AIMessageChunk", "m1")
    assert (metadata["langgraph_node"], metadata["langgraph_step"]) == ("model", 2)
    assert (metadata["thread_id"], metadata["run_id"]) == (RUN.thread_id, RUN.run_id)
    assert metadata["langgraph_checkpoint_ns"] == metadata["checkpoint_ns"]
    assert frames[1][0]["additional_kwargs"] == {"reasoning_content": "hm"}
    assert [each["content"] for each, _ in frames] == ["He", "", "y", ""]
    last = frames[-1][0]
    assert (last["chunk_position"], last["usage_metadata"]["total_tokens"]) == ("last", 3)


async def test_calls_come_whole_before_the_last_chunk_of_their_message() -> None:
    log = Log().started().complete("Look").called("c1").called("c2").result("c1").result("c2").ended()
    frames = named(await shown(log, "messages-tuple"), "messages")
    calls = [chunk["tool_call_chunks"] for chunk, _ in frames[1:3]]
    expected = {"name": "execute", "args": '{"command":"ls"}', "id": "c1", "index": 0, "type": "tool_call_chunk"}
    assert calls == [[expected], [{**expected, "id": "c2", "index": 1}]]
    assert frames[3][0]["chunk_position"] == "last"
    assert [chunk["id"] for chunk, _ in frames] == ["m1", "m1", "m1", "m1", "r-c1", "r-c2"]


async def test_a_result_is_a_tool_message() -> None:
    log = Log().started().called("c1").result("c1", "rejected").ended("interrupted")
    message, metadata = named(await shown(log, "messages-tuple"), "messages")[-1]
    assert message == {
        "content": "out", "additional_kwargs": {}, "response_metadata": {}, "type": "tool", "name": "execute",
        "id": "r-c1", "tool_call_id": "c1", "artifact": None, "status": "error",
    }  # fmt: skip
    assert (metadata["langgraph_node"], metadata["langgraph_checkpoint_ns"]) == ("tools", "tools:c1")


async def test_a_call_that_an_earlier_run_made_has_the_name_that_the_graph_told() -> None:
    log = Log().started().graph("call", {"call_id": "c9", "name": "execute"}, ("tools:t9",)).result("c9").ended()
    ((message, metadata),) = named(await shown(log, "messages-tuple"), "messages")
    assert (message["name"], metadata["langgraph_checkpoint_ns"]) == ("execute", "tools:t9")


async def test_snapshots_repeat_what_was_said_so_far() -> None:
    log = Log().started().said("He").said("y").complete("Hey").called("c1").result("c1").ended()
    frames = (await shown(log, "messages"))[1:-1]
    assert [name for name, _ in frames] == [
        "messages/metadata", "messages/partial", "messages/partial", "messages/partial", "messages/partial",
        "messages/metadata", "messages/complete",
    ]  # fmt: skip
    partial = named(frames, "messages/partial")
    assert [each[0]["content"] for each in partial] == ["He", "Hey", "Hey", "Hey"]
    assert partial[-1][0]["tool_calls"][0]["id"] == "c1"
    assert frames[0][1]["m1"]["metadata"]["langgraph_node"] == "model"


async def test_states_are_folded_from_where_the_run_began() -> None:
    log = Log().started().graph("values", {"from": "c1", "messages": [HUMAN]}).graph("values", {"set": {"todos": [1]}})
    old = {"id": "old", "content": "c1"}
    assert named(await shown(log.ended(), "values"), "values") == [
        {"messages": [old, HUMAN]},
        {"messages": [old, HUMAN], "todos": [1]},
    ]


async def test_sub_graphs_are_shown_with_their_namespace_to_who_asks() -> None:
    task, sub = ("tools:t1",), {"parent_call_id": "c1"}
    log = Log().started().called("c1", "task").graph("call", {"call_id": "c1", "name": "task", "subagent": "x"}, task)
    log.graph("values", {"messages": [HUMAN]}, task).graph("updates", {"model": None}, task).said("sub", "m2", **sub)
    log.add("tool_output", {"call_id": "c2", "stream": "stdout", "delta": "o", "agent": "x", **sub}).ended()
    modes = ("values", "updates", "messages-tuple", "custom")
    names = [name for name, _ in await shown(log, *modes, subgraphs=True)]
    assert [name for name in names if "|" in name] == [
        f"{mode}|tools:t1" for mode in ("values", "updates", "messages", "custom")
    ]
    assert not [name for name, _ in await shown(log, *modes) if "|" in name]


async def test_a_sub_agents_message_is_placed_below_its_call() -> None:
    log = Log().started().called("c1", "task").said("sub", "m2", parent_call_id="c1").ended()
    _, metadata = named(await shown(log, "messages-tuple", subgraphs=True), "messages|tools:c1")[0]
    assert metadata["checkpoint_ns"] == "tools:c1"
    assert metadata["langgraph_checkpoint_ns"].startswith("tools:c1|model:")


async def test_what_waits_for_approval_is_one_batched_interrupt() -> None:
    log = Log().started().graph("values", {"from": None, "messages": [HUMAN]}).interrupt(1, 2).ended("interrupted")
    frames = await shown(log, "values", "updates")
    (update,) = named(frames, "updates")
    (batch,) = update["__interrupt__"]
    assert [each["name"] for each in batch["value"]["action_requests"]] == ["execute", "execute"]
    assert named(frames, "values")[-1] == {"messages": [HUMAN], "__interrupt__": [batch]}
    assert [name for name, _ in frames][-3:] == ["updates", "values", "end"]


async def test_who_asks_for_neither_state_nor_updates_is_told_of_interrupts_all_the_same() -> None:
    frames = await shown(Log().started().interrupt(1).ended("interrupted"), "messages-tuple")
    assert list(named(frames, "values")[0]) == ["__interrupt__"]


async def test_a_stop_before_a_node_is_an_interrupt_without_questions() -> None:
    frames = await shown(Log().started().ended("interrupted"), "updates")
    assert frames[-2:] == [("updates", {"__interrupt__": []}), ("end", None)]


async def test_an_error_has_langgraphs_names() -> None:
    log = Log().started().add("error", {"code": "step_limit", "detail": "25 steps", "run_id": "run-1"}).ended("error")
    frames = await shown(log, "messages-tuple")
    assert frames[-2:] == [("error", {"error": "GraphRecursionError", "message": "25 steps"}), ("end", None)]


async def test_another_attempt_says_its_unfinished_message_again() -> None:
    log = Log().started().said("Hal").add("agent_start", {"run_id": "run-1", "agent": "agent", "attempt": 2})
    frames = await shown(log.said("Hallo", "m2").complete("Hallo", "m2").ended(), "messages-tuple")
    assert named(frames, "metadata") == [{"run_id": "run-1", "attempt": 1}, {"run_id": "run-1", "attempt": 2}]
    assert [chunk["id"] for chunk, _ in named(frames, "messages")] == ["m1", "m2", "m2"]


async def test_a_run_that_was_not_recorded_shows_its_messages_as_updates_and_its_last_state() -> None:
    log = Log().started().said("Hey").complete("Hey").called("c1").result("c1").ended()
    frames = await shown(log, "values", "updates", run=UNRECORDED)
    model, tools = named(frames, "updates")
    (said,) = model["model"]["messages"]
    assert (said["content"], said["type"], [call["id"] for call in said["tool_calls"]]) == ("Hey", "ai", ["c1"])
    assert tools["tools"]["messages"][0]["tool_call_id"] == "c1"
    assert named(frames, "values") == [FINAL]


async def test_an_unrecorded_run_that_waits_shows_its_state_with_the_interrupt() -> None:
    frames = await shown(Log().started().interrupt(1).ended("interrupted"), "values", run=UNRECORDED)
    (values,) = named(frames, "values")
    assert values["todos"] == []
    assert len(values["__interrupt__"]) == 1


async def test_recorded_updates_are_not_told_twice() -> None:
    unknown = ShownRun(RUN.run_id, RUN.thread_id, RUN.assistant_id)
    log = Log().started().graph("updates", {"before": None}).complete("Hey").graph("updates", {"model": {}}).ended()
    assert named(await shown(log, "updates", run=unknown), "updates") == [{"before": None}, {"model": {}}]


async def test_tasks_are_given_the_state_that_they_started_with() -> None:
    log = Log().started().graph("values", {"from": None, "messages": [HUMAN]})
    log.graph("tasks", {"id": "t1", "name": "model", "triggers": ["branch:to:model"]})
    log.said("Hey").graph("tasks", {"id": "t1", "name": "model", "error": None, "result": {}, "interrupts": []}).ended()
    frames = await shown(log, "tasks", "messages-tuple")
    start, end = named(frames, "tasks")
    assert (start["input"], start["triggers"]) == ({"messages": [HUMAN]}, ["branch:to:model"])
    assert end["result"] == {}
    assert named(frames, "messages")[0][1]["langgraph_checkpoint_ns"] == "model:t1"


async def test_checkpoints_name_the_thread_as_its_client_does_and_hold_its_state() -> None:
    place = {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": CHECKPOINT}
    data = {"config": {"configurable": place}, "metadata": {"step": 0}, "next": ["model"], "parent_config": None}
    log = (
        Log().started().graph("values", {"from": None, "messages": [HUMAN]}).graph("checkpoints", {**data, "tasks": []})
    )
    frames = await shown(log.ended(), "checkpoints", "debug")
    (checkpoint,) = named(frames, "checkpoints")
    assert checkpoint["config"]["configurable"] == {**place, "thread_id": RUN.thread_id}
    assert checkpoint["values"] == {"messages": [HUMAN]}
    (debug,) = named(frames, "debug")
    assert (debug["type"], debug["step"], debug["timestamp"][:10]) == ("checkpoint", 0, "2026-11-21")
    assert debug["payload"]["checkpoint"]["checkpoint_id"] == CHECKPOINT


async def test_the_checkpoint_of_an_input_holds_the_state_before_it() -> None:
    place = {"configurable": {"thread_id": THREAD, "checkpoint_ns": "", "checkpoint_id": CHECKPOINT}}
    data = {"config": place, "metadata": {"step": 4}, "next": ["__start__"], "parent_config": place, "tasks": []}
    frames = await shown(Log().started().graph("checkpoints", data).ended(), "checkpoints")
    assert named(frames, "checkpoints")[0]["values"] == await load(CHECKPOINT)


async def test_commands_speak_while_they_run() -> None:
    output = {"call_id": "c1", "stream": "stdout", "delta": "one\n", "agent": "agent"}
    frames = await shown(Log().started().add("tool_output", output).ended(), "custom")
    assert named(frames, "custom") == [{"type": "tool_output", **output}]


async def test_callback_events_tell_of_the_run_its_model_and_its_tools() -> None:
    log = Log().started().said("He").complete("He").called("c1").result("c1").ended()
    told = named(await shown(log, "events"), "events")
    assert [each["event"] for each in told] == [
        "on_chain_start", "on_chain_start", "on_chat_model_start", "on_chat_model_stream", "on_chat_model_stream",
        "on_chat_model_end", "on_chain_stream", "on_chain_end", "on_tool_start", "on_tool_end", "on_chain_end",
    ]  # fmt: skip
    assert told[0]["run_id"] == told[-1]["run_id"] == RUN.run_id
    assert told[-1]["data"]["output"] == FINAL


async def test_a_stream_of_a_thread_says_that_a_run_is_done() -> None:
    frames = await shown(Log().started().ended(), "custom", ends_stream=False)
    assert frames[-1] == ("metadata", {"status": "run_done", "run_id": "run-1"})


async def test_events_of_other_runs_are_passed_over() -> None:
    log = Log().started().add("run_end", {"status": "success"}, run_id="run-2").ended()
    assert await shown(log, "custom") == [("metadata", {"run_id": "run-1", "attempt": 1}), ("end", None)]


EVERYTHING = ("values", "updates", "messages-tuple", "tasks", "checkpoints", "debug", "events", "custom")


def eventful() -> Log:
    log = Log().started().graph("values", {"from": "c1", "messages": [HUMAN]}).said("He").said("y").complete("Hey")
    log.called("c1", "task").graph("updates", {"model": {}}).graph("call", {"call_id": "c1"}, ("tools:t1",))
    log.said("sub", "m2", parent_call_id="c1").complete("sub", "m2", parent_call_id="c1").result("c1")
    return log.graph("values", {"set": {"todos": []}}).interrupt(1, 2).ended("interrupted")


@pytest.mark.parametrize("run", [RUN, UNRECORDED])
async def test_a_client_that_comes_back_gets_exactly_the_rest(run: ShownRun) -> None:
    events = eventful().events
    whole = parsed(await projection(*EVERYTHING, run=run, subgraphs=True).frames(events))
    assert len({number for _, _, number in whole}) == len(whole)
    for place, (_, _, number) in enumerate(whole[:-1]):
        again = projection(*EVERYTHING, run=run, subgraphs=True, after=frame_id(number))
        assert parsed(await again.frames(events)) == whole[place + 1 :]


async def test_events_one_by_one_become_the_same_frames_as_together() -> None:
    events = eventful().events
    single = projection(*EVERYTHING, subgraphs=True)
    assert b"".join([await single.frames([event]) for event in events]) == await projection(
        *EVERYTHING, subgraphs=True
    ).frames(events)
    assert single.ended


async def test_an_id_of_another_server_still_gets_the_end() -> None:
    frames = parsed(
        await projection("values", after=frame_id("1795275943257-0")).frames(Log().started().ended().events)
    )
    assert [name for name, _, _ in frames] == ["end"]


@pytest.mark.parametrize("text", [None, "", "-", "-1", "0"])
def test_the_words_for_the_start_are_the_start(text: str | None) -> None:
    assert frame_id(text) == START


def test_ids_are_read_and_all_else_is_refused() -> None:
    assert frame_id("17-2") == (17, 2)
    assert (17, 99) < frame_id("17") < (18, 0)
    with pytest.raises(InvalidPayload):
        frame_id("bogus")


def test_modes_say_what_a_run_must_record() -> None:
    assert records_for(["messages-tuple", "custom"]) == ()
    assert records_for(["updates", "values"]) == (Record.VALUES, Record.UPDATES)
    assert records_for(["debug"]) == (Record.VALUES, Record.TASKS, Record.CHECKPOINTS)


@pytest.mark.parametrize(
    ("given", "modes"),
    [
        (None, ()),
        ([""], ()),
        (["values", "updates", "values"], ("values", "updates")),
        (['["values","messages-tuple"]'], ("values", "messages-tuple")),
        (["values,updates"], ("values", "updates")),
    ],
)
def test_modes_are_read_as_the_clients_write_them(given: list[str] | None, modes: tuple[str, ...]) -> None:
    assert read_modes(given) == modes


@pytest.mark.parametrize("given", ["everything", "[1]", '["values"', "[[]]", "values, updates"])
def test_modes_that_nobody_knows_are_refused(given: str) -> None:
    with pytest.raises(InvalidPayload):
        read_modes([given])

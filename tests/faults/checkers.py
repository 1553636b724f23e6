"""What must hold of every thread after every fault, read back over HTTP, from the checkpoint and from the workspace."""

import json
from collections import Counter
from functools import cache
from typing import Any

from deepagents import create_deep_agent
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from tests.faults.scripts import EFFECTS
from tests.faults.user import LAST, Event, Thread
from tests.faults.world import World

from moorage.agent.bench_model import BenchModel

# What an interrupted run asked may be settled without another run: by a cancel, a message, or time.
_SETTLEMENT = {"decision", "tool_result"}


async def check(world: World, thread: Thread) -> None:
    """All of it, on a thread that rests."""
    await thread.catch_up()
    rows = await world.rows("SELECT * FROM runs WHERE thread_id = %s ORDER BY queue_no", thread.id)
    await check_ends(world, thread, rows)
    check_texts(thread.events)
    await check_messages(world, thread, rows)
    check_effects(await _lasting(world, thread), world.effects(thread))


async def _lasting(world: World, thread: Thread) -> list[Event]:
    """The events of a run that was rolled back do not count: what it did may be told again."""
    gone = [event.data["run_id"] for event in thread.events if event.data.get("rolled_back")]
    rows = await world.rows("SELECT seq FROM run_events WHERE thread_id = %s AND run_id = ANY(%s)", thread.id, gone)
    seqs = {row["seq"] for row in rows}
    return [event for event in thread.events if event.id not in seqs]


async def check_ends(world: World, thread: Thread, rows: list[dict[str, Any]]) -> None:
    """No seq is missing or doubled; every run is terminal and has said so exactly once, after all else that it said."""
    log = await world.rows("SELECT seq, run_id, type FROM run_events WHERE thread_id = %s ORDER BY seq", thread.id)
    assert [row["seq"] for row in log] == [event.id for event in thread.events] == list(range(1, len(log) + 1))
    ends = {event.id: event.data["status"] for event in thread.events if event.type == "run_end"}
    for run in rows:
        assert run["status"] in LAST, f"run {run['run_id']} is {run['status']}"
        said = [row for row in log if row["run_id"] == run["run_id"]]
        assert [row["type"] for row in said].count("run_end") == 1, f"{run['run_id']} ended: {said}"
        [end] = [row["seq"] for row in said if row["type"] == "run_end"]
        assert ends[end] == run["status"]
        assert {row["type"] for row in said if row["seq"] > end} <= _SETTLEMENT, f"{run['run_id']} spoke after its end"


def check_texts(events: list[Event]) -> None:
    """A finished message is what its deltas spell; a crash between saving and telling may cost the last of them."""
    texts: dict[str, str] = {}
    for event in events:
        if event.type == "content_stream":
            message_id = event.data["message_id"]
            texts[message_id] = texts.get(message_id, "") + event.data["content_delta"]
    for event in events:
        if event.type == "message_complete":
            told, final = texts.get(event.data["message_id"], ""), event.data["final_content"]
            assert final.startswith(told), f"{event.data['message_id']} was told as {told!r} and is {final!r}"


async def check_messages(world: World, thread: Thread, rows: list[dict[str, Any]]) -> None:
    """Each acknowledged message once and in order, for the user and for the model; no call without its result."""
    acknowledged = [sent.message_id for sent in sorted(thread.sent, key=lambda sent: sent.seq)]
    shown = await thread.messages()
    said = [message["id"] for message in shown if message["role"] == "user"]
    cancelled = {str(row["run_id"]) for row in rows if row["status"] == "cancelled"}  # a rollback removes its message
    gone = {sent.message_id for sent in thread.sent if sent.run_id in cancelled} - set(said)
    expected = [message_id for message_id in acknowledged if message_id not in gone]
    assert [message_id for message_id in said if message_id in acknowledged] == expected
    assert max(Counter(said).values(), default=1) == 1
    assert max(Counter(message["id"] for message in shown).values(), default=1) == 1
    seen = await checkpoint(world, thread)
    heard = [str(message.id) for message in seen if isinstance(message, HumanMessage)]
    ran = [row["input"]["message_id"] for row in rows if row["kind"] == "message" and row["status"] in LAST[:2]]
    assert max(Counter(heard).values(), default=1) == 1
    assert heard == [message_id for message_id in said if message_id in heard], "another order for the model"
    assert [message_id for message_id in ran if message_id not in heard] == [], "finished runs that saw no message"
    check_results(seen, waiting={item["call_id"] for item in await thread.pending()})
    known = {message["id"] for message in shown}
    missing = [item for item in seen if isinstance(item, AIMessage | ToolMessage) and item.id not in known]
    assert not missing, f"in the checkpoint, not in the history of {thread.id}: {missing}; {_outline(thread.events)}"


def _outline(events: list[Event]) -> list[tuple[int | None, str, str]]:
    """The last events without their deltas, for a failure's message."""
    kept = [event for event in events if event.type not in ("content_stream", "tool_output")][-40:]
    shown = ("message_id", "call_id", "run_id", "status", "type", "rolled_back")
    return [
        (event.id, event.type, " ".join(str(event.data[key]) for key in shown if key in event.data)) for event in kept
    ]


def check_results(messages: list[AnyMessage], *, waiting: set[str]) -> None:
    """After each message with calls come the results of exactly these calls, but for those that wait."""
    calls: list[str] = []
    results: list[str] = []
    for message in [*messages, HumanMessage("the end")]:
        if isinstance(message, ToolMessage):
            results.append(message.tool_call_id)
            continue
        missing = Counter(calls) - Counter(results)
        assert set(missing) <= waiting, f"no result for {missing}"
        assert not Counter(results) - Counter(calls), f"two results, or for no call: {results} of {calls}"
        calls = [str(call["id"]) for call in message.tool_calls] if isinstance(message, AIMessage) else []
        results = []


async def checkpoint(world: World, thread: Thread) -> list[AnyMessage]:
    """The messages that the model will be shown next: deltas in the checkpoints, so a graph must put them together."""
    async with AsyncPostgresSaver.from_conn_string(world.postgres.url("faults")) as saver:
        reader = _reader().copy(update={"checkpointer": saver})
        found = await reader.aget_state({"configurable": {"thread_id": thread.id}})
    return found.values.get("messages", [])


@cache
def _reader() -> Any:
    return create_deep_agent(BenchModel())


def check_effects(events: list[Event], effects: list[str]) -> None:
    """No effect twice; one where the result says success, none where nothing ran."""
    counts = Counter(effects)
    assert max(counts.values(), default=1) == 1, f"effects came twice: {counts.most_common(3)}"
    results = {event.data["call_id"]: event.data for event in events if event.type == "tool_result"}
    told = Counter(event.data["call_id"] for event in events if event.type == "tool_result")
    twice = [call_id for call_id, times in told.items() if times > 1]
    assert not twice, f"results were told twice: {[event for event in events if event.data.get('call_id') in twice]}"
    for event in events:
        if event.type != "tool_call" or (name := _effect_of(event.data)) is None:
            continue
        status = results.get(event.data["call_id"], {}).get("status")
        if status == "success":
            assert counts[name] == 1, f"{name} succeeded and left {counts[name]} lines"
        if status == "rejected":
            assert counts[name] == 0, f"{name} was rejected and left a line"


def _effect_of(call: dict[str, Any]) -> str | None:
    command = json.loads(json.dumps(call["tool_input"])).get("command", "")
    words = str(command).split()
    return words[1] if words[:1] == ["echo"] and EFFECTS in words else None

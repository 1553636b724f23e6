"""What each stream mode sends: the events in the order in which they first come, and their shapes."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from tests.compat.wire import Frame, Wire, script, streamed

type Facts = AsyncIterator[tuple[str, str]]

MODES = ("values", "messages", "messages-tuple", "updates", "events", "tasks", "checkpoints", "debug", "custom")
LOOK = script(("ls", {"path": "/"}), then="looked around")
SUB_AGENT = script(("task", {"subagent_type": "general-purpose", "description": LOOK}), then="all done")


async def each_mode(wire: Wire) -> Facts:
    for mode in MODES:
        frames = await _frames(wire, LOOK, stream_mode=mode)
        yield f"`{mode}`: events", _events(frames)
        yield "... keys of the last", _keys(_bare(frames)[-1].data)
        if mode in ("tasks", "debug"):
            yield "... keys of a task's start and end", _task_keys(frames)


async def other_modes(wire: Wire) -> Facts:
    for mode in ("tools", "lifecycle"):
        async with wire.run_stream(await wire.new_thread(), LOOK, stream_mode=mode) as stream:
            yield f"`{mode}`: events", f"{stream.status} {_events(await stream.all())}".strip()


async def tokens(wire: Wire) -> Facts:
    frames = await _frames(wire, LOOK, stream_mode="messages-tuple")
    pairs = [frame.data for frame in frames if frame.event == "messages"]
    yield "messages-tuple: kinds of message", ", ".join(dict.fromkeys(pair[0]["type"] for pair in pairs))
    yield "... what was said", streamed(frames)
    calls = [pair[0] for pair in pairs if pair[0].get("tool_call_chunks")]
    yield "... keys of a chunk with a call", _keys(calls[0])
    yield "... LangGraph's metadata beside it", _graph(pairs)
    yield (
        "... ids of its two messages",
        str(len({pair[0]["id"] for pair in pairs if pair[0]["type"] == "AIMessageChunk"})),
    )


async def whole_messages(wire: Wire) -> Facts:
    frames = await _frames(wire, LOOK, stream_mode="messages")
    partial = [frame.data[0] for frame in frames if frame.event == "messages/partial"]
    yield "messages: a partial message grows", str(partial[-1]["content"])
    complete = [frame.data[0]["type"] for frame in frames if frame.event == "messages/complete"]
    yield "... types of complete ones", ", ".join(complete)


async def updates(wire: Wire) -> Facts:
    frames = await _frames(wire, LOOK, stream_mode="updates")
    nodes = [node for frame in frames if frame.event == "updates" for node in frame.data]
    yield "updates: `model` and `tools`", ", ".join(node for node in nodes if node in ("model", "tools"))
    message = next(frame.data["model"]["messages"][0] for frame in frames if "model" in (frame.data or {}))
    yield "... keys of the model's message", _keys(message)


async def sub_agents(wire: Wire) -> Facts:
    for mode in ("values", "messages-tuple", "updates"):
        for deep in (False, True):
            frames = await _frames(wire, SUB_AGENT, stream_mode=mode, stream_subgraphs=deep)
            yield f"sub-agent, `{mode}`, `stream_subgraphs` {deep}: events", _events(frames)
            if mode == "messages-tuple":
                yield (
                    "... what was said",
                    streamed([Frame("messages", f.data) for f in frames if "messages" in f.event]),
                )


async def _frames(wire: Wire, message: str, **body: Any) -> list[Frame]:
    async with wire.run_stream(await wire.new_thread(), message, **body) as stream:
        return await stream.all()


def _bare(frames: Sequence[Frame]) -> list[Frame]:
    """Without the closing frame that only some servers send: a fact of its own elsewhere."""
    return [frame for frame in frames if frame.event != "end"]


def _events(frames: Sequence[Frame]) -> str:
    """The events in order of appearance, a namespace by its nodes."""
    names = ["|".join(part.split(":")[0] for part in frame.event.split("|")) for frame in _bare(frames)]
    return ", ".join(dict.fromkeys(names))


def _task_keys(frames: Sequence[Frame]) -> str:
    data = [frame.data for frame in frames if frame.event in ("tasks", "debug")]
    tasks = [one.get("payload", one) for one in data if one.get("type", "task").startswith("task")]
    return "; ".join(dict.fromkeys(_keys(task) for task in tasks))


def _graph(pairs: Sequence[Any]) -> str:
    return ", ".join(
        key for key in sorted(pairs[0][1]) if key.startswith(("langgraph_", "checkpoint_", "run_", "thread_"))
    )


def _keys(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {_keys(value[0])}" if value else "an empty list"
    return ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__


SCENARIOS = (each_mode, other_modes, tokens, whole_messages, updates, sub_agents)

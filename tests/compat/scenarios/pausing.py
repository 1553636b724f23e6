"""A run that waits for a human: what clients see, and what happens when nobody answers."""

import json
from collections.abc import AsyncIterator

from tests.compat.wire import Json, Wire, command, failure, interrupts, script

type Facts = AsyncIterator[tuple[str, str]]

ONE = script(command("echo hi"))
TWO = script([command("echo one"), command("echo two")])
APPROVE: Json = {"type": "approve"}


async def one_call(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    values = (await wire.wait(thread, ONE)).json()
    yield "one gated call: `wait` answers with", f"{len(values['__interrupt__'])} in `__interrupt__`"
    interrupt = values["__interrupt__"][0]
    yield "keys of an interrupt", _keys(interrupt)
    yield "keys of its value", _keys(interrupt["value"])
    yield "its `allowed_decisions`", ", ".join(interrupt["value"]["review_configs"][0]["allowed_decisions"])
    async for fact in _paused(wire, thread):
        yield fact


async def _paused(wire: Wire, thread: str) -> Facts:
    run = (await wire.get(f"/threads/{thread}/runs"))[0]
    yield "status of the run that waits", run["status"]
    found = await wire.get(f"/threads/{thread}")
    yield "status of the thread that waits", found["status"]
    yield "interrupts on the thread object", str(len(interrupts(found)))
    state = await wire.get(f"/threads/{thread}/state")
    yield "`interrupts` in its state", str(len(state["interrupts"]))
    yield "tasks with interrupts in its state", str(sum(bool(task["interrupts"]) for task in state["tasks"]))
    yield "interrupt ids agree", str(interrupts(found)[0]["id"] == state["interrupts"][0]["id"])


async def two_calls(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    found = (await wire.wait(thread, TWO)).json()["__interrupt__"]
    asked = [one["name"] for one in found[0]["value"]["action_requests"]]
    yield "two gated calls in one message", f"{len(found)} interrupt that asks for {len(asked)}"
    await wire.resume(thread, APPROVE, {"type": "reject", "message": "not that one"})
    results = await wire.tool_results(thread)
    yield "... the first approved, the second rejected: ran", ", ".join(one for one in results if one in ("one", "two"))
    yield "... the refusal quotes the human", str(any("not that one" in one for one in results))


async def in_sub_agent(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    job = {"subagent_type": "general-purpose", "description": ONE}
    values = (await wire.wait(thread, script(("task", job), then="parent done"))).json()
    yield "a gated call in a sub-agent: pending", str(len(values.get("__interrupt__", ())))
    reply = await wire.resume(thread, APPROVE)
    yield "... approved: the run then", failure(reply)
    results = await wire.tool_results(thread)
    yield "... the parent's tool result", results[0] if results else "none"


async def the_stream(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    async with wire.run_stream(thread, ONE, stream_mode=["values", "updates"]) as stream:
        frames = await stream.all()
    places = [frame.event for frame in frames if "__interrupt__" in (frame.data or {})]
    yield "frames that carry `__interrupt__`", ", ".join(places)
    async with wire.run_stream(await wire.new_thread(), ONE, stream_mode=["messages-tuple"]) as stream:
        others = [frame.event for frame in await stream.all() if "__interrupt__" in (frame.data or {})]
    yield "... with messages-tuple only", ", ".join(others) or "none"
    yield "the paused stream's last frame", frames[-1].event


async def new_message_meanwhile(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, ONE)
    reply = await wire.wait(thread, script(then="something else"))
    yield "a new message while a call waits", failure(reply)
    found = await wire.settled(thread)
    yield "... the thread is then", f"{found['status']}, {len(interrupts(found))} pending"
    late = await wire.resume(thread, APPROVE)
    yield "... and an answer to the old call", failure(late)
    yield "... whose command ran", str("hi" in await wire.tool_results(thread))


async def before_a_node(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    reply = await wire.wait(thread, script(("ls", {"path": "/"})), interrupt_before=["tools"])
    yield "`interrupt_before` tools", failure(reply)
    state = await wire.get(f"/threads/{thread}/state")
    yield "... next in the state", json.dumps(state["next"])
    yield "... the thread is", (await wire.settled(thread))["status"]
    await wire.wait(thread, None, input=None)
    yield "... after a run without input: tool results", str(len(await wire.tool_results(thread)))


def _keys(value: Json) -> str:
    return ", ".join(sorted(value))


SCENARIOS = (one_call, two_calls, in_sub_agent, the_stream, new_message_meanwhile, before_a_node)

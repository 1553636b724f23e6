"""The thread-centric protocol (v3): commands, and the event stream beside them."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from tests.compat.scenarios.busy import SLOW
from tests.compat.scenarios.pausing import APPROVE, ONE
from tests.compat.scenarios.streams import SUB_AGENT
from tests.compat.wire import Frame, Json, Wire, interrupts, poll, run_body, script
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

type Facts = AsyncIterator[tuple[str, str]]

CHANNELS = ["values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"]


async def one_run(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    events = asyncio.create_task(_until(wire, thread, "completed"))
    await asyncio.sleep(0.3)  # so that the stream is open on a thread that does not exist yet
    started = await _send(wire, thread, "run.start", run_body(script(("ls", {"path": "/"}), then="looked")))
    yield "`run.start` on a thread that does not exist", _answer(started)
    frames = await events
    yield "a run's methods in order of appearance", ", ".join(dict.fromkeys(frame.event for frame in frames))
    yield "namespaces", ", ".join(sorted({_place(frame) for frame in frames}))
    yield "`seq` grows", str(_seqs(frames) == sorted(set(_seqs(frames))))
    yield "... without gaps", str(_seqs(frames) == list(range(1, len(frames) + 1)))
    yield "keys of a frame", ", ".join(sorted(frames[0].data))
    for fact in _shapes(frames):
        yield fact
    yield "`agent.getTree` after the run", _answer(await _send(wire, thread, "agent.getTree", {}))
    async for fact in _replayed(wire, thread, frames):
        yield fact


def _shapes(frames: Sequence[Frame]) -> Iterator[tuple[str, str]]:
    for method in ("lifecycle", "messages", "tools"):
        yield f"kinds of `{method}`", ", ".join(dict.fromkeys(_kinds(frames, method)))
    for kind in ("message-start", "content-block-delta", "message-finish", "tool-started", "tool-finished"):
        yield f"keys of `{kind}`", ", ".join(sorted(next(_data(one) for one in frames if _kind(one) == kind)))
    said = [_data(one) for one in frames if one.event == "values"][-1]["messages"]
    yield "keys of a message in `values`", "; ".join(f"{one['type']}: {', '.join(sorted(one))}" for one in said[1:])
    yield "... the last one's content", json.dumps(said[-1]["content"])


async def _replayed(wire: Wire, thread: str, frames: Sequence[Frame]) -> Facts:
    again = await _until(wire, thread, "completed")
    yield "a new connection: known event ids only", str(set(_ids(again)) <= set(_ids(frames)))
    left_out = [frame.event for frame in frames if frame.data["event_id"] not in _ids(again)]
    yield "... frames left out", ", ".join(f"{left_out.count(one)} {one}" for one in sorted(set(left_out))) or "none"
    middle = frames[len(frames) // 2].data["seq"]
    later = await _until(wire, thread, "completed", since=middle)
    yield "`since`: only later frames", str(min(_seqs(later)) > middle)
    left_out = [one.event for one in frames if one.data["seq"] > middle and one.data["event_id"] not in _ids(later)]
    yield "... later frames left out", ", ".join(sorted(left_out)) or "none"


async def sub_agent(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    events = asyncio.create_task(_until(wire, thread, "completed"))
    pump = {"channels": ["values", "lifecycle", "input", "messages", "tools"], "namespaces": [[]], "depth": 1}
    root = asyncio.create_task(_until(wire, thread, "completed", **pump))
    await asyncio.sleep(0.3)  # as above
    await _send(wire, thread, "run.start", run_body(SUB_AGENT))
    frames = await events
    for method in ("lifecycle", "messages", "tools", "values"):
        places = dict.fromkeys(f"{_kind(one)} {_place(one)}".strip() for one in frames if one.event == method)
        yield f"sub-agent: `{method}`", ", ".join(places)
    cause = next((_data(one)["cause"] for one in frames if "cause" in _data(one)), {})
    yield "... keys of a `cause`", ", ".join(sorted(cause))
    yield "... places seen by useStream's root subscription", ", ".join(sorted({_place(one) for one in await root}))


async def paused_and_answered(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    events = asyncio.create_task(_until(wire, thread, "completed"))
    await asyncio.sleep(0.3)  # as above
    await _send(wire, thread, "run.start", run_body(ONE))
    pending = await _first_interrupt(wire, thread)
    yield "a paused thread: what waits", "batch" if "action_requests" in pending["value"] else "call"
    yield "an unknown interrupt", _answer(await _respond(wire, thread, "0" * 32, {"decisions": [APPROVE]}))
    asked = pending["id"]
    decision: Json = {"decisions": [APPROVE]} if "action_requests" in pending["value"] else APPROVE
    yield "`input.respond`", _answer(await _respond(wire, thread, asked, decision))
    frames = await events
    kinds = [frame.event if frame.event != "lifecycle" else _kind(frame) for frame in frames]
    order = [kind for kind in kinds if kind in ("input.requested", "interrupted", "running", "completed")]
    yield "order of a pause and its answer", ", ".join(order)
    yield "`input.respond` again", _answer(await _respond(wire, thread, asked, decision))


async def paused_in_a_sub_agent(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    job = {"subagent_type": "general-purpose", "description": ONE}
    events = asyncio.create_task(_until(wire, thread, "completed"))
    await asyncio.sleep(0.3)  # as above
    await _send(wire, thread, "run.start", run_body(script(("task", job))))
    pending = await _first_interrupt(wire, thread)
    batched = "action_requests" in pending["value"]
    reply = await _respond(wire, thread, pending["id"], {"decisions": [APPROVE]} if batched else APPROVE)
    yield "paused in a sub-agent: `input.respond` without its namespace", _answer(reply)
    frames = await events
    asked = [_place(frame) for frame in frames if frame.event == "input.requested"]
    yield "... place of `input.requested`", ", ".join(asked)
    places = dict.fromkeys(f"{_kind(one)} {_place(one)}".strip() for one in frames if one.event == "lifecycle")
    yield "... `lifecycle`", ", ".join(places)


async def started_while_paused(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    await _send(wire, thread, "run.start", run_body(ONE))
    await _first_interrupt(wire, thread)
    reply = await _send(wire, thread, "run.start", {"assistant_id": "agent", "input": {"decisions": [APPROVE]}})
    yield "`run.start` with decisions as input, when paused", _answer(reply)
    await wire.settled(thread)
    yield "... the command ran", str("hi" in await wire.tool_results(thread))


async def started_while_busy(wire: Wire) -> Facts:
    for strategy in ("reject", "interrupt"):
        thread = str(uuid.uuid4())
        first = (await _send(wire, thread, "run.start", run_body(SLOW)))["result"]["run_id"]
        await wire.until_run(thread, first, "running")
        body = {**run_body(script(then="second")), "multitaskStrategy": strategy, "multitask_strategy": strategy}
        yield f"`run.start` when busy, `{strategy}`", _answer(await _send(wire, thread, "run.start", body))
        await wire.settled(thread)
        runs = await wire.get(f"/threads/{thread}/runs")
        yield "... the runs end as", ", ".join(sorted(run["status"] for run in runs))


async def asked_per_call(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    await _send(wire, thread, "run.start", run_body(script([("execute", {"command": f"echo {n}"}) for n in "ab"])))
    async with wire.stream("POST", f"/threads/{thread}/stream/events", {"channels": ["input", "lifecycle"]}) as stream:
        frames = await _lifecycle(stream, "interrupted")
    asked = [frame for frame in frames if frame.event == "input.requested"]
    yield "two gated calls: `input.requested`", str(len(asked))
    yield "... keys of its data", ", ".join(sorted(asked[0].data["params"]["data"]))


async def refused(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    for method, params in (
        ("nonsense", {}),
        ("agent.getTree", {}),
        ("run.start", {}),
        ("run.start", {"assistant_id": "nobody", "input": {}}),
        ("input.respond", {}),
        ("state.get", {}),
    ):
        yield f"`{method}` with {params or 'nothing'}", _answer(await _send(wire, thread, method, params))
    reply = await wire.post(f"/threads/{thread}/commands", {"method": "run.start"})
    yield "a command without an id", f"{reply.status_code} {reply.json().get('error')}"
    reply = await wire.post(f"/threads/{thread}/stream/events", {"channels": ["nonsense"]})
    yield "an unknown channel", str(reply.status_code)


async def over_a_socket(wire: Wire) -> Facts:
    thread = str(uuid.uuid4())
    address = f"{str(wire.http.base_url).replace('http', 'ws', 1).rstrip('/')}/threads/{thread}/stream/events"
    protocols = [Subprotocol("bearer"), Subprotocol(wire.token)] if wire.token else None
    async with connect(address, subprotocols=protocols) as socket:
        subscribe = {"channels": ["messages", "lifecycle"]}
        await socket.send(json.dumps({"id": 1, "method": "subscription.subscribe", "params": subscribe}))
        yield "WebSocket: `subscription.subscribe`", _answer(json.loads(await socket.recv()))
        await socket.send(json.dumps({"id": 2, "method": "run.start", "params": run_body(script(then="hello"))}))
        heard = await _heard(socket)
        yield "WebSocket: `run.start`", _answer(next(one for one in heard if one.get("id") == 2))
        yield "... events", ", ".join(dict.fromkeys(one["method"] for one in heard if one["type"] == "event"))
        await socket.send("not json")
        yield "WebSocket: a frame that is not JSON", _answer(json.loads(await socket.recv()))


async def _heard(socket: ClientConnection) -> list[Json]:
    """All frames up to the run's end."""
    heard: list[Json] = []
    async with asyncio.timeout(20):
        async for message in socket:
            heard.append(json.loads(message))
            if heard[-1].get("method") == "lifecycle" and heard[-1]["params"]["data"]["event"] == "completed":
                break
    return heard


async def seen_from_the_other_side(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="said"))
    frames = await _until(wire, thread, "completed", seconds=3)
    yield "a run of the legacy API in the event stream", "yes" if frames else "no"


async def _until(wire: Wire, thread: str, kind: str, *, seconds: float = 20, **body: Any) -> list[Frame]:
    request = {"channels": CHANNELS, **body}
    async with wire.stream("POST", f"/threads/{thread}/stream/events", request) as stream:
        return await _lifecycle(stream, kind, seconds=seconds)


async def _lifecycle(stream: Any, kind: str, *, seconds: float = 20) -> list[Frame]:
    """The frames until the root's life cycle says so, or the time is over."""
    frames: list[Frame] = []
    try:
        async with asyncio.timeout(seconds):
            async for frame in stream:
                frames.append(frame)
                if frame.event == "lifecycle" and _kind(frame) == kind and _place(frame) == "root":
                    break
    except TimeoutError:
        pass
    return frames


async def _first_interrupt(wire: Wire, thread: str) -> Json:
    async for reply in poll(lambda: wire.http.get(f"/threads/{thread}")):
        if reply.is_success and (found := interrupts(reply.json())):
            return found[0]
    raise AssertionError("unreachable: polling ends by itself")


async def _send(wire: Wire, thread: str, method: str, params: Json) -> Json:
    reply = await wire.post(f"/threads/{thread}/commands", {"id": 1, "method": method, "params": params})
    return reply.json()


async def _respond(wire: Wire, thread: str, interrupt_id: str, response: Json) -> Json:
    params = {"interrupt_id": interrupt_id, "namespace": [], "response": response}
    return await _send(wire, thread, "input.respond", params)


def _answer(reply: Json) -> str:
    if reply.get("type") == "success":
        return f"success, {', '.join(sorted(reply['result'])) or 'empty'}"
    return str(reply.get("error") or reply.get("code") or reply)


def _data(frame: Frame) -> Json:
    return frame.data["params"]["data"]


def _kind(frame: Frame) -> str:
    return str(_data(frame).get("event", ""))


def _kinds(frames: Sequence[Frame], method: str) -> list[str]:
    return [_kind(frame) for frame in frames if frame.event == method]


def _place(frame: Frame) -> str:
    namespace = frame.data["params"]["namespace"]
    return "/".join(part.split(":")[0] for part in namespace) or "root"


def _seqs(frames: Sequence[Frame]) -> list[int]:
    return [frame.data["seq"] for frame in frames]


def _ids(frames: Sequence[Frame]) -> list[str]:
    return [frame.data["event_id"] for frame in frames]


SCENARIOS = (
    one_run, sub_agent, paused_and_answered, paused_in_a_sub_agent, started_while_paused, started_while_busy,
    asked_per_call, refused, over_a_socket, seen_from_the_other_side,
)  # fmt: skip

"""The thread object, its state and its history."""

import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
from tests.compat.scenarios.busy import SLOW
from tests.compat.scenarios.pausing import ONE
from tests.compat.wire import Json, Wire, failure, interrupts, poll, run_body, script, text

type Facts = AsyncIterator[tuple[str, str]]

LOOK = script(("ls", {"path": "/"}), then="looked")


async def new(wire: Wire) -> Facts:
    thread = (await wire.post("/threads", {})).json()
    yield "a new thread's keys", _keys(thread)
    yield "... values and status", f"{thread['values']}, {thread['status']}"
    state = await wire.http.get(f"/threads/{thread['thread_id']}/state")
    yield "... its state", f"{state.status_code}, values {state.json().get('values')}"
    yield "... its history", str(await wire.get(f"/threads/{thread['thread_id']}/history"))


async def own_id(wire: Wire) -> Facts:
    mine = str(uuid.uuid4())
    thread = (await wire.post("/threads", {"thread_id": mine})).json()
    yield "a thread id of the client's", "kept" if thread["thread_id"] == mine else "changed"
    yield "... again", str((await wire.post("/threads", {"thread_id": mine})).status_code)
    reply = await wire.post("/threads", {"thread_id": mine, "if_exists": "do_nothing"})
    yield "... again with `do_nothing`", str(reply.status_code)
    yield "... of a wrong shape", str((await wire.post("/threads", {"thread_id": "mine"})).status_code)


async def during_and_after(wire: Wire) -> Facts:
    thread = await wire.new_thread(metadata={"mark": "probe"})
    run = await wire.running(thread, SLOW)
    found = await wire.get(f"/threads/{thread}")
    yield "the thread during a run", f"{found['status']}, values {_shape(found['values'])}"
    yield "... its metadata", _keys(found["metadata"])
    await wire.until_run(thread, run)
    found = await wire.settled(thread)
    yield "the thread after a run", f"{found['status']}, values {_shape(found['values'])}"
    yield "... its keys", _keys(found)
    yield "... its interrupts", str(found["interrupts"])
    yield "... keys of its AI message", _keys(found["values"]["messages"][-1])
    yield "... keys of its run", _keys((await wire.get(f"/threads/{thread}/runs"))[0])


async def paused(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, ONE)
    found = await wire.settled(thread)
    yield "a paused thread's `values`", _shape(found["values"])
    yield "... its interrupts are a map of lists", str(isinstance(found["interrupts"], dict))
    yield "... keys of one", _keys(interrupts(found)[0])
    listed = (await wire.post("/threads/search", {"status": "interrupted", "ids": [thread]})).json()
    yield "... found by `status: interrupted`", f"{len(listed)}, {len(interrupts(listed[0])) if listed else 0} pending"


async def state_and_history(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, LOOK)
    state = await wire.get(f"/threads/{thread}/state")
    yield "the state's keys", _keys(state)
    yield "... its checkpoint's keys", _keys(state["checkpoint"])
    yield "... next", str(state["next"])
    past = (await wire.post(f"/threads/{thread}/history", {"limit": 100})).json()
    yield "history: sources, newest first", ", ".join(dict.fromkeys(one["metadata"]["source"] for one in past))
    yield "... the oldest one's values", _shape(past[-1]["values"])
    asked = next(one for one in past if one["next"])
    yield "... keys of a task in it", _keys(asked["tasks"][0])
    checkpoint = asked["checkpoint"]["checkpoint_id"]
    again = await wire.get(f"/threads/{thread}/state/{checkpoint}")
    yield "the state at a checkpoint is the history's", str(_shape(again["values"]) == _shape(asked["values"]))
    yield "an unknown checkpoint's state", _status(await wire.http.get(f"/threads/{thread}/state/{uuid.uuid4()}"))


async def edited_state(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="one"))
    todo = {"todos": [{"content": "x", "status": "pending"}]}
    reply = await wire.post(f"/threads/{thread}/state", {"values": todo})
    yield "`POST state`", f"{reply.status_code}, {_keys(reply.json())}"
    state = await wire.get(f"/threads/{thread}/state")
    yield "... todos in the state", str(len(state["values"].get("todos", ())))
    yield "... and still the messages", str(len(state["values"]["messages"]))
    yield "... todos on the thread", str(len((await wire.settled(thread))["values"].get("todos", ())))
    reply = await wire.post(f"/threads/{thread}/state", {"values": {}, "as_node": "nowhere"})
    yield "`POST state` as an unknown node", str(reply.status_code)


async def forked(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="one"))
    first = (await wire.get(f"/threads/{thread}/state"))["checkpoint"]
    await wire.wait(thread, script(then="two"))
    reply = await wire.wait(thread, script(then="three"), checkpoint={"checkpoint_id": first["checkpoint_id"]})
    yield "a run from an earlier checkpoint", failure(reply)
    answers = [text(one) for one in await wire.messages(thread) if one["type"] == "ai"]
    yield "... what the model said in the thread now", ", ".join(answers)


async def failed(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    many = script(*[("ls", {"path": "/"})] * 20)
    reply = await wire.wait(thread, many, config={"recursion_limit": 5})
    yield "a run over its `recursion_limit`", failure(reply)
    found = await wire.settled(thread)
    yield "... the thread is then", f"{found['status']}, error {_shape(found.get('error'))}"
    yield "... the run is then", (await wire.get(f"/threads/{thread}/runs"))[0]["status"]
    async with wire.run_stream(thread, many, config={"recursion_limit": 5}) as stream:
        frames = await stream.all()
    errors = [frame.data for frame in frames if frame.event == "error"]
    yield "... `error` frames of its stream", f"{len(errors)}, {_shape(errors[0]) if errors else ''}"
    yield "... the next message works", failure(await wire.wait(thread, script(then="fine")))


async def searched(wire: Wire) -> Facts:
    thread = await wire.new_thread(metadata={"probe": "search"})
    await wire.wait(thread, script(then="found me"))
    for what, body in (
        ("metadata", {"metadata": {"probe": "search"}}),
        ("`graph_id`", {"metadata": {"graph_id": "agent"}, "sort_by": "updated_at", "sort_order": "desc"}),
        ("`ids`", {"ids": [thread]}),
    ):
        found = (await wire.post("/threads/search", body)).json()
        yield f"found by {what}", str(thread in [one["thread_id"] for one in found])
    body: Json = {"ids": [thread], "select": ["thread_id"], "extract": {"last": "values.messages[-1].content"}}
    found = (await wire.post("/threads/search", body)).json()[0]
    yield "`extract`", f"{_keys(found)}: {found.get('extracted')}"
    reply = await wire.post("/threads/search", {"limit": 1})
    names = [name for name in ("x-pagination-total", "x-pagination-next") if name in reply.headers]
    yield "a page's headers", ", ".join(names) or "none"
    yield "`POST /threads/count`", str(type((await wire.post("/threads/count", {})).json()).__name__)


async def copied_and_deleted(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="original"))
    reply = await wire.post(f"/threads/{thread}/copy")
    copy = reply.json().get("thread_id")
    yield "`copy`", f"{reply.status_code}, {len(await wire.messages(copy)) if copy else 0} messages"
    yield "`DELETE`", _status(await wire.http.delete(f"/threads/{thread}"))
    yield "... then", _status(await wire.http.get(f"/threads/{thread}"))
    yield "... and again", _status(await wire.http.delete(f"/threads/{thread}"))


async def refused(wire: Wire) -> Facts:
    nowhere = str(uuid.uuid4())
    yield "an unknown thread", _status(await wire.http.get(f"/threads/{nowhere}"))
    yield "... its state", _status(await wire.http.get(f"/threads/{nowhere}/state"))
    yield "... a run on it", _status(await wire.wait(nowhere, script()))
    created = await wire.wait(nowhere, script(), if_not_exists="create")
    yield "... with `if_not_exists: create`", failure(created)
    thread = await wire.new_thread()
    yield "an unknown assistant", _status(await wire.wait(thread, script(), assistant_id="nobody"))
    yield "an unknown stream mode", _status(await wire.wait(thread, script(), stream_mode="nonsense"))
    yield "an unknown field", _status(await wire.wait(thread, script(), nonsense=1))
    yield "no assistant", _status(await wire.post(f"/threads/{thread}/runs/wait", {"input": {}}))
    errors = (await wire.http.get(f"/threads/{uuid.uuid4()}")).json()
    yield "an error's body has `detail`", str("detail" in errors)


async def stateless(wire: Wire) -> Facts:
    reply = await wire.post("/runs/wait", run_body(script(then="no thread")))
    yield "stateless `wait`", f"{reply.status_code}, {text(reply.json()['messages'][-1])}"
    place = reply.headers.get("content-location", "")
    named = re.match(r"(/threads/[^/]+)/", place)
    yield "... names its thread", str(named is not None)
    if named:
        yield "... whose thread is then", await _gone(wire, named[1])


async def _gone(wire: Wire, path: str) -> str:
    """Whether it goes within seconds."""
    try:
        async for reply in poll(lambda: wire.http.get(path), seconds=5):
            if reply.status_code == httpx.codes.NOT_FOUND:
                return "gone"
    except TimeoutError:
        pass
    return "still there"


def _keys(value: Any) -> str:
    return ", ".join(sorted(value)) if isinstance(value, dict) else type(value).__name__


def _shape(value: Any) -> str:
    """An object by its keys, with the number of messages; anything else by its type."""
    if not isinstance(value, dict):
        return "none" if value is None else type(value).__name__
    messages = value.get("messages")
    count = {"messages": f"messages ({len(messages)})"} if isinstance(messages, list) else {}
    return "{" + ", ".join(count.get(key, key) for key in sorted(value)) + "}"


def _status(reply: Any) -> str:
    return str(reply.status_code)


SCENARIOS = (
    new, own_id, during_and_after, paused, state_and_history, edited_state, forked, failed, searched,
    copied_and_deleted, refused, stateless,
)  # fmt: skip

"""What the API's description says of events and of what they tell holds for those that a server really sends."""

from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter, ValidationError
from tests.api.harness import Event, User, pending, read_events

from moorage_api.event_shapes import CLOSED, SHAPES, event_schemas
from moorage_api.sessions import SessionState

RUN, ASK = ("execute", {"command": "echo out; echo err >&2; exit 3"}), ("execute", {"command": "date"})
WRITE = ("write_file", {"file_path": "/workspace/a\u200bb.txt", "content": "x\n"})
PLAN = ("write_todos", {"todos": [{"content": "look", "status": "in_progress"}]})
FLOOD = ("execute", {"command": "head -c 200000 /dev/zero | tr '\\0' x"})


def check(event: Event) -> None:
    """Every key is described, and of the type that is described."""
    TypeAdapter[Any](SHAPES[event.type]).validate_json(orjson.dumps(event.data), strict=True, extra="forbid")


async def _answers(user: User) -> list[Event]:
    """Every kind of decision, a rule's too."""
    thread = await user.new_session()
    events = await user.play(thread, PLAN, [RUN, WRITE, ASK, RUN])
    run, write, ask, other = pending(events)
    edited = {"name": "execute", "args": {"command": "true"}}
    decisions: list[dict[str, Any]] = [
        {"interrupt_id": run["id"], "type": "approve", "remember": {"match": "same"}},
        {"interrupt_id": write["id"], "type": "reject", "message": "not there"},
        {"interrupt_id": ask["id"], "type": "respond", "message": "it is noon"},
        {"interrupt_id": other["id"], "type": "edit", "edited_action": edited},
    ]
    events += await user.resume(thread, decisions=decisions)
    return events + await user.play(thread, RUN)


async def _sub_agents(user: User) -> list[Event]:
    thread = await user.new_session()
    calls = [{"name": "write_todos", "args": PLAN[1]}, {"name": "execute", "args": RUN[1]}]
    inner = orjson.dumps({"calls": calls, "then": "inner done"}).decode()
    events = await user.play(thread, ("task", {"description": inner, "subagent_type": "general-purpose"}))
    return events + await user.resume(thread, action="continue")


async def _endings(user: User) -> list[Event]:
    """A flood, a cancelled question, and what cannot be read any more."""
    thread = await user.new_session()
    events = await user.play(thread, FLOOD)
    events += await user.resume(thread, action="continue")
    await user.play(thread, ASK)
    await user.client.post(f"/api/sessions/{thread}/cancel")
    last = (await user.client.get(f"/api/sessions/{thread}")).json()["last_seq"]
    after = events[-1].id or 0
    async with user.client.stream("GET", f"/api/sessions/{thread}/events", params={"after": after}) as reply:
        async for event in read_events(reply):
            events.append(event)
            if event.id == last:
                break
    return events + await user.stream("GET", f"/api/sessions/{thread}/events", params={"after": last + 1})


async def _of_model(user: User, model: str) -> list[Event]:
    made = await user.client.post("/assistants", json={"graph_id": "agent", "context": {"model": f"scripted:{model}"}})
    thread = await user.new_session(assistant_id=made.json()["assistant_id"])
    return await user.chat(thread, "hi")


async def test_events_are_as_described(alice: User):
    events = [*await _answers(alice), *await _sub_agents(alice), *await _endings(alice)]
    for model in ("error-401", "reasoning", "malformed-args"):
        events += await _of_model(alice, model)
    for event in events:
        check(event)
    assert {event.type for event in events} == {*SHAPES}


async def test_an_undescribed_key_is_noticed():
    check(Event(None, CLOSED, {"reason": "gap", "last_seq": 1}))
    for wrong in ({"reason": "gap", "last_seq": 1, "more": 1}, {"reason": "gap"}, {"reason": "gap", "last_seq": "1"}):
        with pytest.raises(ValidationError):
            check(Event(None, CLOSED, wrong))


async def test_state_and_approvals_are_as_described(alice: User):
    thread = await alice.new_session()
    asked = pending(await alice.play(thread, [WRITE, RUN]))
    state = await alice.client.get(f"/api/sessions/{thread}/state")
    TypeAdapter(SessionState).validate_json(state.content, strict=True, extra="forbid")
    assert state.json()["pending"] == [{**item, **_where(state.json(), thread)} for item in asked]


def _where(state: dict[str, Any], thread: str) -> dict[str, Any]:
    return {"thread_id": thread, "run_id": state["messages"][0]["run_id"], "status": "pending"}


async def test_every_event_of_the_stream_is_among_the_components(alice: User):
    document = (await alice.client.get("/openapi.json")).json()
    stream = document["paths"]["/api/chat/{thread_id}"]["post"]["responses"]["200"]["content"]["text/event-stream"]
    told = {item["properties"]["event"]["const"]: item["properties"]["data"] for item in stream["itemSchema"]["oneOf"]}
    schemas = document["components"]["schemas"]
    assert set(told) == set(SHAPES)
    assert {item["contentSchema"]["$ref"].rpartition("/")[2] for item in told.values()} <= set(schemas)
    assert {name: schemas[name] for name in event_schemas()} == event_schemas()

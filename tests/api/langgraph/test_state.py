"""The states of a thread's graph on the LangGraph wire: now, at a checkpoint, and their history."""

import uuid
from itertools import pairwise
from typing import Any

import pytest
from tests.api.harness import NewUser, User

SAYS_HI = '{"calls": [], "then": "hi there"}'
NOTHING = {
    "values": {},
    "next": [],
    "tasks": [],
    "metadata": None,
    "created_at": None,
    "checkpoint": None,
    "parent_checkpoint": None,
    "interrupts": [],
    "checkpoint_id": None,
    "parent_checkpoint_id": None,
}


async def new_thread(user: User, *messages: str) -> str:
    bare = str(uuid.uuid4())
    reply = await user.client.post("/threads", json={"thread_id": bare})
    assert reply.status_code == 200, reply.text
    for message in messages:
        await user.chat(f"{user.name}-{bare}", message)
    return bare


async def get(user: User, path: str, **query: Any) -> Any:
    reply = await user.client.get(path, params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def post(user: User, path: str, expected: int = 200, **body: Any) -> Any:
    reply = await user.client.post(path, json=body)
    assert reply.status_code == expected, reply.text
    return reply.json()


def said(state: dict[str, Any]) -> list[str]:
    return [message["content"] for message in state["values"].get("messages", [])]


async def test_a_thread_in_which_nothing_happened_has_an_empty_state(alice: User):
    thread = await new_thread(alice)
    assert await get(alice, f"/threads/{thread}/state") == NOTHING
    assert await get(alice, f"/threads/{thread}/history") == []
    assert await post(alice, f"/threads/{thread}/history") == []


async def test_the_state_after_a_run_is_at_rest(alice: User):
    thread = await new_thread(alice, SAYS_HI)
    state = await get(alice, f"/threads/{thread}/state")
    assert said(state) == [SAYS_HI, "hi there"]
    assert (state["next"], state["tasks"], state["interrupts"]) == ([], [], [])
    checkpoint = state["checkpoint"]
    assert checkpoint == {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": state["checkpoint_id"]}
    assert state["parent_checkpoint"]["checkpoint_id"] == state["parent_checkpoint_id"] != state["checkpoint_id"]
    assert (state["metadata"]["source"], state["metadata"]["thread_id"]) == ("loop", thread)
    assert await get(alice, f"/threads/alice-{thread}/state") == state
    assert await get(alice, f"/threads/{thread}/state", subgraphs="true") == state


async def test_history_goes_back_to_the_input_and_each_state_can_be_read_by_its_checkpoint(alice: User):
    thread = await new_thread(alice, SAYS_HI, SAYS_HI)
    history = await get(alice, f"/threads/{thread}/history", limit=100)
    assert [len(said(history[0])), len(said(history[-1]))] == [4, 0]
    assert history[-1]["parent_checkpoint"] is None
    for newer, older in pairwise(history):
        assert newer["parent_checkpoint_id"] == older["checkpoint_id"]
    for state in history[:: len(history) // 3]:
        assert await get(alice, f"/threads/{thread}/state/{state['checkpoint_id']}") == state
        assert await post(alice, f"/threads/{thread}/state/checkpoint", checkpoint=state["checkpoint"]) == state


async def test_history_is_of_as_much_as_was_asked_for(alice: User):
    thread = await new_thread(alice, *[SAYS_HI] * 6)
    path = f"/threads/{thread}/history"
    history = await post(alice, path, limit=1000)
    assert len(history) > 25
    assert await post(alice, path) == history[:1]
    assert await get(alice, path) == history[:10]
    assert await post(alice, path, limit=25) == history[:25]
    for before in (history[3]["checkpoint"], history[3]["checkpoint_id"]):
        assert await post(alice, path, limit=2, before=before) == history[4:6]
    assert await get(alice, path, limit=2, before=history[3]["checkpoint_id"]) == history[4:6]
    inputs = await post(alice, path, limit=100, metadata={"source": "input"})
    assert inputs == [state for state in history if state["metadata"]["source"] == "input"]
    assert len(inputs) == 6
    assert await post(alice, path, limit=5, checkpoint=history[3]["checkpoint"]) == [history[3]]


async def test_fields_of_a_state_are_selected(alice: User):
    thread = await new_thread(alice, SAYS_HI)
    state = await get(alice, f"/threads/{thread}/state")
    only_messages = {"values": {"messages": state["values"]["messages"]}}
    assert await get(alice, f"/threads/{thread}/state", select="values.messages") == only_messages
    selected = await get(alice, f"/threads/{thread}/state", select=["values.messages", "next", "checkpoint"])
    assert selected == {**only_messages, "next": [], "checkpoint": state["checkpoint"]}
    assert await post(alice, f"/threads/{thread}/history", select=["values.messages"]) == [only_messages]
    body = {"checkpoint": state["checkpoint"], "select": ["values"]}
    assert await post(alice, f"/threads/{thread}/state/checkpoint", **body) == {"values": state["values"]}
    assert (await alice.client.get(f"/threads/{thread}/state", params={"select": "bogus"})).status_code == 422


async def test_two_calls_that_wait_are_one_interrupt_of_the_last_task(alice: User):
    thread = await new_thread(alice)
    calls = [("execute", {"command": "true"}), ("execute", {"command": "false"}), ("ls", {"path": "/workspace"})]
    await alice.play(f"alice-{thread}", calls)
    state = await get(alice, f"/threads/{thread}/state")
    [batch] = state["interrupts"]
    assert [item["args"] for item in batch["value"]["action_requests"]] == [{"command": "true"}, {"command": "false"}]
    assert set(batch) == {"id", "value"}
    assert [task["interrupts"] for task in state["tasks"]] == [*[[]] * (len(state["tasks"]) - 1), [batch]]
    assert all(task["path"][0] == "__pregel_push" for task in state["tasks"])
    assert state["next"] == ["tools", "tools"]
    assert (await get(alice, f"/threads/{thread}/history", limit=1)) == [state]
    shown = await get(alice, f"/threads/{thread}")
    assert shown["interrupts"] == {state["tasks"][-1]["id"]: [batch]}


async def test_nothing_is_asked_any_more_once_it_was_cancelled(alice: User):
    thread = await new_thread(alice)
    await alice.play(f"alice-{thread}", ("execute", {"command": "true"}))
    await alice.client.post(f"/api/sessions/alice-{thread}/cancel")
    state = await get(alice, f"/threads/{thread}/state")
    assert state["interrupts"] == []
    assert all(task["interrupts"] == [] for task in state["tasks"])


async def test_an_older_checkpoint_asks_nothing_that_waits_now(alice: User):
    thread = await new_thread(alice)
    await alice.play(f"alice-{thread}", ("execute", {"command": "true"}))
    older = (await get(alice, f"/threads/{thread}/history"))[1]
    assert older["interrupts"] == []
    state = await get(alice, f"/threads/{thread}/state/{older['checkpoint_id']}")
    assert state["interrupts"] == []


async def test_a_sub_agent_s_states_are_found_by_its_namespace(alice: User):
    thread = await new_thread(alice)
    brief = '{"calls": [{"name": "execute", "args": {"command": "true"}}], "then": "sub done"}'
    await alice.play(f"alice-{thread}", ("task", {"subagent_type": "general-purpose", "description": brief}))
    state = await get(alice, f"/threads/{thread}/state")
    ns = f"tools:{state['tasks'][-1]['id']}"
    inner = await post(alice, f"/threads/{thread}/history", limit=10, checkpoint={"checkpoint_ns": ns})
    assert inner[0]["checkpoint"]["checkpoint_ns"] == ns
    assert said(inner[0])[0] == brief
    place = {"thread_id": thread, "checkpoint_ns": ns}
    assert said(await post(alice, f"/threads/{thread}/state/checkpoint", checkpoint=place))[0] == brief


async def test_a_checkpoint_that_is_not_there_is_404(alice: User):
    thread, other = await new_thread(alice, SAYS_HI), await new_thread(alice, SAYS_HI)
    elsewhere = (await get(alice, f"/threads/{other}/state"))["checkpoint_id"]
    for checkpoint_id in (elsewhere, str(uuid.uuid4()), "nonsense", "%00"):
        reply = await alice.client.get(f"/threads/{thread}/state/{checkpoint_id}")
        assert (reply.status_code, reply.json()["code"]) == (404, "unknown_checkpoint")
    body = {"checkpoint": {"checkpoint_id": elsewhere}}
    assert (await post(alice, f"/threads/{thread}/state/checkpoint", 404, **body))["code"] == "unknown_checkpoint"


@pytest.mark.parametrize("path", ["state/checkpoint", "history", "state"])
async def test_a_checkpoint_of_another_thread_is_refused(new_user: NewUser, path: str):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    mine, other = await new_thread(al, SAYS_HI), await new_thread(al)
    theirs = f"al-ice-{await new_thread(al_ice, SAYS_HI)}"
    for thread_id in (other, f"al-{other}", theirs, "nonsense"):
        body: dict[str, Any] = {"checkpoint": {"thread_id": thread_id, "checkpoint_ns": ""}}
        reply = await al.client.post(f"/threads/{mine}/{path}", json=body)
        assert reply.status_code == 422
        assert "checkpoint.thread_id" in reply.json()["detail"]


async def test_the_state_of_others_is_not_read(new_user: NewUser):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = f"al-ice-{await new_thread(al_ice, SAYS_HI)}"
    for path in ("state", f"state/{uuid.uuid4()}", "history", "storage"):
        assert (await al.client.get(f"/threads/{theirs}/{path}")).status_code == 403
    for path in ("state", "state/checkpoint", "history", "copy"):
        assert (await al.client.post(f"/threads/{theirs}/{path}", json={"checkpoint": {}})).status_code == 403


async def test_a_change_of_the_state_is_a_state_of_its_own(alice: User):
    thread = await new_thread(alice, SAYS_HI)
    before = await get(alice, f"/threads/{thread}/state")
    todos = [{"content": "look", "status": "pending"}]
    made = await post(alice, f"/threads/{thread}/state", values={"todos": todos})
    state = await get(alice, f"/threads/{thread}/state")
    assert made["checkpoint"] == made["configurable"] == state["checkpoint"]
    assert made["checkpoint_id"] == state["checkpoint_id"]
    assert (state["values"]["todos"], state["parent_checkpoint_id"]) == (todos, before["checkpoint_id"])
    assert state["metadata"]["source"] == "update"
    assert said(state) == said(before)


async def test_a_change_may_start_from_an_older_checkpoint_and_the_conversation_goes_on_from_there(alice: User):
    thread = await new_thread(alice, SAYS_HI, SAYS_HI)
    first = next(item for item in await get(alice, f"/threads/{thread}/history", limit=100) if len(said(item)) == 2)
    message = {"role": "user", "content": "n=2"}
    await post(alice, f"/threads/{thread}/state", values={"messages": [message]}, checkpoint=first["checkpoint"])
    state = await get(alice, f"/threads/{thread}/state")
    assert said(state) == [SAYS_HI, "hi there", "n=2"]
    assert state["parent_checkpoint_id"] == first["checkpoint_id"]
    await alice.chat(f"alice-{thread}", SAYS_HI)
    assert said(await get(alice, f"/threads/{thread}/state")) == [SAYS_HI, "hi there", "n=2", SAYS_HI, "hi there"]


@pytest.mark.parametrize(
    "body",
    [
        {"values": {}, "as_node": "bogus"},
        {"values": {"messages": "\u0007", "todos": "nonsense"}, "as_node": "model", "bogus": 1},
        {"values": {"messages": [{"lc": 1, "type": "constructor", "id": ["x"], "kwargs": {}}]}},
        {"values": {"messages": [{"type": "bogus"}]}},
        {"values": {"files": {"/a.txt": "what no graph of ours keeps in its state"}}},
        {"values": {"_summarization_event": {}}},
        {"values": {}, "checkpoint": {"checkpoint_ns": "tools:x"}},
        {"values": {}, "checkpoint_id": "nonsense"},
        {"values": []},
    ],
)
async def test_a_change_that_cannot_be_made_is_refused_and_changes_nothing(alice: User, body: dict[str, Any]):
    thread = await new_thread(alice, SAYS_HI)
    before = await get(alice, f"/threads/{thread}/state")
    reply = await alice.client.post(f"/threads/{thread}/state", json=body)
    assert reply.status_code in (400, 404, 422), reply.text
    assert await get(alice, f"/threads/{thread}/state") == before
    assert (await get(alice, f"/threads/{thread}"))["status"] == "idle"


async def test_a_message_is_removed_or_replaced_by_its_id(alice: User):
    thread = await new_thread(alice, SAYS_HI)
    human, ai = (await get(alice, f"/threads/{thread}/state"))["values"]["messages"]
    removed = {"type": "remove", "id": ai["id"]}
    replaced = {"type": "human", "content": "said better", "id": human["id"]}
    await post(alice, f"/threads/{thread}/state", values={"messages": [removed, replaced]})
    assert said(await get(alice, f"/threads/{thread}/state")) == ["said better"]
    await post(alice, f"/threads/{thread}/state", values={"messages": None})
    assert said(await get(alice, f"/threads/{thread}/state")) == ["said better"]


async def test_the_state_of_a_new_thread_can_be_given(alice: User):
    thread = await new_thread(alice)
    await post(alice, f"/threads/{thread}/state", values={"messages": [{"type": "human", "content": "hi"}]})
    assert said(await get(alice, f"/threads/{thread}")) == ["hi"]


async def test_what_waits_for_approval_goes_on_waiting_when_the_state_is_changed(alice: User):
    thread = await new_thread(alice)
    await alice.play(f"alice-{thread}", ("execute", {"command": "echo approved"}), then="ran it")
    [before] = (await get(alice, f"/threads/{thread}/state"))["interrupts"]
    await post(alice, f"/threads/{thread}/state", values={"todos": [{"content": "look", "status": "pending"}]})
    state = await get(alice, f"/threads/{thread}/state")
    assert state["interrupts"] == state["tasks"][-1]["interrupts"] == [before]
    await alice.resume(f"alice-{thread}", action="continue")
    assert said(await get(alice, f"/threads/{thread}/state"))[-1] == "ran it"
    assert "approved" in said(await get(alice, f"/threads/{thread}/state"))[-2]

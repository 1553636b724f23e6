"""Threads on the LangGraph wire: made, changed, found, copied and removed by clients that know LangGraph's server."""

import uuid
from typing import Any

import httpx
import pytest
from tests.api.harness import NewUser, Server, User

SAYS_HI = '{"calls": [], "then": "hi there"}'


async def post(user: User, path: str, expected: int = 200, **body: Any) -> Any:
    reply = await user.client.post(path, json=body)
    assert reply.status_code == expected, reply.text
    return reply.json() if reply.content else None


async def get(user: User, path: str, **query: Any) -> Any:
    reply = await user.client.get(path, params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_a_new_thread_looks_as_clients_expect(alice: User):
    thread = await post(alice, "/threads", metadata={"graph_id": "agent"})
    assert thread["thread_id"].startswith("alice-")
    assert thread["metadata"] == {"graph_id": "agent"}
    assert thread | {"status": "idle", "config": {}, "values": None, "error": None, "interrupts": {}} == thread
    assert thread["created_at"] == thread["updated_at"] == thread["state_updated_at"]


async def test_a_client_may_make_up_a_thread_s_id_and_both_its_forms_name_the_same_thread(alice: User):
    bare = str(uuid.uuid4())
    made = await post(alice, "/threads", thread_id=bare, metadata={"n": 1})
    assert made["thread_id"] == bare
    for form in (bare, f"alice-{bare}"):
        assert await get(alice, f"/threads/{form}") == made
        assert (await post(alice, "/threads/search", ids=[form])) == [made]
        assert await post(alice, "/threads", thread_id=form, if_exists="do_nothing") == made
    assert (await alice.client.get(f"/api/sessions/alice-{bare}")).status_code == 200


async def test_a_full_id_of_one_s_own_stays_the_thread_s_name(alice: User):
    full = f"alice-{uuid.uuid4()}"
    assert (await post(alice, "/threads", thread_id=full))["thread_id"] == full
    assert (await get(alice, f"/threads/{full.removeprefix('alice-')}"))["thread_id"] == full


async def test_an_id_that_is_taken_is_a_conflict_unless_the_client_says_otherwise(alice: User):
    bare = str(uuid.uuid4())
    await post(alice, "/threads", thread_id=bare, metadata={"n": 1})
    assert (await post(alice, "/threads", 409, thread_id=bare))["code"] == "thread_exists"
    assert (await post(alice, "/threads", 409, thread_id=bare, if_exists="raise"))["code"] == "thread_exists"
    kept = await post(alice, "/threads", thread_id=bare, metadata={"n": 2}, if_exists="do_nothing")
    assert kept["metadata"] == {"n": 1}


async def test_the_same_bare_uuid_is_each_user_s_own_thread(new_user: NewUser):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    bare = str(uuid.uuid4())
    await post(al, "/threads", thread_id=bare, metadata={"of": "al"})
    await post(al_ice, "/threads", thread_id=bare, metadata={"of": "al-ice"})
    assert (await get(al, f"/threads/{bare}"))["metadata"] == {"of": "al"}
    assert (await get(al_ice, f"/threads/{bare}"))["metadata"] == {"of": "al-ice"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/threads", {"thread_id": "{theirs}"}),
        ("/threads", {"thread_id": "{theirs}", "if_exists": "do_nothing"}),
        ("/threads", {"thread_id": "nonsense"}),
        ("/threads/search", {"ids": ["{theirs}"]}),
        ("/threads/prune", {"thread_ids": ["{theirs}"]}),
        ("/threads/prune", {"thread_ids": ["{theirs}"], "strategy": "keep_latest"}),
    ],
)
async def test_ids_of_others_in_a_body_are_refused(new_user: NewUser, path: str, body: dict[str, Any]):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = (await post(al_ice, "/threads"))["thread_id"]
    text = httpx.Request("POST", "http://x", json=body).content.decode().replace("{theirs}", theirs)
    reply = await al.client.post(path, content=text, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["code"]) == (403, "thread_access_denied")
    assert (await al_ice.client.get(f"/threads/{theirs}")).status_code == 200


async def test_metadata_is_merged_key_by_key(alice: User):
    thread = await post(alice, "/threads", metadata={"a": 1, "b": {"x": 1}})
    path = f"/threads/{thread['thread_id']}"
    reply = await alice.client.patch(path, json={"metadata": {"b": {"y": 2}, "c": 3}})
    changed = reply.json()
    assert changed["metadata"] == {"a": 1, "b": {"y": 2}, "c": 3}
    assert changed["updated_at"] > thread["updated_at"]
    reply = await alice.client.patch(path, json={"metadata": {"d": 4}}, headers={"prefer": "return=minimal"})
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await get(alice, path))["metadata"]["d"] == 4


async def test_metadata_has_an_end(alice: User):
    thread = await post(alice, "/threads", metadata={"a": "x" * 40_000})
    reply = await alice.client.patch(f"/threads/{thread['thread_id']}", json={"metadata": {"b": "x" * 40_000}})
    assert (reply.status_code, reply.json()["code"]) == (422, "metadata_too_large")
    assert (await post(alice, "/threads", 422, metadata={"a": "x" * 70_000}))["code"] == "metadata_too_large"
    assert "b" not in (await get(alice, f"/threads/{thread['thread_id']}"))["metadata"]


async def test_a_thread_s_life_is_shown_when_asked_for(alice: User):
    thread = await post(alice, "/threads", ttl={"ttl": 60, "strategy": "keep_latest"})
    path = f"/threads/{thread['thread_id']}"
    assert "ttl" not in await get(alice, path)
    ttl = (await get(alice, path, include="ttl"))["ttl"]
    assert (ttl["ttl_minutes"], ttl["strategy"]) == (60, "keep_latest")
    await alice.client.patch(path, json={"ttl": 90})
    ttl = (await get(alice, path, include="ttl"))["ttl"]
    assert (ttl["ttl_minutes"], ttl["strategy"]) == (90, "delete")


async def test_a_thread_shows_what_its_graph_holds(alice: User):
    thread = await post(alice, "/threads")
    await alice.chat(thread["thread_id"], SAYS_HI)
    shown = await get(alice, f"/threads/{thread['thread_id']}")
    human, ai = shown["values"]["messages"]
    assert (human["type"], human["content"]) == ("human", SAYS_HI)
    assert (ai["type"], ai["content"], ai["tool_calls"], ai["invalid_tool_calls"]) == ("ai", "hi there", [], [])
    assert (shown["status"], shown["config"], shown["interrupts"]) == ("idle", {"configurable": {}}, {})


async def test_why_the_last_run_failed_is_shown_in_the_thread_and_in_lists(alice: User):
    thread = await post(alice, "/threads", metadata={"kind": "failed"})
    many = {"messages": [{"role": "user", "content": '{"calls": [{"name": "ls", "args": {"path": "/workspace"}}]}'}]}
    body = {"assistant_id": "agent", "input": many, "config": {"recursion_limit": 1}}
    await alice.client.post(f"/threads/{thread['thread_id']}/runs/wait", json=body)
    shown = await get(alice, f"/threads/{thread['thread_id']}")
    [listed] = await post(alice, "/threads/search", metadata={"kind": "failed"})
    for item in (shown, listed):
        assert (item["status"], item["error"]["error"]) == ("error", "GraphRecursionError")


async def test_a_list_shows_messages_as_the_state_does(alice: User):
    thread = await post(alice, "/threads", metadata={"kind": "listed"})
    await alice.play(thread["thread_id"], ("ls", {"path": "/workspace"}), then="looked")
    exact = (await get(alice, f"/threads/{thread['thread_id']}"))["values"]["messages"]
    [listed] = await post(alice, "/threads/search", metadata={"kind": "listed"})
    kept = ("type", "id", "content", "tool_calls", "tool_call_id", "status")
    for theirs, ours in zip(exact, listed["values"]["messages"], strict=True):
        assert {key: theirs.get(key) for key in kept} == {key: ours.get(key) for key in kept}
    assert [message["name"] for message in listed["values"]["messages"] if message["type"] == "tool"] == ["ls"]


async def test_what_waits_for_approval_is_one_batch_in_the_thread_and_in_lists(alice: User):
    thread = await post(alice, "/threads", metadata={"kind": "waiting"})
    calls = [("execute", {"command": "true"}), ("execute", {"command": "false"})]
    await alice.play(thread["thread_id"], calls)
    shown = await get(alice, f"/threads/{thread['thread_id']}")
    [listed] = await post(alice, "/threads/search", metadata={"kind": "waiting"}, status="interrupted")
    for interrupts in (shown["interrupts"], listed["interrupts"]):
        [[batch]] = interrupts.values()
        assert [item["args"]["command"] for item in batch["value"]["action_requests"]] == ["true", "false"]
    await alice.client.post(f"/api/sessions/{thread['thread_id']}/cancel")
    assert (await get(alice, f"/threads/{thread['thread_id']}"))["interrupts"] == {}


async def test_threads_are_found_sorted_and_paged(new_user: NewUser):
    pia = await new_user("pia")
    for number in range(5):
        await post(pia, "/threads", metadata={"n": number, "even": number % 2 == 0})
    reply = await pia.client.post("/threads/search", json={"limit": 2, "metadata": {"even": True}})
    assert [item["metadata"]["n"] for item in reply.json()] == [4, 2]
    assert (reply.headers["x-pagination-total"], reply.headers["x-pagination-next"]) == ("3", "2")
    reply = await pia.client.post("/threads/search", json={"limit": 2, "offset": 2, "metadata": {"even": True}})
    assert [item["metadata"]["n"] for item in reply.json()] == [0]
    assert reply.headers["x-pagination-total"] == "3"
    assert "x-pagination-next" not in reply.headers
    oldest = await post(pia, "/threads/search", sort_by="created_at", sort_order="asc", limit=1)
    assert oldest[0]["metadata"]["n"] == 0
    assert await post(pia, "/threads/count") == 5
    assert await post(pia, "/threads/count", metadata={"even": True}, status="idle") == 3


@pytest.mark.parametrize("sort_by", ["thread_id", "status", "created_at", "updated_at", "state_updated_at"])
async def test_every_order_goes_both_ways(alice: User, sort_by: str):
    for _ in range(2):
        await post(alice, "/threads")
    up = await post(alice, "/threads/search", sort_by=sort_by, sort_order="asc", limit=1000)
    down = await post(alice, "/threads/search", sort_by=sort_by, sort_order="desc", limit=1000)
    keys = [item[sort_by].removeprefix("alice-") for item in up]
    assert keys == sorted(keys)
    assert [item[sort_by].removeprefix("alice-") for item in down] == sorted(keys, reverse=True)


async def test_fields_are_selected_and_extracted(alice: User):
    thread = await post(alice, "/threads", metadata={"kind": "extracted"})
    await alice.chat(thread["thread_id"], SAYS_HI)
    paths = {"last": "values.messages[-1].content", "kind": "metadata.kind", "none": "values.nothing[0]"}
    where = {"metadata": {"kind": "extracted"}}
    [found] = await post(alice, "/threads/search", select=["thread_id", "status"], extract=paths, **where)
    assert found == {
        "thread_id": thread["thread_id"],
        "status": "idle",
        "extracted": {"last": "hi there", "kind": "extracted", "none": None},
    }
    [found] = await post(alice, "/threads/search", select=["metadata"], **where)
    assert found == {"metadata": {"kind": "extracted"}}


@pytest.mark.parametrize(
    "body",
    [
        {"status": "bogus"},
        {"limit": 5000},
        {"limit": 0},
        {"offset": -1},
        {"sort_by": "bogus"},
        {"select": ["bogus"]},
        {"extract": {"a": "secrets.x"}},
        {"extract": {"a": "values..x"}},
        {"extract": {"a": "values[x]"}},
        {"extract": {str(n): "values.x" for n in range(11)}},
        {"values": {"messages": []}},
        {"bogus": 1},
    ],
)
async def test_a_search_that_cannot_be_meant_is_refused(alice: User, body: dict[str, Any]):
    assert (await alice.client.post("/threads/search", json=body)).status_code == 422


async def test_a_copy_has_the_history_and_goes_its_own_way(alice: User):
    thread = await post(alice, "/threads", metadata={"a": 1})
    await alice.chat(thread["thread_id"], SAYS_HI)
    copy = await post(alice, f"/threads/{thread['thread_id']}/copy")
    assert (copy["status"], copy["metadata"]) == ("idle", {"a": 1})
    await alice.chat(copy["thread_id"], SAYS_HI)
    assert len((await get(alice, f"/threads/{copy['thread_id']}"))["values"]["messages"]) == 4
    assert len((await get(alice, f"/threads/{thread['thread_id']}"))["values"]["messages"]) == 2


async def test_pruning_keeps_the_state_and_forgets_how_it_came_about(alice: User):
    thread = await post(alice, "/threads")
    for _ in range(2):
        await alice.chat(thread["thread_id"], SAYS_HI)
    path = f"/threads/{thread['thread_id']}"
    before, storage = await get(alice, path), await get(alice, f"{path}/storage")
    pruned = await post(alice, "/threads/prune", thread_ids=[thread["thread_id"]], strategy="keep_latest")
    assert pruned == {"pruned_count": 1}
    assert await get(alice, path) == before
    assert len(await get(alice, f"{path}/history", limit=100)) == 1
    assert (await get(alice, f"{path}/storage"))["total_bytes"] < storage["total_bytes"]
    await alice.chat(thread["thread_id"], SAYS_HI)
    assert len((await get(alice, path))["values"]["messages"]) == 6


async def test_pruned_threads_are_gone_and_counted_once(alice: User):
    threads = [(await post(alice, "/threads"))["thread_id"] for _ in range(2)]
    pruned = await post(alice, "/threads/prune", thread_ids=[*threads, threads[0], str(uuid.uuid4())])
    assert pruned == {"pruned_count": 2}
    for thread in threads:
        assert (await alice.client.get(f"/threads/{thread}")).status_code == 404
    assert await post(alice, "/threads/prune", thread_ids=[]) == {"pruned_count": 0}


async def test_storage_is_counted_by_channel(alice: User):
    thread = await post(alice, "/threads")
    path = f"/threads/{thread['thread_id']}/storage"
    assert (await get(alice, path))["total_bytes"] == 0
    await alice.chat(thread["thread_id"], SAYS_HI)
    storage = await get(alice, path)
    assert storage["checkpoints"]["count"] > 0
    assert storage["channel_values"]["by_channel"]
    parts = ("checkpoints", "channel_values", "pending_writes")
    assert storage["total_bytes"] == sum(storage[part]["bytes"] for part in parts)


async def test_a_deleted_thread_is_gone_with_its_workspace(server: Server, alice: User):
    thread = (await post(alice, "/threads"))["thread_id"]
    await alice.chat(thread, SAYS_HI)
    reply = await alice.client.delete(f"/threads/{thread}")
    assert (reply.status_code, reply.content) == (204, b"")
    assert (await alice.client.get(f"/threads/{thread}")).status_code == 404
    assert (await alice.client.delete(f"/threads/{thread}")).status_code == 404
    assert not list(server.workspaces.rglob(f"*{thread}*"))


async def test_a_thread_may_be_given_its_first_state(alice: User):
    hi = {"type": "human", "content": "hi"}
    todos = [{"content": "look", "status": "pending"}]
    steps = [({"messages": [hi]}, "__input__"), ({"messages": [hi]}, "__start__"), ({"todos": todos}, "model")]
    supersteps = [{"updates": [{"values": values, "command": None, "as_node": node}]} for values, node in steps]
    thread = await post(alice, "/threads", supersteps=supersteps)
    assert [message["content"] for message in thread["values"]["messages"]] == ["hi"]
    assert thread["values"]["todos"] == todos
    await alice.chat(thread["thread_id"], SAYS_HI)
    shown = await get(alice, f"/threads/{thread['thread_id']}")
    assert [message["content"] for message in shown["values"]["messages"]] == ["hi", SAYS_HI, "hi there"]


@pytest.mark.parametrize(
    "updates",
    [
        [],
        [{"values": {}, "as_node": "model"}] * 2,
        [{"values": {}, "as_node": "model", "command": {"goto": "tools"}}],
        [{"values": {}, "as_node": "bogus"}],
        [{"values": {"messages": [{"type": "bogus"}]}, "as_node": "model"}],
    ],
)
async def test_a_first_state_that_cannot_be_makes_no_thread(alice: User, updates: list[Any]):
    bare = str(uuid.uuid4())
    reply = await alice.client.post("/threads", json={"thread_id": bare, "supersteps": [{"updates": updates}]})
    assert reply.status_code in (400, 422)
    assert (await alice.client.get(f"/threads/{bare}")).status_code == 404

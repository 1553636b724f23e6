"""Assistants on the LangGraph wire: saved, changed, run and deleted by clients that know LangGraph's server."""

import uuid
from typing import Any

import pytest
from tests.api.harness import NewUser, User, only, pending

AGENT = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
FIELDS = {
    "assistant_id", "graph_id", "config", "context", "metadata", "name", "created_at", "updated_at", "version",
    "description",
}  # fmt: skip


async def post(user: User, path: str, expected: int = 200, **body: Any) -> Any:
    reply = await user.client.post(path, json=body)
    assert reply.status_code == expected, reply.text
    return reply.json()


async def get(user: User, path: str, expected: int = 200, **query: Any) -> Any:
    reply = await user.client.get(path, params=query)
    assert reply.status_code == expected, reply.text
    return reply.json()


async def patch(user: User, assistant: Any, expected: int = 200, **body: Any) -> Any:
    reply = await user.client.patch(f"/assistants/{assistant['assistant_id']}", json=body)
    assert reply.status_code == expected, reply.text
    return reply.json()


async def create(user: User, **body: Any) -> Any:
    return await post(user, "/assistants", **{"graph_id": "agent", **body})


async def told(user: User, assistant_id: str) -> str:
    """What the assistant says of its instruction and tools when a session of it is asked."""
    thread = await user.new_session(assistant_id=assistant_id)
    return only(await user.chat(thread, "what were you told?"), "message_complete")["final_content"]


async def test_a_new_assistant_looks_as_clients_expect(alice: User):
    made = await create(alice, name="mine", description="d", context={"tools": ["ls"]}, metadata={"a": 1})
    assert set(made) == FIELDS
    assert made | {"graph_id": "agent", "name": "mine", "description": "d", "metadata": {"a": 1}, "version": 1} == made
    assert made["context"] == {"tools": ["ls"]}
    assert made["config"] == {"configurable": {"tools": ["ls"]}}
    assert await get(alice, f"/assistants/{made['assistant_id']}") == made


async def test_the_older_name_of_the_context_is_understood(alice: User):
    config = {"configurable": {"tools": ["ls"]}, "tags": ["x"], "recursion_limit": 50}
    made = await create(alice, config=config)
    assert (made["config"], made["context"], made["name"]) == (config, {"tools": ["ls"]}, "Untitled")
    again = await patch(alice, made, config=made["config"], context=made["context"])
    assert (again["config"], again["version"]) == (config, 2)
    refused = await post(
        alice, "/assistants", 400, graph_id="agent", context={"tools": []}, config={"configurable": {"tools": ["ls"]}}
    )
    assert refused["code"] == "two_contexts"


async def test_a_client_may_make_up_the_id(alice: User):
    chosen = str(uuid.uuid4())
    made = await create(alice, assistant_id=chosen)
    assert made["assistant_id"] == chosen
    assert (await post(alice, "/assistants", 409, graph_id="agent", assistant_id=chosen))["code"] == "assistant_exists"
    assert await create(alice, assistant_id=chosen, if_exists="do_nothing") == made
    await post(alice, "/assistants", 422, graph_id="agent", assistant_id="mine")


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ({"graph_id": "nope"}, 404, "agent, orchestrator"),
        ({"context": {"colour": "red"}}, 422, "colour"),
        ({"context": {"thread_id": "alice-x"}}, 422, "thread_id"),
        ({"config": {"configurable": {"checkpoint_id": "x"}}}, 422, "checkpoint_id"),
        ({"config": {"configurable": {"user_id": "bob"}}}, 422, "user_id"),
        ({"config": {"callbacks": []}}, 422, "callbacks"),
        ({"context": {"sandbox_profile": "huge"}}, 422, "there are: default"),
        ({"context": {"model": "ollama:qwen3"}}, 422, "may be chosen here"),
        ({"context": {"model": "openai:x"}}, 422, "may be chosen here"),
        ({"context": {"tools": ["rm"]}}, 422, "unknown tool"),
        ({"context": {"approvals": {"execute": "allow"}}}, 422, "APPROVALS_ALLOW_AUTO"),
        ({"metadata": {"x": "x" * 20_000}}, 422, "metadata"),
        ({"owner_id": "bob"}, 422, "owner_id"),
    ],
)
async def test_what_cannot_be_saved_is_refused_and_named(alice: User, body: Any, status: int, named: str):
    reply = await alice.client.post("/assistants", json={"graph_id": "agent", **body})
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert named in reply.text


async def test_the_systems_assistants_go_by_name_and_by_uuid_and_cannot_be_changed(alice: User):
    shown = await get(alice, "/assistants/agent")
    assert (shown["assistant_id"], shown["name"], shown["metadata"]) == (AGENT, "agent", {"created_by": "system"})
    for form in ("agent", AGENT):
        assert await get(alice, f"/assistants/{form}") == shown
        assert [item["version"] for item in await post(alice, f"/assistants/{form}/versions")] == [1]
        for reply in (
            await alice.client.patch(f"/assistants/{form}", json={"name": "mine"}),
            await alice.client.delete(f"/assistants/{form}"),
            await alice.client.post(f"/assistants/{form}/latest", json={"version": 1}),
        ):
            assert (reply.status_code, reply.json()["code"]) == (403, "system_assistant")


async def test_a_list_is_paged_and_selected(new_user: NewUser):
    dora = await new_user("dora")
    for number in range(2):
        await create(dora, name=f"n{number}")
    reply = await dora.client.post("/assistants/search", json={"limit": 3, "select": ["name", "version"]})
    names = ["n1", "n0", "agent"]
    assert reply.json() == [{"name": name, "version": 1} for name in names]
    assert (reply.headers["x-pagination-total"], reply.headers["x-pagination-next"]) == ("4", "3")
    reply = await dora.client.post("/assistants/search", json={"offset": 3, "limit": 100})
    assert [item["name"] for item in reply.json()] == ["orchestrator", "coding", "web", "file", "deep"]
    assert all(set(item) == FIELDS for item in reply.json())
    assert reply.headers["x-pagination-total"] == "8"
    assert "x-pagination-next" not in reply.headers
    assert await post(dora, "/assistants/count") == 8
    assert await post(dora, "/assistants/count", name="N1") == 1


async def test_a_ui_finds_the_systems_assistant_of_a_graph(alice: User):
    await create(alice, name="not this one")
    found = await post(alice, "/assistants/search", graph_id="agent", limit=100)
    assert [item["assistant_id"] for item in found if item["metadata"].get("created_by") == "system"] == [AGENT]
    assert (await post(alice, "/assistants/search", 404, graph_id="nope"))["code"] == "unknown_graph"


async def test_each_change_is_a_version_that_can_come_back(alice: User):
    made = await create(alice, name="one", context={"tools": ["ls"]}, metadata={"a": 1})
    changed = await patch(alice, made, name="two", context={"tools": []}, metadata={"b": 2})
    assert (changed["version"], changed["metadata"], changed["context"]) == (2, {"a": 1, "b": 2}, {"tools": []})
    versions = await post(alice, f"/assistants/{made['assistant_id']}/versions")
    assert [(item["version"], item["name"]) for item in versions] == [(2, "two"), (1, "one")]
    assert set(versions[0]) == FIELDS - {"updated_at"}
    latest = await post(alice, f"/assistants/{made['assistant_id']}/latest", version=1)
    assert (latest["version"], latest["name"], latest["context"]) == (1, "one", {"tools": ["ls"]})
    await post(alice, f"/assistants/{made['assistant_id']}/latest", 404, version=9)


OPERATIONS = [
    ("GET", "", None), ("PATCH", "", {"name": "stolen"}), ("DELETE", "", None), ("DELETE", "?delete_threads=1", None),
    ("GET", "/graph", None), ("GET", "/schemas", None), ("GET", "/subgraphs", None), ("GET", "/subgraphs/tools", None),
    ("POST", "/versions", {}), ("POST", "/latest", {"version": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), OPERATIONS)
async def test_anothers_assistant_is_not_there(new_user: NewUser, method: str, path: str, body: Any):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await create(al_ice, name="theirs")
    reply = await al.client.request(method, f"/assistants/{theirs['assistant_id']}{path}", json=body)
    assert (reply.status_code, reply.json()["code"]) == (404, "unknown_assistant")
    assert await get(al_ice, f"/assistants/{theirs['assistant_id']}") == theirs


async def test_nobody_can_list_or_use_anothers_assistant(new_user: NewUser):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await create(al_ice, name="theirs")
    listed = await post(al, "/assistants/search", limit=1000)
    assert theirs["assistant_id"] not in [item["assistant_id"] for item in listed]
    reply = await al.client.post("/api/sessions", json={"assistant_id": theirs["assistant_id"]})
    assert (reply.status_code, reply.json()["code"]) == (404, "unknown_assistant")


async def test_a_run_follows_the_instruction_and_the_tools_of_its_assistant(alice: User):
    context = {"model": "scripted:told", "instruction": "Speak like a pirate.", "tools": ["ls", "execute"]}
    made = await create(alice, context=context)
    assert await told(alice, made["assistant_id"]) == ('I was told: "Speak like a pirate.". My tools: execute, ls.')
    await patch(alice, made, context={**context, "tools": []})
    assert (await told(alice, made["assistant_id"])).endswith("My tools: none.")


async def test_a_run_of_the_wire_is_by_the_assistant_that_it_names(alice: User):
    made = await create(alice, context={"model": "scripted:told", "instruction": "Be brief.", "tools": ["ls"]})
    thread = await post(alice, "/threads")
    said = {"messages": [{"role": "user", "content": "what were you told?"}]}
    run = {"assistant_id": made["assistant_id"], "input": said}
    state = await post(alice, f"/threads/{thread['thread_id']}/runs/wait", **run)
    assert state["messages"][-1]["content"] == 'I was told: "Be brief.". My tools: ls.'
    shown = await get(alice, f"/threads/{thread['thread_id']}")
    named = {"graph_id": "agent", "assistant_id": made["assistant_id"]}
    assert shown["metadata"] | named == shown["metadata"]


async def test_a_run_of_the_wire_names_nobody_elses_assistant(new_user: NewUser):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await create(al_ice)
    thread = await post(al, "/threads")
    path = f"/threads/{thread['thread_id']}/runs"
    reply = await post(al, path, 404, assistant_id=theirs["assistant_id"], input={"messages": []})
    assert reply["code"] == "unknown_assistant"
    assert await get(al, path) == []


async def test_the_next_run_of_a_session_is_by_the_latest_version(alice: User):
    made = await create(alice, context={"tools": ["ls", "execute"]})
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    [asked] = pending(await alice.play(thread, ("execute", {"command": "touch ran"})))
    await patch(alice, made, context={"tools": ["ls"]})
    events = await alice.resume(thread, decisions=[{"interrupt_id": asked["id"], "type": "approve"}])
    assert "not available" in only(events, "tool_result")["result"]


async def test_a_reading_tool_asks_when_the_assistant_says_so(alice: User):
    made = await create(alice, context={"approvals": {"ls": "ask"}})
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    [asked] = pending(await alice.play(thread, ("ls", {"path": "/workspace"})))
    events = await alice.resume(thread, decisions=[{"interrupt_id": asked["id"], "type": "approve"}])
    assert only(events, "tool_result")["status"] == "success"


async def test_a_run_keeps_to_the_recursion_limit_of_its_assistant(alice: User):
    made = await create(alice, config={"recursion_limit": 3})
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    events = await alice.play(thread, *[("ls", {"path": "/workspace"})] * 3)
    assert only(events, "error")["code"] == "step_limit"


async def test_a_run_of_an_assistant_that_is_gone_says_so(alice: User):
    made = await create(alice)
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    assert (await alice.client.delete(f"/assistants/{made['assistant_id']}")).status_code == 204
    events = await alice.chat(thread, "hello")
    assert only(events, "error")["code"] == "unknown_assistant"
    assert only(events, "run_end")["status"] == "error"


async def test_deleting_can_take_the_threads_along(alice: User):
    made = await create(alice)
    thread, other = await alice.new_session(assistant_id=made["assistant_id"]), await alice.new_session()
    reply = await alice.client.delete(f"/assistants/{made['assistant_id']}", params={"delete_threads": "true"})
    assert (reply.status_code, reply.content) == (204, b"")
    await get(alice, f"/api/sessions/{thread}", 404)
    await get(alice, f"/api/sessions/{other}")


async def test_the_graph_is_drawn_as_it_is(alice: User):
    made = await create(alice, context={"tools": ["ls"]})
    drawn = await get(alice, f"/assistants/{made['assistant_id']}/graph", xray="true")
    assert {"id": "__end__"} in drawn["nodes"]
    assert {"source": "model", "target": "tools", "conditional": True} in drawn["edges"]
    assert [node["metadata"] for node in drawn["nodes"] if node["id"] == "tools"] == [{"__tools": ["ls"]}]
    assert await get(alice, f"/assistants/{made['assistant_id']}/graph", xray=2) == drawn
    await get(alice, f"/assistants/{made['assistant_id']}/graph", 422, xray=0)


async def test_the_schemas_say_what_goes_in_and_what_may_be_configured(alice: User):
    schemas = await get(alice, "/assistants/agent/schemas")
    assert set(schemas) == {
        "graph_id", "input_schema", "output_schema", "state_schema", "config_schema", "context_schema",
    }  # fmt: skip
    assert schemas["graph_id"] == "agent"
    assert "instruction" in schemas["context_schema"]["properties"]
    assert await get(alice, "/assistants/agent/subgraphs", recurse="true") == {}
    assert await get(alice, "/assistants/agent/subgraphs/tools") == {}

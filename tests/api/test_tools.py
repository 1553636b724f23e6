"""What the default agent may call, over HTTP."""

import re

from tests.api.harness import User, pending


async def test_the_tools_are_listed_with_their_schemas_and_which_of_them_ask(alice: User):
    listed = (await alice.client.get("/api/tools")).json()
    tools = {tool["name"]: tool for tool in listed["items"]}
    assert listed["next_cursor"] is None
    assert {name for name, tool in tools.items() if tool["asks"]} == {"execute", "write_file", "edit_file", "delete"}
    assert not {"ls", "read_file", "glob", "grep", "task", "write_todos"} - set(tools)
    assert set(tools["execute"]["input_schema"]["required"]) == {"command"}
    assert all(tool["description"] for tool in tools.values())


async def test_the_list_is_what_the_model_is_told(alice: User):
    made = await alice.client.post("/assistants", json={"graph_id": "agent", "context": {"model": "scripted:told"}})
    thread = await alice.new_session(assistant_id=made.json()["assistant_id"])
    events = await alice.chat(thread, "what were you told?")
    said = next(event.data["final_content"] for event in events if event.type == "message_complete")
    told = re.search(r"My tools: (.*)\.", said)
    assert told
    listed = (await alice.client.get("/api/tools")).json()["items"]
    assert told[1].split(", ") == [tool["name"] for tool in listed]


async def test_an_argument_that_is_not_in_a_tools_schema_is_no_edit(alice: User):
    thread = await alice.new_session()
    [asked] = pending(await alice.play(thread, ("execute", {"command": "true"})))
    edit = {"type": "edit", "edited_action": {"name": "execute", "args": {"command": "true", "more": 1}}}
    assert (await alice.client.post(f"/api/approvals/{asked['id']}/decision", json=edit)).status_code == 422
    listed = (await alice.client.get("/api/tools")).json()["items"]
    assert all(tool["input_schema"]["additionalProperties"] is False for tool in listed)

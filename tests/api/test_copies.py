"""Copying a session over HTTP: its history, state and files."""

import asyncio

from tests.api.harness import NewUser, Server, User, only


async def test_a_copy_has_the_history_and_the_files_and_goes_on(server: Server, alice: User):
    thread = await alice.new_session(title="plans")
    await alice.play(thread, ("ls", {"path": "/"}), then="first")
    folder = server.workspaces / "alice" / thread
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text("kept")
    reply = await alice.client.post(f"/api/sessions/{thread}/copy")
    assert reply.status_code == 201
    copy = reply.json()["thread_id"]
    assert (await alice.client.get(f"/api/sessions/{copy}")).json()["title"] == "plans"
    [theirs, ours] = [
        (await alice.client.get(f"/api/sessions/{name}/messages")).json()["items"] for name in (thread, copy)
    ]
    assert ours == theirs
    assert (server.workspaces / "alice" / copy / "notes.txt").read_text() == "kept"
    assert only(await alice.play(copy, then="second"), "run_end")["status"] == "success"


async def test_a_copy_may_be_given_another_title(alice: User):
    thread = await alice.new_session(title="plans")
    reply = await alice.client.post(f"/api/sessions/{thread}/copy", json={"title": "plan B"})
    assert (await alice.client.get(f"/api/sessions/{reply.json()['thread_id']}")).json()["title"] == "plan B"


async def test_a_session_that_waits_is_copied_without_its_question(alice: User):
    thread = await alice.new_session()
    assert only(await alice.play(thread, ("execute", {"command": "date"})), "run_end")["status"] == "interrupted"
    copy = (await alice.client.post(f"/api/sessions/{thread}/copy")).json()["thread_id"]
    state = (await alice.client.get(f"/api/sessions/{copy}/state")).json()
    assert (state["thread"]["run_status"], state["pending"]) == ("idle", [])
    assert only(await alice.play(copy, then="moved on"), "run_end")["status"] == "success"


async def test_copying_is_for_the_owner_and_takes_nothing_else(alice: User, new_user: NewUser):
    thread = await alice.new_session()
    bob = await new_user("bob")
    assert (await bob.client.post(f"/api/sessions/{thread}/copy")).status_code == 403
    reply = await alice.client.post(f"/api/sessions/{thread}/copy", json={"owner": "bob"})
    assert reply.status_code == 422


async def test_a_copy_that_is_asked_for_again_with_its_key_is_the_same_one(server: Server, alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="first")
    headers = {"Idempotency-Key": "copy-1"}
    ask = f"/api/sessions/{thread}/copy"
    replies = await asyncio.gather(*(alice.client.post(ask, headers=headers) for _ in range(5)))
    assert {reply.status_code for reply in replies} == {201}
    [copy] = {reply.json()["thread_id"] for reply in replies}
    listed = {item["thread_id"] for item in (await alice.client.get("/api/sessions")).json()["items"]}
    assert listed >= {thread, copy}
    assert len(list((server.workspaces / "alice").iterdir())) <= len(listed)
    other = await alice.client.post(ask, headers=headers, json={"title": "another"})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")

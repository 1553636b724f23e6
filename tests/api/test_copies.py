"""Copying a session over HTTP: its history, state and files."""

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

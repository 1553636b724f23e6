"""The folder that all sessions of a user share: over HTTP, and inside."""

from tests.api.harness import NewUser, User, only


async def test_what_is_put_there_is_seen_in_every_session_and_the_other_way_round(alice: User) -> None:
    reply = await alice.client.put("/api/shared/content", params={"path": "in/a.txt"}, content=b"from outside")
    assert reply.status_code == 201
    thread = await alice.new_session()
    command = "cat /shared/in/a.txt && echo from inside > /shared/in/b.txt && mkdir -p /shared/deep/er"
    await alice.play(thread, ("execute", {"command": command}))
    events = await alice.resume(thread, action="continue")
    assert only(events, "tool_result")["result"].startswith("from outside")
    reply = await alice.client.get("/api/shared/content", params={"path": "in/b.txt"})
    assert reply.content == b"from inside\n"
    for path in ("in/b.txt", "deep", "in"):
        reply = await alice.client.delete("/api/shared/content", params={"path": path})
        assert reply.status_code == 204, reply.text
    assert (await alice.client.get("/api/shared")).json()["items"] == []


async def test_each_user_has_their_own(alice: User, new_user: NewUser) -> None:
    bob = await new_user("bob")
    await alice.client.put("/api/shared/content", params={"path": "secret"}, content=b"of alice")
    assert (await bob.client.get("/api/shared/content", params={"path": "secret"})).status_code == 404
    assert (await bob.client.get("/api/shared")).json()["items"] == []
    assert (await alice.client.get("/api/shared/stat", params={"path": "secret"})).json()["size"] == 8


async def test_it_takes_forms_folders_and_moves_and_says_how_full_it_is(alice: User) -> None:
    reply = await alice.client.post("/api/shared/upload", params={"path": "f"}, files={"file": ("a.txt", b"one")})
    assert reply.json()["path"] == "f/a.txt"
    assert (await alice.client.post("/api/shared/mkdir", json={"path": "g"})).status_code == 201
    reply = await alice.client.post("/api/shared/move", json={"from": "f/a.txt", "to": "g/b.txt"})
    assert reply.json()["path"] == "g/b.txt"
    assert (await alice.client.get("/api/shared/usage")).json()["used_bytes"] > 0
    assert (await alice.client.get("/api/shared/zip")).content.startswith(b"PK")
    assert (await alice.client.get("/api/shared/preview", params={"path": "g/b.txt"})).json()["text"] == "one"

"""Snapshots of sessions over HTTP, through a real sandbox."""

import asyncio

import httpx
from tests.api.harness import NewUser, Server, User, run


async def take(user: User, session: str) -> dict[str, object]:
    reply = await user.client.post(f"/api/sessions/{session}/snapshots")
    assert reply.status_code == 201, reply.text
    return reply.json()


async def listed(user: User, session: str) -> list[dict[str, object]]:
    reply = await user.client.get(f"/api/sessions/{session}/snapshots")
    assert reply.status_code == 200
    return reply.json()["items"]


async def test_files_are_kept_listed_and_taken_back(new_user: NewUser) -> None:
    alice = await new_user("alice")
    session = await alice.new_session()
    await run(alice, session, "mkdir d; echo one > d/a; echo two > b")
    taken = await take(alice, session)
    assert (taken["files"], taken["bytes"], taken["added_bytes"], taken["missed"]) == (2, 8, 8, 0)
    assert (taken["kind"], taken["thread_id"]) == ("request", session)
    history = (await alice.client.get(f"/threads/{session}/history")).json()
    assert taken["checkpoint_id"] == history[0]["checkpoint"]["checkpoint_id"]
    await run(alice, session, "echo changed > d/a; rm b; echo new > c")
    reply = await alice.client.post(f"/api/sessions/{session}/snapshots/{taken['snapshot_id']}/restore")
    assert reply.json() == {"snapshot_id": taken["snapshot_id"], "written": 2, "removed": 1}
    assert await run(alice, session, "cat d/a b; ls") == "one\ntwo\nb\nd\n"
    assert await listed(alice, session) == [taken]
    assert (await alice.client.delete(f"/api/sessions/{session}/snapshots/{taken['snapshot_id']}")).status_code == 204
    assert await listed(alice, session) == []


async def test_a_busy_session_is_neither_kept_nor_taken_back(new_user: NewUser) -> None:
    alice = await new_user("alice")
    session = await alice.new_session()
    taken = await take(alice, session)
    started = asyncio.create_task(run(alice, session, "sleep 3; echo done"))
    await until_busy(alice, session)
    for path in ("", f"/{taken['snapshot_id']}/restore"):
        reply = await alice.client.post(f"/api/sessions/{session}/snapshots{path}")
        assert (reply.status_code, reply.json()["code"]) == (409, "thread_busy")
    assert await started == "done\n"


async def until_busy(user: User, session: str) -> None:
    """Until its command runs."""
    async with asyncio.timeout(30), user.client.stream("GET", f"/api/sessions/{session}/events") as reply:
        async for line in reply.aiter_lines():
            if line == "event: decision":
                return


async def test_a_copy_and_a_fork_have_their_files(new_user: NewUser) -> None:
    alice = await new_user("alice")
    session = await alice.new_session()
    await run(alice, session, "echo then > a")
    taken = await take(alice, session)
    await run(alice, session, "echo now > a")
    copies = f"/api/sessions/{session}/copy"
    copy = (await alice.client.post(copies)).json()
    fork = (await alice.client.post(copies, json={"checkpoint_id": taken["checkpoint_id"]})).json()
    wire = (await alice.client.post(f"/threads/{session}/copy")).json()
    assert (copy["files"], fork["files"]) == ("current", "snapshot")
    assert await run(alice, copy["thread_id"], "cat a") == "now\n"
    assert await run(alice, fork["thread_id"], "cat a") == "then\n"
    assert await run(alice, wire["thread_id"], "cat a") == "now\n"
    assert (await alice.client.post(copies, json={"checkpoint_id": "nonsense"})).status_code == 404


async def test_a_session_without_files_is_copied_without_a_sandbox(new_user: NewUser, server: Server) -> None:
    alice = await new_user("alice")
    session = await alice.new_session()
    await alice.chat(session, "hello")
    copy = (await alice.client.post(f"/api/sessions/{session}/copy")).json()
    assert copy["files"] == "none"
    for thread_id in (session, copy["thread_id"]):
        assert not (server.workspaces / "alice" / thread_id).exists()


async def test_what_is_deleted_leaves_nothing_on_the_disk(new_user: NewUser, server: Server) -> None:
    alice = await new_user("alice")
    session = await alice.new_session()
    await run(alice, session, "echo secret > a")
    await take(alice, session)
    kept = server.runtime.settings.data_dir / "snapshots" / "alice" / "objects"
    assert len(list(kept.glob("*/*"))) >= 2
    before = set(kept.glob("*/*"))
    assert (await alice.client.delete(f"/api/sessions/{session}")).status_code == 204
    assert set(kept.glob("*/*")) < before


async def test_the_description_says_that_there_may_be_no_room_for_files_that_come_back(server: Server) -> None:
    async with httpx.AsyncClient(base_url=server.url) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/api/sessions/{thread_id}/snapshots/{snapshot_id}/restore", "/api/sessions/{thread_id}/copy"):
        assert "507" in paths[path]["post"]["responses"]

"""Sessions over HTTP: open, list, search, rename, close, delete, quota and life."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.api.harness import PASSWORD, NewUser, Server, User, make_settings, only, pending, read_events, running


async def test_a_new_session_belongs_to_its_user_and_is_idle(alice: User):
    thread = await alice.new_session(title="plans")
    session = (await alice.client.get(f"/api/sessions/{thread}")).json()
    assert thread.startswith("alice-")
    assert (session["title"], session["status"], session["run_status"]) == ("plans", "active", "idle")


async def test_lists_go_on_where_the_cursor_points(new_user: NewUser):
    user = await new_user("lister")
    made = [await user.new_session(title=f"t{number}") for number in range(5)]
    first = (await user.client.get("/api/sessions", params={"limit": 3})).json()
    rest = (await user.client.get("/api/sessions", params={"limit": 3, "cursor": first["next_cursor"]})).json()
    assert [item["thread_id"] for item in first["items"] + rest["items"]] == list(reversed(made))
    assert first["total"] == 5
    assert rest["next_cursor"] is None


async def test_search_finds_titles_and_takes_wildcards_literally(new_user: NewUser):
    user = await new_user("searcher")
    wanted = await user.new_session(title="100% Sure")
    await user.new_session(title="1000 things")
    found = (await user.client.get("/api/sessions", params={"q": "100% s"})).json()
    assert [item["thread_id"] for item in found["items"]] == [wanted]


async def test_rename_changes_the_title(alice: User):
    thread = await alice.new_session()
    reply = await alice.client.patch(f"/api/sessions/{thread}", json={"title": "better"})
    assert reply.json()["title"] == "better"


async def listed(user: User, **params: Any) -> list[str]:
    reply = await user.client.get("/api/sessions", params=params)
    assert reply.status_code == 200, reply.text
    assert reply.json()["total"] == len(reply.json()["items"])
    return [item["thread_id"] for item in reply.json()["items"]]


async def change(user: User, thread: str, **changes: Any) -> dict[str, Any]:
    reply = await user.client.patch(f"/api/sessions/{thread}", json=changes)
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize(
    "body", [{}, {"title": None}, {"pinned": 1}, {"pinned": "true"}, {"archived": []}, {"title": 5}, {"starred": True}]
)
async def test_a_change_of_nothing_or_of_something_unknown_is_refused(alice: User, body: dict[str, Any]):
    thread = await alice.new_session(title="kept")
    assert (await alice.client.patch(f"/api/sessions/{thread}", json=body)).status_code == 422
    assert (await alice.client.get(f"/api/sessions/{thread}")).json()["title"] == "kept"


async def test_pinning_and_archiving_change_nothing_else(alice: User):
    thread = await alice.new_session(title="plans")
    before = (await alice.client.get(f"/api/sessions/{thread}")).json()
    wire = (await alice.client.get(f"/threads/{thread}")).json()
    assert (before["pinned"], before["archived"]) == (False, False)
    assert await change(alice, thread, pinned=True) == before | {"pinned": True}
    assert await change(alice, thread, archived=True) == before | {"pinned": True, "archived": True}
    assert (await alice.client.get(f"/threads/{thread}")).json() == wire
    assert await change(alice, thread, title="x", pinned=False) == before | {"title": "x", "archived": True}


async def test_a_list_holds_archived_sessions_only_when_it_asks_for_them(new_user: NewUser):
    user = await new_user("archivist")
    one, two, three = [await user.new_session(title=f"t{number}") for number in range(3)]
    await change(user, two, archived=True)
    await change(user, three, pinned=True)
    assert await listed(user) == await listed(user, archived=False) == [three, one]
    assert await listed(user, archived=True) == [two]
    assert await listed(user, pinned=True) == [three]
    assert await listed(user, pinned=False) == [one]
    assert await listed(user, archived=True, pinned=True) == []
    assert await listed(user, archived=True, q="t1") == [two]
    await change(user, two, archived=False)
    assert await listed(user) == [three, two, one]


async def test_a_filtered_list_goes_on_where_the_cursor_points(new_user: NewUser):
    user = await new_user("filer")
    made = [await user.new_session() for _ in range(7)]
    wanted = made[::2]
    for thread in wanted:
        await change(user, thread, pinned=True)
    first = (await user.client.get("/api/sessions", params={"limit": 3, "pinned": True})).json()
    rest = (
        await user.client.get("/api/sessions", params={"limit": 3, "pinned": True, "cursor": first["next_cursor"]})
    ).json()
    assert [item["thread_id"] for item in first["items"] + rest["items"]] == list(reversed(wanted))
    assert (first["total"], rest["total"], rest["next_cursor"]) == (4, 4, None)


async def test_a_list_shows_what_waits_in_each_session_and_finds_those(new_user: NewUser):
    user = await new_user("waiter")
    quiet, waiting = await user.new_session(), await user.new_session()
    await user.play(quiet, then="hi")
    await user.play(waiting, [("execute", {"command": "true"}), ("execute", {"command": "date"})])
    items = (await user.client.get("/api/sessions")).json()["items"]
    assert {item["thread_id"]: item["pending_count"] for item in items} == {quiet: 0, waiting: 2}
    assert await listed(user, run_status="interrupted") == [waiting]
    assert await listed(user, run_status="idle") == [quiet]
    state = (await user.client.get(f"/api/sessions/{waiting}/state")).json()
    assert state["thread"]["pending_count"] == len(state["pending"]) == 2
    cancelled = (await user.client.post(f"/api/sessions/{waiting}/cancel")).json()
    assert (cancelled["run_status"], cancelled["pending_count"]) == ("idle", 0)
    assert (await user.client.get("/api/sessions", params={"run_status": "tired"})).status_code == 422


async def test_a_message_brings_an_archived_session_back(alice: User):
    thread = await alice.new_session()
    await change(alice, thread, archived=True, pinned=True)
    await alice.chat(thread, "again")
    session = (await alice.client.get(f"/api/sessions/{thread}")).json()
    assert (session["archived"], session["pinned"]) == (False, True)


async def test_a_copy_is_neither_pinned_nor_archived(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="hi")
    await change(alice, thread, archived=True, pinned=True)
    copy = (await alice.client.post(f"/api/sessions/{thread}/copy")).json()["thread_id"]
    session = (await alice.client.get(f"/api/sessions/{copy}")).json()
    assert (session["archived"], session["pinned"]) == (False, False)


async def test_clients_of_the_wire_list_archived_sessions_as_ever(new_user: NewUser):
    user = await new_user("wirer")
    thread = await user.new_session()
    await change(user, thread, archived=True)
    assert [item["thread_id"] for item in (await user.client.post("/threads/search", json={})).json()] == [thread]


async def test_the_first_message_names_an_untitled_session(alice: User):
    thread = await alice.new_session()
    await alice.chat(thread, "Plan my week\nplease")
    assert (await alice.client.get(f"/api/sessions/{thread}")).json()["title"] == "Plan my week"


async def test_a_closed_session_keeps_its_history_and_takes_no_message(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="hi")
    assert (await alice.client.post(f"/api/sessions/{thread}/close")).json()["status"] == "closed"
    reply = await alice.client.post(f"/api/chat/{thread}", json={"message": "more"})
    assert (reply.status_code, reply.json()["code"]) == (409, "session_closed")
    assert len((await alice.client.get(f"/api/sessions/{thread}/messages")).json()["items"]) == 2


async def test_deleting_a_session_leaves_nothing_of_it(alice: User, server: Server, database_url: str):
    thread = await alice.new_session()
    await alice.play(thread, ("write_file", {"file_path": "/workspace/x", "content": "x"}))
    await alice.resume(thread, action="continue")
    folder = server.workspaces / "alice" / thread
    assert folder.exists()
    assert (await alice.client.delete(f"/api/sessions/{thread}")).status_code == 204
    assert (await alice.client.get(f"/api/sessions/{thread}")).status_code == 404
    assert not folder.exists()
    async with server.runtime.database.system_transaction() as connection:
        for table in ("threads", "runs", "run_events", "interrupts", "messages", "checkpoints", "checkpoint_writes"):
            query = psycopg.sql.SQL("SELECT count(*) AS n FROM {} WHERE thread_id = %s")
            row = await (await connection.execute(query.format(psycopg.sql.Identifier(table)), [thread])).fetchone()
            assert row == {"n": 0}, table


async def test_the_quota_holds_when_many_sessions_are_opened_at_once(database_url: str, public_tmp_path: Path):
    settings = make_settings(public_tmp_path / "quota", database_url, quota_active_sessions=3)
    async with running(settings) as server, httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        account = {"username": "hoarder", "password": PASSWORD}
        await client.post("/api/auth/register", json=account)
        token = (await client.post("/api/auth/login", json=account)).json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        replies = await asyncio.gather(*(client.post("/api/sessions") for _ in range(12)))
        assert sorted(reply.status_code for reply in replies) == [201] * 3 + [429] * 9


async def test_an_expired_session_is_gone_for_new_messages(alice: User, server: Server):
    thread = await alice.new_session()
    async with server.runtime.database.system_transaction() as connection:
        await connection.execute(
            "UPDATE threads SET last_active = now() - interval '25 hours' WHERE thread_id = %s", [thread]
        )
    reply = await alice.client.post(f"/api/chat/{thread}", json={"message": "still there?"})
    assert (reply.status_code, reply.json()["code"]) == (410, "session_expired")
    assert (await alice.client.get(f"/api/sessions/{thread}")).json()["status"] == "expired"


async def test_unknown_body_fields_are_refused(alice: User):
    reply = await alice.client.post("/api/sessions", json={"titel": "x"})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["loc"] == ["body", "titel"]


async def test_the_state_holds_what_the_session_waits_for_and_where_its_events_go_on(alice: User):
    thread = await alice.new_session()
    events = await alice.play(thread, ("write_file", {"file_path": "/workspace/x", "content": "x"}))
    state = (await alice.client.get(f"/api/sessions/{thread}/state")).json()
    [asked] = pending(events)
    assert [item["id"] for item in state["pending"]] == [asked["id"]]
    assert [item["role"] for item in state["messages"]] == ["user", "assistant"]
    assert state["last_seq"] == state["thread"]["last_seq"] == events[-1].id


async def test_the_state_is_of_one_moment_however_much_happens(alice: User):
    """Whether a session waits for approval is said in two tables: a state that mixes moments contradicts itself."""
    thread = await alice.new_session()
    states: list[dict[str, Any]] = []

    async def watch() -> None:
        while True:
            states.append((await alice.client.get(f"/api/sessions/{thread}/state")).json())

    watching = asyncio.create_task(watch())
    for number in range(5):
        call = ("write_file", {"file_path": f"/workspace/{number}", "content": "x"})
        await alice.play(thread, call)
        await alice.resume(thread, action="continue" if number % 2 else "cancel")
    watching.cancel()
    assert states
    for state in states:
        assert (state["thread"]["run_status"] == "interrupted") == bool(state["pending"])


async def test_a_session_that_is_opened_again_with_its_key_is_the_same_one(new_user: NewUser) -> None:
    user = await new_user("opener")
    headers = {"Idempotency-Key": "open-1"}
    replies = [await user.client.post("/api/sessions", json={"title": "one"}, headers=headers) for _ in range(3)]
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.json()["thread_id"] for reply in replies}) == 1
    assert (await user.client.get("/api/sessions")).json()["total"] == 1
    other = await user.client.post("/api/sessions", json={"title": "two"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")


async def test_who_asks_for_events_beyond_the_last_one_is_told(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="hi")
    last = (await alice.client.get(f"/api/sessions/{thread}")).json()["last_seq"]
    [event] = await alice.stream("GET", f"/api/sessions/{thread}/events", params={"after": last + 1})
    assert (event.id, event.type, event.data) == (None, "stream_closed", {"reason": "gap", "last_seq": last})


async def test_no_answer_gets_in_while_a_session_is_cancelled(alice: User, server: Server):
    thread = await alice.new_session()
    slow, quick = ("execute", {"command": "touch started; sleep 30"}), ("execute", {"command": "echo ran > ran.txt"})
    [first, second] = pending(await alice.play(thread, [slow, quick]))
    url = "/api/approvals/{}/decision"
    await alice.client.post(url.format(first["id"]), json={"type": "approve"})
    started = server.workspaces / "alice" / thread / "started"
    async with asyncio.timeout(20):
        while not started.exists():  # noqa: ASYNC110 -- another process makes it
            await asyncio.sleep(0.02)
    cancelling = [alice.client.post(f"/api/sessions/{thread}/cancel") for _ in range(3)]
    deciding = [alice.client.post(url.format(second["id"]), json={"type": "approve"}) for _ in range(6)]
    await asyncio.gather(*deciding[:3], *cancelling, *deciding[3:])
    assert (await alice.client.get(f"/api/sessions/{thread}")).json()["run_status"] == "idle"
    assert only(await alice.play(thread, then="hi"), "run_end")["status"] == "success"
    assert not (server.workspaces / "alice" / thread / "ran.txt").exists()


async def test_who_follows_a_session_that_is_deleted_is_told(alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="hi")
    async with asyncio.timeout(10), alice.client.stream("GET", f"/api/sessions/{thread}/events") as reply:
        events = read_events(reply)
        await anext(events)
        await alice.client.delete(f"/api/sessions/{thread}")
        *_, last = [event async for event in events]
    assert (last.type, last.data["reason"]) == ("stream_closed", "gap")

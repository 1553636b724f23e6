"""What administrators do over HTTP, and what they never see."""

import asyncio
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs
from tests.api.harness import PASSWORD, NewUser, Server, User, pending, run
from tests.api.test_routes import call, with_access

from moorage.identity.service import UsernameTaken

OPERATIONS = with_access("admin")
NEW = "another horse battery"


@pytest.fixture
async def boss(server: Server, new_user: NewUser) -> User:
    identity = server.runtime.identity
    try:
        await identity.create_user("boss", PASSWORD, is_admin=True)
    except UsernameTaken:  # an earlier test of this file made it
        if not (await identity.get("boss")).is_active:
            await identity.set_active("boss", active=True)
    return await new_user("boss")


@pytest.fixture
async def dora(boss: User) -> str:
    """A user whom a test may do anything to; answers the name."""
    made = await boss.client.post("/api/admin/users", json={"username": "dora", "password": PASSWORD})
    assert made.status_code in (201, 409)
    await change(boss, "dora", active=True)
    await set_password(boss, "dora", PASSWORD)
    return "dora"


async def change(boss: User, name: str, **body: Any) -> httpx.Response:
    return await boss.client.patch(f"/api/admin/users/{name}", json=body)


async def set_password(boss: User, name: str, password: str) -> httpx.Response:
    return await boss.client.post(f"/api/admin/users/{name}/password", json={"new_password": password})


async def users(boss: User, **params: Any) -> dict[str, Any]:
    return (await boss.client.get("/api/admin/users", params=params)).json()


async def log_in(server: Server, name: str, password: str = PASSWORD) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url) as client:
        return await client.post("/api/auth/login", json={"username": name, "password": password})


def refused(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


# Who may --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_no_key_carries_an_administrators_rights(server: Server, boss: User, operation: str) -> None:
    made = (await boss.client.post("/api/auth/keys", json={"name": "a key"})).json()
    async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": made["key"]}) as client:
        assert refused(await call(client, operation)) == (403, "login_required")
    await boss.client.delete(f"/api/auth/keys/{made['key_id']}")


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_disabled_administrator_is_nobody(server: Server, boss: User, operation: str) -> None:
    await server.runtime.identity.set_active("boss", active=False)
    assert (await call(boss.client, operation)).status_code == 401


# Accounts -------------------------------------------------------------------------------------------------------------


async def test_an_account_is_made_and_works_whatever_registration_says(server: Server, boss: User) -> None:
    body = {"username": "erin", "password": PASSWORD, "email": "Erin@Example.org", "is_admin": True}
    made = await boss.client.post("/api/admin/users", json=body)
    assert made.status_code == 201
    told = made.json()
    assert told.pop("created_at")
    assert told == {"user_id": "erin", "email": "Erin@Example.org", "is_admin": True, "is_active": True}
    token = (await log_in(server, "erin")).json()["access_token"]
    async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/api/admin/usage")).status_code == 200
    assert refused(await boss.client.post("/api/admin/users", json=body)) == (409, "username_taken")


@pytest.mark.parametrize(
    "body",
    [
        {"username": "Erin2", "password": PASSWORD},
        {"username": "root", "password": PASSWORD},
        {"username": "erin2", "password": "short"},
        {"username": "erin2", "password": PASSWORD, "email": "nobody"},
        {"username": "erin2", "password": PASSWORD, "is_admin": "yes"},
        {"username": "erin2", "password": PASSWORD, "quota": 1},
        {"username": "erin2"},
    ],
)
async def test_an_account_that_may_not_be_is_not_made(boss: User, body: dict[str, Any]) -> None:
    reply = await boss.client.post("/api/admin/users", json=body)
    assert reply.status_code == 422
    assert PASSWORD not in reply.text
    assert (await users(boss, q="erin2"))["items"] == []


async def test_users_are_listed_in_pages_and_found_by_parts(boss: User, dora: str, alice: User) -> None:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await users(boss, limit=1, **({"cursor": cursor} if cursor else {}))
        found += [item["user_id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert found == sorted(found)
    assert {"alice", "boss", dora} <= set(found)
    assert [item["user_id"] for item in (await users(boss, q="DOR"))["items"]] == ["dora"]
    assert (await users(boss, q="%"))["items"] == []
    assert "password" not in str(await users(boss))
    assert (await boss.client.get("/api/admin/users", params={"cursor": "nonsense"})).status_code == 422


async def test_a_disabled_user_is_out_at_once_until_enabled(server: Server, boss: User, dora: str) -> None:
    token = (await log_in(server, dora)).json()["access_token"]
    async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/api/auth/me")).status_code == 200
        assert (await change(boss, dora, active=False)).json()["is_active"] is False
        assert (await client.get("/api/auth/me")).status_code == 401
    assert (await log_in(server, dora)).status_code == 401
    assert (await change(boss, dora, active=True)).json()["is_active"] is True
    assert (await log_in(server, dora)).status_code == 200


async def test_a_password_that_was_set_is_the_one_that_counts(server: Server, boss: User, dora: str) -> None:
    assert (await set_password(boss, dora, NEW)).status_code == 204
    assert (await log_in(server, dora)).status_code == 401
    assert (await log_in(server, dora, NEW)).status_code == 200
    weak = await set_password(boss, dora, "short")
    assert refused(weak) == (422, "weak_password")


async def test_nobody_changes_themselves_here(boss: User) -> None:
    assert refused(await change(boss, "boss", active=False)) == (409, "own_account")
    assert refused(await set_password(boss, "boss", NEW)) == (409, "own_account")
    assert (await boss.client.get("/api/auth/me")).status_code == 200


@pytest.mark.parametrize("name", ["nobody", "Dora", "a%00b", "x" * 50])
async def test_what_is_done_to_nobody_is_told(boss: User, name: str) -> None:
    assert refused(await change(boss, name, active=False)) == (404, "no_such_user")
    assert refused(await set_password(boss, name, NEW)) == (404, "no_such_user")


@pytest.mark.parametrize("body", [{}, {"active": "no"}, {"active": None}, {"active": True, "is_admin": True}])
async def test_a_change_that_is_none_is_refused(boss: User, dora: str, body: dict[str, Any]) -> None:
    assert (await change(boss, dora, **body)).status_code == 422


async def test_what_is_done_is_told_to_the_log_without_secrets(boss: User, dora: str) -> None:
    with capture_logs() as logs:
        await change(boss, dora, active=False)
        await change(boss, dora, active=True)
        await set_password(boss, dora, NEW)
    done = [(line["event"], line["by"], line["account"]) for line in logs if line["event"].startswith("user_")]
    assert done == [(event, "boss", dora) for event in ("user_disabled", "user_enabled", "user_password_set")]
    assert NEW not in str(logs)


# Sandboxes ------------------------------------------------------------------------------------------------------------


async def sandbox_of(boss: User, thread: str) -> dict[str, Any] | None:
    items = (await boss.client.get("/api/admin/sandboxes", params={"limit": 100})).json()["items"]
    return next((item for item in items if item["thread_id"] == thread), None)


async def stop(boss: User, thread: str, **body: Any) -> httpx.Response:
    return await boss.client.post(f"/api/admin/sandboxes/{thread}/stop", json=body or None)


async def test_a_live_sandbox_is_listed_and_stopped_and_comes_back(boss: User, alice: User) -> None:
    thread = await alice.new_session(title="a secret plan")
    await run(alice, thread, "echo hidden-words > file")
    found = await sandbox_of(boss, thread)
    assert found is not None
    assert (found["owner"], found["state"], found["profile"]) == ("alice", "idle", "default")
    assert "secret plan" not in str(found)
    assert "hidden-words" not in str(found)
    with capture_logs() as logs:
        assert (await stop(boss, thread)).status_code == 204
    [line] = [line for line in logs if line["event"] == "sandbox_stopped"]
    assert (line["by"], line["thread_id"], line["forced"]) == ("boss", thread, False)
    assert await sandbox_of(boss, thread) is None
    assert "hidden-words" in await run(alice, thread, "cat file")


async def test_sandboxes_are_listed_in_pages(boss: User, alice: User) -> None:
    threads = sorted([await alice.new_session(), await alice.new_session()])
    for thread in threads:
        await run(alice, thread, "true")
    found: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await boss.client.get("/api/admin/sandboxes", params=params)).json()
        found += [item["thread_id"] for item in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert [thread for thread in found if thread in threads] == threads
    assert len(set(found)) == len(found)


async def test_a_sandbox_that_a_run_uses_is_stopped_by_force_only(boss: User, alice: User) -> None:
    thread = await alice.new_session()
    await run(alice, thread, "true")
    [item] = pending(await alice.play(thread, ("execute", {"command": "sleep 500"})))
    await alice.client.post(f"/api/approvals/{item['id']}/decision", json={"type": "approve"})
    assert refused(await stop(boss, thread)) == (409, "sandbox_busy")
    assert refused(await stop(boss, thread, force=False)) == (409, "sandbox_busy")
    found = await sandbox_of(boss, thread)
    assert found is not None
    assert found["state"] == "busy"
    assert (await stop(boss, thread, force=True)).status_code == 204
    await alice.client.post(f"/api/sessions/{thread}/cancel")


@pytest.mark.parametrize("thread", ["alice-00000000-0000-4000-8000-000000000000", "nonsense", "a%00b", "%2e%2e"])
async def test_a_sandbox_that_never_was_cannot_be_stopped(boss: User, thread: str) -> None:
    assert refused(await stop(boss, thread)) == (404, "sandbox_not_found")


# The server -----------------------------------------------------------------------------------------------------------


async def test_the_check_tells_what_works(server: Server, boss: User) -> None:
    replies = await asyncio.gather(*(boss.client.get("/api/admin/check") for _ in range(5)))
    [told] = {reply.text for reply in replies}
    found = {item["name"]: item["status"] for item in replies[0].json()["items"]}
    assert list(found) == ["secrets", "database", "sandbox", "model", "disk"]
    assert (found["database"], found["model"]) == ("ok", "ok")
    assert server.runtime.database_url not in told


async def test_totals_count_what_there_is(boss: User, alice: User) -> None:
    before = (await boss.client.get("/api/admin/usage")).json()
    thread = await alice.new_session()
    await alice.play(thread, ("execute", {"command": "true"}))
    waiting = (await boss.client.get("/api/admin/usage")).json()
    assert waiting["sessions"]["active"] == before["sessions"]["active"] + 1
    assert waiting["approvals_pending"] == before["approvals_pending"] + 1
    assert waiting["users"]["total"] >= waiting["users"]["active"] >= waiting["users"]["active_admins"] >= 1
    await alice.client.post(f"/api/sessions/{thread}/cancel")
    await alice.client.post(f"/api/sessions/{thread}/close")
    after = (await boss.client.get("/api/admin/usage")).json()
    assert after["sessions"]["closed"] == before["sessions"]["closed"] + 1
    assert after["approvals_pending"] == before["approvals_pending"]

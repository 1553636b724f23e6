"""API keys and WebSocket tickets over real HTTP: what they open, what they never open, and when they die."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from tests.api.harness import PASSWORD, NewUser, Server, User
from tests.api.test_routes import ACCESS, call, with_access

from moorage.errors import Unauthenticated
from moorage.identity import Scope
from moorage_api.app import create_app
from moorage_api.scopes import scope_of

OTHER = "another battery staple"

# What no key may do, what answers approvals, and what only reads although it is a POST.
LOGIN_ONLY = {
    "POST /api/auth/logout", "POST /api/auth/logout-all", "POST /api/auth/password", "POST /api/auth/keys",
    "GET /api/auth/keys", "DELETE /api/auth/keys/{key_id}", "GET /api/auth/webhook-secret", *with_access("admin"),
}  # fmt: skip
APPROVES = {
    "POST /api/approvals/{interrupt_id}/decision", "POST /api/resume/{thread_id}",
    "DELETE /api/sessions/{thread_id}/rules/{rule_id}",
}  # fmt: skip
READING_POSTS = {
    "POST /api/auth/ws-ticket", "POST /assistants/search", "POST /assistants/count", "POST /threads/search",
    "POST /threads/count", "POST /threads/{thread_id}/history", "POST /threads/{thread_id}/state/checkpoint",
    "POST /threads/{thread_id}/stream/events", "POST /runs/crons/search", "POST /runs/crons/count",
    "POST /store/items/search", "POST /store/namespaces", "POST /assistants/{assistant_id}/versions",
}  # fmt: skip
PROTECTED = [operation for operation, access in ACCESS.items() if access != "public"]

Connect = Callable[..., httpx.AsyncClient]


@pytest.fixture
async def connect(server: Server) -> AsyncGenerator[Connect]:
    """A client that sends these headers."""
    clients: list[httpx.AsyncClient] = []

    def make(key: str | None = None, **headers: str) -> httpx.AsyncClient:
        sent = headers | ({"x-api-key": key} if key is not None else {})
        clients.append(httpx.AsyncClient(base_url=server.url, headers=sent, timeout=30))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def carol(server: Server, new_user: NewUser) -> AsyncGenerator[User]:
    """A user whose password and standing a test may change."""
    name = "carol"
    user = await new_user(name)
    yield user
    await server.runtime.identity.set_active(name, active=True)
    await server.runtime.identity.set_password(name, PASSWORD)


async def new_key(user: User, **body: Any) -> dict[str, Any]:
    reply = await user.client.post("/api/auth/keys", json={"name": "a key", **body})
    assert reply.status_code == 201, reply.text
    return reply.json()


def code(reply: httpx.Response) -> tuple[int, str]:
    if reply.request.url.path.startswith("/v1/"):
        return reply.status_code, reply.json()["error"]["code"]
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["code"]


async def me(client: httpx.AsyncClient) -> httpx.Response:
    return await client.get("/api/auth/me")


def expected_scope(operation: str) -> Scope | None:
    if operation in LOGIN_ONLY:
        return None
    if operation in APPROVES:
        return Scope.APPROVE
    return Scope.READ if operation.startswith("GET ") or operation in READING_POSTS else Scope.RUN


# Making, listing, revoking --------------------------------------------------------------------------------------


async def test_a_new_key_is_shown_once(alice: User) -> None:
    made = await new_key(alice, name="ci")
    assert made["key"].startswith(made["prefix"])
    assert made["prefix"].startswith("mrg_")
    assert (made["name"], made["scopes"], made["last_used_at"]) == ("ci", ["approve", "read", "run"], None)
    assert made["expires_at"] is not None
    reply = await alice.client.get("/api/auth/keys", params={"limit": 1})
    assert reply.json()["items"] == [{name: value for name, value in made.items() if name != "key"}]
    assert made["key"] not in reply.text


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": ""}, {"name": "  "}, {"name": "x" * 101}, {"name": "x", "scopes": []},
        {"name": "x", "scopes": ["admin"]}, {"name": "x", "expires_in_days": 0}, {"name": "x", "key": "mrg_mine"},
    ],
)  # fmt: skip
async def test_what_is_no_key_is_422(alice: User, body: dict[str, Any]) -> None:
    assert (await alice.client.post("/api/auth/keys", json=body)).status_code == 422


async def test_keys_are_listed_latest_first_in_parts(new_user: NewUser) -> None:
    bob = await new_user("bob")
    names = [(await new_key(bob, name=f"key {n}"))["name"] for n in range(3)]
    first = (await bob.client.get("/api/auth/keys", params={"limit": 2})).json()
    rest = (await bob.client.get("/api/auth/keys", params={"cursor": first["next_cursor"]})).json()
    assert [key["name"] for key in first["items"] + rest["items"]] == names[::-1]
    assert rest["next_cursor"] is None


async def test_a_revoked_key_dies_at_once(alice: User, connect: Connect) -> None:
    made = await new_key(alice)
    program = connect(made["key"])
    assert (await me(program)).status_code == 200
    assert (await alice.client.delete(f"/api/auth/keys/{made['key_id']}")).status_code == 204
    assert code(await me(program)) == (401, "invalid_api_key")
    assert code(await alice.client.delete(f"/api/auth/keys/{made['key_id']}")) == (404, "no_such_api_key")


async def test_anothers_key_is_not_there(alice: User, new_user: NewUser, connect: Connect) -> None:
    made, bob = await new_key(alice), await new_user("bob")
    assert code(await bob.client.delete(f"/api/auth/keys/{made['key_id']}")) == (404, "no_such_api_key")
    assert made["key_id"] not in (await bob.client.get("/api/auth/keys")).text
    assert (await me(connect(made["key"]))).status_code == 200


# Coming in ------------------------------------------------------------------------------------------------------


async def test_a_key_is_its_user_in_either_header(alice: User, connect: Connect) -> None:
    key = (await new_key(alice))["key"]
    for program in (
        connect(key),
        connect(authorization=f"Bearer {key}"),
        connect(key, **{"x-auth-scheme": "langsmith"}),
    ):
        thread_id = (await program.post("/api/sessions")).json()["thread_id"]
        assert (await program.get(f"/api/sessions/{thread_id}")).json()["thread_id"] == thread_id
        assert thread_id.startswith("alice-")


async def test_a_bearer_token_goes_before_a_key(alice: User, connect: Connect) -> None:
    key, bearer = (await new_key(alice))["key"], alice.client.headers["authorization"]
    assert (await me(connect("lsv2_of_another_service", authorization=bearer))).status_code == 200
    assert code(await me(connect(key, authorization="Bearer a.b.c"))) == (401, "invalid_token")
    assert (await me(connect(key, authorization="Basic YTpi"))).status_code == 200


@pytest.mark.parametrize("key", ["x", "mrg_", "mrg_" + "x" * 43, "mrg_" + "x" * 5000, "mrg_\u00e4", "lsv2_pt_abc"])
async def test_a_key_of_nobody_is_refused(connect: Connect, key: str) -> None:
    encoded = key.encode()
    async with connect() as client:
        for headers in ({b"x-api-key": encoded}, {b"authorization": b"Bearer " + encoded}):
            reply = await client.get("/api/auth/me", headers=headers)
            assert reply.status_code == 401
            assert reply.headers["www-authenticate"] == "Bearer"


async def test_an_empty_key_is_none(connect: Connect) -> None:
    assert code(await me(connect(""))) == (401, "unauthenticated")


async def test_the_last_use_is_noted(alice: User, connect: Connect) -> None:
    made = await new_key(alice)
    await me(connect(made["key"]))
    listed = (await alice.client.get("/api/auth/keys")).json()["items"]
    assert next(key for key in listed if key["key_id"] == made["key_id"])["last_used_at"] is not None


async def test_a_page_of_a_listed_origin_may_send_and_read_the_headers_of_langgraphs_clients(server: Server) -> None:
    settings = server.runtime.settings.model_copy(update={"cors_origins": ("https://ui.example.org",)})
    transport = httpx.ASGITransport(create_app(replace(server.runtime, settings=settings)))
    asked = "x-api-key, x-auth-scheme, content-type, last-event-id"
    headers = {"origin": "https://ui.example.org", "access-control-request-method": "POST"}
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as browser:
        preflight = await browser.options("/threads", headers={**headers, "access-control-request-headers": asked})
        reply = await browser.get("/ok", headers=headers)
    assert preflight.status_code == 200
    exposed = reply.headers["access-control-expose-headers"].lower()
    for name in ("content-location", "location", "x-pagination-total", "x-pagination-next"):
        assert name in exposed.split(", ")


async def test_no_key_and_no_ticket_is_ever_logged(
    alice: User, connect: Connect, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    key = (await new_key(alice))["key"]
    ticket = await ticket_of(connect(key))
    await me(connect(authorization=f"Bearer {key}"))
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "/api/auth/ws-ticket" in logged
    assert key not in logged
    assert ticket not in logged


# Scopes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", PROTECTED)
async def test_every_operation_asks_a_key_for_its_scope_and_no_other(
    alice: User, connect: Connect, operation: str
) -> None:
    scope = expected_scope(operation)
    method, path = operation.split(" ")
    assert scope_of(method, path) is scope
    others = [item for item in Scope if item is not scope]
    made = await new_key(alice, scopes=others)
    refused = await call(connect(made["key"]), operation, thread_id="alice-x")
    assert code(refused) == (403, "scope_missing" if scope else "login_required")
    await alice.client.delete(f"/api/auth/keys/{made['key_id']}")


async def test_what_no_key_may_is_refused_to_one_with_all_scopes(alice: User, connect: Connect) -> None:
    program = connect((await new_key(alice))["key"])
    for operation in sorted(LOGIN_ONLY):
        assert code(await call(program, operation)) == (403, "login_required")
    assert (await me(alice.client)).status_code == 200


async def test_a_key_to_run_stops_at_the_approval_and_a_key_to_approve_goes_on(alice: User, connect: Connect) -> None:
    runner = User("alice", connect((await new_key(alice, scopes=["read", "run"]))["key"]))
    approver = User("alice", connect((await new_key(alice, scopes=["approve"]))["key"]))
    thread_id = await runner.new_session()
    await runner.play(thread_id, ("execute", {"command": "true"}))
    refused = await runner.client.post(f"/api/resume/{thread_id}", json={"action": "continue"})
    assert code(refused) == (403, "scope_missing")
    assert (await approver.resume(thread_id, action="cancel"))[-1].data["status"] == "success"


async def test_on_the_wire_too_a_key_to_run_answers_no_approval(alice: User, connect: Connect) -> None:
    runner = connect((await new_key(alice, scopes=["read", "run"]))["key"])
    thread_id = await alice.new_session()
    await alice.play(thread_id, ("execute", {"command": "true"}))
    resume = {"assistant_id": "agent", "command": {"resume": {"decisions": [{"type": "approve"}]}}}
    for path in (f"/threads/{thread_id}/runs", f"/threads/{thread_id}/runs/wait", "/runs"):
        assert code(await runner.post(path, json=resume)) == (403, "scope_missing")
    assert (await alice.resume(thread_id, action="cancel"))[-1].data["status"] == "success"


async def test_a_key_to_read_stops_nothing_by_going_away(alice: User, connect: Connect) -> None:
    reader = connect((await new_key(alice, scopes=["read"]))["key"])
    path = f"/threads/{await alice.new_session()}/runs/{uuid.uuid4()}/join"
    assert code(await reader.get(path, params={"cancel_on_disconnect": "true"})) == (403, "scope_missing")
    assert code(await reader.get(path, params={"cancel_on_disconnect": "false"})) == (404, "run_not_found")


# Going out ------------------------------------------------------------------------------------------------------


async def test_a_disabled_users_keys_die_for_good(server: Server, carol: User, connect: Connect) -> None:
    program = connect((await new_key(carol))["key"])
    assert (await me(program)).status_code == 200
    await server.runtime.identity.set_active("carol", active=False)
    assert code(await me(program)) == (401, "invalid_api_key")
    await server.runtime.identity.set_active("carol", active=True)
    assert code(await me(program)) == (401, "invalid_api_key")


@pytest.mark.parametrize(("body", "status"), [({}, 401), ({"keep_keys": False}, 401), ({"keep_keys": True}, 200)])
async def test_a_change_of_password_ends_keys_unless_they_are_kept(
    carol: User, connect: Connect, body: dict[str, bool], status: int
) -> None:
    program = connect((await new_key(carol))["key"])
    assert (await me(program)).status_code == 200
    change = {"current_password": PASSWORD, "new_password": OTHER, **body}
    assert (await carol.client.post("/api/auth/password", json=change)).status_code == 204
    assert (await me(program)).status_code == status


async def test_logging_out_everywhere_leaves_keys(carol: User, connect: Connect) -> None:
    program = connect((await new_key(carol))["key"])
    assert (await carol.client.post("/api/auth/logout-all")).status_code == 204
    assert [(await me(carol.client)).status_code, (await me(program)).status_code] == [401, 200]


# Tickets --------------------------------------------------------------------------------------------------------


async def ticket_of(client: httpx.AsyncClient) -> str:
    reply = await client.post("/api/auth/ws-ticket")
    assert reply.status_code == 200
    assert reply.headers["cache-control"] == "no-store"
    assert reply.json()["expires_in"] == 30
    return reply.json()["ticket"]


async def redeemed(server: Server, ticket: str) -> Any:
    return await server.runtime.identity.redeem_ticket(ticket)


async def test_a_ticket_is_its_user_once(server: Server, alice: User) -> None:
    ticket = await ticket_of(alice.client)
    attempts = await asyncio.gather(*(redeemed(server, ticket) for _ in range(5)), return_exceptions=True)
    [principal] = [item for item in attempts if not isinstance(item, Unauthenticated)]
    assert principal.user_id == "alice"
    assert principal.scopes == set(Scope)
    assert await server.runtime.identity.recheck(principal) == principal


async def test_a_keys_ticket_may_what_the_key_may(server: Server, alice: User, connect: Connect) -> None:
    made = await new_key(alice, scopes=["read"])
    principal = await redeemed(server, await ticket_of(connect(made["key"])))
    assert (principal.user_id, principal.scopes) == ("alice", {Scope.READ})
    await alice.client.delete(f"/api/auth/keys/{made['key_id']}")
    with pytest.raises(Unauthenticated):
        await server.runtime.identity.recheck(principal)


async def test_a_ticket_dies_with_what_it_was_asked_for_with(server: Server, carol: User, connect: Connect) -> None:
    made = await new_key(carol)
    by_key, by_token = await ticket_of(connect(made["key"])), await ticket_of(carol.client)
    await carol.client.delete(f"/api/auth/keys/{made['key_id']}")
    await carol.client.post("/api/auth/logout")
    for ticket in (by_key, by_token, "", "x" * 43):
        with pytest.raises(Unauthenticated):
            await redeemed(server, ticket)

"""The wall around every route: who may call it, and what it tells those who may not."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import httpx
import pytest
from starlette.routing import WebSocketRoute
from tests.api.harness import NewUser, Server

from moorage_api.app import create_app

Access = Literal["public", "user", "owner", "admin"]

# Every operation is declared here, or the first test fails.
ACCESS: dict[str, Access] = {
    "GET /": "public",
    "GET /app": "public",
    "GET /app/{path:path}": "public",
    "GET /favicon.ico": "public",
    "GET /healthz": "public",
    "GET /readyz": "public",
    "GET /ok": "public",
    "GET /info": "public",
    "GET /docs": "public",
    "GET /docs/oauth2-redirect": "public",
    "GET /openapi.json": "public",
    "POST /api/auth/register": "public",
    "POST /api/auth/login": "public",
    "POST /api/auth/refresh": "public",
    "POST /api/auth/setup": "public",
    "POST /api/auth/logout": "user",
    "POST /api/auth/logout-all": "user",
    "POST /api/auth/password": "user",
    "GET /api/auth/me": "user",
    "GET /api/auth/webhook-secret": "user",
    "POST /api/auth/keys": "user",
    "GET /api/auth/keys": "user",
    "DELETE /api/auth/keys/{key_id}": "user",
    "POST /api/auth/ws-ticket": "user",
    "GET /api/admin/users": "admin",
    "POST /api/admin/users": "admin",
    "PATCH /api/admin/users/{user_id}": "admin",
    "POST /api/admin/users/{user_id}/password": "admin",
    "GET /api/admin/sandboxes": "admin",
    "POST /api/admin/sandboxes/{thread_id}/stop": "admin",
    "GET /api/admin/check": "admin",
    "GET /api/admin/usage": "admin",
    "POST /api/sessions": "user",
    "GET /api/sessions": "user",
    "GET /api/sessions/{thread_id}": "owner",
    "PATCH /api/sessions/{thread_id}": "owner",
    "DELETE /api/sessions/{thread_id}": "owner",
    "POST /api/sessions/{thread_id}/close": "owner",
    "POST /api/sessions/{thread_id}/copy": "owner",
    "POST /api/sessions/{thread_id}/snapshots": "owner",
    "GET /api/sessions/{thread_id}/snapshots": "owner",
    "DELETE /api/sessions/{thread_id}/snapshots/{snapshot_id}": "owner",
    "POST /api/sessions/{thread_id}/snapshots/{snapshot_id}/restore": "owner",
    "POST /api/sessions/{thread_id}/cancel": "owner",
    "GET /api/sessions/{thread_id}/messages": "owner",
    "GET /api/sessions/{thread_id}/state": "owner",
    "GET /api/sessions/{thread_id}/events": "owner",
    "GET /api/sessions/{thread_id}/rules": "owner",
    "DELETE /api/sessions/{thread_id}/rules/{rule_id}": "owner",
    "POST /api/chat/{thread_id}": "owner",
    "POST /api/resume/{thread_id}": "owner",
    "GET /api/messages": "user",
    "GET /api/tools": "user",
    "GET /api/sessions/{thread_id}/export": "owner",
    "GET /api/files/{thread_id}": "owner",
    "GET /api/files/{thread_id}/stat": "owner",
    "GET /api/files/{thread_id}/preview": "owner",
    "GET /api/files/{thread_id}/usage": "owner",
    "GET /api/files/{thread_id}/content": "owner",
    "GET /api/files/{thread_id}/zip": "owner",
    "PUT /api/files/{thread_id}/content": "owner",
    "POST /api/files/{thread_id}/upload": "owner",
    "POST /api/files/{thread_id}/mkdir": "owner",
    "POST /api/files/{thread_id}/move": "owner",
    "DELETE /api/files/{thread_id}/content": "owner",
    "GET /api/shared": "user",
    "GET /api/shared/stat": "user",
    "GET /api/shared/preview": "user",
    "GET /api/shared/usage": "user",
    "GET /api/shared/content": "user",
    "GET /api/shared/zip": "user",
    "PUT /api/shared/content": "user",
    "POST /api/shared/upload": "user",
    "POST /api/shared/mkdir": "user",
    "POST /api/shared/move": "user",
    "DELETE /api/shared/content": "user",
    "POST /threads": "user",
    "POST /threads/search": "user",
    "POST /threads/count": "user",
    "POST /threads/prune": "user",
    "GET /threads/{thread_id}": "owner",
    "PATCH /threads/{thread_id}": "owner",
    "DELETE /threads/{thread_id}": "owner",
    "POST /threads/{thread_id}/copy": "owner",
    "GET /threads/{thread_id}/storage": "owner",
    "GET /threads/{thread_id}/state": "owner",
    "POST /threads/{thread_id}/state": "owner",
    "GET /threads/{thread_id}/state/{checkpoint_id}": "owner",
    "POST /threads/{thread_id}/state/checkpoint": "owner",
    "GET /threads/{thread_id}/history": "owner",
    "POST /threads/{thread_id}/history": "owner",
    "GET /threads/{thread_id}/stream": "owner",
    "POST /threads/{thread_id}/runs": "owner",
    "POST /threads/{thread_id}/runs/stream": "owner",
    "POST /threads/{thread_id}/runs/wait": "owner",
    "GET /threads/{thread_id}/runs": "owner",
    "GET /threads/{thread_id}/runs/{run_id}": "owner",
    "DELETE /threads/{thread_id}/runs/{run_id}": "owner",
    "GET /threads/{thread_id}/runs/{run_id}/join": "owner",
    "GET /threads/{thread_id}/runs/{run_id}/stream": "owner",
    "POST /threads/{thread_id}/runs/{run_id}/cancel": "owner",
    "POST /runs": "user",
    "POST /runs/stream": "user",
    "POST /runs/wait": "user",
    "POST /runs/batch": "user",
    "POST /runs/cancel": "user",
    "GET /runs/{run_id}/stream": "user",
    "PUT /store/items": "user",
    "GET /store/items": "user",
    "DELETE /store/items": "user",
    "POST /store/items/search": "user",
    "POST /store/namespaces": "user",
    "POST /threads/{thread_id}/runs/crons": "owner",
    "POST /runs/crons": "user",
    "POST /runs/crons/search": "user",
    "POST /runs/crons/count": "user",
    "GET /runs/crons/{cron_id}": "user",
    "PATCH /runs/crons/{cron_id}": "user",
    "DELETE /runs/crons/{cron_id}": "user",
    "POST /threads/{thread_id}/commands": "user",
    "POST /threads/{thread_id}/stream/events": "user",
    "GET /api/approvals": "user",
    "GET /api/approvals/{interrupt_id}": "user",
    "POST /api/approvals/{interrupt_id}/decision": "user",
    "POST /v1/chat/completions": "user",
    "GET /v1/models": "user",
    "GET /v1/models/{model_id}": "user",
    "POST /assistants": "user",
    "POST /assistants/search": "user",
    "POST /assistants/count": "user",
    "GET /assistants/{assistant_id}": "user",
    "PATCH /assistants/{assistant_id}": "user",
    "DELETE /assistants/{assistant_id}": "user",
    "GET /assistants/{assistant_id}/graph": "user",
    "GET /assistants/{assistant_id}/schemas": "user",
    "GET /assistants/{assistant_id}/subgraphs": "user",
    "GET /assistants/{assistant_id}/subgraphs/{namespace}": "user",
    "POST /assistants/{assistant_id}/versions": "user",
    "POST /assistants/{assistant_id}/latest": "user",
    # These answer 501 to everybody, and know nothing.
    "POST /a2a/{assistant_id}": "public",
    "GET /.well-known/agent-card.json": "public",
    "GET /mcp/": "public",
    "POST /mcp/": "public",
    "DELETE /mcp/": "public",
    "GET /metrics": "public",
}
# They are accepted first: a browser cannot read why a connection was refused.
SOCKETS: dict[str, Access] = {"WS /threads/{thread_id}/stream/events": "owner"}
BODIES: dict[str, dict[str, object]] = {
    "POST /threads/{thread_id}/runs/crons": {"assistant_id": "agent", "schedule": "@daily"},
    "PATCH /api/sessions/{thread_id}": {"title": "mine now"},
    "POST /api/chat/{thread_id}": {"message": "hello"},
    "POST /api/resume/{thread_id}": {"action": "continue"},
    "POST /api/approvals/{interrupt_id}/decision": {"type": "approve"},
    "POST /api/files/{thread_id}/mkdir": {"path": "a"},
    "POST /api/admin/users": {"username": "nobody", "password": "correct horse battery"},
    "PATCH /api/admin/users/{user_id}": {"active": False},
    "POST /api/admin/users/{user_id}/password": {"new_password": "correct horse battery"},
    "POST /api/files/{thread_id}/move": {"from": "a", "to": "b"},
    "PATCH /threads/{thread_id}": {"metadata": {"a": 1}},
    "POST /threads/{thread_id}/state": {"values": None},
    "POST /threads/{thread_id}/state/checkpoint": {"checkpoint": {}},
    "POST /threads/{thread_id}/history": {},
    "POST /threads/{thread_id}/runs": {"assistant_id": "agent"},
    "POST /threads/{thread_id}/runs/stream": {"assistant_id": "agent"},
    "POST /threads/{thread_id}/runs/wait": {"assistant_id": "agent"},
}


def operations(routes: Sequence[Any]) -> Iterator[str]:
    """Every mounted method and path, those of included routers too; WebSockets as `WS`."""
    for route in routes:
        if (router := getattr(route, "original_router", None)) is not None:
            yield from operations(router.routes)
        if isinstance(route, WebSocketRoute):
            yield f"WS {route.path}"
        for method in sorted(getattr(route, "methods", None) or ()):
            if method != "HEAD":
                yield f"{method} {route.path}"


def with_access(access: Access) -> list[str]:
    return [operation for operation, found in ACCESS.items() if found == access]


async def call(client: httpx.AsyncClient, operation: str, **ids: str) -> httpx.Response:
    method, path = operation.split(" ")
    path = re.sub(r"\{(\w+)\}", lambda match: ids.get(match[1], "0" * 32), path)
    return await client.request(method, path, json=BODIES.get(operation), headers={"accept": "text/event-stream"})


async def test_every_mounted_operation_is_declared(server: Server):
    assert set(operations(create_app(server.runtime).routes)) == {*ACCESS, *SOCKETS}


@pytest.mark.parametrize("operation", with_access("user") + with_access("owner") + with_access("admin"))
@pytest.mark.parametrize("token", [None, "garbage", "a.b.c"])
async def test_without_a_valid_token_the_answer_is_401(server: Server, operation: str, token: str | None):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
        reply = await call(client, operation, thread_id="alice-00000000-0000-4000-8000-000000000000")
    assert reply.status_code == 401
    if "/v1/" in operation:
        assert set(reply.json()["error"]) == {"message", "type", "code", "param"}
    else:
        assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("operation", with_access("admin"))
async def test_who_is_no_administrator_is_refused(new_user: NewUser, operation: str):
    al = await new_user("al")
    reply = await call(al.client, operation, user_id="al", thread_id="al-00000000-0000-4000-8000-000000000000")
    assert (reply.status_code, reply.json()["code"]) == (403, "admin_required")


@pytest.mark.parametrize("operation", with_access("owner"))
async def test_al_never_reaches_a_thread_of_al_ice(new_user: NewUser, operation: str):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await al_ice.new_session()
    for thread_id in (theirs, f"al-ice-{'0' * 8}-0000-4000-8000-{'0' * 12}"):
        reply = await call(al.client, operation, thread_id=thread_id)
        assert reply.status_code == 403
        assert reply.headers["content-type"] == "application/problem+json"
        assert reply.json()["detail"] == f"Access denied to thread {thread_id}"


@pytest.mark.parametrize("operation", with_access("owner"))
async def test_an_own_thread_that_is_not_there_is_404(new_user: NewUser, operation: str):
    al = await new_user("al")
    reply = await call(al.client, operation, thread_id="al-00000000-0000-4000-8000-000000000000")
    assert reply.status_code == 404


@pytest.mark.parametrize("thread_id", ["al", "al-", "nonsense", "al-ice", "AL-00000000-0000-4000-8000-000000000000"])
async def test_what_is_no_thread_id_of_ones_own_is_403(new_user: NewUser, thread_id: str):
    al = await new_user("al")
    assert (await al.client.get(f"/api/sessions/{thread_id}")).status_code == 403


async def test_an_approval_of_another_user_is_not_there(new_user: NewUser):
    al, al_ice = await new_user("al"), await new_user("al-ice")
    thread = await al_ice.new_session()
    events = await al_ice.play(thread, ("execute", {"command": "true"}))
    interrupt = next(event.data for event in events if event.type == "interrupt")["interrupts"][0]
    for operation in ("GET /api/approvals/{interrupt_id}", "POST /api/approvals/{interrupt_id}/decision"):
        assert (await call(al.client, operation, interrupt_id=interrupt["id"])).status_code == 404
    assert (await al.client.get("/api/approvals")).json()["items"] == []
    assert (await al.client.get("/api/approvals", params={"thread_id": thread})).status_code == 403

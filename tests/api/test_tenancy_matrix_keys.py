"""What a key of one's own may not do, with everything of one's own in the request."""

import httpx
import pytest
from tests.api.harness import NewUser, Server
from tests.api.tenancy.asker import Asker
from tests.api.tenancy.matrix import MATRIX
from tests.api.tenancy.world import World, run_body, sent
from tests.api.test_api_keys import LOGIN_ONLY, READING_POSTS
from tests.api.test_routes import ACCESS

CHANGING = [
    operation
    for operation, access in ACCESS.items()
    if access != "public" and not operation.startswith("GET ") and operation not in READING_POSTS
]


async def key_of(client: httpx.AsyncClient, *scopes: str) -> dict[str, str]:
    made = await sent(client, "POST", "/api/auth/keys", {"name": "a key", "scopes": list(scopes)})
    return {"x-api-key": made["key"]}


@pytest.fixture(scope="module")
async def reading_key(world: World) -> dict[str, str]:
    return await key_of(world.al.user.client, "read")


@pytest.mark.parametrize("operation", CHANGING)
async def test_a_key_to_read_changes_nothing(
    server: Server, world: World, reading_key: dict[str, str], operation: str
) -> None:
    before = await world.snapshot("al")
    attempt = Asker(operation, world).ask("all his own")
    async with httpx.AsyncClient(base_url=server.url, headers=reading_key) as client:
        reply = await client.request(attempt.method, attempt.path, json=attempt.body)
    assert reply.status_code == 403
    expected = "login_required" if operation in LOGIN_ONLY else "scope_missing"
    told = reply.json()
    assert (told["error"] if operation.startswith("POST /v1/") else told)["code"] == expected
    after = await world.snapshot("al")
    assert {name for name in after if after[name] != before[name]} <= {"api_keys"}, "when the key was used last"


def test_every_changing_operation_is_in_the_matrix() -> None:
    assert set(CHANGING) <= set(MATRIX)


@pytest.mark.parametrize("where", ["context", "config"])
async def test_a_key_to_run_makes_no_cron_that_needs_no_approval(server: Server, new_user: NewUser, where: str) -> None:
    alice = await new_user("alice")
    approvals = {"approvals": {"execute": "deny"}}
    changed = {"context": approvals} if where == "context" else {"config": {"configurable": approvals}}
    cron = {**run_body("hello"), "schedule": "@yearly"}
    async with httpx.AsyncClient(base_url=server.url, headers=await key_of(alice.client, "read", "run")) as client:
        made = await sent(client, "POST", "/runs/crons", cron)
        for method, path in (("POST", "/runs/crons"), ("PATCH", f"/runs/crons/{made['cron_id']}")):
            reply = await client.request(method, path, json={**(cron if method == "POST" else {}), **changed})
            assert (reply.status_code, reply.json()["code"]) == (403, "scope_missing")

"""The server keeps to its own OpenAPI document, whatever it is sent: valid requests, broken ones, and nonsense."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import suppress

import httpx
import hypothesis.core
import pytest
import schemathesis
from schemathesis import BaseSchema
from tests.api.harness import PASSWORD, Server, User
from tests.api.openapi_calls import Asked, Asker
from tests.api.openapi_world import things_for
from tests.api.test_routes import ACCESS

from moorage.identity.service import UsernameTaken

UNDESCRIBED = {
    "GET /", "GET /app", "GET /app/{path:path}", "GET /favicon.ico",
    "GET /docs", "GET /docs/oauth2-redirect", "GET /openapi.json",
    # Answered with 501.
    "POST /a2a/{assistant_id}", "GET /.well-known/agent-card.json", "GET /mcp/", "POST /mcp/", "DELETE /mcp/",
    "GET /metrics",
}  # fmt: skip
ENDS_LOGINS = {"POST /api/auth/logout", "POST /api/auth/logout-all", "POST /api/auth/password"}
OPERATIONS = [operation for operation in ACCESS if operation not in UNDESCRIBED]


async def _logged_in(client: httpx.AsyncClient, name: str) -> User:
    account = {"username": name, "password": PASSWORD}
    assert (await client.post("/api/auth/register", json=account)).status_code in (201, 409)
    token = (await client.post("/api/auth/login", json=account)).json()["access_token"]
    client.headers["authorization"] = f"Bearer {token}"
    return User(name, client)


async def _make_admin(server: Server, name: str) -> None:
    with suppress(UsernameTaken):
        await server.runtime.identity.create_user(name, PASSWORD, is_admin=True)


@pytest.fixture(scope="module")
async def user(server: Server) -> AsyncGenerator[User]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield await _logged_in(client, "alice")


@pytest.fixture(scope="module")
async def document(user: User) -> AsyncGenerator[BaseSchema]:
    reply = await user.client.get("/openapi.json")
    document = schemathesis.openapi.from_dict(reply.json())
    document.config.generation.update(with_security_parameters=False)
    document.config.checks.negative_data_rejection.expected_statuses += ["410", "413"]
    printer = hypothesis.core.RepresentationPrinter
    yield document
    hypothesis.core.RepresentationPrinter = printer  # which Schemathesis takes away from all tests of the process


@pytest.fixture(scope="module")
def asked() -> Asked:
    return Asked()


async def test_the_document_describes_every_operation(document: BaseSchema):
    described = {item.ok().label for item in document.get_all_operations()}
    assert described == set(OPERATIONS)


async def test_every_reference_in_the_document_leads_somewhere(user: User):
    document = (await user.client.get("/openapi.json")).json()
    for reference in set(re.findall(r'"\$ref":\s*"#/([^"]+)"', json.dumps(document))):
        place = document
        for name in reference.split("/"):
            assert name in place, reference
            place = place[name]


@pytest.mark.parametrize("operation", OPERATIONS)
# Hypothesis minds that the server, in another thread, uses `random` too.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
async def test_an_operation_answers_as_the_document_says(
    server: Server,
    user: User,
    document: BaseSchema,
    asked: Asked,
    operation: str,
    capfd: pytest.CaptureFixture[str],
):
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        caller = user
        if operation in ENDS_LOGINS:
            caller = await _logged_in(client, "leaver")
        elif ACCESS[operation] == "admin":
            await _make_admin(server, "boss")
            caller = await _logged_in(client, "boss")
        things = await things_for(user if operation in ENDS_LOGINS else caller, operation)
        authorization = caller.client.headers["authorization"]
    asker = Asker(document, operation, url=server.url, authorization=authorization, asked=asked)
    await asyncio.to_thread(asker.ask, things)
    assert not asked.failures_of(operation)
    assert "unhandled_error" not in capfd.readouterr().out


async def test_more_than_two_thousand_requests_were_made(asked: Asked):
    if set(asked.examples) != set(OPERATIONS):
        pytest.skip("counts what the tests of all operations did")
    assert asked.examples.total() > 2000

"""The server that API tests call, and users logged in to it."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx
import pytest
from tests.api.harness import PASSWORD, NewUser, Server, User, make_settings, running
from tests.api.tenancy.world import World, open_world


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    folder = public_tmp_path / uuid.uuid4().hex
    async with running(make_settings(folder, database_url)) as found:
        yield found


@pytest.fixture(scope="module")
def logins(server: Server) -> dict[str, str]:
    """The last access token of each user of this file: two passwords' hashes would be most of what a test costs."""
    return {}


@pytest.fixture
async def new_user(server: Server, logins: dict[str, str]) -> AsyncGenerator[NewUser]:
    """Register a user and log in, unless an earlier test did and left that log-in valid."""
    clients: list[httpx.AsyncClient] = []

    async def make(name: str) -> User:
        client = httpx.AsyncClient(base_url=server.url, timeout=30)
        clients.append(client)
        client.headers["authorization"] = f"Bearer {logins.get(name)}"
        if (await client.get("/api/auth/me")).status_code != 200:
            logins[name] = await _log_in(client, name)
            client.headers["authorization"] = f"Bearer {logins[name]}"
        return User(name, client)

    yield make
    for client in clients:
        await client.aclose()


async def _log_in(client: httpx.AsyncClient, name: str) -> str:
    account = {"username": name, "password": PASSWORD}
    reply = await client.post("/api/auth/register", json=account)
    assert reply.status_code in (201, 409), reply.text
    return (await client.post("/api/auth/login", json=account)).json()["access_token"]


@pytest.fixture
async def alice(new_user: NewUser) -> User:
    return await new_user("alice")


@pytest.fixture(scope="module")
async def world(server: Server, postgres_url: str, database_url: str) -> AsyncGenerator[World]:
    """Two users, one's name the beginning of the other's, who have one of everything each."""
    async with open_world(server.url, postgres_url, database_url) as found:
        yield found

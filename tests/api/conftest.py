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


@pytest.fixture
async def new_user(server: Server) -> AsyncGenerator[NewUser]:
    """Register a user and log in."""
    clients: list[httpx.AsyncClient] = []

    async def make(name: str) -> User:
        client = httpx.AsyncClient(base_url=server.url, timeout=30)
        clients.append(client)
        account = {"username": name, "password": PASSWORD}
        reply = await client.post("/api/auth/register", json=account)
        assert reply.status_code in (201, 409), reply.text
        reply = await client.post("/api/auth/login", json=account)
        client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
        return User(name, client)

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def alice(new_user: NewUser) -> User:
    return await new_user("alice")


@pytest.fixture(scope="module")
async def world(server: Server, postgres_url: str, database_url: str) -> AsyncGenerator[World]:
    """Two users, one's name the beginning of the other's, who have one of everything each."""
    async with open_world(server.url, postgres_url, database_url) as found:
        yield found

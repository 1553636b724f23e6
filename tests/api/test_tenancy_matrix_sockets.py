"""WebSockets: who may open one, whose threads it reads, and what another user's ids in its frames lead to."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from tests.api.harness import Server
from tests.api.tenancy.asker import Asker
from tests.api.tenancy.attempts import leaks
from tests.api.tenancy.others import commands
from tests.api.tenancy.world import World, run_body, sent
from tests.api.test_routes import SOCKETS
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

CHANNELS = ["values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom"]
COMMANDS = "POST /threads/{thread_id}/commands"


@asynccontextmanager
async def opened(
    server: Server, path: str, headers: Mapping[str, str], **options: Any
) -> AsyncGenerator[ClientConnection]:
    url = server.url.replace("http://", "ws://") + path
    async with connect(url, additional_headers=dict(headers), proxy=None, **options) as socket:
        yield socket


def place(operation: str, thread_id: str) -> str:
    return operation.removeprefix("WS ").replace("{thread_id}", thread_id)


def authorized(world: World) -> dict[str, str]:
    return {"authorization": world.al.user.client.headers["authorization"]}


async def heard(socket: ClientConnection) -> tuple[bytes, int | None]:
    """All that is said until the server closes, and the code with which it does."""
    told = b""
    async with asyncio.timeout(10):
        try:
            while True:
                told += await socket.recv(decode=False)
        except ConnectionClosed as closed:
            return told, closed.rcvd.code if closed.rcvd else None


@pytest.mark.parametrize("operation", SOCKETS)
@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer garbage"}, {"authorization": "Bearer a.b.c"}, {"x-api-key": "mrg_x"}]
)
async def test_without_a_valid_token_nothing_is_told(
    server: Server, world: World, operation: str, headers: dict[str, str]
) -> None:
    for thread_id in (world.al_ice.thread, world.al.thread):
        async with opened(server, place(operation, thread_id), headers) as socket:
            told, closed = await heard(socket)
        assert closed == 4401
        assert orjson.loads(told)["type"] == "error"
        assert list(leaks(world, told, b"")) == []


@pytest.mark.parametrize("operation", SOCKETS)
async def test_another_users_thread_is_refused_in_either_way_of_proving_oneself(
    server: Server, world: World, operation: str
) -> None:
    before = await world.snapshot()
    for thread_id in world.al_ice.threads:
        token = world.al.user.client.headers["authorization"].removeprefix("Bearer ")
        ticket = (await sent(world.al.user.client, "POST", "/api/auth/ws-ticket"))["ticket"]
        path = place(operation, thread_id)
        ways: list[tuple[str, dict[str, Any]]] = [(path, {"subprotocols": ["bearer", token]})]
        for way, options in [*ways, (f"{path}?ticket={ticket}", {})]:
            async with opened(server, way, {}, **options) as socket:
                told, closed = await heard(socket)
            assert closed == 4403
            assert f"Access denied to thread {thread_id}" in told.decode()
            assert list(leaks(world, told, thread_id.encode())) == []
    assert await world.snapshot() == before


@pytest.mark.parametrize("operation", SOCKETS)
async def test_another_users_ids_in_frames_lead_nowhere(server: Server, world: World, operation: str) -> None:
    before = await world.snapshot()
    asker, found = Asker(COMMANDS, world), list[str]()
    for attempt in commands(asker):
        thread_id = attempt.path.split("/")[2]
        async with opened(server, place(operation, thread_id), authorized(world)) as socket:
            await socket.send(orjson.dumps(attempt.body).decode())
            told = await asyncio.wait_for(socket.recv(decode=False), 30)
        if attempt.says not in told.decode():
            found.append(f"{attempt.what}: {told[:300]!r}")
        found += [f"{attempt.what}: {item}" for item in leaks(world, told, orjson.dumps(attempt.body))]
        world.told.append(orjson.dumps(attempt.body))
    assert found == []
    assert await world.snapshot() == before


@pytest.mark.parametrize("operation", SOCKETS)
async def test_a_subscription_hears_its_own_thread_only(server: Server, world: World, operation: str) -> None:
    params = {"channels": CHANNELS, "since": 0, "thread_id": world.al_ice.shared}
    async with opened(server, place(operation, world.al.shared), authorized(world)) as socket:
        await socket.send(orjson.dumps({"id": 1, "method": "subscription.subscribe", "params": params}).decode())
        told = b""
        async with asyncio.timeout(30):
            while b'"completed"' not in told:
                told += await socket.recv(decode=False)
    assert list(leaks(world, told, orjson.dumps(params))) == []


@pytest.mark.parametrize("operation", SOCKETS)
async def test_a_key_to_read_starts_and_answers_nothing_over_a_socket(
    server: Server, world: World, operation: str
) -> None:
    made = await sent(world.al.user.client, "POST", "/api/auth/keys", {"name": "reader", "scopes": ["read"]})
    answer = {"interrupt_id": world.al.interrupt, "response": {"type": "approve"}}
    before = await world.snapshot("al")
    async with opened(server, place(operation, world.al.paused), {"x-api-key": made["key"]}) as socket:
        for method, params in (("run.start", run_body("hello")), ("input.respond", answer)):
            await socket.send(orjson.dumps({"id": 1, "method": method, "params": params}).decode())
            told = orjson.loads(await asyncio.wait_for(socket.recv(), 30))
            assert (told["type"], told["error"]) == ("error", "permission_denied")
    after = await world.snapshot("al")
    assert {name for name in after if after[name] != before[name]} <= {"api_keys"}

"""No user has more streams open at a server than it allows, whichever kind they are of."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from tests.api.harness import Server, User, make_settings, running
from tests.api.langgraph.test_protocol import ask, headers_of, new_id, refused, socket

CHANNELS = {"channels": ["values"]}


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    async with running(make_settings(public_tmp_path / "streams", database_url, quota_open_streams=3)) as found:
        yield found


async def test_one_too_many_is_a_429_until_another_ends(server: Server, alice: User, new_user: Any) -> None:
    thread = await alice.new_session()
    paths = [f"/threads/{new_id()}/stream/events", f"/threads/{thread}/stream", f"/api/sessions/{thread}/events"]
    requests = [("POST", paths[0], CHANNELS), ("GET", paths[1], None), ("GET", paths[2], None)]
    async with AsyncExitStack() as streams:
        for method, path, body in requests:
            reply = await streams.enter_async_context(alice.client.stream(method, path, json=body))
            assert reply.status_code == 200
        for method, path, body in requests:
            reply = await alice.client.request(method, path, json=body)
            assert (reply.status_code, reply.json()["code"]) == (429, "stream_limit")
        assert await refused(server, additional_headers=headers_of(alice)) == 4429
        bob = await new_user("bob")
        async with bob.client.stream("POST", paths[0], json=CHANNELS) as theirs:
            assert theirs.status_code == 200
    assert (await alice.chat(thread, '{"calls": [], "then": "hi"}'))[-1].type == "run_end"


async def test_a_subscription_is_one_too(server: Server, alice: User) -> None:
    async with socket(server, new_id(), additional_headers=headers_of(alice)) as connection:
        answers: list[dict[str, Any]] = []
        for number in range(3):
            await ask(connection, number, "subscription.subscribe", **CHANNELS)
            answers.append(orjson.loads(await connection.recv()))
        assert [answer.get("reason") for answer in answers] == [None, None, "stream_limit"]
        subscription_id = answers[0]["result"]["subscription_id"]
        await ask(connection, 3, "subscription.unsubscribe", subscription_id=subscription_id)
        assert orjson.loads(await connection.recv())["type"] == "success"
        await ask(connection, 4, "subscription.subscribe", **CHANNELS)
        assert orjson.loads(await connection.recv())["type"] == "success"


async def test_a_run_that_was_read_counts_no_more(server: Server, alice: User) -> None:
    async with httpx.AsyncClient(base_url=server.url, headers=headers_of(alice), timeout=30) as client:
        for _ in range(5):
            body = {"assistant_id": "agent", "input": {"messages": '{"calls": [], "then": "hi"}'}}
            assert (await client.post("/runs/wait", json=body)).status_code == 200
            assert (await client.post("/runs/stream", json=body)).status_code == 200

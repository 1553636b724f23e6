"""Webhooks over HTTP: a run is created with one, and somebody's server is told how it ended."""

import asyncio
import hashlib
import hmac
import json
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.api.harness import NewUser, Server, User, make_settings, running
from tests.integration.test_webhooks import Receiver, receiving

INPUT = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    """One whose webhooks may reach this machine."""
    folder = public_tmp_path / uuid.uuid4().hex
    async with running(make_settings(folder, database_url, webhook_allow=("127.0.0.1",))) as found:
        yield found


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving() as found:
        yield found


async def told(receiver: Receiver) -> dict[str, Any]:
    async with asyncio.timeout(30):
        await receiver.heard.wait()
    return json.loads(receiver.bodies[0])


@pytest.mark.parametrize("stateless", [False, True])
async def test_the_receiver_learns_how_the_run_ended(alice: User, receiver: Receiver, stateless: bool) -> None:
    path = "/runs" if stateless else f"/threads/{await alice.new_session()}/runs"
    body = {"assistant_id": "agent", "input": INPUT, "webhook": receiver.url, "metadata": {"m": 1}}
    run = (await alice.client.post(path, json=body)).json()
    got = await told(receiver)
    for name in ("run_id", "thread_id", "assistant_id", "kwargs", "multitask_strategy"):
        assert got[name] == run[name]
    assert (got["status"], got["metadata"], got["error"]) == ("success", {"m": 1}, None)
    assert [message["type"] for message in got["values"]["messages"]] == ["human", "ai"]
    assert receiver.url not in receiver.bodies[0].decode()


async def test_the_receiver_can_tell_that_it_was_us(alice: User, receiver: Receiver) -> None:
    body = {"assistant_id": "agent", "input": INPUT, "webhook": receiver.url}
    await alice.client.post("/runs", json=body)
    await told(receiver)
    secret = (await alice.client.get("/api/auth/webhook-secret")).json()["secret"]
    at, signed = receiver.header("X-Moorage-Signature").removeprefix("t=").split(",v1=")
    body = at.encode() + b"." + receiver.bodies[0]
    assert hmac.compare_digest(signed, hmac.new(secret.encode(), body, hashlib.sha256).hexdigest())


async def test_each_user_has_a_key_of_their_own(new_user: NewUser) -> None:
    al, al_ice = await new_user("al"), await new_user("al-ice")
    secrets = {(await user.client.get("/api/auth/webhook-secret")).json()["secret"] for user in (al, al_ice)}
    assert len(secrets) == 2


IMPOSSIBLE = (
    "/relative",
    "ftp://example.org",
    "https://me:pw@example.org/",
    "http://169.254.169.254/latest/meta-data",
    "http://[::ffff:10.0.0.1]:8080/",
    "http://[64:ff9b::7f00:1]/",
    "https://localhost/hook",
)


@pytest.mark.parametrize("url", IMPOSSIBLE)
async def test_an_address_that_cannot_be_is_refused_when_the_run_is_created(alice: User, url: str) -> None:
    reply = await alice.client.post("/runs", json={"assistant_id": "agent", "input": INPUT, "webhook": url})
    assert reply.status_code == 422
    assert reply.json()["errors"][0]["loc"] == ["body", "webhook"]

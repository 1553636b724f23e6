"""Runs without a thread of the client's, over HTTP."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from tests.api.harness import NewUser, Server, User, make_settings, running

HELLO: dict[str, Any] = {"assistant_id": "agent", "input": {"messages": "hello"}}


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    async with running(make_settings(public_tmp_path / "stateless", database_url, quota_active_sessions=2)) as found:
        yield found


@pytest.fixture
async def alice(server: Server, new_user: NewUser) -> User:
    return await new_user(f"user-{uuid.uuid4().hex[:8]}")


async def test_of_a_batch_with_one_run_that_is_refused_none_starts(alice: User) -> None:
    bad = {**HELLO, "webhook": "http://127.0.0.1/"}
    reply = await alice.client.post("/runs/batch", json=[HELLO, bad])
    assert reply.status_code == 422
    assert (await alice.client.post("/runs/cancel", json={"status": "all"})).status_code == 404
    assert len((await alice.client.post("/runs/batch", json=[HELLO, HELLO])).json()) == 2


@pytest.mark.parametrize("asked", [{"webhook": "http://127.0.0.1/"}, {"command": {"resume": "yes"}}])
async def test_a_run_that_is_refused_leaves_no_thread_that_counts(alice: User, asked: dict[str, Any]) -> None:
    for _ in range(3):
        reply = await alice.client.post("/runs", json={**HELLO, **asked})
        assert (reply.status_code, reply.json()["code"]) != (429, "quota_exceeded")
        assert reply.status_code == 422
    assert (await alice.client.post("/runs", json=HELLO)).status_code == 200


async def test_who_cancels_without_saying_what_is_told_what_to_send(alice: User) -> None:
    reply = await alice.client.post("/runs/cancel", json={})
    assert reply.status_code == 422
    assert "or send a status" in reply.json()["detail"]

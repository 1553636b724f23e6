"""Assistants on a server whose operator lets users choose models, and let tools run without asking."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.api.harness import Server, User, make_settings, only, running

ALLOWED = {"approvals": {"execute": "allow"}}


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    allowed = {"approvals_allow_auto": True, "llm_allowed_models": "openai:gpt-5-mini", "llm_api_key": "k"}
    async with running(make_settings(public_tmp_path / uuid.uuid4().hex, database_url, **allowed)) as found:
        yield found


async def create(client: httpx.AsyncClient, **context: Any) -> httpx.Response:
    return await client.post("/assistants", json={"graph_id": "agent", "context": context})


async def test_a_command_runs_without_asking_and_the_stream_says_on_whose_word(alice: User):
    made = (await create(alice.client, **ALLOWED)).json()
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    events = await alice.play(thread, ("execute", {"command": "echo ran"}))
    assert only(events, "decision") | {"type": "approve", "decided_by": "alice", "decided_via": "assistant"} == only(
        events, "decision"
    )
    assert "ran" in only(events, "tool_result")["result"]
    assert only(events, "run_end")["status"] == "success"


async def test_what_the_assistant_does_not_allow_still_asks(alice: User):
    made = (await create(alice.client, **ALLOWED)).json()
    thread = await alice.new_session(assistant_id=made["assistant_id"])
    events = await alice.play(thread, ("write_file", {"file_path": "/workspace/a", "content": "x"}))
    assert only(events, "run_end")["status"] == "interrupted"


async def test_a_listed_model_may_be_chosen_and_another_may_not(alice: User):
    assert (await create(alice.client, model="openai:gpt-5-mini")).status_code == 200
    refused = await create(alice.client, model="openai:gpt-5")
    assert (refused.status_code, refused.json()["code"]) == (422, "model_not_allowed")
    assert "openai:gpt-5-mini" in refused.json()["detail"]


@pytest.mark.parametrize(("scopes", "status"), [(["read", "run"], 403), (["read", "run", "approve"], 200)])
async def test_who_may_not_approve_may_not_configure_what_approves(
    alice: User, server: Server, scopes: list[str], status: int
):
    made = (await create(alice.client)).json()
    key = (await alice.client.post("/api/auth/keys", json={"name": "k", "scopes": scopes})).json()["key"]
    async with httpx.AsyncClient(base_url=server.url, headers={"x-api-key": key}) as client:
        assert (await create(client, **ALLOWED)).status_code == status
        path = f"/assistants/{made['assistant_id']}"
        assert (await client.patch(path, json={"context": ALLOWED})).status_code == status
        assert (await client.post(f"{path}/latest", json={"version": 1})).status_code == status
        assert (await client.get(path)).status_code == 200

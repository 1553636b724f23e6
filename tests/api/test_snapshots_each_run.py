"""A server that keeps the files of a session at the end of each run."""

import uuid
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.api.harness import Server, User, make_settings, run, running


@pytest.fixture(scope="module")
async def server(database_url: str, public_tmp_path: Path) -> AsyncGenerator[Server]:
    settings = make_settings(public_tmp_path / uuid.uuid4().hex, database_url, snapshot_each_run=True)
    async with running(settings) as found:
        yield found


async def test_each_run_that_changes_files_leaves_a_snapshot_for_forks(alice: User) -> None:
    session = await alice.new_session()
    snapshots = f"/api/sessions/{session}/snapshots"
    await alice.chat(session, "hello")
    assert (await alice.client.get(snapshots)).json()["items"] == []
    for text in ("one", "two"):
        await run(alice, session, f"echo {text} > a")
    await run(alice, session, "cat a")
    two, one = (await alice.client.get(snapshots)).json()["items"]
    assert (one["kind"], two["kind"]) == ("run", "run")
    reply = await alice.client.post(f"/api/sessions/{session}/copy", json={"checkpoint_id": one["checkpoint_id"]})
    assert reply.json()["files"] == "snapshot"
    assert await run(alice, reply.json()["thread_id"], "cat a") == "one\n"

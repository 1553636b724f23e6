"""Checkpoints in a real Postgres, under row-level security."""

from datetime import timedelta
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from psycopg.errors import InsufficientPrivilege
from tests.conftest import AddUser
from tests.fake_agent import FakeAgent, call, calls

from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.agent.context import RunContext
from moorage.claims import Claim
from moorage.errors import PermissionDenied
from moorage.ids import ThreadId, UserId, new_run_id, new_thread_id


def config(thread_id: str) -> Any:
    return {"configurable": {"thread_id": thread_id, "checkpoint_ns": ""}}


def claim_of(owner: str, thread_id: str | None = None) -> Claim:
    user = UserId(owner)
    return Claim(new_run_id(), ThreadId(thread_id or new_thread_id(user)), user, 1)


async def say(agent: FakeAgent, saver: ThreadSaver, thread_id: str, text: str) -> list[str]:
    """One turn on this saver; answers the texts of the whole conversation."""
    graph = agent.graph.copy(update={"checkpointer": saver})
    state = await graph.ainvoke(
        {"messages": [HumanMessage(text)]}, config(thread_id), context=RunContext(max_steps=9), durability="sync"
    )
    return [message.text for message in state["messages"]]


async def rows(database: Database, owner: str) -> int:
    async with database.tenant_transaction(UserId(owner)) as connection:
        found = await (await connection.execute("SELECT count(*) AS n FROM checkpoints")).fetchone()
    assert found is not None
    return found["n"]


async def test_a_conversation_continues_over_a_new_saver(database: Database) -> None:
    claim = claim_of("alice")
    await say(FakeAgent({"one": ["first"]}), ThreadSaver(database, claim), claim.thread_id, "one")
    texts = await say(FakeAgent({"two": ["second"]}), ThreadSaver(database, claim), claim.thread_id, "two")
    assert texts == ["one", "first", "two", "second"]


async def test_a_pause_survives_a_new_saver(database: Database) -> None:
    claim = claim_of("alice")
    script = {"go": [calls(call("execute", "c1", command="ls")), "done"]}
    await say(FakeAgent(script), ThreadSaver(database, claim), claim.thread_id, "go")
    graph = FakeAgent(script).graph.copy(update={"checkpointer": ThreadSaver(database, claim)})
    state = await graph.aget_state(config(claim.thread_id))
    assert [item.value["args"] for item in state.interrupts] == [{"command": "ls"}]


async def test_a_saver_refuses_another_thread_for_every_verb(database: Database) -> None:
    saver, other = ThreadSaver(database, claim_of("alice")), config(new_thread_id(UserId("alice")))
    checkpoint: Any = {"id": "1", "channel_values": {}, "channel_versions": {}, "versions_seen": {}, "v": 4, "ts": ""}
    with pytest.raises(PermissionDenied):
        await saver.aget_tuple(other)
    with pytest.raises(PermissionDenied):
        _ = [item async for item in saver.alist(other)]
    with pytest.raises(PermissionDenied):
        _ = [item async for item in saver.alist(None)]
    with pytest.raises(PermissionDenied):
        await saver.aput(other, checkpoint, {}, {})
    with pytest.raises(PermissionDenied):
        await saver.aput_writes(other, [("messages", 1)], "task")
    with pytest.raises(PermissionDenied):
        await saver.adelete_thread(other["configurable"]["thread_id"])


async def test_a_saver_sees_only_its_owners_rows(database: Database) -> None:
    mine, theirs = claim_of("alice"), claim_of("bob")
    for claim in (mine, theirs):
        await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "hi")
    assert await rows(database, "alice") > 0
    assert await rows(database, "nobody") == 0
    thief = ThreadSaver(database, claim_of("bob", mine.thread_id))
    assert await thief.aget_tuple(config(mine.thread_id)) is None
    assert [item async for item in thief.alist(config(mine.thread_id))] == []


async def test_a_saver_cannot_write_into_the_thread_of_another_owner(database: Database) -> None:
    mine = claim_of("alice")
    await say(FakeAgent({}), ThreadSaver(database, mine), mine.thread_id, "hi")
    before = await rows(database, "alice")
    with pytest.raises(InsufficientPrivilege):
        await say(FakeAgent({}), ThreadSaver(database, claim_of("bob", mine.thread_id)), mine.thread_id, "evil")
    assert await rows(database, "alice") == before


@pytest.mark.parametrize("text", ["a\x00b", "汉字 🎉", "\\u0000", "a\u2028b"])
async def test_any_text_survives_a_checkpoint(database: Database, text: str) -> None:
    claim = claim_of("alice")
    await say(FakeAgent({"go": [text]}), ThreadSaver(database, claim), claim.thread_id, "go")
    texts = await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "again")
    assert texts[1] == text


async def test_two_runs_of_different_threads_do_not_mix(database: Database, add_user: AddUser) -> None:
    alice = await add_user("alice")
    store = PostgresThreadStore(database, session_life=timedelta(0))
    claims = [claim_of(alice), claim_of(alice)]
    for number, claim in enumerate(claims):
        await store.create(alice, claim.thread_id, title="", assistant_id="agent", quota=0)
        await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, f"message {number}")
    await store.delete(alice, claims[0].thread_id)
    assert await ThreadSaver(database, claims[0]).aget_tuple(config(claims[0].thread_id)) is None
    assert await ThreadSaver(database, claims[1]).aget_tuple(config(claims[1].thread_id)) is not None

"""Checkpoints in a real Postgres, under row-level security, of runs that hold their claim and of runs that lost it."""

import pickle
from collections.abc import Collection
from datetime import timedelta
from typing import Any, LiteralString

import ormsgpack
import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langgraph.checkpoint.base import empty_checkpoint
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph.message import REMOVE_ALL_MESSAGES
from langgraph.types import Command, Overwrite
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import InsufficientPrivilege
from tests.fake_agent import FakeAgent, call, calls

from moorage.adapters.memory_journal import MemoryJournal
from moorage.adapters.postgres.checkpoints import ThreadSaver, message_ids
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.pruning import delete_checkpoints_after
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.agent.context import RunContext
from moorage.claims import Claim, ClaimLost
from moorage.errors import PermissionDenied
from moorage.ids import ThreadId, UserId, new_run_id, new_thread_id

RUN = """
INSERT INTO runs (run_id, thread_id, owner_id, kind, input, status, generation)
VALUES (%s, %s, %s, 'message', '{}', 'running', 1)
"""


def config(thread_id: str, checkpoint_id: str | None = None) -> Any:
    place = {"thread_id": thread_id, "checkpoint_ns": ""}
    return {"configurable": place | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


async def new_claim(database: Database, owner: str = "alice", thread_id: ThreadId | None = None) -> Claim:
    """A running run of this worker, on a new thread unless one is given."""
    user = UserId(owner)
    claim = Claim(new_run_id(), thread_id or new_thread_id(user), user, 1)
    async with database.system_transaction() as connection:
        await connection.execute(
            "INSERT INTO users (user_id, password_hash) VALUES (%s, '!') ON CONFLICT DO NOTHING", [owner]
        )
    if thread_id is None:
        async with database.tenant_transaction(user) as connection:
            await connection.execute(
                "INSERT INTO threads (thread_id, owner_id) VALUES (%s, %s)", [claim.thread_id, owner]
            )
    async with database.system_transaction() as connection:
        await connection.execute("UPDATE runs SET status = 'success' WHERE thread_id = %s", [claim.thread_id])
        await connection.execute(RUN, [claim.run_id, claim.thread_id, owner])
    return claim


async def lose(database: Database, claim: Claim) -> None:
    """Another worker takes the run over."""
    async with database.tenant_transaction(claim.owner_id) as connection:
        await connection.execute("UPDATE runs SET generation = generation + 1 WHERE run_id = %s", [claim.run_id])


def context_of(thread_id: str) -> RunContext:
    return RunContext(MemoryJournal(ThreadId(thread_id)), max_steps=20)


async def say(agent: FakeAgent, saver: ThreadSaver, thread_id: str, text: str) -> list[str]:
    """One turn on this saver; answers the texts of the whole conversation."""
    graph = agent.graph.copy(update={"checkpointer": saver})
    state = await graph.ainvoke(
        {"messages": [HumanMessage(text)]}, config(thread_id), context=context_of(thread_id), durability="sync"
    )
    return [message.text for message in state["messages"]]


async def rows(database: Database, owner: str, table: LiteralString = "checkpoints") -> int:
    async with database.tenant_transaction(UserId(owner)) as connection:
        found = await (await connection.execute(f"SELECT count(*) AS n FROM {table}")).fetchone()  # noqa: S608
    assert found is not None
    return found["n"]


def checkpoint(**values: Any) -> Any:
    return {**empty_checkpoint(), "channel_values": values, "channel_versions": dict.fromkeys(values, "1")}


async def put(saver: ThreadSaver, claim: Claim, metadata: Any = None, **values: Any) -> Any:
    return await saver.aput(config(claim.thread_id), checkpoint(**values), metadata or {}, dict.fromkeys(values, "1"))


# A conversation --------------------------------------------------------------------------------------------------


async def test_a_conversation_continues_over_a_new_saver(database: Database) -> None:
    claim = await new_claim(database)
    await say(FakeAgent({"one": ["first"]}), ThreadSaver(database, claim), claim.thread_id, "one")
    texts = await say(FakeAgent({"two": ["second"]}), ThreadSaver(database, claim), claim.thread_id, "two")
    assert texts == ["one", "first", "two", "second"]


async def test_a_pause_survives_a_new_saver(database: Database) -> None:
    claim = await new_claim(database)
    script = {"go": [calls(call("execute", "c1", command="ls")), "done"]}
    await say(FakeAgent(script), ThreadSaver(database, claim), claim.thread_id, "go")
    graph = FakeAgent(script).graph.copy(update={"checkpointer": ThreadSaver(database, claim)})
    state = await graph.aget_state(config(claim.thread_id))
    assert [item.value["args"] for item in state.interrupts] == [{"command": "ls"}]


async def test_two_runs_of_different_threads_do_not_mix(database: Database) -> None:
    store = PostgresThreadStore(database, session_life=timedelta(0))
    claims = [await new_claim(database), await new_claim(database)]
    for number, claim in enumerate(claims):
        await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, f"message {number}")
    await store.delete(claims[0].owner_id, claims[0].thread_id)
    assert await ThreadSaver(database, claims[0]).aget_tuple(config(claims[0].thread_id)) is None
    assert await ThreadSaver(database, claims[1]).aget_tuple(config(claims[1].thread_id)) is not None


# Whose ---------------------------------------------------------------------------------------------------------------


async def test_a_saver_refuses_another_thread_for_every_verb(database: Database) -> None:
    claim = await new_claim(database)
    saver, other = ThreadSaver(database, claim), config(new_thread_id(UserId("alice")), "1")
    with pytest.raises(PermissionDenied):
        await saver.aget_tuple(other)
    with pytest.raises(PermissionDenied):
        _ = [item async for item in saver.alist(other)]
    with pytest.raises(PermissionDenied):
        _ = [item async for item in saver.alist(None)]
    with pytest.raises(PermissionDenied):
        await saver.aput(other, checkpoint(), {}, {})
    with pytest.raises(PermissionDenied):
        await saver.aput_writes(other, [("messages", 1)], "task")
    with pytest.raises(PermissionDenied):
        await saver.aget_delta_channel_history(config=other, channels=["messages"])
    for verb in (saver.adelete_thread, lambda thread_id: saver.aprune([claim.thread_id, thread_id])):
        with pytest.raises(PermissionDenied):
            await verb(other["configurable"]["thread_id"])
    with pytest.raises(PermissionDenied):
        await saver.acopy_thread(other["configurable"]["thread_id"], claim.thread_id)


async def test_a_saver_sees_only_its_owners_rows(database: Database) -> None:
    mine = await new_claim(database)
    await say(FakeAgent({}), ThreadSaver(database, mine), mine.thread_id, "hi")
    assert await rows(database, "alice") > 0
    assert await rows(database, "nobody") == 0
    thief = ThreadSaver(database, await new_claim(database, "bob", mine.thread_id))
    assert await thief.aget_tuple(config(mine.thread_id)) is None
    assert [item async for item in thief.alist(config(mine.thread_id))] == []


async def test_a_saver_cannot_write_into_the_thread_of_another_owner(database: Database) -> None:
    mine = await new_claim(database)
    await say(FakeAgent({}), ThreadSaver(database, mine), mine.thread_id, "hi")
    before = await rows(database, "alice")
    theirs = await new_claim(database, "bob", mine.thread_id)
    with pytest.raises(InsufficientPrivilege):
        await say(FakeAgent({}), ThreadSaver(database, theirs), mine.thread_id, "evil")
    assert await rows(database, "alice") == before


# The fence -----------------------------------------------------------------------------------------------------------


async def test_a_lost_claim_writes_nothing(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    at = await put(saver, claim, values=[1])
    await saver.aput_writes(at, [("messages", AIMessage("kept", id="m1"))], "task")
    before = [
        await rows(database, "alice", table) for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    ]
    await lose(database, claim)
    with pytest.raises(ClaimLost):
        await put(saver, claim, values=[2])
    with pytest.raises(ClaimLost):
        await saver.aput_writes(at, [("messages", AIMessage("lost", id="m2"))], "other")
    with pytest.raises(ClaimLost):
        await saver.adelete_thread(claim.thread_id)
    for strategy in ("keep_latest", "delete"):
        with pytest.raises(ClaimLost):
            await saver.aprune([claim.thread_id], strategy=strategy)
    with pytest.raises(ClaimLost):
        await saver.acopy_thread(claim.thread_id, new_thread_id(claim.owner_id))
    after = [await rows(database, "alice", table) for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes")]
    assert after == before


async def test_a_run_whose_claim_is_lost_stops_with_it(database: Database) -> None:
    claim = await new_claim(database)

    async def answer() -> str:
        await lose(database, claim)
        return "nobody hears this"

    with pytest.raises(ClaimLost):
        await say(FakeAgent({"go": [answer]}), ThreadSaver(database, claim), claim.thread_id, "go")


@pytest.mark.parametrize("kind", ["tenant_transaction", "tenant_pipeline", "tenant_batch"])
async def test_each_kind_of_transaction_can_hold_a_claim(database: Database, kind: str) -> None:
    claim = await new_claim(database)
    transaction = getattr(database, kind)
    rename = "UPDATE threads SET title = %s WHERE thread_id = %s"
    async with transaction(claim.owner_id, hold=claim) as connection:
        await connection.execute(rename, ["held", claim.thread_id])
    await lose(database, claim)
    with pytest.raises(ClaimLost):
        async with transaction(claim.owner_id, hold=claim) as connection:
            await connection.execute(rename, ["lost", claim.thread_id])
    store = PostgresThreadStore(database, session_life=timedelta(0))
    thread = await store.find(claim.owner_id, claim.thread_id)
    assert thread is not None
    assert thread.title == "held"
    await database.ping()


# Text ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\x00b", "汉字 🎉", "\\u0000", "a\u2028b"])
async def test_any_text_survives_a_checkpoint(database: Database, text: str) -> None:
    claim = await new_claim(database)
    await say(FakeAgent({"go": [text]}), ThreadSaver(database, claim), claim.thread_id, "go")
    texts = await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "again")
    assert texts[1] == text


BAD = "a\x00b\ud800c"


async def test_text_that_postgres_refuses_breaks_no_checkpoint(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    metadata: Any = {"source": "loop", BAD: [BAD, {BAD: BAD}]}
    at = await put(saver, claim, metadata, text=BAD, nested={BAD: [BAD]}, **{BAD: 1})
    await saver.aput_writes(at, [("text", BAD), (BAD, [BAD]), ("__error__", BAD)], BAD, BAD)
    found = await saver.aget_tuple(at)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"text": "a\x00b?c", "nested": {"a\x00b?c": ["a\x00b?c"]}, "ab?c": 1}
    assert found.metadata["ab?c"] == ["ab?c", {"ab?c": "ab?c"}]  # pyright: ignore[reportGeneralTypeIssues]
    assert found.pending_writes is not None
    assert {(task, channel) for task, channel, _ in found.pending_writes} == {
        ("ab?c", "text"),
        ("ab?c", "ab?c"),
        ("ab?c", "__error__"),
    }
    assert [item async for item in saver.alist(config(claim.thread_id), filter={"source": BAD})] == []


@pytest.mark.parametrize("value", [2**63, -(2**63), float("inf"), 0.1, True, None, "", 2**53 + 1, "back\\slash"])
async def test_a_plain_value_is_read_as_it_was_stored(database: Database, value: Any) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    found = await saver.aget_tuple(await put(saver, claim, plain=value, **{"back\\slash": value}))
    assert found is not None
    assert found.checkpoint["channel_values"] == {"plain": value, "back\\slash": value}
    assert type(found.checkpoint["channel_values"]["plain"]) is type(value)


async def test_a_call_with_arguments_that_no_format_holds_ends_no_run(database: Database) -> None:
    deep: Any = "bottom"
    for _ in range(300):
        deep = [deep]
    claim = await new_claim(database)
    script = {"go": [calls(call("ls", "c1", path="/", **{"n": 2**80, "k\ud800": "v\ud800", "deep": deep})), "done"]}
    await say(FakeAgent(script), ThreadSaver(database, claim), claim.thread_id, "go")
    state = (
        await FakeAgent({})
        .graph.copy(update={"checkpointer": ThreadSaver(database, claim)})
        .aget_state(config(claim.thread_id))
    )
    made = state.values["messages"][1].tool_calls[0]["args"]
    assert (made["n"], made["k?"]) == (str(2**80), "v?")


# Written again -------------------------------------------------------------------------------------------------------


async def test_a_write_that_is_repeated_stands_there_once(database: Database) -> None:
    claim = await new_claim(database)
    saver, base = ThreadSaver(database, claim), checkpoint(things=[1])
    for _ in range(2):
        at = await saver.aput(config(claim.thread_id), base, {"step": 1}, {"things": "1"})
        await saver.aput_writes(at, [("a", [1]), ("b", 2)], "task")
        await saver.aput_writes(at, [("__error__", "one")], "failed")
    found = await saver.aget_tuple(at)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"things": [1]}
    assert sorted(found.pending_writes or []) == [
        ("failed", "__error__", "one"),
        ("task", "a", [1]),
        ("task", "b", 2),
    ]
    assert await rows(database, "alice") == 1


async def test_of_a_tasks_writes_the_first_count_and_of_special_ones_the_last(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    at = await put(saver, claim)
    await saver.aput_writes(at, [("a", "first")], "task")
    await saver.aput_writes(at, [("a", "second")], "task")
    await saver.aput_writes(at, [("__resume__", 1), ("__resume__", 2)], "paused")
    await saver.aput_writes(at, [("__resume__", 3)], "paused")
    found = await saver.aget_tuple(at)
    assert found is not None
    assert sorted(found.pending_writes or []) == [("paused", "__resume__", 3), ("task", "a", "first")]


async def test_a_message_whose_run_never_began_gives_way_to_the_next_one(database: Database) -> None:
    """Its write stands on the latest checkpoint already, in the place that the next message's would take."""
    claim = await new_claim(database)
    await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "one")

    class Dying(ThreadSaver):
        async def aput(self, *args: Any) -> Any:
            raise ClaimLost("gone")

    with pytest.raises(ClaimLost):
        await say(FakeAgent({}), Dying(database, claim), claim.thread_id, "never begun")
    await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "two")
    texts = await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "three")
    assert texts == ["one", "ok", "two", "ok", "three", "ok"]


async def test_what_a_broken_off_step_wrote_is_not_read_after_a_new_message(database: Database) -> None:
    """The graph forgets it with the message: what is read later must be what the model was shown."""
    claim = await new_claim(database)
    await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "one")

    class Dying(ThreadSaver):
        answered = False

        async def aput_writes(self, config: Any, writes: Any, *args: Any) -> None:
            await super().aput_writes(config, writes, *args)
            self.answered = self.answered or any(
                isinstance(value, list) and value and isinstance(value[0], AIMessage) for _, value in writes
            )

        async def aput(self, *args: Any) -> Any:
            if self.answered:
                raise ClaimLost("gone")
            return await super().aput(*args)

    with pytest.raises(ClaimLost):
        await say(FakeAgent({"broken off": ["unheard"]}), Dying(database, claim), claim.thread_id, "broken off")
    shown = await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "two")
    assert await values_texts(ThreadSaver(database, claim), claim) == shown
    assert shown == ["one", "ok", "broken off", "two", "ok"]


# What was saved ------------------------------------------------------------------------------------------------------


class Saved(list[str]):
    """Gathers what it is told, and checks that it is in the database by then."""

    def __call__(self, found: Collection[str]) -> None:
        self.extend(found)


@pytest.mark.parametrize(
    "value",
    [
        AIMessage("x", id="m"),
        [AIMessage("x", id="m"), AIMessage("no id yet")],
        Overwrite([ToolMessage("x", tool_call_id="c", id="m")]),
        {"__overwrite__": [AIMessage("x", id="m")]},
        {"type": "__overwrite__", "value": AIMessage("x", id="m")},
        [RemoveMessage(REMOVE_ALL_MESSAGES), AIMessage("x", id="m")],
        ({"role": "ai", "content": "x", "id": "m"},),
    ],
)
async def test_every_form_of_a_write_of_messages_is_told(database: Database, value: Any) -> None:
    claim, saved = await new_claim(database), Saved()
    saver = ThreadSaver(database, claim, on_saved=saved)
    await saver.aput_writes(await put(saver, claim), [("other", AIMessage("y", id="n")), ("messages", value)], "task")
    assert saved == ["m"]


async def test_all_messages_of_a_run_are_told_those_of_its_sub_agents_too(database: Database) -> None:
    claim, saved = await new_claim(database), Saved()
    agent = FakeAgent(SUB_AGENT)
    seen: list[str] = []
    graph = agent.graph.copy(update={"checkpointer": ThreadSaver(database, claim, on_saved=saved)})
    stream = graph.astream(
        {"messages": [HumanMessage("go", id="asked")]},
        config(claim.thread_id),
        context=context_of(claim.thread_id),
        stream_mode=["updates"],
        subgraphs=True,
        durability="sync",
        version="v2",
    )
    async for part in stream:
        seen += [found for update in (part["data"] or {}).values() for found in messages_of(update)]
    assert len(set(seen)) >= 6
    assert set(seen) <= set(saved)


async def test_a_write_that_fails_tells_nothing(database: Database) -> None:
    claim, saved = await new_claim(database), Saved()
    saver = ThreadSaver(database, claim, on_saved=saved)
    at = await put(saver, claim)
    await lose(database, claim)
    with pytest.raises(ClaimLost):
        await saver.aput_writes(at, [("messages", AIMessage("x", id="m"))], "task")
    assert saved == []


def messages_of(update: Any) -> list[str]:
    parts = update if isinstance(update, list) else [update]
    written = [part.update if isinstance(part, Command) else part for part in parts]
    return [found for part in written if isinstance(part, dict) for found in message_ids(part.get("messages"))]


SUB_AGENT = {
    "go": [
        calls(call("task", "t1", description="look around", subagent_type="general-purpose")),
        calls(call("write_todos", "w1", todos=[{"content": "think", "status": "pending"}]), call("ls", "l1", path="/")),
        "done",
    ],
    "look around": [calls(call("ls", "s1", path="/")), "seen"],
}


# Loading -------------------------------------------------------------------------------------------------------------

HOSTILE_CONSTRUCTOR = ormsgpack.packb(
    ormsgpack.Ext(0, ormsgpack.packb(("os", "system", "touch /tmp/moorage-was-here"))),
)
HOSTILE_METHOD = ormsgpack.packb(
    ormsgpack.Ext(3, ormsgpack.packb(("subprocess", "Popen", ["touch", "/tmp/moorage-was-here"], "__init__"))),
)


class Bomb:
    def __reduce__(self) -> Any:
        return pytest.fail, ("loading ran code",)


async def plant(database: Database, claim: Claim, form: str, data: bytes) -> Any:
    """Put this into the tables in place of a channel's value and of a pending write."""
    saver = ThreadSaver(database, claim)
    at = await put(saver, claim, things=[1])
    await saver.aput_writes(at, [("things", [2])], "task")
    async with database.tenant_transaction(claim.owner_id) as connection:
        await connection.execute("UPDATE checkpoint_blobs SET type = %s, blob = %s", [form, data])
        await connection.execute("UPDATE checkpoint_writes SET type = %s, blob = %s", [form, data])
    return at


@pytest.mark.parametrize("data", [HOSTILE_CONSTRUCTOR, HOSTILE_METHOD])
async def test_a_planted_call_is_read_as_data_and_not_made(
    database: Database, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.system", lambda _: pytest.fail("loading ran code"))
    monkeypatch.setattr("subprocess.Popen", lambda *_: pytest.fail("loading ran code"))
    claim = await new_claim(database)
    at = await plant(database, claim, "msgpack", data)
    found = await ThreadSaver(database, claim).aget_tuple(at)
    assert found is not None
    assert "touch" in str(found.checkpoint["channel_values"]["things"])


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("pickle", pickle.dumps(Bomb())),
        ("json", b'{"lc": 1, "type": "constructor", "id": ["langchain_core", "prompts", "PromptTemplate"]}'),
    ],
)
async def test_forms_that_we_never_write_are_refused(database: Database, form: str, data: bytes) -> None:
    claim = await new_claim(database)
    at = await plant(database, claim, form, data)
    with pytest.raises(NotImplementedError, match=form):
        await ThreadSaver(database, claim).aget_tuple(at)


async def test_all_types_that_an_agent_stores_are_read_as_they_were(database: Database) -> None:
    """None of them was turned into plain data, with sub-agents, to-dos, files, pauses and errors in the state."""
    claim = await new_claim(database)
    script = {
        **SUB_AGENT,
        "pause": [calls(call("execute", "e1", command="ls"), call("read_file", "r1", file_path="/none"))],
        "write": [calls(call("write_file", "f1", file_path="/a.txt", content="x"))],
    }
    for text in script:
        await say(FakeAgent(script), ThreadSaver(database, claim), claim.thread_id, text)
    async with database.tenant_transaction(claim.owner_id) as connection:
        found = await connection.execute(
            "SELECT type, blob FROM checkpoint_blobs UNION ALL SELECT type, blob FROM checkpoint_writes"
        )
        stored = [(row["type"], row["blob"]) for row in await found.fetchall()]
    names = {name for form, data in stored if form == "msgpack" for name in types_in(data)}
    serde = ThreadSaver(database, claim).serde
    loaded = {type(item) for item in flat([serde.loads_typed(item) for item in stored])}
    assert {"HumanMessage", "AIMessage", "ToolMessage", "Send", "Interrupt"} <= names
    assert names <= {item.__name__ for item in loaded}


def types_in(data: bytes) -> set[str]:
    """The names of all types that a packed value says it is made of."""
    names: set[str] = set()

    def look(code: int, inner: bytes) -> Any:
        if code == 7:  # a snapshot is only a wrapper
            return ormsgpack.unpackb(inner, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
        _, name, *rest = ormsgpack.unpackb(inner, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
        names.add(name)
        return rest

    ormsgpack.unpackb(data, ext_hook=look, option=ormsgpack.OPT_NON_STR_KEYS)
    return names


def flat(value: Any) -> list[Any]:
    inner = vars(value) if hasattr(value, "__dict__") else value
    if hasattr(value, "__slots__"):
        inner = [getattr(value, name, None) for name in value.__slots__]
    if isinstance(inner, dict):
        return [value, *(item for part in inner.values() for item in flat(part))]
    if isinstance(inner, list | tuple | set):
        return [value, *(item for part in inner for item in flat(part))]
    return [value]


# A Postgres that is away ----------------------------------------------------------------------------------------------


async def test_a_run_goes_on_when_its_connections_break(
    database: Database, database_url: str, postgres_url: str
) -> None:
    claim = await new_claim(database)

    async def break_connections() -> str:
        name = conninfo_to_dict(database_url)["dbname"]
        async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [name],
            )
        return "still here"

    await say(FakeAgent({"go": [break_connections]}), ThreadSaver(database, claim), claim.thread_id, "go")
    await break_connections()
    assert await say(FakeAgent({}), ThreadSaver(database, claim), claim.thread_id, "and now?") == [
        "go",
        "still here",
        "and now?",
        "ok",
    ]


# Channels that store changes -----------------------------------------------------------------------------------------


async def test_changes_are_read_as_the_library_reads_them(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    for text in ["go", "more", *["again"] * 24, "go"]:
        await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, text)
    channels = ["messages", "files", "todos", "plain", "no such channel"]
    at = await saver.aget_tuple(config(claim.thread_id))
    assert at is not None
    for number in range(4):  # values of every kind, and a fork
        base = {**empty_checkpoint(), "channel_values": {"plain": number or None}, "channel_versions": {"plain": "1"}}
        place = await saver.aput(at.config, base, {}, {"plain": "1"})  # pyright: ignore[reportArgumentType]
        await saver.aput_writes(place, [("plain", number), ("files", {"a": number})], "task")
    items = [item async for item in saver.alist(config(claim.thread_id))]
    assert len(items) > 100
    for item in [*items[:12], *items[12::9], items[-1]]:
        ours = await saver.aget_delta_channel_history(config=item.config, channels=channels)
        theirs = await AsyncPostgresSaver.aget_delta_channel_history(saver, config=item.config, channels=channels)
        assert ours == theirs
    assert await saver.aget_delta_channel_history(config=config(claim.thread_id, "gone"), channels=["files"]) == {
        "files": {"writes": []}
    }


# Pruning and taking back ---------------------------------------------------------------------------------------------


def on_agent(agent: FakeAgent, saver: ThreadSaver) -> Any:
    return agent.graph.copy(update={"checkpointer": saver})


async def values_of(saver: ThreadSaver, thread_id: str) -> Any:
    state = await on_agent(FakeAgent({}), saver).aget_state(config(thread_id))
    return state.values, state.next, [item.value for item in state.interrupts]


@pytest.mark.parametrize("turns", [1, 2, 7, 30])
async def test_a_pruned_thread_reads_the_same_and_goes_on(database: Database, turns: int) -> None:
    """With 30 turns the messages were stored whole on the way, as they are after every 50 changes."""
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    for number in range(turns):
        await say(FakeAgent({"again": [f"answer {number}"]}), saver, claim.thread_id, "again")
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    before, stored = await values_of(saver, claim.thread_id), await rows(database, "alice")
    await saver.aprune([claim.thread_id])
    assert await values_of(saver, claim.thread_id) == before
    assert await rows(database, "alice") < stored
    await saver.aprune([claim.thread_id])
    texts = await say(FakeAgent({"more": ["gone on"]}), saver, claim.thread_id, "more")
    assert texts == [message.text for message in before[0]["messages"]] + ["more", "gone on"]
    again = await values_of(saver, claim.thread_id)
    assert [message.text for message in again[0]["messages"]] == texts


async def test_pruning_leaves_one_state_to_read_and_nothing_of_ended_sub_agents(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    await saver.aprune([claim.thread_id])
    everywhere: Any = {"configurable": {"thread_id": claim.thread_id}}
    [left] = [item async for item in saver.alist(everywhere)]
    latest = await saver.aget_tuple(config(claim.thread_id))
    assert latest is not None
    assert left.config == latest.config
    async with database.tenant_transaction(claim.owner_id) as connection:
        found = await connection.execute("SELECT DISTINCT checkpoint_ns FROM checkpoints")
        assert [row["checkpoint_ns"] for row in await found.fetchall()] == [""]
        found = await connection.execute("SELECT DISTINCT checkpoint_ns FROM checkpoint_writes")
        assert [row["checkpoint_ns"] for row in await found.fetchall()] == [""]


async def test_a_pruned_pause_inside_a_sub_agent_goes_on(database: Database) -> None:
    script = {
        "earlier": ["fine"],
        "go": [calls(call("task", "t1", description="do it", subagent_type="general-purpose")), "all done"],
        "do it": [calls(call("ls", "l1", path="/")), calls(call("execute", "e1", command="date")), "it was done"],
    }
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    await say(FakeAgent(script), saver, claim.thread_id, "earlier")
    await say(FakeAgent(script), saver, claim.thread_id, "go")
    before = await values_of(saver, claim.thread_id), await messages_everywhere(database, saver, claim)
    await saver.aprune([claim.thread_id])
    assert (await values_of(saver, claim.thread_id), await messages_everywhere(database, saver, claim)) == before
    assert [texts for namespace, texts in before[1].items() if namespace][0][0] == "do it"  # noqa: RUF015
    again = FakeAgent(script)
    await on_agent(again, saver).ainvoke(None, config(claim.thread_id), context=context_of(claim.thread_id))
    assert await values_of(saver, claim.thread_id) == before[0]
    assert again.model.seen == []


async def messages_everywhere(database: Database, saver: ThreadSaver, claim: Claim) -> dict[str, list[str]]:
    """By namespace of the thread: the texts of what its messages are read from."""
    async with database.tenant_transaction(claim.owner_id) as connection:
        found = await connection.execute("SELECT DISTINCT checkpoint_ns AS ns FROM checkpoints ORDER BY ns")
        names = [row["ns"] for row in await found.fetchall()]
    texts: dict[str, list[str]] = {}
    for name in names:
        place: Any = {"configurable": {"thread_id": claim.thread_id, "checkpoint_ns": name}}
        latest = await saver.aget_tuple(place)
        assert latest is not None
        history: Any = {"writes": [], "seed": latest.checkpoint["channel_values"].get("messages")}
        if history["seed"] is None:
            history = (await saver.aget_delta_channel_history(config=place, channels=["messages"]))["messages"]
        seed = history.get("seed", [])
        written = [getattr(seed, "value", seed), *(value for _, _, value in history["writes"])]
        texts[name] = [item.text for part in written for item in (part if isinstance(part, list) else [part])]
    return texts


async def test_pruning_everything_leaves_nothing(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    await saver.aprune([claim.thread_id], strategy="delete")
    tables: list[LiteralString] = ["checkpoints", "checkpoint_blobs", "checkpoint_writes"]
    assert [await rows(database, "alice", table) for table in tables] == [0, 0, 0]
    with pytest.raises(ValueError, match="strategy"):
        await saver.aprune([claim.thread_id], strategy="some")


async def take_back(database: Database, claim: Claim, base: str | None) -> None:
    async with database.system_transaction() as connection:
        await delete_checkpoints_after(connection, claim.thread_id, base)


async def everything(database: Database) -> list[Any]:
    found: list[Any] = []
    async with database.tenant_transaction(UserId("alice")) as connection:
        for table in ("checkpoints", "checkpoint_blobs", "checkpoint_writes"):
            cursor = await connection.execute(f"SELECT * FROM {table} ORDER BY {table}::text")  # noqa: S608
            found.append(await cursor.fetchall())
    return found


async def test_taking_back_leaves_exactly_what_was_there_before_the_run(database: Database) -> None:
    claim = await new_claim(database)
    saver = ThreadSaver(database, claim)
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    before, base = await everything(database), await saver.aget_tuple(config(claim.thread_id))
    assert base is not None
    await say(FakeAgent(SUB_AGENT), saver, claim.thread_id, "go")
    await take_back(database, claim, base.checkpoint["id"])
    assert await everything(database) == before
    texts = await say(FakeAgent({}), saver, claim.thread_id, "instead")
    assert texts == (await values_texts(saver, claim))
    assert texts[-2:] == ["instead", "ok"]
    assert texts.count("go") == 1


async def values_texts(saver: ThreadSaver, claim: Claim) -> list[str]:
    values, _, _ = await values_of(saver, claim.thread_id)
    return [message.text for message in values["messages"]]


async def test_taking_back_to_nothing_leaves_nothing(database: Database) -> None:
    claim, other = await new_claim(database), await new_claim(database)
    await say(FakeAgent({}), ThreadSaver(database, other), other.thread_id, "stays")
    kept = await everything(database)
    await say(FakeAgent(SUB_AGENT), ThreadSaver(database, claim), claim.thread_id, "go")
    await take_back(database, claim, None)
    assert await everything(database) == kept

"""Users' assistants on a real Postgres: versions, lists beside the system's, and the wall between owners."""

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from tests.conftest import AddUser

from moorage.adapters.postgres.assistants import PostgresAssistantStore
from moorage.adapters.postgres.pool import Database
from moorage.assistants import (
    SYSTEM_ASSISTANTS,
    Assistant,
    AssistantChange,
    AssistantExists,
    AssistantFilter,
    Assistants,
    ModelNotAllowed,
    NewAssistant,
    Policy,
    SystemAssistant,
    UnknownAssistant,
    UnknownGraph,
    VersionNotFound,
)
from moorage.assistants.service import AssistantLimit
from moorage.ids import ThreadId, UserId, new_thread_id

ALL = AssistantFilter()


def new(name: str = "mine", *, graph_id: str = "agent", **changes: Any) -> NewAssistant:
    given: dict[str, Any] = {"description": None, "context": {}, "config": {}, "metadata": {}} | changes
    return NewAssistant(graph_id, name, **given)


@pytest.fixture
def store(database: Database) -> PostgresAssistantStore:
    return PostgresAssistantStore(database)


@pytest.fixture
def assistants(store: PostgresAssistantStore) -> Assistants:
    return Assistants(store, Policy(frozenset({"openai:*"})))


@pytest.fixture
async def alice(add_user: AddUser) -> UserId:
    return await add_user("alice")


@pytest.fixture
async def bob(add_user: AddUser) -> UserId:
    return await add_user("bob")


async def names(assistants: Assistants, owner: UserId, wanted: AssistantFilter = ALL, **how: Any) -> list[str]:
    return [item.name for item in (await assistants.search(owner, wanted, **{"limit": 50, **how})).items]


async def test_what_is_saved_is_found_again(assistants: Assistants, alice: UserId) -> None:
    content = {"context": {"tools": ["ls"]}, "config": {"tags": ["a"]}, "metadata": {"b": [1]}, "description": "d"}
    saved = await assistants.create(alice, new(**content))
    assert await assistants.get(alice, saved.assistant_id) == saved
    assert await assistants.get(alice, saved.assistant_id.upper()) == saved
    assert (saved.version, saved.context, saved.configuration.tools) == (1, {"tools": ["ls"]}, {"ls"})
    assert saved.created_at == saved.updated_at


@pytest.mark.parametrize(
    "text",
    ["", "nobody", "x" * 36, "\x00", "00000000000040008000000000000000", "1f0e9a52-5a0c-4b7e-9d3e-6c2f8b7a4d10"],
)
async def test_what_names_no_assistant_is_not_there(assistants: Assistants, alice: UserId, text: str) -> None:
    with pytest.raises(UnknownAssistant):
        await assistants.get(alice, text)
    with pytest.raises(UnknownAssistant):
        await assistants.change(alice, text, AssistantChange(name="x"))
    with pytest.raises(UnknownAssistant):
        await assistants.delete(alice, text)


async def test_an_id_that_is_taken_is_a_conflict_or_answers_with_who_has_it(
    assistants: Assistants, alice: UserId
) -> None:
    saved = await assistants.create(alice, new("first"), assistant_id=str(uuid.uuid4()))
    with pytest.raises(AssistantExists):
        await assistants.create(alice, new("second"), assistant_id=saved.assistant_id)
    assert await assistants.create(alice, new("second"), assistant_id=saved.assistant_id, if_exists=True) == saved


async def test_the_systems_ids_are_taken(assistants: Assistants, alice: UserId) -> None:
    system = SYSTEM_ASSISTANTS["agent"]
    with pytest.raises(AssistantExists):
        await assistants.create(alice, new(), assistant_id=system.wire_id)
    assert await assistants.create(alice, new(), assistant_id=system.wire_id, if_exists=True) == system


async def test_the_same_uuid_is_each_owner_s_own_assistant(assistants: Assistants, alice: UserId, bob: UserId) -> None:
    chosen = str(uuid.uuid4())
    await assistants.create(alice, new("hers"), assistant_id=chosen)
    await assistants.create(bob, new("his"), assistant_id=chosen)
    await assistants.delete(bob, chosen)
    assert (await assistants.get(alice, chosen)).name == "hers"
    with pytest.raises(UnknownAssistant):
        await assistants.get(bob, chosen)


async def test_each_change_is_a_version_and_the_one_before_is_kept(assistants: Assistants, alice: UserId) -> None:
    saved = await assistants.create(alice, new("one", metadata={"a": 1}))
    changed = await assistants.change(alice, saved.assistant_id, AssistantChange(name="two", metadata={"b": 2}))
    assert (changed.version, changed.name, changed.metadata) == (2, "two", {"a": 1, "b": 2})
    assert changed.created_at == saved.created_at
    assert changed.updated_at > saved.updated_at
    versions = await assistants.versions(alice, saved.assistant_id)
    assert [(item.version, item.name) for item in versions] == [(2, "two"), (1, "one")]
    assert [item.version for item in await assistants.versions(alice, saved.assistant_id, metadata={"b": 2})] == [2]
    assert [item.version for item in await assistants.versions(alice, saved.assistant_id, limit=1, offset=1)] == [1]


async def test_an_earlier_version_comes_back_with_all_that_it_had(assistants: Assistants, alice: UserId) -> None:
    saved = await assistants.create(alice, new("one", context={"tools": ["ls"]}))
    await assistants.change(alice, saved.assistant_id, AssistantChange(name="two", context={}))
    latest = await assistants.set_latest(alice, saved.assistant_id, 1)
    assert (latest.version, latest.name, latest.context) == (1, "one", {"tools": ["ls"]})
    assert (await assistants.change(alice, saved.assistant_id, AssistantChange())).version == 3
    with pytest.raises(VersionNotFound):
        await assistants.set_latest(alice, saved.assistant_id, 9)


async def test_changes_at_once_make_one_version_each(assistants: Assistants, alice: UserId) -> None:
    saved = await assistants.create(alice, new())
    changes = [AssistantChange(metadata={f"k{n}": n}) for n in range(5)]
    await asyncio.gather(*(assistants.change(alice, saved.assistant_id, change) for change in changes))
    latest = await assistants.get(alice, saved.assistant_id)
    assert (latest.version, latest.metadata) == (6, {f"k{n}": n for n in range(5)})


async def test_a_change_that_may_not_be_leaves_everything_as_it_was(assistants: Assistants, alice: UserId) -> None:
    saved = await assistants.create(alice, new())
    with pytest.raises(ModelNotAllowed):
        await assistants.change(alice, saved.assistant_id, AssistantChange(context={"model": "ollama:x"}))
    with pytest.raises(UnknownGraph):
        await assistants.change(alice, saved.assistant_id, AssistantChange(graph_id="nope"))
    assert await assistants.get(alice, saved.assistant_id) == saved
    assert len(await assistants.versions(alice, saved.assistant_id)) == 1


async def test_a_model_that_is_no_longer_allowed_stops_its_runs(
    assistants: Assistants, store: PostgresAssistantStore, alice: UserId
) -> None:
    saved = await assistants.create(alice, new(context={"model": "openai:gpt-5-mini"}))
    assert await assistants.load(alice, saved.assistant_id) == saved
    with pytest.raises(ModelNotAllowed):
        await Assistants(store, Policy()).load(alice, saved.assistant_id)


@pytest.mark.parametrize("name", list(SYSTEM_ASSISTANTS))
async def test_the_systems_assistants_are_there_and_nobody_changes_them(
    assistants: Assistants, alice: UserId, name: str
) -> None:
    for text in (name, SYSTEM_ASSISTANTS[name].wire_id):
        assert await assistants.get(alice, text) == SYSTEM_ASSISTANTS[name]
        assert await assistants.versions(alice, text) == [SYSTEM_ASSISTANTS[name]]
        with pytest.raises(SystemAssistant):
            await assistants.change(alice, text, AssistantChange(name="mine"))
        with pytest.raises(SystemAssistant):
            await assistants.delete(alice, text)
        with pytest.raises(SystemAssistant):
            await assistants.set_latest(alice, text, 1)


async def test_a_list_shows_ones_own_beside_the_systems(assistants: Assistants, alice: UserId, bob: UserId) -> None:
    await assistants.create(bob, new("his"))
    await assistants.create(alice, new("Zebra"))
    assert await names(assistants, alice) == ["Zebra", *SYSTEM_ASSISTANTS]
    assert await names(assistants, alice, sort_by="name", descending=False) == sorted(["Zebra", *SYSTEM_ASSISTANTS])
    assert await assistants.count(alice, ALL) == 7


async def test_a_list_is_filtered_by_graph_name_and_metadata(assistants: Assistants, alice: UserId) -> None:
    await assistants.create(alice, new("100% mine", graph_id="file", metadata={"team": "a", "n": [1, 2]}))
    assert await names(assistants, alice, AssistantFilter(graph_id="file")) == ["100% mine", "file"]
    assert await names(assistants, alice, AssistantFilter(name="0% MI")) == ["100% mine"]
    assert await names(assistants, alice, AssistantFilter(name="1_0")) == []
    assert await names(assistants, alice, AssistantFilter(metadata={"n": [2]})) == ["100% mine"]
    assert await names(assistants, alice, AssistantFilter(metadata={"created_by": "system"})) == [*SYSTEM_ASSISTANTS]
    assert await assistants.count(alice, AssistantFilter(metadata={"team": "b"})) == 0
    with pytest.raises(UnknownGraph):
        await assistants.search(alice, AssistantFilter(graph_id="nope"))


async def test_a_list_comes_in_parts_without_a_gap_or_a_copy(assistants: Assistants, alice: UserId) -> None:
    for number in range(4):
        await assistants.create(alice, new("same", metadata={"n": number}))
    seen: list[str] = []
    for offset in range(0, 10, 3):
        part = await assistants.search(alice, ALL, sort_by="name", limit=3, offset=offset)
        seen += [item.assistant_id for item in part.items]
        assert part.has_more == (offset < 9)
    assert len(seen) == len(set(seen)) == 10


async def test_there_is_an_end_to_saving(store: PostgresAssistantStore, alice: UserId) -> None:
    made = [Assistant(str(uuid.uuid4()), "x", "agent") for _ in range(4)]
    results = await asyncio.gather(*(store.insert(alice, item, most=2) for item in made), return_exceptions=True)
    assert sum(isinstance(item, AssistantLimit) for item in results) == 2
    kept = next(item for item in results if isinstance(item, Assistant))
    with pytest.raises(AssistantLimit):
        await store.change(alice, kept.assistant_id, lambda latest: latest, most=1)


async def test_deleting_takes_the_versions_and_if_asked_the_threads(
    assistants: Assistants, database: Database, alice: UserId, bob: UserId
) -> None:
    saved = await assistants.create(alice, new())
    threads = await threads_of(database, alice, saved.assistant_id)
    kept = await threads_of(database, bob, saved.assistant_id)
    removed: list[ThreadId] = []

    async def remove(thread_id: ThreadId) -> None:
        removed.append(thread_id)
        async with database.tenant_transaction(alice) as connection:
            await connection.execute("DELETE FROM threads WHERE thread_id = %s", [thread_id])

    await assistants.delete(alice, saved.assistant_id, remove_thread=remove)
    assert sorted(removed) == sorted(threads)
    assert not set(removed) & set(kept)
    async with database.tenant_transaction(alice) as connection:
        assert await (await connection.execute("SELECT FROM assistant_versions")).fetchall() == []


async def threads_of(database: Database, owner: UserId, assistant_id: str) -> list[ThreadId]:
    """One thread made for the assistant, one whose metadata names it, and one of neither kind."""
    made, named, other = (new_thread_id(owner) for _ in range(3))
    insert = "INSERT INTO threads (thread_id, owner_id, assistant_id, metadata) VALUES (%s, %s, %s, %s::jsonb)"
    async with database.tenant_transaction(owner) as connection:
        await connection.execute(insert, [made, owner, assistant_id, "{}"])
        await connection.execute(insert, [named, owner, "agent", f'{{"assistant_id": "{assistant_id}"}}'])
        await connection.execute(insert, [other, owner, "agent", "{}"])
    return [made, named]


@pytest.mark.parametrize("table", ["assistants", "assistant_versions"])
async def test_each_owner_s_rows_are_behind_the_wall(
    assistants: Assistants, database: Database, alice: UserId, bob: UserId, table: str
) -> None:
    await assistants.create(alice, new())
    count = f"SELECT count(*) AS n FROM {table}"  # noqa: S608
    for owner, rows in ((alice, 1), (bob, 0)):
        async with database.tenant_transaction(owner) as connection:
            assert await (await connection.execute(count)).fetchone() == {"n": rows}
    async with database.connection() as connection:
        assert await (await connection.execute(count)).fetchone() == {"n": 0}


async def test_nobody_saves_under_anothers_name(database: Database, alice: UserId, bob: UserId) -> None:
    insert = "INSERT INTO assistants (owner_id, assistant_id, graph_id, name) VALUES (%s, %s, 'agent', 'x')"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.tenant_transaction(bob) as connection:
            await connection.execute(insert, [alice, uuid.uuid4()])

"""The store on Postgres: whose items are whose, how they are found, and when they go."""

import asyncio
from typing import Any

import pytest
from tests.conftest import AddUser

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.store import PostgresItemTable, forget_expired_items
from moorage.errors import InvalidPayload
from moorage.ids import UserId
from moorage.store import VALUE_BYTES, Store, StoreFull, TooMuch

ALICE, BOB = UserId("al"), UserId("al-ice")


@pytest.fixture
async def store(database: Database, add_user: AddUser) -> Store:
    await add_user(ALICE)
    await add_user(BOB)
    return Store(PostgresItemTable(database), quota=0)


async def keys(store: Store, *prefix: str, owner: UserId = ALICE, **asked: Any) -> list[str]:
    return [item.key for item in await store.search(owner, prefix, **{"limit": 100, **asked})]


async def expire(database: Database, key: str) -> None:
    async with database.tenant_transaction(ALICE) as connection:
        await connection.execute("UPDATE store_items SET expires_at = now() WHERE key = %s", [key])


async def remaining(database: Database, key: str) -> float:
    """Seconds until the item expires."""
    async with database.tenant_transaction(ALICE) as connection:
        left = "SELECT extract(epoch FROM expires_at - now())::float AS left FROM store_items WHERE key = %s"
        row = await (await connection.execute(left, [key])).fetchone()
    return row["left"] if row else 0


async def test_an_item_is_read_back_as_it_was_put(store: Store) -> None:
    value = {"text": "100% \u00e4 'quoted' \\", "n": 1.5, "deep": {"list": [1, None, True]}, "": "empty"}
    await store.put(ALICE, ["users", "a"], "k%1", value)
    item = await store.find(ALICE, ["users", "a"], "k%1")
    assert item is not None
    assert (item.namespace, item.key, item.value) == (("users", "a"), "k%1", value)
    assert await store.find(ALICE, ["users"], "k%1") is None


async def test_putting_again_replaces_the_value_and_keeps_the_time_of_creation(store: Store) -> None:
    await store.put(ALICE, ["a"], "k", {"x": 1})
    first = await store.find(ALICE, ["a"], "k")
    await store.put(ALICE, ["a"], "k", {"y": 2})
    second = await store.find(ALICE, ["a"], "k")
    assert first is not None
    assert second is not None
    assert second.value == {"y": 2}
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at


async def test_al_and_al_ice_never_meet(store: Store) -> None:
    await store.put(ALICE, ["ice"], "k", {"of": "al"})
    await store.put(BOB, ["ice"], "k", {"of": "al-ice"})
    mine, theirs = await store.find(ALICE, ["ice"], "k"), await store.find(BOB, ["ice"], "k")
    assert mine is not None
    assert theirs is not None
    assert (mine.value["of"], theirs.value["of"]) == ("al", "al-ice")
    await store.delete(BOB, ["ice"], "k")
    assert await keys(store) == ["k"]
    assert await keys(store, owner=BOB) == []
    assert await store.namespaces(BOB, limit=10) == []


async def test_the_database_itself_keeps_users_apart(store: Store, database: Database) -> None:
    await store.put(ALICE, ["a"], "k", {})
    async with database.tenant_transaction(BOB) as connection:
        found = await connection.execute("SELECT FROM store_items")
        changed = await connection.execute("UPDATE store_items SET value = '{}'")
    assert (found.rowcount, changed.rowcount) == (0, 0)


async def test_a_prefix_is_one_of_whole_labels_and_the_latest_come_first(store: Store) -> None:
    for namespace, key in ((["al"], "1"), (["al", "x"], "2"), (["al-ice"], "3"), (["b", "al"], "4")):
        await store.put(ALICE, namespace, key, {})
    assert await keys(store, "al") == ["2", "1"]
    assert await keys(store) == ["4", "3", "2", "1"]
    assert await keys(store, limit=2, offset=1) == ["3", "2"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"kind": "note"}, "abd"),
        ({"kind": {"$eq": "note"}, "size": 3}, "b"),
        ({"kind": {"$ne": "note"}}, "ce"),
        ({"size": {"$gt": 2}}, "bc"),
        ({"size": {"$gte": 2, "$lt": 10}}, "ab"),
        ({"size": {"$lte": 2}}, "a"),
        ({"day": {"$gte": "2026-02"}}, "b"),
        ({"size": {"$gt": "2"}}, "d"),
        ({"deep": {"er": 1}}, "c"),
        ({"deep": {"er": {"$gt": 0}}}, "c"),
        ({"missing": None, "tags": ["x", "y"]}, "d"),
        ({"kind": "no%te"}, ""),
    ],
)
async def test_a_filter_compares_as_json_does(store: Store, wanted: dict[str, Any], expected: str) -> None:
    values: dict[str, dict[str, Any]] = {
        "a": {"kind": "note", "size": 2, "day": "2026-01-31"},
        "b": {"kind": "note", "size": 3, "day": "2026-02-01"},
        "c": {"kind": "task", "size": 10, "deep": {"er": 1, "other": 2}},
        "d": {"kind": "note", "size": "30", "tags": ["x", "y"]},
        "e": {},
    }
    for key, value in values.items():
        await store.put(ALICE, ["n"], key, value)
    assert sorted(await keys(store, wanted=wanted)) == list(expected)


@pytest.mark.parametrize(
    "wanted", [{"a": {"$in": [1]}}, {"a": {"$gt": [1]}}, {"a": {"$lt": True}}, {str(n): n for n in range(51)}]
)
async def test_a_filter_that_cannot_be_is_refused(store: Store, wanted: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload, match="filter"):
        await keys(store, wanted=wanted)


async def test_a_search_finds_any_of_the_words_and_puts_the_best_first(store: Store) -> None:
    await store.put(ALICE, ["m"], "both", {"text": "the user likes green tea", "n": 1})
    await store.put(ALICE, ["m"], "one", {"notes": [{"text": "Tea is bought on Mondays"}]})
    await store.put(ALICE, ["m"], "none", {"text": "coffee"})
    await store.put(ALICE, ["m"], "chinese", {"text": "用户喜欢绿茶"})
    assert await keys(store, query="green tea?") == ["both", "one"]
    assert await keys(store, query="tea -green") == ["one"]
    assert await keys(store, query="绿茶") == ["chinese"]
    assert await keys(store, query="&|!' :*") == []
    [best, second] = await store.search(ALICE, ["m"], query="green tea", limit=2)
    assert (best.score or 0) > (second.score or 0) > 0


async def test_a_search_looks_only_at_what_is_to_be_indexed(store: Store) -> None:
    value = {"title": "alpha", "parts": [{"text": "beta"}, {"text": "gamma"}], "meta": {"by": "delta"}}
    await store.put(ALICE, ["m"], "some", value, index=["title", "parts[*].text"])
    await store.put(ALICE, ["m"], "last", value, index=["parts[-1].text", "meta.*"])
    await store.put(ALICE, ["m"], "no", value, index=False)
    assert await keys(store, query="alpha") == ["some"]
    assert await keys(store, query="beta") == ["some"]
    assert sorted(await keys(store, query="gamma")) == ["last", "some"]
    assert await keys(store, query="delta") == ["last"]


async def test_namespaces_match_at_either_end_and_are_cut_at_a_depth(store: Store) -> None:
    for namespace in (["a"], ["users", "a"], ["users", "b"], ["users", "b", "deep"]):
        await store.put(ALICE, namespace, "k", {})
    assert await store.namespaces(ALICE, limit=10) == [("a",), ("users", "a"), ("users", "b"), ("users", "b", "deep")]
    assert await store.namespaces(ALICE, prefix=["users"], max_depth=1, limit=10) == [("users",)]
    assert await store.namespaces(ALICE, suffix=["b"], limit=10) == [("users", "b")]
    assert await store.namespaces(ALICE, prefix=["*", "a"], limit=10) == [("users", "a")]
    assert await store.namespaces(ALICE, suffix=["b", "*"], limit=10) == [("users", "b", "deep")]
    assert await store.namespaces(ALICE, limit=1, offset=1) == [("users", "a")]


async def test_an_expired_item_is_nowhere_and_the_chore_removes_it(store: Store, database: Database) -> None:
    await store.put(ALICE, ["a"], "old", {"x": 1}, ttl_minutes=1)
    await store.put(ALICE, ["a", "b"], "young", {"x": 1}, ttl_minutes=1)
    await expire(database, "old")
    assert await store.find(ALICE, ["a"], "old") is None
    assert await keys(store) == ["young"]
    assert await store.namespaces(ALICE, limit=10) == [("a", "b")]
    assert await forget_expired_items(database) == 1
    assert await forget_expired_items(database) == 0


async def test_an_item_put_after_it_expired_is_a_new_one(store: Store, database: Database) -> None:
    await store.put(ALICE, ["a"], "k", {"x": 1}, ttl_minutes=1)
    first = await store.find(ALICE, ["a"], "k")
    await expire(database, "k")
    await store.put(ALICE, ["a"], "k", {"x": 2})
    second = await store.find(ALICE, ["a"], "k")
    assert first is not None
    assert second is not None
    assert second.created_at > first.created_at


async def test_reading_begins_the_time_to_live_anew_unless_told_not_to(store: Store, database: Database) -> None:
    await store.put(ALICE, ["a"], "k", {"x": 1}, ttl_minutes=60)
    almost = "UPDATE store_items SET expires_at = now() + interval '1 minute'"
    for read in (
        lambda refresh: store.find(ALICE, ["a"], "k", refresh=refresh),
        lambda refresh: store.search(ALICE, ["a"], limit=1, refresh=refresh),
    ):
        async with database.tenant_transaction(ALICE) as connection:
            await connection.execute(almost)
        await read(False)
        assert await remaining(database, "k") < 61
        await read(True)
        assert await remaining(database, "k") > 3000


async def test_beyond_the_quota_only_what_is_there_may_change(database: Database, add_user: AddUser) -> None:
    await add_user(ALICE)
    store = Store(PostgresItemTable(database), quota=3)
    puts = (store.put(ALICE, ["a"], str(n), {}) for n in range(10))
    results = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(result, StoreFull) for result in results) == 7
    [key, *_] = await keys(store)
    await store.put(ALICE, ["a"], key, {"changed": True})
    await store.delete(ALICE, ["a"], key)
    await store.put(ALICE, ["a"], "another", {})


@pytest.mark.parametrize(
    ("namespace", "key"),
    [
        ([], "k"), ([""], "k"), (["a.b"], "k"), (["a\x00"], "k"), (["a"], ""), (["a"], "\x00"), (["a"] * 21, "k"),
        (["a" * 1000, "b" * 1000], "k"), (["ä" * 1000], "k"),
    ],
)  # fmt: skip
async def test_what_cannot_be_an_address_is_refused(store: Store, namespace: list[str], key: str) -> None:
    with pytest.raises(InvalidPayload):
        await store.put(ALICE, namespace, key, {})


async def test_the_longest_address_there_may_be_is_stored(store: Store) -> None:
    labels = ["ä" * 49 for _ in range(20)]
    await store.put(ALICE, labels, "k" * 40, {})
    assert await store.namespaces(ALICE, limit=1) == [tuple(labels)]


@pytest.mark.parametrize("value", [{"n": 2**64}, {"text": "x" * VALUE_BYTES}])
async def test_a_value_that_cannot_be_kept_as_it_is_is_refused(store: Store, value: dict[str, Any]) -> None:
    with pytest.raises(InvalidPayload, match="value"):
        await store.put(ALICE, ["a"], "k", value)


async def test_an_answer_of_very_much_is_refused_and_fewer_items_are_not(store: Store) -> None:
    for number in range(70):
        await store.put(ALICE, ["a"], str(number), {"text": "x" * (VALUE_BYTES - 100)}, index=False)
    with pytest.raises(TooMuch):
        await keys(store)
    assert len(await keys(store, limit=60)) == 60


async def test_searches_at_the_same_time_do_not_hinder_each_other(store: Store) -> None:
    for number in range(20):
        await store.put(ALICE, ["a"], str(number), {"n": number}, ttl_minutes=5)
    found = await asyncio.gather(*(keys(store) for _ in range(10)))
    assert all(len(part) == 20 for part in found)

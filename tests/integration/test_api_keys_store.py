"""API keys and tickets on a real Postgres: limits that hold, times that end, and what is stored of them."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from moorage.adapters.postgres.api_keys import PostgresKeyStore
from moorage.adapters.postgres.pool import Database
from moorage.errors import InvalidPayload, Unavailable
from moorage.identity.keys import ApiKeys, InvalidApiKey, TooManyKeys
from moorage.identity.principal import ApiKey, KeyProof, Scope, TokenProof
from moorage.identity.tokens import opaque_digest
from moorage.ids import UserId
from moorage.paging import encode_cursor

ALICE, BOB = UserId("alice"), UserId("bob")
HOUR = timedelta(hours=1)
Execute = Callable[[LiteralString], Awaitable[None]]


@pytest.fixture
async def store(database: Database, add_user: Callable[[str], Awaitable[UserId]]) -> PostgresKeyStore:
    """With the users alice and bob."""
    await add_user(ALICE)
    await add_user(BOB)
    return PostgresKeyStore(database)


@pytest.fixture
def execute(postgres_url: str, database_url: str) -> Execute:
    """Make time pass: change what is stored, as Postgres' superuser."""
    url = make_conninfo(postgres_url, dbname=conninfo_to_dict(database_url)["dbname"])

    async def run(statement: LiteralString) -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            assert (await connection.execute(statement)).rowcount > 0

    return run


class CannotNote(PostgresKeyStore):
    """On a database that cannot write."""

    async def touch_key(self, key_id: uuid.UUID) -> None:
        raise Unavailable("read-only")


class Counting(PostgresKeyStore):
    asked = touched = 0

    async def key_standing(self, digest: bytes) -> Any:
        self.asked += 1
        return await super().key_standing(digest)

    async def touch_key(self, key_id: uuid.UUID) -> None:
        self.touched += 1
        await super().touch_key(key_id)


async def added(
    store: PostgresKeyStore, digest: bytes = b"digest", *, limit: int = 50, owner: UserId = ALICE
) -> ApiKey:
    key = await store.add_key(
        owner, digest, name="ci", prefix="mrg_abc", scopes=frozenset({Scope.READ}), lifetime=HOUR, limit=limit
    )
    assert key is not None
    return key


async def test_nothing_of_a_key_is_stored_but_its_digest_and_beginning(
    store: PostgresKeyStore, database: Database
) -> None:
    _, key = await ApiKeys(store).create(ALICE, "ci")
    async with database.system_transaction() as connection:
        row = await (await connection.execute("SELECT * FROM api_keys")).fetchone()
    assert row is not None
    assert row["key_hash"] == opaque_digest(key)
    assert key[len(row["prefix"]) :] not in str(row)


async def test_of_many_keys_at_once_no_more_are_made_than_one_may_have(store: PostgresKeyStore) -> None:
    keys = ApiKeys(store)
    results = await asyncio.gather(*(keys.create(ALICE, f"{n}") for n in range(60)), return_exceptions=True)
    assert sum(isinstance(result, TooManyKeys) for result in results) == 10
    await keys.create(BOB, "mine")


async def test_an_expired_key_does_not_count_but_is_listed_for_a_month(
    store: PostgresKeyStore, execute: Execute
) -> None:
    keys = ApiKeys(store)
    _, key = await keys.create(ALICE, "old", lifetime=HOUR)
    await keys.principal(key)
    await execute("UPDATE api_keys SET expires_at = now() - interval '1 second'")
    keys.forget()
    with pytest.raises(InvalidApiKey):
        await keys.principal(key)
    await added(store, limit=1)
    assert [item.name for item in (await keys.search(ALICE, limit=10)).items] == ["ci", "old"]
    await execute("UPDATE api_keys SET expires_at = now() - interval '31 days'")
    await added(store, b"next")
    assert len((await keys.search(ALICE, limit=10)).items) == 1


async def test_a_key_without_an_end_has_none(store: PostgresKeyStore) -> None:
    made, key = await ApiKeys(store).create(ALICE, "for ever", lifetime=None)
    assert made.expires_at is None
    assert (await ApiKeys(store).principal(key)).user_id == ALICE


async def test_a_thousand_requests_with_a_key_ask_the_store_once(database: Database, store: PostgresKeyStore) -> None:
    counting = Counting(database)
    keys = ApiKeys(counting)
    _, key = await keys.create(ALICE, "busy")
    for _ in range(1000):
        await keys.principal(key)
    assert counting.asked <= 3  # one a second
    assert counting.touched == 1


async def test_the_last_use_is_written_once_a_minute(store: PostgresKeyStore, execute: Execute) -> None:
    key = await added(store)
    await store.touch_key(key.key_id)
    [noted] = (await store.search_keys(ALICE, limit=1, cursor=None)).items
    await store.touch_key(key.key_id)
    assert (await store.search_keys(ALICE, limit=1, cursor=None)).items == [noted]
    found = await store.key_standing(b"digest")
    assert found is not None
    assert found.used_lately
    await execute("UPDATE api_keys SET last_used_at = last_used_at - interval '1 minute'")
    await store.touch_key(key.key_id)
    [later] = (await store.search_keys(ALICE, limit=1, cursor=None)).items
    assert later.last_used_at is not None
    assert noted.last_used_at is not None
    assert later.last_used_at >= noted.last_used_at


async def test_a_database_that_cannot_note_the_use_keeps_nobody_out(
    database: Database, store: PostgresKeyStore
) -> None:
    keys = ApiKeys(CannotNote(database))
    _, key = await keys.create(ALICE, "ci")
    assert (await keys.principal(key)).user_id == ALICE


async def test_nobody_removes_or_lists_anothers_key(store: PostgresKeyStore) -> None:
    key = await added(store)
    assert not await store.remove_key(BOB, key.key_id)
    assert (await store.search_keys(BOB, limit=10, cursor=None)).items == []
    assert await store.key_standing(b"digest") is not None


async def test_postgres_itself_shows_nobody_anothers_key(database: Database, store: PostgresKeyStore) -> None:
    await added(store)
    async with database.tenant_transaction(BOB) as connection:
        assert await (await connection.execute("SELECT * FROM api_keys")).fetchall() == []
        assert (await connection.execute("DELETE FROM api_keys")).rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with database.tenant_transaction(BOB) as connection:
            await connection.execute(
                "INSERT INTO api_keys (key_id, user_id, name, prefix, key_hash, scopes)"
                " VALUES (gen_random_uuid(), 'alice', 'x', 'x', 'x', '{read}')"
            )


async def test_a_cursor_of_nobody_is_refused_or_harmless(store: PostgresKeyStore) -> None:
    key = await added(store)
    assert (await store.search_keys(ALICE, limit=1, cursor=encode_cursor("2026-01-01", "x"))).items == [key]
    with pytest.raises(InvalidPayload):
        await store.search_keys(ALICE, limit=1, cursor="nonsense")


async def test_a_ticket_gives_back_what_it_stands_for_once(store: PostgresKeyStore) -> None:
    key = await added(store)
    of_token = TokenProof(ALICE, 3, "jti", uuid.uuid4(), datetime.now(UTC))
    for proof in (of_token, KeyProof(ALICE, key.key_id, b"digest")):
        await store.add_ticket(b"ticket", proof, lifetime=HOUR)
        used = await asyncio.gather(*(store.use_ticket(b"ticket") for _ in range(5)))
        assert [item for item in used if item is not None] == [proof]


async def test_an_old_ticket_is_worth_nothing_and_goes(
    store: PostgresKeyStore, database: Database, execute: Execute
) -> None:
    proof = TokenProof(ALICE, 3, "jti", uuid.uuid4(), datetime.now(UTC))
    for digest in (b"old", b"older"):
        await store.add_ticket(digest, proof, lifetime=HOUR)
    await execute("UPDATE ws_tickets SET expires_at = now() - interval '1 second'")
    assert await store.use_ticket(b"old") is None
    await store.add_ticket(b"new", proof, lifetime=HOUR)
    async with database.system_transaction() as connection:
        rows = await (await connection.execute("SELECT ticket_hash FROM ws_tickets")).fetchall()
    assert [row["ticket_hash"] for row in rows] == [b"new"]

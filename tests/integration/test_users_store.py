"""Users and their proofs on a real Postgres: what must hold when several ask at once, and what must expire."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.users import PostgresUserStore
from moorage.errors import InvalidPayload
from moorage.identity import User
from moorage.identity.port import RefreshUse, Standing
from moorage.identity.user import LastAdmin
from moorage.ids import UserId
from moorage.paging import encode_cursor

HOUR = timedelta(hours=1)
ALICE, BOB = UserId("alice"), UserId("bob")
Execute = Callable[[LiteralString], Awaitable[None]]


@pytest.fixture
def store(database: Database) -> PostgresUserStore:
    return PostgresUserStore(database)


@pytest.fixture
def execute(postgres_url: str, database_url: str) -> Execute:
    """Make time pass: change what is stored, as Postgres' superuser."""
    url = make_conninfo(postgres_url, dbname=conninfo_to_dict(database_url)["dbname"])

    async def run(statement: LiteralString) -> None:
        async with await psycopg.AsyncConnection.connect(url) as connection:
            assert (await connection.execute(statement)).rowcount > 0

    return run


async def added(store: PostgresUserStore, name: UserId = ALICE, *, is_admin: bool = False) -> User:
    assert await store.add(name, "hash", email=f"{name}@example.org", is_admin=is_admin)
    user = await store.find(name)
    assert user is not None
    return user


async def logged_in(store: PostgresUserStore, user: User, token: bytes = b"first") -> UUID:
    family = uuid.uuid4()
    await store.add_refresh_token(user, token, family, lifetime=HOUR)
    return family


async def standing(store: PostgresUserStore, family: UUID, *, jti: str = "jti") -> Standing:
    found = await store.standing(ALICE, jti, family)
    assert found is not None
    return found


async def fail(store: PostgresUserStore, times: int, account: str = ALICE, address: str = "192.0.2.1") -> None:
    for _ in range(times):
        assert await store.settle_attempt(account, address, success=False) == 0


async def test_a_user_is_found_as_added(store: PostgresUserStore) -> None:
    user = await added(store, is_admin=True)
    assert (user.user_id, user.password_hash, user.email) == ("alice", "hash", "alice@example.org")
    assert (user.is_admin, user.is_active, user.token_version) == (True, True, 0)


async def test_of_many_who_want_a_name_one_gets_it(store: PostgresUserStore) -> None:
    results = await asyncio.gather(*(store.add(ALICE, f"{n}", email=None, is_admin=False) for n in range(8)))
    assert sorted(results) == [False] * 7 + [True]


@pytest.mark.parametrize("name", ["nobody", "Alice", "", "al\x00ice", "x" * 5000, "' OR 1=1 --"])
async def test_other_names_are_not_found(store: PostgresUserStore, name: str) -> None:
    await added(store)
    assert await store.find(name) is None


async def test_users_are_listed_in_pages(store: PostgresUserStore) -> None:
    for name in ("dave", "alice", "carol", "bob"):
        await added(store, UserId(name))
    first = await store.search(limit=3, cursor=None)
    rest = await store.search(limit=3, cursor=first.next_cursor)
    assert [user.user_id for user in [*first.items, *rest.items]] == ["alice", "bob", "carol", "dave"]
    assert rest.next_cursor is None


async def test_a_cursor_of_nobody_is_refused_or_harmless(store: PostgresUserStore) -> None:
    assert (await store.search(limit=3, cursor=encode_cursor("\x00"))).items == []
    with pytest.raises(InvalidPayload):
        await store.search(limit=3, cursor="nonsense")


async def test_a_new_password_ends_all_tokens(store: PostgresUserStore) -> None:
    family = await logged_in(store, await added(store))
    assert await store.set_password(ALICE, "other")
    assert (await standing(store, family)).token_version == 1
    assert (await store.rotate_refresh_token(b"first", b"next", lifetime=HOUR)).use is RefreshUse.UNKNOWN


async def test_disabling_ends_all_tokens_and_enabling_does_not_bring_them_back(store: PostgresUserStore) -> None:
    family = await logged_in(store, await added(store))
    assert await store.set_active(ALICE, active=False)
    assert not (await standing(store, family)).is_active
    assert await store.set_active(ALICE, active=True)
    assert (await standing(store, family)).token_version == 2
    assert (await store.rotate_refresh_token(b"first", b"next", lifetime=HOUR)).use is RefreshUse.UNKNOWN


async def test_what_is_done_to_nobody_is_told(store: PostgresUserStore) -> None:
    assert not await store.set_password(ALICE, "other")
    assert not await store.set_active(ALICE, active=False)
    assert await store.standing(ALICE, "jti", uuid.uuid4()) is None


async def test_a_revoked_access_token_does_not_count_and_another_does(store: PostgresUserStore) -> None:
    family = await logged_in(store, await added(store))
    await store.revoke_access_token(ALICE, "jti", until=datetime.now(UTC) + HOUR)
    assert (await standing(store, family)).token_revoked
    assert not (await standing(store, family, jti="another")).token_revoked


async def test_a_refresh_token_is_followed_by_another_of_its_family(store: PostgresUserStore) -> None:
    family = await logged_in(store, await added(store))
    found = await store.rotate_refresh_token(b"first", b"second", lifetime=HOUR)
    assert (found.use, found.family, found.user and found.user.user_id) == (RefreshUse.OK, family, "alice")
    assert (await store.rotate_refresh_token(b"second", b"third", lifetime=HOUR)).use is RefreshUse.OK


async def test_a_token_used_twice_ends_its_family_and_no_other(store: PostgresUserStore) -> None:
    user = await added(store)
    stolen, other = await logged_in(store, user), await logged_in(store, user, b"elsewhere")
    await store.rotate_refresh_token(b"first", b"second", lifetime=HOUR)
    assert (await store.rotate_refresh_token(b"first", b"thief's", lifetime=HOUR)).use is RefreshUse.REUSED
    for digest in (b"second", b"thief's"):
        assert (await store.rotate_refresh_token(digest, b"more", lifetime=HOUR)).use is RefreshUse.UNKNOWN
    assert (await standing(store, stolen)).token_revoked
    assert not (await standing(store, other)).token_revoked
    assert (await store.rotate_refresh_token(b"elsewhere", b"more", lifetime=HOUR)).use is RefreshUse.OK


@pytest.mark.parametrize("_attempt", range(5))
async def test_two_who_use_one_token_at_once_both_end_with_nothing(store: PostgresUserStore, _attempt: int) -> None:
    await logged_in(store, await added(store))
    digests = [f"next {n}".encode() for n in range(6)]
    found = await asyncio.gather(*(store.rotate_refresh_token(b"first", d, lifetime=HOUR) for d in digests))
    assert sorted(result.use for result in found) == [RefreshUse.OK] + [RefreshUse.REUSED] * 5
    for digest in digests:
        assert (await store.rotate_refresh_token(digest, b"more", lifetime=HOUR)).use is not RefreshUse.OK


@pytest.mark.parametrize("_attempt", range(5))
async def test_no_refresh_token_outlives_a_logout_at_the_same_moment(store: PostgresUserStore, _attempt: int) -> None:
    family = await logged_in(store, await added(store))
    await asyncio.gather(
        store.rotate_refresh_token(b"first", b"second", lifetime=HOUR), store.revoke_family(family, ALICE)
    )
    assert (await store.rotate_refresh_token(b"second", b"third", lifetime=HOUR)).use is RefreshUse.UNKNOWN
    assert (await standing(store, family)).token_revoked


async def test_nobody_ends_another_users_family(store: PostgresUserStore) -> None:
    family = await logged_in(store, await added(store))
    await added(store, BOB)
    await store.revoke_family(family, BOB)
    assert not (await standing(store, family)).token_revoked


async def test_an_old_refresh_token_does_not_count(store: PostgresUserStore, execute: Execute) -> None:
    await logged_in(store, await added(store))
    await execute("UPDATE refresh_tokens SET expires_at = now() - interval '1 second'")
    assert (await store.rotate_refresh_token(b"first", b"second", lifetime=HOUR)).use is RefreshUse.UNKNOWN


async def test_the_fifth_failure_blocks_the_account_from_everywhere(store: PostgresUserStore) -> None:
    await fail(store, 4)
    assert await store.seconds_blocked(ALICE, "192.0.2.1") == 0
    await fail(store, 1, address="192.0.2.2")
    assert 0 < await store.seconds_blocked(ALICE, "192.0.2.99") <= 900
    assert await store.seconds_blocked(BOB, "192.0.2.1") == 0


async def test_the_twentieth_failure_blocks_the_address_for_everybody(store: PostgresUserStore) -> None:
    for n in range(19):
        await fail(store, 1, account=f"user-{n}")
    assert await store.seconds_blocked(BOB, "192.0.2.1") == 0
    await fail(store, 1, account="user-19")
    assert 0 < await store.seconds_blocked(BOB, "192.0.2.1") <= 900
    assert await store.seconds_blocked(BOB, "192.0.2.2") == 0


async def test_success_clears_the_account_and_no_other(store: PostgresUserStore) -> None:
    await fail(store, 4)
    await fail(store, 4, account=BOB)
    assert await store.settle_attempt(ALICE, "192.0.2.1", success=True) == 0
    await fail(store, 1)
    await fail(store, 1, account=BOB)
    assert await store.seconds_blocked(ALICE, "192.0.2.9") == 0
    assert await store.seconds_blocked(BOB, "192.0.2.9") > 0


async def test_success_that_comes_after_the_block_does_not_count(store: PostgresUserStore) -> None:
    await fail(store, 5)
    assert await store.settle_attempt(ALICE, "192.0.2.9", success=True) > 0
    assert await store.seconds_blocked(ALICE, "192.0.2.9") > 0


@pytest.mark.parametrize("_attempt", range(3))
async def test_of_many_failures_at_once_no_more_than_the_limit_are_answered(
    store: PostgresUserStore, _attempt: int
) -> None:
    attempts = [store.settle_attempt(ALICE, f"192.0.2.{n}", success=False) for n in range(30)]
    assert Counter(seconds == 0 for seconds in await asyncio.gather(*attempts))[True] == 5
    attempts = [store.settle_attempt(f"user-{n}", "198.51.100.1", success=False) for n in range(40)]
    assert Counter(seconds == 0 for seconds in await asyncio.gather(*attempts))[True] == 20


async def test_a_block_ends_fifteen_minutes_after_the_first_of_its_failures(
    store: PostgresUserStore, execute: Execute
) -> None:
    await fail(store, 1)
    await execute("UPDATE login_failures SET failed_at = now() - interval '14 minutes 50 seconds'")
    await fail(store, 4)
    assert 0 < await store.seconds_blocked(ALICE, "192.0.2.9") <= 10
    await execute("UPDATE login_failures SET failed_at = failed_at - interval '11 seconds'")
    assert await store.seconds_blocked(ALICE, "192.0.2.9") == 0


@pytest.mark.parametrize("account", ["\x00", "", "x" * 100_000, "\ud800", "' OR 1=1 --"])
async def test_failures_of_names_that_cannot_be_are_counted_too(store: PostgresUserStore, account: str) -> None:
    await fail(store, 5, account=account)
    assert await store.seconds_blocked(account, "192.0.2.9") > 0


async def test_the_first_admin_is_made_once(store: PostgresUserStore) -> None:
    assert await store.offer_setup(b"link", lifetime=HOUR)
    names = [UserId(f"boss-{n}") for n in range(6)]
    results = await asyncio.gather(*(store.add_first_admin(b"link", name, "hash") for name in names))
    assert sorted(results) == [False] * 5 + [True]
    assert not await store.add_first_admin(b"link", UserId("later"), "hash")
    assert not await store.offer_setup(b"another", lifetime=HOUR)
    assert [user.is_admin for user in (await store.search(limit=9, cursor=None)).items] == [True]


async def test_a_new_link_replaces_the_old(store: PostgresUserStore) -> None:
    await store.offer_setup(b"old", lifetime=HOUR)
    await store.offer_setup(b"new", lifetime=HOUR)
    assert not await store.add_first_admin(b"old", ALICE, "hash")
    assert await store.add_first_admin(b"new", ALICE, "hash")


async def test_users_without_rights_do_not_stand_in_the_way_of_the_first_admin(store: PostgresUserStore) -> None:
    await added(store, BOB)
    assert await store.offer_setup(b"link", lifetime=HOUR)


async def test_a_taken_name_does_not_use_up_the_link(store: PostgresUserStore) -> None:
    await added(store, BOB)
    await store.offer_setup(b"link", lifetime=HOUR)
    assert not await store.add_first_admin(b"link", BOB, "hash")
    assert await store.add_first_admin(b"link", ALICE, "hash")


async def test_an_old_link_is_dead(store: PostgresUserStore, execute: Execute) -> None:
    await store.offer_setup(b"link", lifetime=HOUR)
    await execute("UPDATE setup_links SET expires_at = now() - interval '1 second'")
    assert not await store.add_first_admin(b"link", ALICE, "hash")


async def test_an_admin_made_meanwhile_makes_the_link_dead(store: PostgresUserStore) -> None:
    await store.offer_setup(b"link", lifetime=HOUR)
    await added(store, BOB, is_admin=True)
    assert not await store.add_first_admin(b"link", ALICE, "hash")


async def test_the_last_administrator_is_spared(store: PostgresUserStore) -> None:
    await added(store, ALICE, is_admin=True)
    await added(store, BOB)
    with pytest.raises(LastAdmin):
        await store.set_active(ALICE, active=False, spare_last_admin=True)
    assert await store.set_active(BOB, active=False, spare_last_admin=True)
    assert await store.set_active(ALICE, active=False)


async def test_of_administrators_who_disable_each_other_at_once_one_stays(store: PostgresUserStore) -> None:
    names = [UserId(f"admin{number}") for number in range(4)]
    for name in names:
        await added(store, name, is_admin=True)
    disabling = (store.set_active(name, active=False, spare_last_admin=True) for name in names)
    outcomes = await asyncio.gather(*disabling, return_exceptions=True)
    assert [isinstance(outcome, LastAdmin) for outcome in outcomes].count(True) == 1
    assert [user.is_active for user in (await store.search(limit=10, cursor=None)).items].count(True) == 1


async def test_users_are_found_by_a_part_of_name_or_email(store: PostgresUserStore) -> None:
    await added(store, ALICE)
    await added(store, BOB)
    for part, expected in {"LIC": [ALICE], "bob@ex": [BOB], "example": [ALICE, BOB], "%": [], "\x00b": [BOB]}.items():
        page = await store.search(query=part, limit=10, cursor=None)
        assert [user.user_id for user in page.items] == expected

"""Which passwords are accepted, and what the hasher promises; with cheap hashes where their cost does not matter."""

import asyncio
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import Unavailable
from moorage.identity.passwords import MAX_LENGTH, MIN_LENGTH, PasswordHasher, WeakPassword, check_password

GOOD = "correct horse battery"


@pytest.fixture(scope="module")
def hasher() -> PasswordHasher:
    return PasswordHasher(rounds=1, memory_kib=64)


@pytest.mark.parametrize(
    "password", [GOOD, "x1" * 4, "ab" * 64, "密码是一个很好的密码", "pass word with spaces ", "🔑🗝" * 4]
)
def test_a_good_password_is_accepted_as_it_is(password: str) -> None:
    assert check_password(password, username="alice") == password


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "8 to 128"),
        ("short 7", "8 to 128"),
        ("ab" * 64 + "c", "8 to 128"),
        ("aaaaaaaaaa", "repeat one character"),
        ("with\x00a NUL inside", "NUL"),
        ("half \ud83d a pair", "broken"),
        ("iloveyou", "easy to guess"),
        ("PassWord1", "easy to guess"),
        ("12345678", "easy to guess"),
        ("alice-smith", "easy to guess"),
        ("Alice-Smith", "easy to guess"),
    ],
)
def test_a_weak_password_is_refused_and_not_repeated(password: str, reason: str) -> None:
    with pytest.raises(WeakPassword, match=reason) as caught:
        check_password(password, username="alice-smith", field="new_password")
    assert caught.value.errors[0]["loc"] == ["body", "new_password"]
    assert not password or password not in str(caught.value.errors)


@given(st.text(max_size=2 * MAX_LENGTH))
def test_what_is_accepted_is_normal_storable_and_of_the_right_length(password: str) -> None:
    try:
        text = check_password(password, username="alice")
    except WeakPassword:
        return
    assert unicodedata.is_normalized("NFC", text)
    assert MIN_LENGTH <= len(text) <= MAX_LENGTH
    text.encode()


async def test_the_right_password_matches_and_no_other(hasher: PasswordHasher) -> None:
    stored = await hasher.hash(GOOD)
    assert GOOD not in stored
    assert await hasher.verify(GOOD, stored)
    assert not await hasher.verify(GOOD + " ", stored)


async def test_by_default_a_hash_is_argon2id_of_64_mib_and_made_off_the_event_loop() -> None:
    hashing = asyncio.create_task(PasswordHasher().hash(GOOD))
    turns = 0
    while not hashing.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert hashing.result().startswith("$argon2id$v=19$m=65536,t=3,")


async def test_the_same_password_has_another_hash_each_time(hasher: PasswordHasher) -> None:
    assert await hasher.hash(GOOD) != await hasher.hash(GOOD)


@pytest.mark.parametrize("position", [72, 127])
async def test_passwords_that_differ_late_differ(hasher: PasswordHasher, position: int) -> None:
    """bcrypt would not look beyond byte 72."""
    password = "ab" * 64
    other = password[:position] + "X" + password[position + 1 :]
    stored = await hasher.hash(password)
    assert await hasher.verify(password, stored)
    assert not await hasher.verify(other, stored)


async def test_a_password_matches_from_every_keyboard_also_when_decomposed_it_is_longer(hasher: PasswordHasher) -> None:
    composed = "éà" * 64
    decomposed = unicodedata.normalize("NFD", composed)
    stored = await hasher.hash(check_password(decomposed, username="alice"))
    assert await hasher.verify(composed, stored)
    assert await hasher.verify(decomposed, stored)


@pytest.mark.parametrize("stored", [None, "", "!", "$argon2id$broken", "$2b$12$short"])
async def test_nothing_matches_where_there_is_no_hash(hasher: PasswordHasher, stored: str | None) -> None:
    assert not await hasher.verify(GOOD, stored)


@pytest.mark.parametrize("password", ["", "x" * 1000, "a\x00b", "\ud800", "no such user"])
async def test_no_password_is_too_strange_to_be_wrong(hasher: PasswordHasher, password: str) -> None:
    assert not await hasher.verify(password, None)
    assert not await hasher.verify(password, await hasher.hash(GOOD))


async def test_too_many_at_once_are_refused_and_the_rest_is_answered(hasher: PasswordHasher) -> None:
    waiting = [asyncio.create_task(hasher.verify(GOOD, None)) for _ in range(200)]
    await asyncio.sleep(0)
    for task in waiting[10:64]:  # people who went away make room
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Unavailable)]
    assert len(refused) == 200 - 64
    assert all(error.retry_after for error in refused)
    assert results[:10] == [False] * 10
    assert not await hasher.verify(GOOD, None)

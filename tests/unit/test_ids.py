import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.ids import UserId, is_user_id, new_run_id, new_thread_id, owner_of

_UUID = "550e8400-e29b-41d4-a716-446655440000"
user_ids = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,30}[a-z0-9])", fullmatch=True)


@given(user_ids)
def test_the_owner_of_a_new_thread_is_who_made_it(user_id: str) -> None:
    assert owner_of(new_thread_id(UserId(user_id))) == user_id


@given(user_ids, user_ids)
def test_no_other_user_owns_a_thread(owner: str, other: str) -> None:
    assert (owner_of(new_thread_id(UserId(owner))) == other) == (owner == other)


def test_a_shorter_name_does_not_reach_a_longer_one_that_starts_alike() -> None:
    assert owner_of(f"al-ice-{_UUID}") == "al-ice"


def test_a_name_that_looks_like_a_uuid_keeps_its_thread() -> None:
    assert owner_of(f"abc-{_UUID[:20]}-{_UUID}") == f"abc-{_UUID[:20]}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        _UUID,
        f"-{_UUID}",
        f"a-{_UUID}",
        f"alice{_UUID}",
        f"alice_{_UUID}",
        f"Alice-{_UUID}",
        f"alice-{_UUID.upper()}",
        f"alice-{_UUID}\n",
        f"alice\n-{_UUID}",
        f"al/ice-{_UUID}",
        f"../x-{_UUID}",
        f"alice--{_UUID[1:]}",
        f"{'a' * 33}-{_UUID}",
        f"alice-{_UUID[:-1]}١",
    ],
)
def test_what_is_no_thread_id_has_no_owner(text: str) -> None:
    assert owner_of(text) is None


@given(st.text())
def test_any_text_can_be_asked_for_its_owner(text: str) -> None:
    owner = owner_of(f"{text}-{_UUID}")
    assert owner == (text if is_user_id(text) else None)


@pytest.mark.parametrize("text", ["al", "a1", "a.b", "a-b_c.d", "0" * 32])
def test_a_user_id_is_2_to_32_of_the_allowed_characters(text: str) -> None:
    assert is_user_id(text)


@pytest.mark.parametrize("text", ["", "a", "A1", "-a", "a-", ".a", "a.", "a b", "a\n", "é1", "a/b", "0" * 33])
def test_anything_else_is_no_user_id(text: str) -> None:
    assert not is_user_id(text)


def test_run_ids_are_uuids() -> None:
    assert uuid.UUID(new_run_id()).version == 4

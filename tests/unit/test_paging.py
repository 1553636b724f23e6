import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.errors import InvalidPayload
from moorage.paging import decode_cursor, decode_time_cursor, encode_cursor, position


@given(st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_a_cursor_leads_back_to_its_key(key: list[str]) -> None:
    assert decode_cursor(encode_cursor(*key), len(key)) == key


@given(st.text())
def test_a_foreign_cursor_is_refused_and_nothing_else(cursor: str) -> None:
    with pytest.raises(InvalidPayload):
        decode_cursor(cursor, 2)


def _cursor(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "text", [b"", b"{}", b'"ab"', b'["a"]', b'["a","b","c"]', b'["a",1]', b"[" * 300, b'["\xff","b"]']
)
def test_a_cursor_of_another_shape_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidPayload, match="cursor"):
        decode_cursor(_cursor(text), 2)


def test_a_cursor_longer_than_any_is_refused() -> None:
    with pytest.raises(InvalidPayload):
        decode_cursor(encode_cursor("a" * 1000, "b"), 2)


def test_a_time_cursor_leads_back_to_its_place() -> None:
    now = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert decode_time_cursor(encode_cursor(now.isoformat(), "id")) == (now, "id")


@given(st.text(), st.text())
def test_a_forged_time_cursor_is_refused_or_harmless(at: str, last_id: str) -> None:
    try:
        _, found = decode_time_cursor(encode_cursor(at, last_id))
    except InvalidPayload:
        return
    assert "\x00" not in found


@given(st.integers(min_value=0, max_value=10**18 - 1))
def test_a_position_is_its_number(number: int) -> None:
    assert position(str(number)) == number


def test_no_cursor_is_the_start() -> None:
    assert position(None) == 0


@pytest.mark.parametrize("cursor", ["", "-1", "+1", " 1", "1.0", "1e3", "٣", "²", "9" * 19, "1\n", "1_0"])
def test_a_position_that_is_not_plain_digits_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidPayload):
        position(cursor)

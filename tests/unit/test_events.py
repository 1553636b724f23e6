import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.events import EventType, encode, run_event, scrub_text

any_text = st.text(st.characters(exclude_categories=()))
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


@given(any_json)
def test_whatever_a_model_says_can_be_encoded_for_postgres(data: Any) -> None:
    text = encode(data).decode("utf-8")
    assert "\n" not in text
    assert "\x00" not in json.dumps(json.loads(text), ensure_ascii=False)
    assert not any(ord(char) in range(0xD800, 0xE000) for char in text)


@given(st.dictionaries(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"])), st.booleans()))
def test_what_is_clean_is_encoded_unchanged(data: dict[str, bool]) -> None:
    assert json.loads(encode(data)) == data


def test_nul_and_lone_surrogates_are_gone_from_keys_and_values() -> None:
    assert json.loads(encode({"a\x00b": ["c\x00d", {"e\ud800": "f\udfff"}]})) == {"ab": ["cd", {"e?": "f?"}]}


def test_an_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert json.loads(encode({"text": "\\u0000"})) == {"text": "\\u0000"}


def test_integers_beyond_64_bits_stay_readable() -> None:
    assert json.loads(encode({"n": 10**30, "m": [-(10**30)]})) == {"n": str(10**30), "m": [str(-(10**30))]}


def test_nesting_without_end_is_cut_not_refused() -> None:
    data: Any = "deep"
    for _ in range(5000):
        data = [data]
    assert encode(data).startswith(b"[[[[")


def test_times_are_rfc_3339() -> None:
    assert encode(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == b'"2026-01-02T03:04:05+00:00"'


@given(any_text)
def test_scrubbed_text_is_what_postgres_stores(text: str) -> None:
    scrubbed = scrub_text(text)
    assert "\x00" not in scrubbed
    assert scrubbed.encode("utf-8").decode("utf-8") == scrubbed
    assert scrub_text(scrubbed) == scrubbed


def test_fields_without_a_value_are_left_out() -> None:
    event = run_event(EventType.ERROR, {"code": "x", "retry_after": None, "detail": ""})
    assert json.loads(event.data) == {"code": "x", "detail": ""}


@pytest.mark.parametrize("text", ["plain", "汉字 🎉", "line\nbreak", '"quoted"'])
def test_an_event_is_one_line_of_json(text: str) -> None:
    data = run_event(EventType.CONTENT_STREAM, {"content_delta": text}).data
    assert b"\n" not in data
    assert json.loads(data) == {"content_delta": text}

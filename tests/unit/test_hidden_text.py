from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.agent.hidden_text import MAX_NAMES, hidden_characters


def count(text: str) -> int:
    found = hidden_characters({"command": text})
    return found[0]["count"] if found else 0


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, include_characters="\t\n")))
def test_plain_text_is_no_matter(text: str) -> None:
    assert hidden_characters({"command": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "naïve café, 12 €",
        "你好，世界　全角",
        "привет мир",
        "Καλημέρα κόσμε",
        "שלום עולם",
        "سلام دنیا، می\u200cخواهم",
        "क्\u200dष",
        "👨\u200d👩\u200d👧 family, ❤\ufe0f heart, 1\ufe0f\u20e3 keycap, 👩🏽\u200d🚀 astronaut",
        "葛\U000e0100",
        "line one\r\nline two\r\n",
        "Δt = 2πr",
        "a µs",
    ],
)
def test_honest_text_in_any_language_is_no_matter(text: str) -> None:
    assert hidden_characters({"content": text}) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("rm \u202egnp.exe", "U+202E RIGHT-TO-LEFT OVERRIDE"),
        ("a\u2066b", "U+2066 LEFT-TO-RIGHT ISOLATE"),
        ("pass\u200bword", "U+200B ZERO WIDTH SPACE"),
        ("a\u200db", "U+200D ZERO WIDTH JOINER"),
        ("a\u2060b", "U+2060 WORD JOINER"),
        ("\ufeffecho", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("so\u00adft", "U+00AD SOFT HYPHEN"),
        ("x\u3164y", "U+3164 HANGUL FILLER"),
        ("x\u2028y", "U+2028 LINE SEPARATOR"),
        ("echo hi\r rm", "U+000D CONTROL CHARACTER"),
        ("\x1b[8m", "U+001B CONTROL CHARACTER"),
        ("\x7f", "U+007F CONTROL CHARACTER"),
        ("ok\U000e0072", "U+E0072 TAG LATIN SMALL LETTER R"),
        ("a\ufe01", "U+FE01 VARIATION SELECTOR-2"),
        ("😀\U000e0101", "U+E0101 VARIATION SELECTOR-18"),
        ("x\ue000", "U+E000 CONTROL CHARACTER"),
        ("p\u0430ypal", "U+0430 CYRILLIC SMALL LETTER A"),
        ("g\u03bf", "U+03BF GREEK SMALL LETTER OMICRON"),
    ],
)
def test_what_hides_or_imitates_is_named(text: str, name: str) -> None:
    assert hidden_characters({"command": text}) == [{"field": "command", "characters": [name], "count": 1}]


def test_a_message_smuggled_in_selectors_is_counted_whole() -> None:
    assert count("😀" + "".join(chr(0xE0100 + byte) for byte in b"secret")) == 6
    assert count("😀\ufe0f\ufe0f\ufe0f") == 2


def test_each_field_is_named_by_its_path_and_names_of_fields_are_looked_at() -> None:
    args: dict[str, Any] = {"a": {"b": ["fine", "x\u200b"]}, "na\u200bme": 1}
    found = hidden_characters(args)
    assert [item["field"] for item in found] == ["a.b.1", "na\u200bme (name)"]


def test_many_kinds_are_counted_but_not_all_named() -> None:
    [found] = hidden_characters({"command": "".join(chr(code) for code in range(0xE0020, 0xE0070))})
    assert found["count"] == 80
    assert len(found["characters"]) == MAX_NAMES


@given(st.recursive(st.text() | st.none() | st.integers(), lambda inner: st.dictionaries(st.text(), inner)))
def test_any_arguments_can_be_looked_at(value: Any) -> None:
    for found in hidden_characters({"args": value}):
        assert found["count"] > 0

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.messages import search_query, snippet


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("hello world", "hello world"),
        ('"hello world" -bye', '"hello world" -bye'),
        ("数据库", '"数 据 库"'),
        ("Python语言", 'Python "语 言"'),
        ('"用 Postgres 数据"', '"用 Postgres 数 据"'),
        ("-数据 ok", '-"数 据" ok'),
        ('"unclosed 数', 'unclosed "数"'),
        ("a@b.example foo-bar c++", "a@b.example foo-bar c++"),
        ("OR a or OR b", "a OR b"),
        ("-- - -! (a & !b) -'c'", "a b c"),
        ('"" "-" -""', ""),
    ],
)
def test_what_a_human_types_becomes_a_query_that_cannot_fail(text: str, query: str) -> None:
    assert search_query(text) == query


def test_a_snippet_shows_what_was_found() -> None:
    content = "word " * 100 + "the Needle is here " + "word " * 100
    shown = snippet(content, "-hay needle")
    assert "Needle is here" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")


def test_a_snippet_of_characters_without_spaces() -> None:
    assert "数据库" in snippet("前" * 500 + "数据库" + "后" * 500, '"数据库" OR x')


def test_a_snippet_without_a_find_is_the_beginning() -> None:
    assert snippet("short", "-short") == "short"


def test_a_snippet_of_a_long_text_is_found_at_once() -> None:
    content, text = "aaaa " * 20_000 + "needle", "needle " + " ".join(f"aaaa{number}" for number in range(59))
    began = time.process_time()
    for _ in range(20):
        assert "needle" in snippet(content, text)
    assert time.process_time() - began < 0.2


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_text_breaks_a_snippet(content: str, text: str) -> None:
    assert len(snippet(content, text)) <= 202

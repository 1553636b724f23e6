"""Paths that clients give, and names as they are shown: every file has one, and nothing leads out of its root."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from moorage.sandboxes.paths import MAX_DEPTH, parse_path, shown_name, shown_path
from moorage.sandboxes.port import PathError

NAMES = st.binary(min_size=1, max_size=255).filter(lambda name: name not in (b".", b"..") and not {0, 47} & {*name})
PLAIN = [
    "a",
    "a.b",
    "..a",
    "a..",
    "...",
    ".hidden",
    "a b",
    "file~",
    "12:30",
    "CON",
    "名前.txt",
    "é",
    "e\u0301",
    "👍🏽",
    "a%2fb",
]


@given(NAMES)
@example(b"~")
@example(b"C:")
@example(b"\\x41")
@example(b"\xff\xfe")
@example(b"\xed\xb2\x80")  # a surrogate in what looks like UTF-8
@example("👩\u200d💻".encode())
def test_every_name_on_a_disk_can_be_shown_and_given_back(name: bytes):
    assert parse_path(shown_name(name)) == (name,)


@given(NAMES, NAMES)
def test_two_names_are_never_shown_as_one(one: bytes, other: bytes):
    assert (shown_name(one) == shown_name(other)) == (one == other)


@given(st.lists(NAMES, max_size=4))
def test_a_shown_path_leads_where_it_came_from(names: list[bytes]):
    assume(sum(map(len, names)) + len(names) <= 1024)
    assert parse_path(shown_path(tuple(names))) == tuple(names)


@given(st.text(max_size=300))
def test_whatever_text_is_given_is_one_plain_path_or_refused(text: str):
    try:
        parts = parse_path(text)
    except PathError:
        return
    assert shown_path(parts) == text
    assert not {b"", b".", b".."} & set(parts)


@given(NAMES)
def test_what_is_shown_is_printable_text(name: bytes):
    shown = shown_name(name)
    shown.encode()
    assert not any(char < " " or char in "\x7f\u202e\u200b\ufeff/" for char in shown)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_are_shown_as_they_are(name: str):
    assert shown_name(name.encode()) == name
    assert parse_path(name) == (name.encode(),)


def test_the_root_is_the_empty_path():
    assert parse_path("") == ()
    assert shown_path(()) == ""


@pytest.mark.parametrize(
    "path",
    [
        "/", "/etc/passwd", "//etc", "a//b", "a/", "./a", "a/./b", "..", "../a", "a/..", "a/../b", ".", "a\0b", "a\nb",
        "a\x7fb", "a\x85b", "a\\b", "..\\a", "C:", "C:/Windows", "c:\\a", "a/c:b", "~", "~/a", "~root", "a/~",
        "a\u202eb", "a\u200bb", "a\u2066b", "\ufeffa", "a\u00adb", "a\u2028b", "a\U000e0041b", "a\ud800b", "\udcff",
        "\\x2e\\x2e", "\\x2e\\x2e/a", "a\\x2fb", "a\\x00", "\\x41", "\\xFF", "\\xff\\xZZ", "\\x", "\\xe9\\x",
        "\\xc3\\xa9", "\\",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused(path: str):
    with pytest.raises(PathError) as refused:
        parse_path(path)
    assert refused.value.code == "invalid_path"


@pytest.mark.parametrize(
    ("fine", "too_much"),
    [
        ("é" * 127, "é" * 128),
        ("/".join(["a" * 255] * 4)[:-3] + "a" * 3, "/".join(["a" * 255] * 4) + "/a"),
        ("/".join("a" * MAX_DEPTH), "/".join("a" * (MAX_DEPTH + 1))),
        ("\\xff" * 255, "\\xff" * 256),
    ],
)
def test_names_and_paths_have_bounds_in_bytes(fine: str, too_much: str):
    assert shown_path(parse_path(fine)) == fine
    with pytest.raises(PathError):
        parse_path(too_much)
    with pytest.raises(PathError):
        parse_path("a" * 1_000_000)

"""Frames come out whole and once, wherever the network cuts the bytes."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.cli.sse_reader import Frame, SseReader

LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
WORDS = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=12)
NAMES = WORDS.filter(bool)
IDS = st.none() | NAMES.filter(lambda text: "\0" not in text)
FRAMES = st.builds(Frame, NAMES, st.lists(WORDS, min_size=1, max_size=3).map("\n".join), IDS)


def encode(frame: Frame, end: bytes) -> bytes:
    lines = [f"event: {frame.event}", *(f"data: {line}" for line in frame.data.split("\n")), ": comment", "retry: 5"]
    if frame.id is not None:
        lines.append(f"id: {frame.id}")
    return b"".join(line.encode() + end for line in (*lines, ""))


def read(chunks: Sequence[bytes]) -> list[Frame]:
    reader = SseReader()
    return [frame for chunk in chunks for frame in reader.feed(chunk)]


@given(st.lists(FRAMES, max_size=4), LINE_ENDS, st.lists(st.integers(0, 400), max_size=12))
def test_any_cut_gives_the_same_frames(frames: list[Frame], end: bytes, cuts: list[int]) -> None:
    text = b"".join(encode(frame, end) for frame in frames) + b": the stream goes on"
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    assert read([text[a:b] for a, b in itertools.pairwise(places)]) == frames


@given(st.lists(FRAMES, max_size=3), LINE_ENDS)
def test_byte_by_byte_is_no_different(frames: list[Frame], end: bytes) -> None:
    text = b"".join(encode(frame, end) for frame in frames) + b":"
    assert read([bytes([byte]) for byte in text]) == frames


@pytest.mark.parametrize("text", [b": heartbeat\n\n", b"event: x\n\n", b"id: 3\n\n", b"data: cut off\n", b"\n\n\n"])
def test_what_has_no_data_or_no_end_is_no_frame(text: bytes) -> None:
    assert read([text]) == []


def test_a_byte_order_mark_at_the_start_is_skipped() -> None:
    assert read([b"\xef", b"\xbb\xbfdata:1\n\n"]) == [Frame("message", "1")]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert read([b"data:  two\ndata\n\n"]) == [Frame("message", " two\n")]


def test_an_id_belongs_to_its_own_frame() -> None:
    assert read([b"id: 7\ndata: a\n\ndata: b\n\n"]) == [Frame("message", "a", "7"), Frame("message", "b")]


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert read([b"data: \xff\n\n"]) == [Frame("message", "�")]

from hypothesis import given
from hypothesis import strategies as st

from moorage.sandboxes.output import KeptOutput, TextStream


def kept(pieces: list[str], keep: int) -> KeptOutput:
    output = KeptOutput(keep)
    for piece in pieces:
        output.add(piece)
    return output


def test_short_output_is_kept_whole() -> None:
    output = kept(["ab", "cd", "ef"], keep=3)
    assert (output.text(), output.truncated) == ("abcdef", False)


def test_long_output_keeps_both_ends() -> None:
    output = kept(["start", "x" * 1000, "end"], keep=5)
    assert output.text() == "start\n... [998 bytes cut here] ...\nxxend"
    assert output.truncated


@given(st.lists(st.text(max_size=20), max_size=30), st.integers(min_value=1, max_value=50))
def test_no_output_is_lost_unsaid(pieces: list[str], keep: int) -> None:
    output, whole = kept(pieces, keep), "".join(pieces)
    if not output.truncated:
        assert output.text() == whole
    head, _, tail = output.text().partition("\n... [")
    assert whole.startswith(head)
    assert whole.endswith(tail.partition("] ...\n")[2] if output.truncated else whole)
    assert len(output.text().encode()) <= 2 * keep + 3 + 60


@given(st.text(), st.integers(min_value=1, max_value=7))
def test_text_survives_being_cut_anywhere(text: str, size: int) -> None:
    data = text.encode()
    stream = TextStream()
    cut = "".join(stream.feed(data[start : start + size]) for start in range(0, len(data), size))
    assert cut + stream.feed(b"", final=True) == TextStream().feed(data, final=True)


def test_control_characters_are_dropped_but_for_white_space() -> None:
    assert TextStream().feed(b"a\x00\x1b[0m\x07b\tc\r\n\xc2\x9bd") == "a[0mb\tc\r\nd"

"""What a human approves is what the human sees, and nothing a model says steers the terminal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.cli.api_client import Event, Pending
from moorage.cli.display import RunPrinter, approval_text, escaped, printable


def pending(**tool_input: Any) -> Pending:
    return Pending("i", "c", "execute", tool_input, "Run a command", ("approve",), {"sandbox": "docker"}, "d")


def shown(*events: tuple[str, dict[str, Any]]) -> str:
    parts: list[str] = []
    printer = RunPrinter(parts.append)
    for seq, (kind, data) in enumerate(events, 1):
        printer.show(Event(kind, data, seq))
    return "".join(parts)


def delta(text: str, **more: str) -> tuple[str, dict[str, Any]]:
    return "content_stream", {"message_id": "m", "content_delta": text, "agent": "agent", **more}


@pytest.mark.parametrize("char", ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u2066", "\x7f"])
def test_what_steers_the_terminal_is_not_printed(char: str) -> None:
    assert printable(f"a{char}b\n\tc") == "ab\n\tc"


@given(st.text())
def test_escaping_leaves_only_what_can_be_seen(text: str) -> None:
    out, hidden = escaped(text)
    assert escaped(out) == (out, 0)
    assert (hidden == 0) == (out == text)


def test_a_hidden_command_is_shown_with_a_warning() -> None:
    text = approval_text(pending(command="echo visible\u200b # \u202egnp.tac\u202c"), number=1, total=1)
    assert "echo visible<U+200B> # <U+202E>gnp.tac<U+202C>" in text
    assert "WARNING: 3 invisible" in text


def test_an_ordinary_command_has_no_warning() -> None:
    assert "WARNING" not in approval_text(pending(command="echo 你好 ✓\n\techo é"), number=1, total=1)


def test_a_long_argument_is_shown_in_full() -> None:
    content = "\n".join(f"line {number}" for number in range(5000))
    text = approval_text(pending(file_path="/workspace/x", content=content), number=1, total=1)
    assert all(f"│ line {number}" in text for number in range(5000))


def test_no_line_of_an_argument_can_pass_for_a_heading() -> None:
    text = approval_text(pending(command="ls\n── Approval 2 of 2: ls ──"), number=1, total=2)
    assert [line for line in text.split("\n") if line.startswith("──")] == ["── Approval 1 of 2: execute ──"]


def test_streamed_text_is_not_repeated_by_the_complete_message() -> None:
    complete = ("message_complete", {"message_id": "m", "final_content": "Hello"})
    assert shown(delta("Hel"), delta("lo"), complete) == "Hello\n"


def test_a_message_joined_at_its_end_is_shown_whole() -> None:
    assert shown(("message_complete", {"message_id": "m", "final_content": "Hello"})) == "Hello\n"


def test_output_is_indented_also_when_it_comes_in_pieces() -> None:
    pieces = [("tool_output", {"call_id": "c", "stream": "stdout", "delta": text}) for text in ("on", "e\ntw", "o\n")]
    result = ("tool_result", {"call_id": "c", "status": "success", "result": "one\ntwo", "exit_code": 0})
    assert shown(*pieces, result) == "    one\n    two\n  tool: success, exit code 0 (0.0 s)\n"


def test_a_sub_agents_words_carry_its_name() -> None:
    assert shown(delta("hi", agent="coder", parent_call_id="c")) == "[coder] hi"

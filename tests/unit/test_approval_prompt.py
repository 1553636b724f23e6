"""Each approval is asked for by itself, and the answer is bound to what was shown."""

from typing import Any

import pytest

from moorage.cli.api_client import Pending
from moorage.cli.asking import ApprovalPrompt

ALL = ("approve", "edit", "reject")


def pending(number: int = 1, *, allowed: tuple[str, ...] = ALL) -> Pending:
    return Pending(f"i{number}", "c", "execute", {"command": "ls"}, "Run a command", allowed, {}, f"digest{number}")


class Human:
    """Types the given lines, then ends the input."""

    def __init__(self, *lines: str) -> None:
        self._lines = iter(lines)
        self.shown: list[str] = []
        self.asked: list[str] = []
        self.prefilled: list[str] = []

    def read_line(self, prompt: str, *, prefill: str = "") -> str:
        self.asked.append(prompt)
        self.prefilled.append(prefill)
        try:
            return next(self._lines)
        except StopIteration:
            raise EOFError from None


def decide(human: Human, *waiting: Pending) -> list[dict[str, Any]]:
    return ApprovalPrompt(say=human.shown.append, read_line=human.read_line).ask(waiting)


@pytest.fixture(autouse=True)
def _no_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.delenv("VISUAL", raising=False)


def test_a_yes_names_the_interrupt_and_the_digest_that_was_shown() -> None:
    assert decide(Human("y"), pending()) == [{"interrupt_id": "i1", "digest": "digest1", "type": "approve"}]


def test_a_no_carries_the_reason() -> None:
    decision = decide(Human("n", "too risky"), pending())[0]
    assert (decision["type"], decision["message"]) == ("reject", "too risky")


def test_a_no_needs_no_reason() -> None:
    assert "message" not in decide(Human("n", ""), pending())[0]


def test_an_empty_or_unclear_line_approves_nothing() -> None:
    human = Human("", "what?", "n", "")
    assert decide(human, pending())[0]["type"] == "reject"
    assert len(human.asked) == 4


def test_an_edit_keeps_the_tool_and_is_confirmed() -> None:
    decision = decide(Human("e", '{"command": "ls -l"}', "y"), pending())[0]
    assert decision["edited_action"] == {"name": "execute", "args": {"command": "ls -l"}}


def test_an_edit_starts_from_what_the_agent_wanted() -> None:
    human = Human("e", '{"command": "pwd"}', "y")
    decide(human, pending())
    assert human.prefilled[1] == '{"command": "ls"}'


def test_an_edit_that_is_not_json_is_asked_for_again() -> None:
    human = Human("e", '{"command": ', '["ls"]', '{"command": "pwd"}', "y")
    assert decide(human, pending())[0]["edited_action"]["args"] == {"command": "pwd"}
    assert any("not JSON" in line for line in human.shown)


def test_an_edit_without_a_change_decides_nothing() -> None:
    assert decide(Human("e", '{"command": "ls"}', "n", ""), pending())[0]["type"] == "reject"


def test_an_unconfirmed_edit_decides_nothing() -> None:
    assert decide(Human("e", '{"command": "rm"}', "n", "y"), pending())[0]["type"] == "approve"


def test_what_is_not_allowed_is_not_offered() -> None:
    human = Human("e", "y")
    assert decide(human, pending(allowed=("approve", "reject")))[0]["type"] == "approve"
    assert "edit" not in human.asked[0]


def test_all_that_waits_is_answered_together() -> None:
    decisions = decide(Human("y", "n", ""), pending(1), pending(2))
    assert [(item["interrupt_id"], item["type"]) for item in decisions] == [("i1", "approve"), ("i2", "reject")]


def test_the_end_of_input_decides_nothing() -> None:
    with pytest.raises(EOFError):
        decide(Human("y"), pending(1), pending(2))

"""Asks the human at the terminal: lines, passwords, and what to do about approvals."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, cast

import click
import typer

from moorage.cli.api_client import Pending
from moorage.cli.display import approval_text, escaped

try:
    import readline
except ImportError:  # Windows
    readline = None

type Say = Callable[[str], None]
type ReadLine = Callable[..., str]

_LETTERS = {"y": "approve", "e": "edit", "n": "reject"}
_WORDS = {"approve": "y = yes", "edit": "e = edit first", "reject": "n = no"}


class ApprovalPrompt:
    """Shows what waits, in full, and turns the human's answers into decisions bound to what was shown."""

    def __init__(self, *, say: Say, read_line: ReadLine) -> None:
        """`read_line(prompt, prefill=...)` raises EOFError or KeyboardInterrupt as `input` does."""
        self._say = say
        self._read_line = read_line

    def ask(self, waiting: Sequence[Pending]) -> list[dict[str, Any]]:
        return [
            {"interrupt_id": item.id, "digest": item.digest, **self._ask_one(item, number, len(waiting))}
            for number, item in enumerate(waiting, 1)
        ]

    def _ask_one(self, item: Pending, number: int, total: int) -> dict[str, Any]:
        self._say(approval_text(item, number=number, total=total))
        words = ", ".join(word for kind, word in _WORDS.items() if kind in item.allowed_decisions)
        while True:
            letter = self._read_line(f"Do it? ({words}) ").strip().lower()[:1]
            kind = _LETTERS.get(letter)
            if kind not in item.allowed_decisions:
                continue
            match kind:
                case "approve":
                    return {"type": kind}
                case "edit":
                    if (args := self._edited(item)) is not None:
                        return {"type": kind, "edited_action": {"name": item.tool_name, "args": args}}
                case _:
                    reason = self._read_line("Why not? (the agent is told; may be empty) ").strip()
                    return {"type": "reject", **({"message": reason} if reason else {})}

    def _edited(self, item: Pending) -> dict[str, Any] | None:
        """The arguments as the human changed them; None when they are the same or the human gave up."""
        text: str | None = _edit(item.tool_input, self._read_line)
        while text is not None and text.strip():
            try:
                args: object = json.loads(text)
            except ValueError as error:
                self._say(f"That is not JSON: {error}")
            else:
                if isinstance(args, dict):
                    return self._confirmed(item, cast("dict[str, Any]", args))
                self._say("The arguments must be a JSON object")
            text = self._read_line("Arguments: ", prefill=" ".join(text.split("\n")))
        return None

    def _confirmed(self, item: Pending, args: dict[str, Any]) -> dict[str, Any] | None:
        if args == item.tool_input:
            self._say("Nothing was changed.")
            return None
        self._say("Will be run instead with:")
        self._say(escaped(json.dumps(args, ensure_ascii=False, indent=2))[0])
        return args if self._read_line("Right? (y/n) ").strip().lower() in ("y", "yes") else None


def read_line(prompt: str, *, prefill: str = "", err: bool = False) -> str:
    """A line from the terminal, with `prefill` ready to be edited. `err`: the prompt goes to stderr."""
    if err:
        typer.echo(prompt, nl=False, err=True)
        return input()
    if readline is None:
        return input(f"{prompt}[{prefill}] ") or prefill if prefill else input(prompt)
    line_editor = readline
    line_editor.set_startup_hook(lambda: line_editor.insert_text(prefill))
    try:
        return input(prompt)
    finally:
        line_editor.set_startup_hook(None)


def new_password(*, from_stdin: bool) -> str:
    """A password, asked twice without showing it, or the first line of stdin."""
    if from_stdin:
        return stdin_password()
    return typer.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)


def stdin_password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _edit(args: dict[str, Any], ask: ReadLine) -> str | None:
    """In $VISUAL or $EDITOR if one is set, else on one line, where JSON escapes show what is invisible."""
    if os.environ.get("VISUAL") or os.environ.get("EDITOR"):
        return click.edit(json.dumps(args, ensure_ascii=False, indent=2) + "\n", extension=".json")
    return ask("Arguments: ", prefill=json.dumps(args))

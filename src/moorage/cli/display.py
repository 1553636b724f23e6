"""What the terminal shows of a run. Nothing that a model or a tool says may steer the terminal or hide in it."""

import json
import unicodedata
from collections.abc import Callable
from typing import Any

from moorage.cli.api_client import Event, Pending

type Write = Callable[[str], None]

_ONE_LINE = 160
_SHOWN_AS_LIST = "write_todos"  # its `todo_update` says it better
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp", "Zs"})
# Letters and marks that are drawn as nothing: fillers, joiners, the blank Braille cell, variation selectors.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | frozenset(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """`text` without what moves the cursor, changes the terminal or turns the reading direction; line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char for char in text if char in "\n\t" or not (unicodedata.category(char) == "Cc" or char in _BIDI))


def escaped(text: str, *, keep: str = "\n\t") -> tuple[str, int]:
    """`text` with every character that cannot be seen written as `<U+202E>`, and how many those are.

    A space is seen, and so is what is in `keep`.
    """
    parts = [char if char == " " or char in keep or not _hidden(char) else f"<U+{ord(char):04X}>" for char in text]
    return "".join(parts), sum(1 for part in parts if len(part) > 1)


def approval_text(pending: Pending, *, number: int, total: int) -> str:
    """Everything that the tool would get, in full, and what the server knows about it."""
    lines, hidden = [f"── Approval {number} of {total}: {_line(pending.tool_name)} ──"], 0
    if pending.description:
        lines.append(_line(pending.description))
    arguments = {name: _text(value, indent=2) for name, value in pending.tool_input.items()}
    for name, text in sorted(arguments.items(), key=lambda item: item[1].count("\n")):
        shown, count = escaped(text)
        hidden += count
        lines += _argument(_line(name), shown)
    lines += [f"  ({_line(name)}: {_line(_text(value))})" for name, value in pending.facts.items()]
    if hidden:
        lines.append(
            f"  WARNING: {hidden} invisible or text-turning character(s), shown as <U+....>. "
            "What runs may not be what it looks like."
        )
    return "\n".join(lines)


class RunPrinter:
    """Prints a run's events as a conversation: text as it streams, a line per call, output indented below it."""

    def __init__(self, write: Write) -> None:
        """`write` prints text without adding a line end."""
        self._write = write
        self._column = 0
        self._streamed: set[str] = set()
        self._speaker: str | None = None
        self._tools: dict[str, str] = {}
        self._loud: set[str] = set()

    def show(self, event: Event) -> None:
        match event.type:
            case "content_stream":
                self._text(event)
            case "message_complete":
                self._message_complete(event)
            case "tool_call":
                self._call(event)
            case "tool_output":
                self._output(event)
            case "tool_result":
                self._result(event)
            case "todo_update":
                self._todos(event)
            case _:
                self._notice(event)

    def learn_call(self, call_id: str, tool_name: str) -> None:
        """Name a call whose announcement was not shown here."""
        self._tools[call_id] = tool_name

    def fresh_line(self) -> None:
        """Whatever comes next starts at the left."""
        if self._column:
            self._put("\n")

    def _text(self, event: Event) -> None:
        delta = printable(event.text("content_delta"))
        if not delta:
            return
        message_id = event.text("message_id")
        if message_id not in self._streamed or self._speaker != message_id:
            self.fresh_line()
            if not event.is_root:
                self._put(f"[{_line(event.text('agent'))}] ")
        self._streamed.add(message_id)
        self._speaker = message_id
        self._put(delta)

    def _message_complete(self, event: Event) -> None:
        if event.text("message_id") not in self._streamed:  # no delta seen: a stream joined in the middle
            self._say(event.text("final_content"), event)
        self.fresh_line()

    def _call(self, event: Event) -> None:
        name = event.text("tool_name")
        self._tools[event.text("call_id")] = name
        if name != _SHOWN_AS_LIST:
            self._say(f"→ {name} {_arguments(event.data.get('tool_input'))}", event)

    def _todos(self, event: Event) -> None:
        for item in event.data.get("todos", []):
            mark = {"completed": "x", "in_progress": ">"}.get(item.get("status"), " ")
            self._say(f"  [{mark}] {item.get('content', '')}", event)

    def _notice(self, event: Event) -> None:
        match event.type:
            case "decision":
                self._say(f"  {event.text('type')} by {event.text('decided_by')}", event)
            case "error":
                self._say(f"! {event.text('detail')} ({event.text('code')})", event)
            case "run_end" if event.text("status") not in ("success", "interrupted"):
                self._say(f"! The run ended: {event.text('status')}", event)
            case _:
                return

    def _output(self, event: Event) -> None:
        call_id = event.text("call_id")
        if self._speaker != call_id:
            self.fresh_line()
            self._speaker = call_id
        self._loud.add(call_id)
        text = "… more output, not shown\n" if event.data.get("truncated") else printable(event.text("delta"))
        for line in text.splitlines(keepends=True):
            self._put(line if self._column else f"    {line}")

    def _result(self, event: Event) -> None:
        call_id, exit_code = event.text("call_id"), event.data.get("exit_code")
        if self._tools.get(call_id) == _SHOWN_AS_LIST and event.text("status") == "success":
            return
        code = f", exit code {exit_code}" if exit_code is not None else ""
        seconds = float(event.data.get("duration_ms") or 0) / 1000
        if "executed_input" in event.data:
            self._say(f"  ran instead: {_arguments(event.data['executed_input'])}", event)
        self._say(f"  {self._tools.get(call_id, 'tool')}: {event.text('status')}{code} ({seconds:.1f} s)", event)
        if call_id not in self._loud:
            for line in event.text("result").splitlines():
                self._say(f"    {line}", event)

    def _say(self, text: str, event: Event) -> None:
        self.fresh_line()
        self._speaker = None
        agent = "" if event.is_root else f"[{_line(event.text('agent'))}] "
        self._put(agent + printable(text) + "\n")

    def _put(self, text: str) -> None:
        self._write(text)
        last = text.rpartition("\n")[2]
        self._column = len(last) if "\n" in text else self._column + len(last)


def _hidden(char: str) -> bool:
    return char in _BLANK or unicodedata.category(char) in _INVISIBLE


def _argument(name: str, shown: str) -> list[str]:
    lines = shown.split("\n")
    if len(lines) == 1:
        return [f"  {name}: {shown}"]
    return [f"  {name}: ({len(lines)} lines)", *(f"  │ {line}" for line in lines)]


def _line(text: str) -> str:
    return escaped(text, keep="")[0]


def _text(value: Any, *, indent: int | None = None) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=indent)


def _arguments(value: Any) -> str:
    """A call's arguments on one line; cut, because an approval shows them in full."""
    text = _line(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= _ONE_LINE else f"{text[:_ONE_LINE]}… ({len(text)} characters)"

"""A session as Markdown (CommonMark), whose structure no message can change.

What people and models say is quoted, and what tools take and answer is fenced: nothing in there ends its block, so that
no text can pass for what somebody else said. HTML in what was said stays as it is: render it as any foreign Markdown.
"""

import re
from collections.abc import Iterator

import orjson

from moorage.events import Role
from moorage.threads import HistoryMessage, Thread

_SPEAKERS = {Role.USER: "User", Role.ASSISTANT: "Assistant", Role.TOOL: "Tool result"}
_MEANT = re.compile(r"([\\`*_\[\]<>&#~|])")


def head(thread: Thread) -> str:
    """What the session is, and of when."""
    title = _MEANT.sub(r"\\\1", " ".join(thread.title.split())) or "Session"
    times = f"{thread.created_at:%Y-%m-%d %H:%M} to {thread.last_active:%Y-%m-%d %H:%M} UTC"
    return f"# {title}\n\n{thread.thread_id}, {times}\n"


def section(item: HistoryMessage) -> Iterator[str]:
    """One message: who and when, the model's reasoning folded away, what was said, and the calls that it made."""
    message = item.message
    took = f", {message.duration_ms / 1000:.1f} s" if message.duration_ms is not None else ""
    yield f"\n## {_SPEAKERS[message.role]} ({item.created_at:%Y-%m-%d %H:%M:%S}{took})\n"
    if message.thinking:
        yield f"\n<details>\n<summary>Thinking</summary>\n\n{fenced(message.thinking)}\n</details>\n"
    if message.role is Role.TOOL:
        yield "\n" + fenced(message.content)
    elif message.content.strip():
        yield "\n" + _quoted(message.content)
    for call in message.tool_calls or ():
        arguments = orjson.dumps(call.get("tool_input"), option=orjson.OPT_INDENT_2).decode()
        yield f"\nCalls {_code(str(call.get('tool_name')))}:\n\n{fenced(arguments, 'json')}"


def fenced(text: str, language: str = "") -> str:
    """A code block whose fence is longer than any in the text."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _quoted(text: str) -> str:
    """A quotation ends its own fences, lists and HTML with itself, and holds headings as its own."""
    return "".join(f"> {line}\n" if line else ">\n" for line in text.strip("\r\n").rstrip().splitlines())


def _code(text: str) -> str:
    """Words in code, in one line."""
    fence = "`" * (_longest_run(text) + 1)
    return f"{fence} {' '.join(text.split())} {fence}" if "`" in text else f"`{' '.join(text.split())}`"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)

"""What a call would change in a file: shown to the human who decides, and bound to the file as it is now."""

import asyncio
import difflib
import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from deepagents.backends.utils import validate_path

from moorage.approvals import ABSENT, Change, InspectChange
from moorage.ids import ThreadId
from moorage.sandboxes.port import PathError

MAX_TEXT_BYTES = 1024 * 1024
MAX_DIFF_BYTES = 64 * 1024
UNREADABLE = "unreadable"
_CONTEXT = 3
_MAX_LINE_PAIRS = 1_000_000  # a finer comparison takes seconds for texts made to be slow
_NO_NEWLINE = "\n\\ No newline at end of file\n"

type ReadFile = Callable[[str], Awaitable[bytes | None]]
"""The file's bytes, None when it is absent; raises PathError when it cannot be read."""

type FileReader = Callable[[ThreadId, str], Awaitable[bytes | None]]
"""A ReadFile for each thread."""


def change_inspector(read: FileReader) -> InspectChange:
    """`inspect_change` for whoever knows the thread only."""

    async def inspect(thread_id: ThreadId, tool: str, args: dict[str, Any]) -> Change | None:
        return await inspect_change(partial(read, thread_id), tool, args)

    return inspect


async def inspect_change(read: ReadFile, tool: str, args: dict[str, Any]) -> Change | None:
    """What a `write_file` or an `edit_file` would do now; None for every other tool. Raises SandboxUnavailable."""
    if tool not in ("write_file", "edit_file"):
        return None
    try:
        path = validate_path(str(args.get("file_path", "")))
        present = await read(path)
    except (PathError, ValueError) as error:
        why = error.code if isinstance(error, PathError) else "invalid_path"
        return Change(UNREADABLE, None, f"The file cannot be read ({why}): its present content is not known")
    return await asyncio.to_thread(_change, tool, args, path, present)


async def file_hash(read: ReadFile, path: str) -> str:
    """What `inspect_change` answers as `base_file_hash`: hex SHA-256, "absent", or "unreadable"."""
    try:
        return _hash(await read(validate_path(path)))
    except (PathError, ValueError):
        return UNREADABLE


def _hash(content: bytes | None) -> str:
    return ABSENT if content is None else hashlib.sha256(content).hexdigest()


def _change(tool: str, args: dict[str, Any], path: str, present: bytes | None) -> Change:
    base = _hash(present)
    if present is not None and len(present) > MAX_TEXT_BYTES:
        return Change(base, None, f"The file is larger than {MAX_TEXT_BYTES} bytes: no diff is shown")
    before = _text(present)
    if before is None:
        will_fail = "; the edit will fail" if tool == "edit_file" else ""
        return Change(base, None, f"The file is not text: no diff is shown{will_fail}")
    if tool == "write_file":
        after, problem = str(args.get("content", "")), None
    else:
        after, problem = _edited(None if present is None else before, args)
    if problem is not None:
        return Change(base, None, problem)
    if len(after) > MAX_TEXT_BYTES:
        return Change(base, None, f"The file would be larger than {MAX_TEXT_BYTES} bytes: no diff is shown")
    diff, note = _bounded(unified_diff(path, None if present is None else before, after))
    return Change(base, diff, note if diff else "The file already holds exactly this")


def _text(content: bytes | None) -> str | None:
    """None for what is no text; nothing is the empty text."""
    try:
        text = (content or b"").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text


def _edited(text: str | None, args: dict[str, Any]) -> tuple[str, str | None]:
    """The text after the edit, as deepagents' script in the sandbox makes it, or why the edit will fail."""
    old, new = str(args.get("old_string", "")), str(args.get("new_string", ""))
    if text is None:
        return "", "The edit will fail: there is no such file"
    if not old:
        return "", "The edit will fail: old_string is empty"
    for old_form, new_form in _line_end_forms(old, new):
        count = text.count(old_form)
        if count > 1 and not args.get("replace_all"):
            return "", f"The edit will fail: old_string occurs {count} times, and replace_all is not set"
        if count:
            if len(text) + count * (len(new_form) - len(old_form)) > MAX_TEXT_BYTES:  # before any memory is taken
                return "", f"The file would be larger than {MAX_TEXT_BYTES} bytes: no diff is shown"
            return text.replace(old_form, new_form), None
    return "", "The edit will fail: old_string is not in the file"


def _line_end_forms(old: str, new: str) -> list[tuple[str, str]]:
    """As given, then with CRLF, then with LF: the first form that the file holds says how its lines end."""
    old_lf, new_lf = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
    return [(old, new), (old_lf.replace("\n", "\r\n"), new_lf.replace("\n", "\r\n")), (old_lf, new_lf)]


def unified_diff(path: str, before: str | None, after: str) -> str:
    """A unified diff with three lines of context; empty when nothing changes. `before` is None for a new file."""
    if before == after:
        return ""
    shown = "".join(char if char.isprintable() else "?" for char in path).lstrip("/")
    head = f"--- {'/dev/null' if before is None else 'a/' + shown}\n+++ b/{shown}\n"
    old, new = _lines(before or ""), _lines(after)
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    if (len(old) - start - end) * (len(new) - start - end) > _MAX_LINE_PAIRS:
        return head + "".join(_one_hunk(old, new, start, end))
    # Only what differs and its surroundings is compared; the line numbers are moved back afterwards.
    skipped = max(0, start - _CONTEXT)
    keep = max(0, end - _CONTEXT)
    parts = difflib.unified_diff(old[skipped : len(old) - keep], new[skipped : len(new) - keep], n=_CONTEXT)
    return head + "".join(_shown(line, skipped) for line in list(parts)[2:])


def _lines(text: str) -> list[str]:
    lines = [line + "\n" for line in text.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _common(one: list[str], other: list[str]) -> int:
    """How many lines are the same from the start."""
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _one_hunk(old: list[str], new: list[str], start: int, end: int) -> list[str]:
    """All that lies between the common start and end, as taken out and put in."""
    first, last = max(0, start - _CONTEXT), max(0, end - _CONTEXT)
    old_count, new_count = len(old) - first - last, len(new) - first - last
    old_from, new_from = (first + 1 if count else first for count in (old_count, new_count))
    marked = [
        *(" " + line for line in old[first:start]),
        *("-" + line for line in old[start : len(old) - end]),
        *("+" + line for line in new[start : len(new) - end]),
        *(" " + line for line in old[len(old) - end : len(old) - last]),
    ]
    return [f"@@ -{old_from},{old_count} +{new_from},{new_count} @@\n", *(_shown(line, 0) for line in marked)]


def _shown(line: str, skipped: int) -> str:
    if line.startswith("@@ ") and skipped:
        _, old, new, _ = line.split(" ", 3)
        return f"@@ -{_moved(old[1:], skipped)} +{_moved(new[1:], skipped)} @@\n"
    return line if line.endswith("\n") else line + _NO_NEWLINE


def _moved(lines: str, skipped: int) -> str:
    first, comma, count = lines.partition(",")
    return f"{int(first) + skipped}{comma}{count}"


def _bounded(diff: str) -> tuple[str, str | None]:
    raw = diff.encode("utf-8", "replace")
    if len(raw) <= MAX_DIFF_BYTES:
        return raw.decode(), None
    cut = raw[:MAX_DIFF_BYTES]
    kept = cut[: cut.rfind(b"\n") + 1].decode("utf-8", "ignore")
    return kept, f"The diff is cut: {MAX_DIFF_BYTES} of {len(raw)} bytes are shown"

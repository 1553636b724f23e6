"""Paths of files as people and programs give them, and names of files as they are shown: text here, bytes inside.

A name in a workspace is any bytes but NUL and `/`. What could mislead whoever reads it, or is no text, is shown as
`\\xNN` per byte (lower-case hex, the backslash itself too), and a path may hold exactly that: so each file has one
name, and can be read, moved and deleted by it.
"""

import re

from moorage.sandboxes.port import PathError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_DEPTH = 32
MAX_TEXT = 4 * MAX_PATH_BYTES  # of a path whose every byte is escaped

# Controls, what is invisible, has no width or turns the direction of writing, line separators, tags.
_REFUSED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    r"\u3164\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff\\]"
)
_HOME_OR_DRIVE = re.compile(r"~|[A-Za-z](?=:)")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")

type Parts = tuple[bytes, ...]
"""The names on the way from a root to a file, as they are on the disk; () is the root itself."""


def parse_path(path: str) -> Parts:
    """The names in a path such as `src/main.py`; raises PathError for all that is not relative, normalised and plain.

    No part may be empty, `.` or `..`, longer than 255 bytes, or hold what `shown_name` escapes unless escaped so.
    """
    if not path:
        return ()
    if len(path) > MAX_TEXT:
        raise PathError("The path is too long.")
    parts = tuple(map(_parse_name, path.split("/")))
    if sum(map(len, parts)) + len(parts) - 1 > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise PathError(f"A path may have {MAX_PATH_BYTES} bytes and {MAX_DEPTH} parts.")
    return parts


def _parse_name(text: str) -> bytes:
    try:
        name = _ESCAPED.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    except UnicodeEncodeError:
        raise PathError("The path is no valid text.") from None
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise PathError("A path must be relative and normalised, without `.`, `..` or empty parts.")
    if len(name) > MAX_NAME_BYTES:
        raise PathError(f"A name may have {MAX_NAME_BYTES} bytes.")
    if shown_name(name) != text:
        raise PathError("The path holds characters that names are not shown with: use the path that the list gives.")
    return name


def shown_name(name: bytes) -> str:
    """A name as it is shown, in lists as in paths: itself, or with `\\xNN` for each byte that has no place there."""
    text = _REFUSED.sub(_escape, name.decode("utf-8", "surrogateescape"))
    text = "".join(_escape_byte(char) if "\ud800" <= char <= "\udfff" else char for char in text)
    if found := _HOME_OR_DRIVE.match(text):
        end = 0 if found.group() == "~" else 1
        text = text[:end] + f"\\x{ord(text[end]):02x}" + text[end + 1 :]
    return text


def shown_path(parts: Parts) -> str:
    """The path that leads through these names; `parse_path` gives them back."""
    return "/".join(map(shown_name, parts))


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in match.group().encode())


def _escape_byte(surrogate: str) -> str:
    """Python puts a byte that is no UTF-8 into the lone surrogate U+DC00 + byte."""
    return f"\\x{ord(surrogate) - 0xDC00:02x}"

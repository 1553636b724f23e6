"""Paths of files as people and programs give them: text here, bytes inside.

Each part is a name as it is shown, odd bytes escaped (see `shown_name`), and nothing else: so every file of a workspace
can be read, moved and deleted by the path under which it is listed.
"""

import re

from moorage.sandboxes.helper.names import shown_name
from moorage.sandboxes.port import PathError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_DEPTH = 32
MAX_TEXT = 4 * MAX_PATH_BYTES  # of a path whose every byte is escaped

_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_ABSOLUTE = re.compile(r"(?<![\w.])/[^\s'\",;:)\]]+")

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


def shown_path(parts: Parts) -> str:
    """The path that leads through these names; `parse_path` gives them back."""
    return "/".join(map(shown_name, parts))


def without_paths(said: str) -> str:
    """What an engine or a program said, as users may read it: where things are on the host is the operator's matter."""
    return _ABSOLUTE.sub("(a path)", said)


__all__ = ["MAX_TEXT", "Parts", "parse_path", "shown_name", "shown_path", "without_paths"]

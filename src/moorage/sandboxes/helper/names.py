"""Runs INSIDE a sandbox, and on the server: names of files as they are shown.

A name is any bytes but NUL and `/`. What could mislead whoever reads it, or is no text, is shown as `\\xNN` per byte
(lower-case hex; the backslash itself too), so that each file has one name that can be shown, and given back.
"""

import re

# Controls, what is invisible, has no width or turns the direction of writing, and bytes that are no UTF-8.
_MISLEADING = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff0-\uffff\U000e0000-\U000e0fff\ud800-\udfff\\\\]"
)
_HOME_OR_DRIVE = re.compile(r"~|[A-Za-z]:")


def shown_name(name: bytes) -> str:
    """A name as it is shown: itself, or with `\\xNN` for each byte that has no place there."""
    text = _MISLEADING.sub(lambda found: _escaped(found.group()), name.decode("utf-8", "surrogateescape"))
    found = _HOME_OR_DRIVE.match(text)
    if found:
        at = found.end() - 1
        text = text[:at] + _escaped(text[at]) + text[at + 1 :]
    return text


def _escaped(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))

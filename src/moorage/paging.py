"""Parts of lists, and the cursors that lead from one to the next."""

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime

import orjson

from moorage.errors import InvalidPayload
from moorage.events import scrub_text

_LONGEST_CURSOR = 500
_BAD_CURSOR = "cursor is not one that this list gave out"


@dataclass(frozen=True, slots=True)
class Page[T]:
    """Part of a list; `next_cursor` is opaque, and None at the end."""

    items: list[T]
    next_cursor: str | None
    total: int | None = None


def encode_cursor(*key: str) -> str:
    """An opaque cursor for the sort key of the last item seen."""
    return base64.urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def decode_cursor(cursor: str, parts: int) -> list[str]:
    """The sort key in a cursor of `encode_cursor`; raises InvalidPayload for anything else."""
    try:
        padded = cursor[:_LONGEST_CURSOR] + "=" * (-len(cursor) % 4)
        key = orjson.loads(base64.urlsafe_b64decode(padded))
    except (binascii.Error, ValueError):
        raise InvalidPayload(_BAD_CURSOR) from None
    if not isinstance(key, list) or len(key) != parts or not all(isinstance(part, str) for part in key):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        raise InvalidPayload(_BAD_CURSOR)
    return key  # pyright: ignore[reportUnknownVariableType]


def decode_time_cursor(cursor: str) -> tuple[datetime, str]:
    """The time and the id in a cursor of a list that is sorted by both; raises InvalidPayload for anything else."""
    at, last_id = decode_cursor(cursor, 2)
    try:
        return datetime.fromisoformat(at), scrub_text(last_id)
    except ValueError:
        raise InvalidPayload(_BAD_CURSOR) from None


def position(cursor: str | None) -> int:
    """A cursor that is just a number (None: from the start)."""
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise InvalidPayload(_BAD_CURSOR)
    return int(cursor)

"""Requests that may be repeated: the same key with the same content gets the same answer, and has one effect."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RequestKey:
    """An Idempotency-Key, and the digest of all that was asked with it."""

    key: str
    digest: str


def request_key(key: str | None, *asked: Any) -> RequestKey | None:
    """`asked` is what makes two requests the same: the operation, its target, its body; JSON values. None: no key."""
    if key is None:
        return None
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return RequestKey(key, hashlib.sha256(text.encode()).hexdigest())

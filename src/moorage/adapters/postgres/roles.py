"""The two database roles that every statement of the server runs under.

Roles belong to the whole cluster, so their names carry the database's: two Moorages in one cluster stay apart.
"""

import hashlib
from dataclasses import dataclass
from typing import Self

_IDENTIFIER_BYTES = 63
_LONGEST_PREFIX = "moorage_system_"


@dataclass(frozen=True, slots=True)
class Roles:
    """`app` sees what `app.user_id` owns and nothing else; `system` sees all, with few verbs. Neither can log in."""

    app: str
    system: str

    @classmethod
    def of_database(cls, name: str) -> Self:
        suffix = _fitting(name)
        return cls(app=f"moorage_app_{suffix}", system=f"moorage_system_{suffix}")


def _fitting(name: str) -> str:
    """`name`, or a unique abbreviation of it: Postgres would silently cut a longer role name."""
    room = _IDENTIFIER_BYTES - len(_LONGEST_PREFIX)
    raw = name.encode()
    if len(raw) <= room:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:12]
    return raw[: room - 13].decode(errors="ignore") + "_" + digest

"""What a helper says at the end of an order. It is not believed further than it can do harm."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from moorage.sandboxes.port import Outcome

_ERROR = re.compile(r"[a-z_]{1,40}")
_LARGEST_EXIT_CODE = 255


@dataclass(frozen=True, slots=True)
class Report:
    """`clean`: every process of the order is dead. `error`: why there was nothing to do, a slug.

    `full`: the workspace was over its bounds before the order began. `skipped`: bytes of output that were not sent.
    `data` is all that was said.
    """

    outcome: Outcome
    exit_code: int | None = None
    error: str | None = None
    clean: bool = True
    created: bool = False
    no_processes: bool = False
    full: bool = False
    skipped: int = 0
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, payload: bytes) -> "Report":
        """Raises ValueError for anything that a helper does not say."""
        match orjson.loads(payload):
            case {"outcome": "killed", **rest}:
                return cls(Outcome.LOST, clean=rest.get("clean") is not False)
            case {"outcome": str(outcome), **rest}:
                error = rest.get("error")
                return cls(
                    Outcome(outcome),
                    exit_code=_exit_code(rest.get("exit_code")),
                    error=_slug(error) if error is not None else None,
                    clean=rest.get("clean") is not False,
                    created=rest.get("created") is True,
                    no_processes=rest.get("no_processes") is True or error == "no_processes",
                    full=rest.get("full") is True,
                    skipped=_size(rest.get("skipped")),
                    data=rest,
                )
            case _:
                raise ValueError("no report")


def _exit_code(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _LARGEST_EXIT_CODE else None


def _size(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0


def _slug(value: object) -> str:
    return value if isinstance(value, str) and _ERROR.fullmatch(value) else "unknown"

"""Paths into what a thread shows: `values.messages[-1].content`."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from moorage.errors import InvalidPayload

ROOTS = ("values", "metadata", "config", "interrupts")

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(-?[0-9]{1,9})\]")


class InvalidPath(InvalidPayload):
    code = "invalid_path"

    def __init__(self) -> None:
        super().__init__(f"A path starts with one of {', '.join(ROOTS)} and goes on like .key or [0]")


def steps_of(path: str) -> list[str | int]:
    """The keys and positions of a path; raises InvalidPath."""
    steps: list[str | int] = []
    place = 0
    while place < len(path):
        found = _STEP.match(path, place)
        if found is None:
            raise InvalidPath
        steps.append(found[1] if found[1] is not None else int(found[2]))
        place = found.end()
    if not steps or steps[0] not in ROOTS:
        raise InvalidPath
    return steps


def extracted(shown: Mapping[str, Any], paths: Mapping[str, Sequence[str | int]]) -> dict[str, Any]:
    """What stands at each path, None where there is nothing."""
    return {alias: _follow(shown, steps) for alias, steps in paths.items()}


def _follow(value: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        match value, step:
            case dict(), str():
                value = cast("dict[str, Any]", value).get(step)
            case list(), int() if -len(cast("list[Any]", value)) <= step < len(cast("list[Any]", value)):
                value = cast("list[Any]", value)[step]
            case _:
                return None
    return value

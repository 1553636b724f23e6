"""Stream modes: which there are, how a query names them, and what a run must record for them."""

from collections.abc import Collection, Iterable, Sequence
from typing import cast

import orjson

from moorage.errors import InvalidPayload
from moorage.run_request import Record

MODES = (
    "values", "messages", "messages-tuple", "updates", "events", "tasks", "checkpoints", "debug", "custom", "tools",
)  # fmt: skip
THREAD_MODES = ("run_modes", "lifecycle", "state_update")
DEFAULT_MODES = ("values",)

_NEEDS: dict[str, frozenset[Record]] = {
    "values": frozenset({Record.VALUES}),
    "updates": frozenset({Record.UPDATES}),
    "tasks": frozenset({Record.TASKS, Record.VALUES}),
    "checkpoints": frozenset({Record.CHECKPOINTS, Record.VALUES}),
    "debug": frozenset({Record.TASKS, Record.CHECKPOINTS, Record.VALUES}),
    "events": frozenset({Record.VALUES}),
}


def records_for(modes: Collection[str]) -> tuple[Record, ...]:
    """What of LangGraph's own streams a run has to record, so that its streams in these modes are exact."""
    needed = frozenset[Record]().union(*(_NEEDS.get(mode, frozenset()) for mode in modes))
    return tuple(record for record in Record if record in needed)


def read_modes(given: Sequence[str] | None, *, known: Collection[str] = MODES) -> tuple[str, ...]:
    """The modes in a query's `stream_mode`, as the clients write them: repeated, as a JSON list, or with commas.

    Python's client sends the parameter empty for none. Raises InvalidPayload for a mode that is not `known`.
    """
    found = [mode for text in given or () for mode in _listed(text) if mode != ""]
    if any(mode not in known for mode in found):
        raise InvalidPayload(f"stream_mode takes {', '.join(known)}", code="unknown_stream_mode")
    return tuple(dict.fromkeys(str(mode) for mode in found))


def _listed(text: str) -> Iterable[object]:
    if not text.startswith("["):
        return text.split(",")
    try:
        return cast("list[object]", orjson.loads(text))
    except orjson.JSONDecodeError:
        return [text]

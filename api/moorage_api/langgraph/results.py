"""What a run came to, as one JSON body: for clients that wait for it instead of reading its stream."""

from collections.abc import Sequence
from typing import Any

import orjson

from moorage.events import EventType, StoredEvent
from moorage.ids import RunId
from moorage_api.langgraph.batching import fold
from moorage_api.langgraph.legacy import LoadFinal, error_body
from moorage_api.langgraph.values import LoadState, StateFold


class RunOutcome:
    """Reads a run's events, from the first one on, for what it ends with. `ended` tells that the last one was read."""

    def __init__(self, run_id: RunId, *, load: LoadState, final: LoadFinal) -> None:
        self._run_id = run_id
        self._fold = StateFold(load)
        self._final = final
        self._pending: list[dict[str, Any]] = []
        self._error: dict[str, Any] | None = None
        self._undone = False
        self.ended = False

    async def read(self, events: Sequence[StoredEvent]) -> None:
        for event in events:
            if event.run_id == self._run_id and not self.ended:
                await self._read(event)

    async def body(self) -> bytes:
        """The values that the run left, with `__interrupt__` if it waits; or `{"__error__": {"error", "message"}}`."""
        if self._error is not None:
            return orjson.dumps({"__error__": self._error})
        known = None if self._undone else self._fold.values()
        values = known if known is not None else await self._final()
        batch = fold(self._pending)
        return orjson.dumps({**values, "__interrupt__": [batch]} if batch else values)

    async def _read(self, event: StoredEvent) -> None:
        match event.type:
            case EventType.GRAPH:
                said = orjson.loads(event.data)
                if said["kind"] == "values" and not said["ns"]:
                    await self._fold.apply((), said["data"])
            case EventType.INTERRUPT:
                self._pending = orjson.loads(event.data)["interrupts"]
            case EventType.ERROR:
                self._error = error_body(orjson.loads(event.data))
            case EventType.RUN_END:
                self.ended = True
                self._undone = orjson.loads(event.data).get("rolled_back", False)
            case _:
                return

"""Between a run and the event log: deltas are coalesced, order is kept, and the run waits for no commit."""

import asyncio
from collections.abc import Callable, Iterator

from moorage.agent.stream import Delta, delta_event
from moorage.claims import Claim
from moorage.events import RunEvent
from moorage.runs.ports import EventLog

_HIGH_WATER = 20_000


class Outbox:
    """What a run has said and the log does not hold yet.

    The first delta goes out at once, later ones wait for a window that the caller widens with load; any other event
    sends all that is there. The cost is per frame, not per token.
    """

    def __init__(self, log: EventLog, claim: Claim, *, window: Callable[[], float]) -> None:
        """`window` answers how many seconds of deltas go into one frame, now."""
        self._log = log
        self._claim = claim
        self._window = window
        self._waiting: list[Delta | RunEvent] = []
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._closed = False

    async def put(self, item: Delta | RunEvent) -> None:
        """Queue one item; waits only when the log is far behind."""
        self._waiting.append(item)
        self._news.set()
        if isinstance(item, RunEvent):
            self._urgent.set()
        if len(self._waiting) >= _HIGH_WATER:
            self._room.clear()
            self._urgent.set()
            await self._room.wait()

    def close(self) -> None:
        """Nothing more comes: `send` ends when all is stored."""
        self._closed = True
        self._news.set()
        self._urgent.set()

    async def send(self) -> None:
        """Store what comes until `close`; raises ClaimLost or Unavailable when the log refuses."""
        while True:
            await self._news.wait()
            self._news.clear()
            self._urgent.clear()
            batch, self._waiting = self._waiting, []
            self._room.set()
            if batch:
                await self._log.append(self._claim, list(coalesce(batch)))
            if self._closed and not self._waiting:
                return
            if not self._urgent.is_set() and batch and isinstance(batch[-1], Delta):
                await self._gather()

    async def _gather(self) -> None:
        """Let deltas gather for a window, unless something urgent comes."""
        try:
            async with asyncio.timeout(self._window()):
                await self._urgent.wait()
        except TimeoutError:
            return


def coalesce(items: list[Delta | RunEvent]) -> Iterator[RunEvent]:
    """Join neighbouring deltas of one message into one event each; everything else passes in its place."""
    group: list[Delta] = []
    for item in items:
        same = isinstance(item, Delta) and group and _key(group[0]) == _key(item)
        if group and not same:
            yield delta_event(group)
            group = []
        if isinstance(item, Delta):
            group.append(item)
        else:
            yield item
    if group:
        yield delta_event(group)


def _key(delta: Delta) -> tuple[str, str | None]:
    return delta.message_id, delta.parent_call_id

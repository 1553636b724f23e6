"""Between a run and the event log: deltas are coalesced, order is kept, and the run waits for no commit."""

import asyncio
from collections.abc import Callable, Collection, Iterator

from moorage.agent.stream import Delta, delta_event
from moorage.claims import Claim
from moorage.events import RunEvent
from moorage.runs.ports import EventLog
from moorage.telemetry import get_logger

_HIGH_WATER = 20_000
_LONGEST_HOLD_SECONDS = 5.0

log = get_logger(__name__)


class Outbox:
    """What a run has said and the log does not hold yet.

    The first delta goes out at once, later ones wait for a window that the caller widens with load; any other event
    sends all that is there. The cost is per frame, not per token. An event that tells of a message waits, and what is
    behind it waits with it, until `saved` says that the message is in a checkpoint: readers must not be told of what a
    crash could still undo.
    """

    def __init__(self, event_log: EventLog, claim: Claim, *, window: Callable[[], float]) -> None:
        """`window` answers how many seconds of deltas go into one frame, now."""
        self._log = event_log
        self._claim = claim
        self._window = window
        self._waiting: list[Delta | RunEvent] = []
        self._saved: set[str] = set()
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

    def saved(self, message_ids: Collection[str]) -> None:
        """These messages are in a checkpoint."""
        self._saved.update(message_ids)
        if self._waiting:
            self._news.set()
            self._urgent.set()

    def close(self) -> None:
        """Nothing more comes: `send` ends when all is stored."""
        self._closed = True
        self._news.set()
        self._urgent.set()

    async def send(self) -> None:
        """Store what comes until `close`; raises ClaimLost or Unavailable when the log refuses."""
        while True:
            overdue = not await self._heard()
            self._news.clear()
            self._urgent.clear()
            batch = self._take(all_of_it=overdue or self._closed)
            if batch:
                await self._log.append(self._claim, list(coalesce(batch)))
            if self._closed and not self._waiting:
                return
            if not self._urgent.is_set() and batch and isinstance(batch[-1], Delta):
                await self._gather()

    async def _heard(self) -> bool:
        """Wait for news; False when what is held back has been held for too long."""
        if not self._waiting:
            await self._news.wait()
            return True
        try:
            async with asyncio.timeout(_LONGEST_HOLD_SECONDS):
                await self._news.wait()
        except TimeoutError:
            log.warning("told_before_saved", run_id=self._claim.run_id)
            return False
        return True

    def _take(self, *, all_of_it: bool) -> list[Delta | RunEvent]:
        held = len(self._waiting)
        if not all_of_it:
            held = next((index for index, item in enumerate(self._waiting) if self._is_held(item)), held)
        batch, self._waiting = self._waiting[:held], self._waiting[held:]
        if len(self._waiting) < _HIGH_WATER:
            self._room.set()
        return batch

    def _is_held(self, item: Delta | RunEvent) -> bool:
        return isinstance(item, RunEvent) and item.waits_for is not None and item.waits_for not in self._saved

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

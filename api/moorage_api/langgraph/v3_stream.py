"""A subscription to a thread: its history once, then what happens, for as long as somebody listens.

The history begins with the first run of which all is kept, of the last ten thousand events: the thread's state holds
what came before. Of a run's states only its last is told again.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from moorage.agent.states import Place
from moorage.errors import NotFound, Unavailable
from moorage.events import EventType, StoredEvent
from moorage.identity import Principal
from moorage.ids import ThreadId
from moorage.runtime import Runtime
from moorage.telemetry import get_logger
from moorage.threads import EventsForgotten, ReaderLagged, Thread, ThreadNotFound
from moorage_api.langgraph.v3 import Projection
from moorage_api.langgraph.v3_frames import FRAMES_PER_EVENT, Frame, Namespace, first_frame
from moorage_api.langgraph.v3_subscription import Subscription
from moorage_api.langgraph.values import StateFold, Values

HEARTBEAT_SECONDS = 5.0
_HISTORY_EVENTS = 10_000
_AROUND = 16
_AT_A_TIME = 25
_LATER_SECONDS = 1.0

log = get_logger(__name__)


async def subscribed(
    runtime: Runtime, principal: Principal, thread_id: ThreadId, subscription: Subscription
) -> AsyncGenerator[list[Frame]]:
    """The frames that the subscription is for; an empty list is a quiet interval. Ends only when the server stops.

    A thread that is not there yet is waited for, and so is a database that is away.
    """
    while not runtime.draining:
        try:
            if subscription.since is None and await _find(runtime, principal, thread_id) is None:
                subscription.since = 0  # whoever was here before the thread takes all of it for news
            found = False
            async with aclosing(_until_there(runtime, principal, thread_id)) as looks:
                async for thread in looks:
                    found = thread is not None
                    if thread is None:
                        yield []
                        continue
                    tape = _Tape(runtime, principal, thread, subscription)
                    async with aclosing(tape.frames()) as frames:
                        async for told in frames:
                            yield told
                    if not tape.removed:
                        return
                    subscription.since = None
            if not found:
                return
        except Unavailable as error:
            log.warning("v3_stream_interrupted", detail=error.detail)
            yield []
            await asyncio.sleep(_LATER_SECONDS)


async def _find(runtime: Runtime, principal: Principal, thread_id: ThreadId) -> Thread | None:
    try:
        return await runtime.threads.get(principal, thread_id)
    except ThreadNotFound:
        return None


async def _until_there(runtime: Runtime, principal: Principal, thread_id: ThreadId) -> AsyncGenerator[Thread | None]:
    """The thread, once it is there; None as often as the client wants to hear that we live. Ends when the log does."""
    if (thread := await _find(runtime, principal, thread_id)) is not None:
        yield thread
        return
    async with aclosing(runtime.event_log.arrival(thread_id, idle=HEARTBEAT_SECONDS)) as looks:
        async for arrived in looks:
            thread = await _find(runtime, principal, thread_id) if arrived else None
            yield thread
            if thread is not None:
                return


class _Tape:
    """A thread's events from where a client needs them, as frames."""

    def __init__(self, runtime: Runtime, principal: Principal, thread: Thread, subscription: Subscription) -> None:
        self._runtime = runtime
        self._principal = principal
        self._thread = thread
        self._subscription = subscription
        self._wanted = subscription.wanted
        self._head = thread.last_seq
        self.removed = False
        if (subscription.since or 0) >= first_frame(thread.last_seq + 1):  # of another thread that had its id
            subscription.since = None
        self._projection = Projection(thread.wire_id, StateFold(self._load), final=self._final)

    async def frames(self) -> AsyncGenerator[list[Frame]]:
        """Ends when the thread is removed, or the server stops."""
        pending = await self._runtime.approvals.pending(self._thread.owner_id, self._thread.thread_id)
        fresh = self._subscription.since is None
        history = _History({item.raised.id for item in pending}, skips_ended=fresh and self._wanted.watches_only)
        async with aclosing(self._batches(await self._begin())) as batches:
            async for batch in batches:
                told: list[Frame] = []
                for place, event in enumerate(batch):
                    if place % _AT_A_TIME == 0:
                        await asyncio.sleep(0)  # thousands of events may be old: others have their turn between them
                    frames = await self._of(event)
                    told += history.add(event, frames, head=self._head) if event.seq <= self._head else frames
                if told:
                    self._subscription.since = told[-1].seq
                if told or not batch:
                    yield told

    async def _of(self, event: StoredEvent) -> list[Frame]:
        """The wanted frames of an event; all events are read, because later ones build on them."""
        since = self._subscription.since
        frames = await self._projection.read(event, live=event.seq > self._head)
        return [frame for frame in frames if (since is None or frame.seq > since) and self._wanted.takes(frame)]

    async def _batches(self, begin: int) -> AsyncGenerator[list[StoredEvent]]:
        """Events from `begin` on. A reader that fell behind comes back for the rest."""
        after, thread_id = begin - 1, self._thread.thread_id
        while True:
            try:
                follow = self._runtime.event_log.follow(thread_id, after=after, idle=HEARTBEAT_SECONDS)
                async with aclosing(follow):
                    async for batch in follow:
                        yield batch
                        after = batch[-1].seq if batch else after
                return
            except ReaderLagged:
                continue
            except EventsForgotten as error:
                first = await self._runtime.event_log.read(thread_id, after=0, limit=1)
                kept = first[0].seq if first else error.last_seq + 1
                if after == kept - 1 or await _find(self._runtime, self._principal, thread_id) is None:
                    self.removed = True
                    return
                after = kept - 1 if after < kept else error.last_seq

    async def _begin(self) -> int:
        """The first event of the run that the client is in the middle of, or with which its history begins.

        Around it there may be messages that wait their turn: the log has them before the run ends that is before them.
        """
        since = self._subscription.since
        seq = since // FRAMES_PER_EVENT if since is not None else self._head - _HISTORY_EVENTS
        if seq <= 1:
            return 1
        after = max(seq - _AROUND, 0)
        around = await self._runtime.event_log.read(self._thread.thread_id, after=after, limit=seq - after)
        ended = {event.run_id for event in around[:-1] if event.type is EventType.RUN_END}
        begins = [await self._begin_of(event) for event in _firsts(around) if event.run_id not in ended]
        return min([seq, *begins])

    async def _begin_of(self, event: StoredEvent) -> int:
        try:
            return (await self._runtime.runs.get(self._thread, event.run_id)).first_seq
        except NotFound:  # it was removed from the list of runs; its events stay
            return event.seq

    async def _final(self) -> Values | None:
        return await self._runtime.states.values(self._thread)

    async def _load(self, checkpoint_id: str) -> Values:
        return (await self._runtime.states.at(self._thread, Place(checkpoint_id))).values


@dataclass(slots=True)
class _History:
    """What happened before a client came: told run by run, without what it would take for news."""

    pending: set[str]
    skips_ended: bool  # the client watches what goes on: a run that has ended is not that
    _held: list[Frame] = field(default_factory=list[Frame])
    _asked: set[str] = field(default_factory=set[str])

    def add(self, event: StoredEvent, frames: Iterable[Frame], *, head: int) -> list[Frame]:
        """The frames that can be told now, after those of this event came."""
        self._held += [frame for frame in frames if self._is_news(frame)]
        if event.type is EventType.RUN_END and self.skips_ended:
            self._held = [frame for frame in self._held if not _is_phase_of(event, frame)]
        if event.type is not EventType.RUN_END and event.seq < head:
            return []
        told, self._held = _last_states(self._held), []
        return told

    def _is_news(self, frame: Frame) -> bool:
        """An approval that somebody decided is not asked again, and one that waits is asked once."""
        if frame.method != "input.requested":
            return True
        interrupt_id = frame.data["interrupt_id"]
        if interrupt_id not in self.pending or interrupt_id in self._asked:
            return False
        self._asked.add(interrupt_id)
        return True


def _last_states(frames: Sequence[Frame]) -> list[Frame]:
    last: dict[Namespace, int] = {frame.namespace: frame.seq for frame in frames if frame.method == "values"}
    return [frame for frame in frames if frame.method != "values" or last[frame.namespace] == frame.seq]


def _is_phase_of(event: StoredEvent, frame: Frame) -> bool:
    """Whether the frame tells how the run of this event began or ended."""
    return frame.method == "lifecycle" and not frame.namespace and frame.run_id == event.run_id


def _firsts(events: Sequence[StoredEvent]) -> list[StoredEvent]:
    """The first event of each run among these."""
    return list({event.run_id: event for event in reversed(events)}.values())

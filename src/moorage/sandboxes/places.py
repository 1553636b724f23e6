"""All sandboxes that this process knows of: which are stopped, when, and which are nobody's any more."""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import batched

from moorage.ids import ThreadId
from moorage.sandboxes.place import Place
from moorage.sandboxes.port import USER_FULL, SandboxesFull, SandboxInfo, SandboxProvider, SandboxUnavailable
from moorage.sandboxes.work import SomeThreads, Work
from moorage.telemetry import get_logger

_STOPS_AT_ONCE = 16
_STOP_SECONDS = 15.0  # no run of the thread starts meanwhile

log = get_logger(__name__)


class Places:
    """By thread id. Nothing is stopped that is in use here, or whose thread has work in any process."""

    def __init__(self, provider: SandboxProvider, work: Work, *, clock: Callable[[], float]) -> None:
        self._provider = provider
        self._work = work
        self._clock = clock
        self._places: dict[ThreadId, Place] = {}

    def __iter__(self) -> Iterator[Place]:
        return iter(tuple(self._places.values()))

    def get(self, thread_id: ThreadId) -> Place:
        return self._places.setdefault(thread_id, Place(thread_id))

    def find(self, thread_id: ThreadId) -> Place | None:
        return self._places.get(thread_id)

    def forget(self, thread_id: ThreadId) -> None:
        self._places.pop(thread_id, None)

    @contextmanager
    def in_use(self, thread_id: ThreadId) -> Generator[None]:
        """Keeps its sandbox from being stopped by this process."""
        place = self.get(thread_id)
        place.users += 1
        try:
            yield
        finally:
            place.users -= 1
            place.last_used = self._clock()

    async def pause(self, place: Place) -> None:
        """Stop its sandbox; the caller holds its lock."""
        await place.let_go()
        if place.running:
            await self._provider.pause(place.thread_id)
            place.running = place.to_empty = False

    async def stop_idle(self, seconds: float) -> int:
        """Stop what nothing has used for so long; answers how many."""
        for place in self:
            if place.helper is not None and place.helper.sandbox.lost and not place.lock.locked():
                async with place.lock:
                    await place.let_go()
        limit = self._clock() - seconds
        stopped = await self.stop_free(place for place in self if place.last_used < limit)
        for place in self:
            if place.is_forgettable:
                self.forget(place.thread_id)
        return stopped

    async def make_room(self, wanted: Place, error: SandboxesFull) -> bool:
        """Stop the sandbox that was idle for longest; of the same user only, when it is that user's limit."""
        asked = self._clock()
        self._note(await self._provider.list(), asked=asked)
        of_user = error.code == USER_FULL
        eligible = [place for place in self if not of_user or place.owner == wanted.owner]
        eligible.sort(key=lambda place: place.last_used)
        return await self.stop_free(eligible, most=1) > 0

    async def stop_free(self, places: Iterable[Place], *, most: int | None = None) -> int:
        """Stop those that nothing uses, here or elsewhere, in this order and so many at most; answers how many.

        While one is stopped no run of its thread can start.
        """
        stopped = 0
        for batch in batched([place for place in places if place.is_free], _STOPS_AT_ONCE):
            async with self._work.hold_idle([place.thread_id for place in batch]) as idle:
                for place in batch:
                    if place.thread_id not in idle:
                        place.last_used = self._clock()
                chosen = [place for place in batch if place.thread_id in idle][: most and most - stopped]
                stopped += await self._stop_all(chosen)
            if stopped == most:
                break
        return stopped

    async def _stop_all(self, places: Iterable[Place]) -> int:
        return sum(await all_of(self._stop_if_free(place) for place in places))

    async def _stop_if_free(self, place: Place) -> bool:
        return place.is_free and await self._in_time(place, self.pause)

    async def _in_time(self, place: Place, stop: Callable[[Place], Awaitable[None]]) -> bool:
        """Whether it stopped. What an agent does to its own sandbox must keep no other from being stopped."""
        try:
            async with asyncio.timeout(_STOP_SECONDS), place.lock:
                await stop(place)
        except TimeoutError:
            reason = f"not within {_STOP_SECONDS:g} s"
        except SandboxUnavailable as error:
            reason = error.detail
        else:
            return True
        log.warning("sandbox_does_not_stop", thread_id=place.thread_id, reason=reason)
        return False

    async def reconcile(self, existing: SomeThreads) -> int:
        """Remove the sandboxes whose thread is gone, by the answer of `existing`; answers how many.

        Their files stay. Those of living threads that run, left by a process that ended, are stopped when idle like any
        other; what is left of those that died is cleared up.
        """
        asked = self._clock()
        found = await self._provider.list()
        alive = await existing({info.thread_id for info in found})
        removed = 0
        for batch in batched([info.thread_id for info in found if info.thread_id not in alive], _STOPS_AT_ONCE):
            removed += sum(await all_of(self._in_time(self.get(thread_id), self._remove) for thread_id in batch))
        self._note([info for info in found if info.thread_id in alive], asked=asked)
        await self._clear_up([info.thread_id for info in found if info.thread_id in alive and not info.running])
        return removed

    async def _remove(self, orphan: Place) -> None:
        await orphan.let_go(at_once=True)
        await self._provider.remove(orphan.thread_id, files=False)
        orphan.running = False
        self.forget(orphan.thread_id)

    async def _clear_up(self, died: Sequence[ThreadId]) -> None:
        """Let go of what sandboxes hold that stopped without being told to, unless they are wanted again."""
        for batch in batched(died, _STOPS_AT_ONCE):
            async with self._work.hold_idle(batch) as idle:
                dead = {info.thread_id for info in await self._provider.list() if not info.running}
                await all_of(self._clear(self.get(thread_id)) for thread_id in batch if thread_id in dead & idle)

    async def _clear(self, place: Place) -> bool:
        return not place.users and not place.lock.locked() and await self._in_time(place, self._pause_anyway)

    async def _pause_anyway(self, place: Place) -> None:
        place.running = True  # for all that we know, until it is cleared up
        await self.pause(place)

    def _note(self, found: Sequence[SandboxInfo], *, asked: float) -> None:
        """Know of what others started, and of what they stopped, but for what was used since they were asked for."""
        running = {info.thread_id for info in found if info.running}
        for place in self:
            if place.is_free and place.thread_id not in running and place.last_used <= asked:
                place.running = False
        for thread_id in running:
            place = self.get(thread_id)
            if not place.running and not place.lock.locked():
                place.running, place.last_used = True, self._clock()


async def vanished(provider: SandboxProvider, existing: SomeThreads) -> list[SandboxInfo]:
    """The sandboxes and the folders whose thread is gone."""
    found = await provider.list(folders=True)
    alive = await existing({info.thread_id for info in found})
    return sorted((info for info in found if info.thread_id not in alive), key=lambda info: info.thread_id)


async def all_of[T](work: Iterable[Awaitable[T]]) -> list[T]:
    """Everything at once and to its end; raises what failed first."""
    results = await asyncio.gather(*work, return_exceptions=True)
    answers: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        answers.append(result)
    return answers

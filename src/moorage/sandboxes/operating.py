"""What an operator sees of sandboxes and does to them; nothing of what is in them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from moorage.errors import Conflict, NotFound
from moorage.ids import ThreadId, UserId, owner_of
from moorage.paging import Page, decode_cursor, encode_cursor
from moorage.sandboxes.port import SandboxInfo, SandboxProvider, SandboxStats, SandboxUnavailable
from moorage.sandboxes.work import Work

_STATS_SECONDS = 5.0
_STOP_SECONDS = 15.0  # no run of the thread starts meanwhile


class LiveState(StrEnum):
    """`busy`: a run of the thread is going on or about to. `stopped`: it died, and is not cleared up yet."""

    BUSY = "busy"
    IDLE = "idle"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LiveSandbox:
    """`stats` None: the engine does not say, or not in time, what it uses."""

    thread_id: ThreadId
    owner: UserId | None
    state: LiveState
    profile: str
    started_at: datetime | None
    stats: SandboxStats | None


class NoSandbox(NotFound):
    code = "sandbox_not_found"


class SandboxBusy(Conflict):
    code = "sandbox_busy"


class Operating:
    """The sandboxes of the whole installation, whichever process uses them."""

    def __init__(self, provider: SandboxProvider, work: Work) -> None:
        self._provider = provider
        self._work = work

    async def live(self, *, limit: int, cursor: str | None) -> Page[LiveSandbox]:
        """Those that use memory now, by thread id. Asks the engine once for all, and once for what each of them uses.

        Raises SandboxUnavailable or Unavailable.
        """
        after = decode_cursor(cursor, 1)[0] if cursor else ""
        found = sorted(await self._provider.list(), key=lambda info: info.thread_id)
        rest = [info for info in found if info.thread_id > after]
        page = rest[:limit]
        busy = await self._work.busy([info.thread_id for info in page])
        stats = await self._stats(page)
        items = [_live(info, info.thread_id in busy, used) for info, used in zip(page, stats, strict=True)]
        return Page(items, encode_cursor(page[-1].thread_id) if len(rest) > limit else None)

    async def stop(self, thread_id: ThreadId, *, force: bool) -> None:
        """What runs in it ends, its files stay, and the next use starts it again.

        Raises NoSandbox for a thread that has neither a sandbox nor files, SandboxBusy unless forced, or
        SandboxUnavailable.
        """
        if owner_of(thread_id) is None or not await self._provider.list(folders=True, thread_id=thread_id):
            raise NoSandbox("This thread has no sandbox and no workspace")
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._stop(thread_id, force=force)
        except TimeoutError:
            raise SandboxUnavailable(f"The sandbox did not stop within {_STOP_SECONDS:g} s", retry_after=15) from None

    async def _stop(self, thread_id: ThreadId, *, force: bool) -> None:
        if force:
            await self._provider.pause(thread_id)
            return
        async with self._work.hold_idle([thread_id]) as idle:
            if thread_id not in idle:
                raise SandboxBusy("A run of this thread is going on or about to: cancel it first, or force it")
            await self._provider.pause(thread_id)

    async def _stats(self, page: Sequence[SandboxInfo]) -> list[SandboxStats | None]:
        async with asyncio.TaskGroup() as tasks:  # the provider bounds how many are looked at together
            asked = [tasks.create_task(self._used(info.thread_id)) for info in page]
        return [task.result() for task in asked]

    async def _used(self, thread_id: ThreadId) -> SandboxStats | None:
        try:
            async with asyncio.timeout(_STATS_SECONDS):
                return await self._provider.stats(thread_id)
        except (TimeoutError, SandboxUnavailable):
            return None


def _live(info: SandboxInfo, busy: bool, used: SandboxStats | None) -> LiveSandbox:
    state = LiveState.STOPPED if not info.running else LiveState.BUSY if busy else LiveState.IDLE
    return LiveSandbox(info.thread_id, owner_of(info.thread_id), state, info.profile, info.started_at, used)

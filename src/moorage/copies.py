"""Copies of threads: a conversation can go on in two ways, from where it stands or from a moment of its past."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from moorage.errors import Conflict, LimitExceeded, NotFound, Unavailable
from moorage.events import scrub_text
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId, new_thread_id
from moorage.snapshots import CopiedFiles
from moorage.telemetry import get_logger
from moorage.threads import Thread, ThreadBusy

__all__ = ["ANNOUNCED_SECONDS", "Copied", "Copies", "CopyStore", "Moment", "ThreadBusy"]

ANNOUNCED_SECONDS = 60.0
_ANNOUNCEMENTS = 4  # as many in that time: one that is late, or lost, does no harm

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Moment:
    """A checkpoint of a thread: the ids of the messages in its state, and what else was in it.

    `is_latest`: nothing was saved after it.
    """

    checkpoint_id: str
    message_ids: Sequence[str]
    values: Mapping[str, Any]
    is_latest: bool


@dataclass(frozen=True, slots=True)
class Copied:
    """A copy, and what files it began with."""

    thread_id: ThreadId
    files: CopiedFiles


class CopyStore(Protocol):
    """Where threads are kept, as far as copying goes. Every call sees the threads of the source's owner only."""

    async def check(self, source: Thread, *, quota: int) -> int:
        """The seq that `source` stands at now. Raises what `insert` would raise."""
        ...

    async def find_earlier(self, source: Thread, request: RequestKey) -> Copied | None:
        """The copy that this very request made before."""
        ...

    async def announce(self, source: Thread, target: ThreadId) -> None:
        """Keep the sandbox of a thread that is to come from being taken for an orphan, for ANNOUNCED_SECONDS."""
        ...

    async def withdraw(self, source: Thread, target: ThreadId) -> None:
        """It does not come. One that is inserted need not be announced any more, either."""
        ...

    async def insert(
        self,
        source: Thread,
        target: Copied,
        *,
        title: str | None,
        quota: int,
        as_of: int,
        request: RequestKey | None,
        moment: Moment | None,
    ) -> Copied:
        """Make `target` with all that `source` knows, in one transaction; its own title unless None is given.

        With a `moment`, all that it knew then. Answers `target`, or the copy that the same request has made meanwhile.
        Raises ThreadBusy when `source` is busy or has got beyond seq `as_of`, SessionQuotaExceeded, ThreadNotFound.
        """
        ...


class Copies:
    """Makes copies of a user's threads."""

    def __init__(
        self,
        store: CopyStore,
        *,
        quota: int,
        find_moment: Callable[[Thread, str], Awaitable[Moment]],
        copy_files: Callable[[Thread, ThreadId, str | None], Awaitable[CopiedFiles]],
        remove_files: Callable[[ThreadId], Awaitable[None]],
    ) -> None:
        """`find_moment` reads a thread's checkpoint; it raises UnknownCheckpoint.

        `copy_files` makes the second thread's workspace as the first's is, or was at a checkpoint; `remove_files`
        removes a workspace.
        """
        self._store = store
        self._quota = quota
        self._find_moment = find_moment
        self._copy_files = copy_files
        self._remove_files = remove_files

    async def copy(
        self,
        thread: Thread,
        *,
        title: str | None = None,
        checkpoint_id: str | None = None,
        request: RequestKey | None = None,
    ) -> Copied:
        """A new idle thread with this one's history, state and files. Nothing is asked in it.

        With a `checkpoint_id`, with those it had then; files of the past are had from snapshots. A request that is
        repeated answers with the copy that it made.

        Raises ThreadBusy, SessionQuotaExceeded, UnknownCheckpoint, or what keeps the files from being copied. The files
        come first: until the rows are there nobody sees the copy, and a crash leaves at most a folder that no thread
        refers to. Both are of one moment, because the rows are refused when anything happened in the thread meanwhile.
        """
        if request is not None and (earlier := await self._store.find_earlier(thread, request)) is not None:
            return earlier
        as_of = await self._store.check(thread, quota=self._quota)
        moment = None if checkpoint_id is None else await self._find_moment(thread, checkpoint_id)
        if moment is not None and moment.is_latest:
            moment = None
        target = await self._with_files(thread, moment)
        name = None if title is None else scrub_text(title)
        try:
            made = await self._store.insert(
                thread, target, title=name, quota=self._quota, as_of=as_of, request=request, moment=moment
            )
        except (Conflict, LimitExceeded, NotFound):  # after anything else the copy may be there
            await self._remove(thread, target.thread_id)
            raise
        if made != target:
            await self._remove(thread, target.thread_id)
        return made

    async def _with_files(self, thread: Thread, moment: Moment | None) -> Copied:
        target = new_thread_id(thread.owner_id)
        try:
            async with self._announced(thread, target):
                files = await self._copy_files(thread, target, moment.checkpoint_id if moment else None)
        except BaseException:
            await self._remove(thread, target)
            raise
        return Copied(target, files)

    @asynccontextmanager
    async def _announced(self, thread: Thread, target: ThreadId) -> AsyncGenerator[None]:
        await self._store.announce(thread, target)
        announcing = asyncio.create_task(self._keep_announcing(thread, target))
        try:
            yield
        finally:
            announcing.cancel()
            await asyncio.wait([announcing])

    async def _keep_announcing(self, thread: Thread, target: ThreadId) -> None:
        while True:
            await asyncio.sleep(ANNOUNCED_SECONDS / _ANNOUNCEMENTS)
            try:
                await self._store.announce(thread, target)
            except Unavailable as error:  # the next one may come in time
                log.warning("copy_not_announced", thread_id=target, reason=error.detail)

    async def _remove(self, thread: Thread, target: ThreadId) -> None:
        await self._remove_files(target)
        await self._store.withdraw(thread, target)

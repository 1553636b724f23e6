"""Copies of threads: a conversation can go on in two ways from where it stands."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from moorage.errors import Conflict, LimitExceeded, NotFound
from moorage.events import scrub_text
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId, new_thread_id
from moorage.threads import Thread


class ThreadBusy(Conflict):
    """Something runs or waits to run in the thread: there is no state that stands still."""

    code = "thread_busy"

    def __init__(self) -> None:
        super().__init__("This session is busy")


class CopyStore(Protocol):
    """Where threads are kept, as far as copying goes. Every call sees the threads of the source's owner only."""

    async def check(self, source: Thread, *, quota: int) -> int:
        """The seq that `source` stands at now. Raises what `insert` would raise."""
        ...

    async def find_earlier(self, source: Thread, request: RequestKey) -> ThreadId | None:
        """The copy that this very request made before."""
        ...

    async def insert(
        self,
        source: Thread,
        target: ThreadId,
        *,
        title: str | None,
        quota: int,
        as_of: int,
        request: RequestKey | None,
    ) -> ThreadId:
        """Make `target` with all that `source` knows, in one transaction; its own title unless None is given.

        Answers `target`, or the copy that the same request has made meanwhile. Raises ThreadBusy when `source` is busy
        or has got beyond seq `as_of`, SessionQuotaExceeded, ThreadNotFound.
        """
        ...


class Copies:
    """Makes copies of a user's threads."""

    def __init__(
        self,
        store: CopyStore,
        *,
        quota: int,
        copy_files: Callable[[ThreadId, ThreadId], Awaitable[None]],
        remove_files: Callable[[ThreadId], Awaitable[None]],
    ) -> None:
        """`copy_files` makes the second thread's workspace from the first's; `remove_files` removes a workspace."""
        self._store = store
        self._quota = quota
        self._copy_files = copy_files
        self._remove_files = remove_files

    async def copy(self, thread: Thread, *, title: str | None = None, request: RequestKey | None = None) -> ThreadId:
        """A new idle thread with this one's history, state and files; answers its id. Nothing is asked in it.

        A request that is repeated answers with the copy that it made.

        Raises ThreadBusy, SessionQuotaExceeded or WorkspaceNotCopied. The files come first: until the rows are there
        nobody sees the copy, and a crash leaves at most a folder that no thread refers to. Both are of one moment,
        because the rows are refused when anything happened in the thread meanwhile.
        """
        if request is not None and (earlier := await self._store.find_earlier(thread, request)) is not None:
            return earlier
        as_of = await self._store.check(thread, quota=self._quota)
        target = new_thread_id(thread.owner_id)
        await self._copy_files(thread.thread_id, target)
        name = None if title is None else scrub_text(title)
        try:
            made = await self._store.insert(thread, target, title=name, quota=self._quota, as_of=as_of, request=request)
        except (Conflict, LimitExceeded, NotFound):  # after anything else the copy may be there
            await self._remove_files(target)
            raise
        if made != target:
            await self._remove_files(target)
        return made

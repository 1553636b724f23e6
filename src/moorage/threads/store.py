"""What threads need of where they are kept."""

from collections.abc import Mapping
from typing import Any, Protocol

from moorage.idempotency import RequestKey
from moorage.ids import ThreadId, UserId
from moorage.paging import Page
from moorage.threads.thread import (
    FoundMessage,
    HistoryMessage,
    NewThread,
    SessionChanges,
    SessionFilter,
    Snapshot,
    Thread,
    Ttl,
)


class ThreadStore(Protocol):
    """Where threads are kept. Every call sees the threads of `owner` only."""

    async def create(self, owner: UserId, new: NewThread, *, quota: int, request: RequestKey | None = None) -> ThreadId:
        """Insert a thread; raises SessionQuotaExceeded when `quota` (0: none) active ones are there, race-free.

        Raises ThreadExists when its id is taken. A `request` that was made before answers with the thread that it made
        then.
        """
        ...

    async def find(self, owner: UserId, thread_id: ThreadId) -> Thread | None: ...

    async def search(
        self, owner: UserId, where: SessionFilter, *, limit: int, cursor: str | None, offset: int
    ) -> Page[Thread]: ...

    async def amend(self, owner: UserId, thread_id: ThreadId, changes: SessionChanges) -> Thread | None: ...

    async def change(
        self, owner: UserId, thread_id: ThreadId, *, metadata: Mapping[str, Any], ttl: Ttl | None
    ) -> Thread | None:
        """Merge `metadata` into the thread's and give it a new life, if there is a `ttl`; raises MetadataTooLarge."""
        ...

    async def prune(self, owner: UserId, thread_id: ThreadId) -> bool:
        """Remove the checkpoints that the latest does not need, unless something runs or waits in the thread."""
        ...

    async def expired(self, *, limit: int) -> list[Thread]:
        """Threads of all users whose time is over; those with activity since it began are given it anew."""
        ...

    async def close(self, owner: UserId, thread_id: ThreadId) -> None: ...

    async def delete(self, owner: UserId, thread_id: ThreadId) -> None:
        """Remove the thread's row, runs, events, messages, interrupts and checkpoints in one transaction."""
        ...

    async def count_active(self, owner: UserId) -> int: ...

    async def messages(self, owner: UserId, thread_id: ThreadId, *, limit: int, after: int) -> list[HistoryMessage]: ...

    async def search_messages(
        self, owner: UserId, *, query: str, thread_id: ThreadId | None, limit: int, cursor: str | None
    ) -> Page[FoundMessage]: ...

    async def snapshot(self, owner: UserId, thread_id: ThreadId, *, limit: int) -> Snapshot | None: ...

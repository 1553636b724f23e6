"""Threads: one conversation each, with its checkpoints, events and workspace. The core API calls them sessions."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from moorage.errors import AppError, Conflict, Gone, LimitExceeded, NotFound, PermissionDenied
from moorage.events import Message, scrub_text
from moorage.idempotency import RequestKey
from moorage.identity import Principal
from moorage.ids import RunId, ThreadId, UserId, new_thread_id, owner_of
from moorage.paging import Page, position

TITLE_LIMIT = 200
SNAPSHOT_MESSAGES = 1000
_PART = 50


class SessionStatus(StrEnum):
    ACTIVE = "active"
    CLOSED = "closed"
    EXPIRED = "expired"


class ThreadRunStatus(StrEnum):
    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Thread:
    thread_id: ThreadId
    owner_id: UserId
    title: str
    assistant_id: str
    status: SessionStatus
    run_status: ThreadRunStatus
    message_count: int
    turn_count: int
    last_seq: int
    created_at: datetime
    last_active: datetime
    wire_id: str
    metadata: dict[str, Any]
    updated_at: datetime
    state_updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryMessage:
    """A stored message: its place in the thread is `position`, the seq of the event that completed it."""

    message: Message
    run_id: RunId
    position: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FoundMessage:
    """A message that a search found, and the words around what was searched for."""

    thread_id: ThreadId
    title: str
    message: HistoryMessage
    snippet: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A thread, its latest messages and the approvals it waits for, as they were at `thread.last_seq`."""

    thread: Thread
    messages: list[HistoryMessage]
    pending: list[Any]  # of moorage.approvals.Interrupt: that module stands beside this one and knows nothing of it


class ThreadAccessDenied(PermissionDenied):
    code = "thread_access_denied"

    def __init__(self, thread_id: str) -> None:
        super().__init__(f"Access denied to thread {thread_id}")


class ThreadNotFound(NotFound):
    code = "thread_not_found"

    def __init__(self) -> None:
        super().__init__("No such session")


class SessionQuotaExceeded(LimitExceeded):
    code = "session_quota"


class SessionClosed(Conflict):
    code = "session_closed"


class SessionExpired(Gone):
    code = "session_expired"


class ReaderLagged(AppError):
    """A reader of a thread's events took too long: it may come back for what follows `last_seq`."""

    code = "lagged"

    def __init__(self, last_seq: int) -> None:
        super().__init__("This reader has fallen behind")
        self.last_seq = last_seq


class EventsForgotten(Gone):
    """Events that a reader asked for are not kept any more, or never were. The thread's state holds what they led to.

    `last_seq` is the thread's: who loads the state goes on from its own `last_seq`.
    """

    code = "gap"

    def __init__(self, last_seq: int) -> None:
        super().__init__("These events are not kept any more: load the session's state")
        self.last_seq = last_seq


class ThreadStore(Protocol):
    """Where threads are kept. Every call sees the threads of `owner` only."""

    async def create(
        self,
        owner: UserId,
        thread_id: ThreadId,
        *,
        title: str,
        assistant_id: str,
        quota: int,
        request: RequestKey | None = None,
    ) -> ThreadId:
        """Insert a thread; raises SessionQuotaExceeded when `quota` (0: none) active ones are there, race-free.

        A `request` that was made before answers with the thread that it made then.
        """
        ...

    async def find(self, owner: UserId, thread_id: ThreadId) -> Thread | None: ...

    async def search(
        self, owner: UserId, *, limit: int, cursor: str | None, offset: int, query: str | None
    ) -> Page[Thread]: ...

    async def rename(self, owner: UserId, thread_id: ThreadId, title: str) -> None: ...

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


class Threads:
    """What a user can do with their sessions."""

    def __init__(
        self,
        store: ThreadStore,
        *,
        quota: int,
        stop_runs: Callable[[ThreadId], Awaitable[None]],
        remove_files: Callable[[ThreadId], Awaitable[None]],
    ) -> None:
        """`stop_runs` ends a thread's runs; `remove_files` removes its sandbox and workspace, whatever they hold."""
        self._store = store
        self._quota = quota
        self._stop_runs = stop_runs
        self._remove_files = remove_files

    async def create(
        self,
        principal: Principal,
        *,
        title: str = "",
        assistant_id: str = "agent",
        request: RequestKey | None = None,
    ) -> ThreadId:
        """A new session, or that of the same request; raises SessionQuotaExceeded beyond the user's quota."""
        return await self._store.create(
            principal.user_id,
            new_thread_id(principal.user_id),
            title=scrub_text(title),
            assistant_id=assistant_id,
            quota=self._quota,
            request=request,
        )

    async def get(self, principal: Principal, thread_id: str) -> Thread:
        """One's own thread; raises ThreadAccessDenied for anybody else's, ThreadNotFound for one that is not there."""
        owner = owner_of(thread_id)
        if owner != principal.user_id:
            raise ThreadAccessDenied(thread_id)
        thread = await self._store.find(principal.user_id, ThreadId(thread_id))
        if thread is None:
            raise ThreadNotFound
        return thread

    async def search(
        self, principal: Principal, *, limit: int, cursor: str | None = None, offset: int = 0, query: str | None = None
    ) -> Page[Thread]:
        """Sessions, latest activity first; `query` searches in titles."""
        query = scrub_text(query) if query else None
        return await self._store.search(principal.user_id, limit=limit, cursor=cursor, offset=offset, query=query)

    async def rename(self, thread: Thread, title: str) -> Thread:
        await self._store.rename(thread.owner_id, thread.thread_id, scrub_text(title))
        return await self.reload(thread)

    async def close(self, thread: Thread) -> Thread:
        """Take no more messages and stop what runs; history and files stay."""
        await self._store.close(thread.owner_id, thread.thread_id)
        await self._stop_runs(thread.thread_id)
        return await self.reload(thread)

    async def delete(self, thread: Thread) -> None:
        """Remove the session for good: runs, history, checkpoints, sandbox and workspace.

        The row goes last: when something before it fails, the session is still there and can be deleted again.
        """
        await self._store.close(thread.owner_id, thread.thread_id)
        await self._stop_runs(thread.thread_id)
        await self._remove_files(thread.thread_id)
        await self._store.delete(thread.owner_id, thread.thread_id)

    async def active_count(self, principal: Principal) -> int:
        return await self._store.count_active(principal.user_id)

    async def messages(self, thread: Thread, *, limit: int, cursor: str | None) -> Page[HistoryMessage]:
        """The thread's messages, oldest first."""
        found = await self._store.messages(thread.owner_id, thread.thread_id, limit=limit + 1, after=position(cursor))
        more = str(found[limit - 1].position) if len(found) > limit else None
        return Page(found[:limit], more)

    async def all_messages(self, thread: Thread) -> AsyncGenerator[list[HistoryMessage]]:
        """The thread's messages up to its `last_seq`, oldest first, in parts of a size that fits into memory."""
        after = 0
        while after < thread.last_seq:
            part = await self._store.messages(thread.owner_id, thread.thread_id, limit=_PART, after=after)
            if not part:
                return
            after = part[-1].position
            yield [message for message in part if message.position <= thread.last_seq]

    async def search_messages(
        self, principal: Principal, *, query: str, limit: int, thread_id: str | None = None, cursor: str | None = None
    ) -> Page[FoundMessage]:
        """Messages of one's own threads, or of one of them, that hold the words of `query`; newest first."""
        thread = await self.get(principal, thread_id) if thread_id is not None else None
        return await self._store.search_messages(
            principal.user_id, query=query, thread_id=thread and thread.thread_id, limit=limit, cursor=cursor
        )

    async def snapshot(self, thread: Thread) -> Snapshot:
        """The thread, its latest messages and what it waits for, all in the moment of `last_seq`."""
        snapshot = await self._store.snapshot(thread.owner_id, thread.thread_id, limit=SNAPSHOT_MESSAGES)
        if snapshot is None:
            raise ThreadNotFound
        return snapshot

    async def reload(self, thread: Thread) -> Thread:
        """The thread as it is now."""
        found = await self._store.find(thread.owner_id, thread.thread_id)
        if found is None:
            raise ThreadNotFound
        return found

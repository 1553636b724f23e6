"""Threads: one conversation each, with its checkpoints, events and workspace. The core API calls them sessions."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from moorage.errors import AppError, Conflict, Gone, InvalidPayload, LimitExceeded, NotFound, PermissionDenied
from moorage.events import Message, encode, scrub_text
from moorage.idempotency import RequestKey
from moorage.identity import Principal
from moorage.ids import RunId, ThreadId, UserId, full_thread_id, new_thread_id, owner_of
from moorage.paging import Page, position

TITLE_LIMIT = 200
SNAPSHOT_MESSAGES = 1000
METADATA_LIMIT = 64 * 1024
_PART = 50
_EXPIRED_AT_ONCE = 100


class SessionStatus(StrEnum):
    ACTIVE = "active"
    CLOSED = "closed"
    EXPIRED = "expired"


class ThreadRunStatus(StrEnum):
    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTED = "interrupted"
    ERROR = "error"


class IfExists(StrEnum):
    """What making a thread does when there is one with its id."""

    RAISE = "raise"
    DO_NOTHING = "do_nothing"


class ExpiryStrategy(StrEnum):
    DELETE = "delete"  # the thread, its history, its sandbox and its files
    KEEP_LATEST = "keep_latest"  # only the checkpoints before the latest


@dataclass(frozen=True, slots=True)
class Ttl:
    """How many minutes after its last activity a thread expires, and what happens then."""

    minutes: float
    strategy: ExpiryStrategy = ExpiryStrategy.DELETE


@dataclass(frozen=True, slots=True)
class Thread:
    """`wire_id` is how clients of the LangGraph wire know it: as they named it, else its id. `error` is a problem.

    With `per_call` its client knows approvals call by call, others one batch of all that wait.
    """

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
    error: dict[str, Any] | None = None
    per_call: bool = False
    ttl: Ttl | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewThread:
    """What a thread begins as. `wire_id` is the bare uuid by which a client named it, None for its full id.

    One that `is_temporary` is a stateless run's: no list shows it.
    """

    thread_id: ThreadId
    title: str = ""
    assistant_id: str = "agent"
    wire_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    ttl: Ttl | None = None
    is_temporary: bool = False


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


class ThreadExists(Conflict):
    code = "thread_exists"

    def __init__(self) -> None:
        super().__init__("There is a thread with this id")


class MetadataTooLarge(InvalidPayload):
    code = "metadata_too_large"

    def __init__(self) -> None:
        super().__init__(f"A thread's metadata may take up to {METADATA_LIMIT} bytes of JSON")


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

    async def create(self, owner: UserId, new: NewThread, *, quota: int, request: RequestKey | None = None) -> ThreadId:
        """Insert a thread; raises SessionQuotaExceeded when `quota` (0: none) active ones are there, race-free.

        Raises ThreadExists when its id is taken. A `request` that was made before answers with the thread that it made
        then.
        """
        ...

    async def find(self, owner: UserId, thread_id: ThreadId) -> Thread | None: ...

    async def search(
        self, owner: UserId, *, limit: int, cursor: str | None, offset: int, query: str | None
    ) -> Page[Thread]: ...

    async def rename(self, owner: UserId, thread_id: ThreadId, title: str) -> None: ...

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
        metadata: Mapping[str, Any] | None = None,
        request: RequestKey | None = None,
    ) -> ThreadId:
        """A new session, or that of the same request; raises SessionQuotaExceeded beyond the user's quota."""
        new = NewThread(new_thread_id(principal.user_id), scrub_text(title), assistant_id, metadata=metadata or {})
        return await self._store.create(principal.user_id, new, quota=self._quota, request=request)

    async def ensure(
        self,
        principal: Principal,
        thread_id: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        if_exists: IfExists = IfExists.RAISE,
        ttl: Ttl | None = None,
        assistant_id: str = "agent",
        title: str = "",
        is_temporary: bool = False,
    ) -> Thread:
        """The thread that a client names, by a bare uuid or a full id of its own, made if it is not there; None: a new.

        All else describes a thread that is made now; one that is there stays as it is. Raises ThreadAccessDenied for
        what is not the caller's, ThreadExists unless `if_exists` says otherwise, SessionQuotaExceeded,
        MetadataTooLarge.
        """
        full_id = self.own_id(principal, thread_id) if thread_id else new_thread_id(principal.user_id)
        if len(encode(metadata or {})) > METADATA_LIMIT:
            raise MetadataTooLarge
        new = NewThread(
            full_id,
            scrub_text(title),
            assistant_id,
            wire_id=thread_id if thread_id != full_id else None,
            metadata=metadata or {},
            ttl=ttl,
            is_temporary=is_temporary,
        )
        return await self._make(principal.user_id, new, if_exists, is_named=thread_id is not None)

    async def _make(self, owner: UserId, new: NewThread, if_exists: IfExists, *, is_named: bool) -> Thread:
        """Whoever is second, by however little, finds what the first has made. An id that nobody named is new."""
        found = await self._store.find(owner, new.thread_id) if is_named else None
        if found is None:
            try:
                await self._store.create(owner, new, quota=self._quota)
            except ThreadExists:
                if if_exists is IfExists.RAISE:
                    raise
            found = await self._store.find(owner, new.thread_id)
        elif if_exists is IfExists.RAISE:
            raise ThreadExists
        if found is None:
            raise ThreadNotFound
        return found

    def own_id(self, principal: Principal, thread_id: str) -> ThreadId:
        """The full id of what a client of the wire names; raises ThreadAccessDenied for what is not the caller's."""
        full_id = full_thread_id(principal.user_id, thread_id)
        if owner_of(full_id) != principal.user_id:
            raise ThreadAccessDenied(thread_id)
        return ThreadId(full_id)

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

    async def change(
        self, thread: Thread, *, metadata: Mapping[str, Any] | None = None, ttl: Ttl | None = None
    ) -> Thread:
        """Merge `metadata` into the thread's, key by key, and let its life begin anew; raises MetadataTooLarge."""
        changed = await self._store.change(thread.owner_id, thread.thread_id, metadata=metadata or {}, ttl=ttl)
        if changed is None:
            raise ThreadNotFound
        return changed

    async def prune(self, principal: Principal, thread_ids: Sequence[str], *, strategy: ExpiryStrategy) -> int:
        """Remove these threads, or what of their history the present does not need; answers how many there were.

        What something runs or waits in keeps its history. Raises ThreadAccessDenied, before anything is removed.
        """
        pruned = 0
        for thread_id in dict.fromkeys(self.own_id(principal, text) for text in thread_ids):
            if strategy is ExpiryStrategy.KEEP_LATEST:
                pruned += await self._store.prune(principal.user_id, thread_id)
            elif (thread := await self._store.find(principal.user_id, thread_id)) is not None:
                await self.delete(thread)
                pruned += 1
        return pruned

    async def expire(self) -> int:
        """Do with threads of all users whose time is over what their owners said; answers how many there were."""
        expired = await self._store.expired(limit=_EXPIRED_AT_ONCE)
        for thread in expired:
            if thread.ttl is not None and thread.ttl.strategy is ExpiryStrategy.KEEP_LATEST:
                await self._store.prune(thread.owner_id, thread.thread_id)
                await self._store.change(thread.owner_id, thread.thread_id, metadata={}, ttl=thread.ttl)
            else:
                await self.delete(thread)
        return len(expired)

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

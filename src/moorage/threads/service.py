"""What a user can do with their sessions."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moorage.events import encode, scrub_text
from moorage.idempotency import RequestKey
from moorage.identity import Principal
from moorage.ids import ThreadId, UserId, full_thread_id, new_thread_id, owner_of, user_place
from moorage.paging import Page, position
from moorage.threads.errors import MetadataTooLarge, ThreadAccessDenied, ThreadExists, ThreadNotFound
from moorage.threads.store import ThreadStore
from moorage.threads.thread import (
    METADATA_LIMIT,
    ExpiryStrategy,
    FoundMessage,
    HistoryMessage,
    IfExists,
    NewThread,
    SessionChanges,
    SessionFilter,
    Snapshot,
    Thread,
    Ttl,
)

SNAPSHOT_MESSAGES = 1000
_PART = 50
_EXPIRED_AT_ONCE = 100


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
        """The full id of what a client of the wire names; raises ThreadAccessDenied for what is not the caller's.

        Nor is the place of their own sandbox a thread.
        """
        full_id = full_thread_id(principal.user_id, thread_id)
        if owner_of(full_id) != principal.user_id or full_id == user_place(principal.user_id):
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
        self, principal: Principal, where: SessionFilter, *, limit: int, cursor: str | None = None, offset: int = 0
    ) -> Page[Thread]:
        """Sessions, latest activity first."""
        where = replace(where, query=scrub_text(where.query) if where.query else None)
        return await self._store.search(principal.user_id, where, limit=limit, cursor=cursor, offset=offset)

    async def amend(self, thread: Thread, changes: SessionChanges) -> Thread:
        """Name, pin or archive a session. That is no activity: its life goes on as it was."""
        title = scrub_text(changes.title) if changes.title is not None else None
        amended = await self._store.amend(thread.owner_id, thread.thread_id, replace(changes, title=title))
        if amended is None:
            raise ThreadNotFound
        return amended

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

        The row goes last: when something before it fails, the session is still there and can be deleted again. Whoever
        asked for its files until then may have made its sandbox and workspace again; from then on nobody does.
        """
        await self._store.close(thread.owner_id, thread.thread_id)
        await self._stop_runs(thread.thread_id)
        await self._remove_files(thread.thread_id)
        await self._store.delete(thread.owner_id, thread.thread_id)
        await self._remove_files(thread.thread_id)

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

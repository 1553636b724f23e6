"""Lists of threads as clients of the LangGraph wire ask for them: filtered, sorted, with what each thread holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from moorage.ids import ThreadId, UserId
from moorage.threads import HistoryMessage, Thread, ThreadRunStatus


class SortBy(StrEnum):
    THREAD_ID = "thread_id"
    STATUS = "status"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    STATE_UPDATED_AT = "state_updated_at"


@dataclass(frozen=True, slots=True)
class ThreadFilter:
    """Which threads: None stands for all. `metadata` and `values` are what the thread's own have to contain."""

    ids: tuple[ThreadId, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    values: Mapping[str, Any] | None = None
    status: ThreadRunStatus | None = None


@dataclass(frozen=True, slots=True)
class ThreadQuery:
    """One part of a list, and what of each thread is wanted beside its row."""

    where: ThreadFilter = field(default_factory=ThreadFilter)
    sort_by: SortBy = SortBy.UPDATED_AT
    ascending: bool = False
    limit: int = 10
    offset: int = 0
    with_values: bool = True
    with_pending: bool = True


@dataclass(frozen=True, slots=True)
class ListedThread:
    """A thread with what it holds, if that was asked for: `values` beside `messages`, `pending` approvals in order.

    Of a thread with very much to say the messages in the middle are left out.
    """

    thread: Thread
    values: dict[str, Any]
    messages: list[HistoryMessage]
    pending: list[Any]  # of moorage.approvals.Interrupt, which moorage.threads knows nothing of either


@dataclass(frozen=True, slots=True)
class ThreadPage:
    items: list[ListedThread]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """How many rows there are of something, and their bytes as they are stored."""

    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ThreadStorage:
    """What a thread's checkpoints take up. `by_channel` parts the values."""

    checkpoints: Stored
    values: Stored
    by_channel: Mapping[str, Stored]
    writes: Stored


class ThreadLists(Protocol):
    """Where threads are kept. Every call sees those of `owner` only, and asks a fixed number of questions."""

    async def search(self, owner: UserId, query: ThreadQuery) -> ThreadPage: ...

    async def count(self, owner: UserId, where: ThreadFilter) -> int: ...

    async def storage(self, owner: UserId, thread_id: ThreadId) -> ThreadStorage: ...

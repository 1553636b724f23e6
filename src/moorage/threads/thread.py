"""What a thread is, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from moorage.events import Message
from moorage.ids import RunId, ThreadId, UserId

TITLE_LIMIT = 200
METADATA_LIMIT = 64 * 1024


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

    With `per_call` its client knows approvals call by call, others one batch of all that wait. `pending_count` is how
    many wait. An `archived` one is not in its owner's list until the next message.
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
    pinned: bool = False
    archived: bool = False
    pending_count: int = 0


@dataclass(frozen=True, slots=True)
class SessionFilter:
    """Which of a user's sessions a list shows: those with `query` in their title; None stands for all."""

    query: str | None = None
    archived: bool = False
    pinned: bool | None = None
    run_status: ThreadRunStatus | None = None


@dataclass(frozen=True, slots=True)
class SessionChanges:
    """What its owner changes about a session; None stays as it is."""

    title: str | None = None
    pinned: bool | None = None
    archived: bool | None = None


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

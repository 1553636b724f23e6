"""What a cron is, what comes of it when its time has come, and where crons are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from moorage.crons.schedule import Schedule
from moorage.errors import LimitExceeded, NotFound, PermissionDenied
from moorage.ids import RunId, ThreadId, UserId
from moorage.run_request import RunRequest
from moorage.runs.run import BusyPolicy, Started


class OnRunCompleted(StrEnum):
    """What becomes of the thread that a cron made for a run."""

    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class NewCron:
    """A cron to be stored. Without a thread each run gets a new one.

    `payload` is what the client sent, as it is shown; `request` what each run is started with.
    """

    assistant_id: str
    schedule: Schedule
    payload: Mapping[str, Any]
    request: RunRequest
    policy: BusyPolicy
    metadata: Mapping[str, Any]
    thread_id: ThreadId | None = None
    on_run_completed: OnRunCompleted | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron as it is stored.

    `disabled_reason` says why the server gave it up, `last_error` why the last run did not start.
    """

    cron_id: str
    owner_id: UserId
    assistant_id: str
    thread_id: ThreadId | None
    wire_thread_id: str | None
    schedule: Schedule
    payload: dict[str, Any]
    request: RunRequest
    policy: BusyPolicy
    on_run_completed: OnRunCompleted | None
    metadata: dict[str, Any]
    enabled: bool
    disabled_reason: str | None
    last_error: str | None
    last_run_date: datetime | None
    last_run_id: RunId | None
    next_run_date: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class CronChange:
    """A cron's new content. `restarts`: the next occurrence is counted from now on."""

    cron: NewCron
    restarts: bool


class CronSort(StrEnum):
    CRON_ID = "cron_id"
    ASSISTANT_ID = "assistant_id"
    THREAD_ID = "thread_id"
    CREATED_AT = "created_at"
    UPDATED_AT = "updated_at"
    NEXT_RUN_DATE = "next_run_date"
    END_TIME = "end_time"


@dataclass(frozen=True, slots=True)
class CronFilter:
    assistant_id: str | None = None
    thread_id: ThreadId | None = None
    enabled: bool | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A cron whose time has come at `occurrence`; `now` is the database's clock."""

    cron: Cron
    occurrence: datetime
    now: datetime
    owner_active: bool


@dataclass(frozen=True, slots=True)
class Firing:
    """What a due cron leads to: a run on `thread_id`, which is made first when `new_thread` says so."""

    thread_id: ThreadId
    new_thread: bool
    request: RunRequest
    next_run_date: datetime | None


@dataclass(frozen=True, slots=True)
class Missed:
    """Why no run starts for an occurrence; with `for_good` the cron is given up."""

    reason: str
    for_good: bool
    next_run_date: datetime | None


class CronNotFound(NotFound):
    code = "cron_not_found"

    def __init__(self) -> None:
        super().__init__("There is no such cron")


class TooManyCrons(LimitExceeded):
    code = "too_many_crons"


class UserDisabled(PermissionDenied):
    code = "user_disabled"

    def __init__(self) -> None:
        super().__init__("The user is disabled")


class CronTable(Protocol):
    """Where crons are kept. Every call but `due` sees those of `owner` only."""

    async def insert(self, owner: UserId, cron_id: str, new: NewCron, *, first: datetime | None, quota: int) -> Cron:
        """Raises TooManyCrons beyond `quota` (0: none), race-free."""
        ...

    async def find(self, owner: UserId, cron_id: str) -> Cron | None: ...

    async def search(
        self,
        owner: UserId,
        wanted: CronFilter,
        *,
        sort_by: CronSort,
        ascending: bool,
        limit: int,
        offset: int,
    ) -> list[Cron]: ...

    async def count(self, owner: UserId, wanted: CronFilter) -> int: ...

    async def change(self, owner: UserId, cron_id: str, change: CronChange, *, first: datetime | None) -> Cron | None:
        """`first`: the next occurrence if the change restarts the cron, which then is nobody's failure any more."""
        ...

    async def delete(self, owner: UserId, cron_id: str) -> bool: ...

    async def due(self, *, limit: int) -> list[Due]:
        """Enabled crons whose time has come, of all users, the longest waiting first."""
        ...

    async def fire(self, due: Due, firing: Firing) -> Started | None:
        """Store the run and move the cron on, in one transaction; None when that was done already.

        Raises what `RunQueue.submit` does, ApprovalPending for a thread that waits, SessionQuotaExceeded.
        """
        ...

    async def miss(self, due: Due, missed: Missed) -> None:
        """Move the cron on without a run, unless somebody did already."""
        ...

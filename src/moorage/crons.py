"""Crons: runs that start by themselves at set times, on a thread or each on a new one.

Exactly one run starts for an occurrence: it is stored in the transaction that moves the cron on to the next one. What
was missed while no server ran starts once, however often it was missed.
"""

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from moorage.claims import StopReason
from moorage.errors import AppError, Conflict, InvalidPayload, LimitExceeded, NotFound, PermissionDenied, Unavailable
from moorage.ids import RunId, ThreadId, UserId, new_thread_id
from moorage.run_request import RunRequest
from moorage.runs.run import BusyPolicy, Started
from moorage.telemetry import get_logger
from moorage.threads import SessionClosed

LONGEST_SCHEDULE = 200
_BATCH = 100
_FIELDS = 5
_LATEST_YEAR = 9000
_MESSAGE_IDS = uuid.UUID("0d5c3a0e-4f0c-5b59-9a67-0a1d53f6c2be")
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}

log = get_logger(__name__)


class OnRunCompleted(StrEnum):
    """What becomes of the thread that a cron made for a run."""

    DELETE = "delete"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When: a cron expression with five fields, in a time zone (None: UTC), up to a last moment.

    Where clocks change it does what Debian's cron does: a set time that the day skips comes right after the gap, one
    that the day has twice comes once, and what comes every so many minutes or hours goes on as time does.
    """

    expression: str
    timezone: str | None = None
    end_time: datetime | None = None

    def next_after(self, moment: datetime) -> datetime | None:
        """The first occurrence after `moment`, or None when there is none any more. Raises InvalidSchedule."""
        local = moment.astimezone(_zone(self.timezone))
        found = next(_occurrences(self.expression, local), None)
        if found is None:
            return None
        at = found.astimezone(UTC)
        return None if self.end_time is not None and at > self.end_time else at


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


class InvalidSchedule(InvalidPayload):
    code = "invalid_schedule"

    def __init__(self, field: str, reason: str) -> None:
        errors = [{"loc": ["body", field], "msg": reason, "type": "schedule"}]
        super().__init__(f"{field}: {reason}", errors=errors)


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


class Crons:
    """What a user can do with crons, and what starts their runs."""

    def __init__(
        self,
        table: CronTable,
        *,
        quota: int,
        clock: Callable[[], datetime],
        check_assistant: Callable[[UserId, str], Awaitable[object]],
        hear_stop: Callable[[str], None],
    ) -> None:
        """A user may have `quota` crons. `check_assistant` raises for one that is not there any more; `hear_stop` is
        told of runs that a cron's run stops, as `<run_id> <reason>`.
        """
        self._table = table
        self._quota = quota
        self._clock = clock
        self._check_assistant = check_assistant
        self._hear_stop = hear_stop

    async def create(self, owner: UserId, new: NewCron) -> Cron:
        """Store a cron; raises TooManyCrons, or InvalidSchedule when it would never run."""
        first = _first(new.schedule, self._clock())
        return await self._table.insert(owner, str(uuid.uuid4()), new, first=first, quota=self._quota)

    async def get(self, owner: UserId, cron_id: str) -> Cron:
        """Raises CronNotFound."""
        cron = await self._table.find(owner, cron_id)
        if cron is None:
            raise CronNotFound
        return cron

    async def search(
        self,
        owner: UserId,
        wanted: CronFilter,
        *,
        sort_by: CronSort = CronSort.CREATED_AT,
        ascending: bool = False,
        limit: int,
        offset: int = 0,
    ) -> list[Cron]:
        return await self._table.search(owner, wanted, sort_by=sort_by, ascending=ascending, limit=limit, offset=offset)

    async def count(self, owner: UserId, wanted: CronFilter) -> int:
        return await self._table.count(owner, wanted)

    async def change(self, cron: Cron, change: CronChange) -> Cron:
        """Give a cron new content; raises CronNotFound when it is gone, InvalidSchedule when it would never run."""
        first = _first(change.cron.schedule, self._clock()) if change.restarts else None
        changed = await self._table.change(cron.owner_id, cron.cron_id, change, first=first)
        if changed is None:
            raise CronNotFound
        return changed

    async def delete(self, owner: UserId, cron_id: str) -> None:
        """Raises CronNotFound."""
        if not await self._table.delete(owner, cron_id):
            raise CronNotFound

    async def fire_due(self) -> int:
        """Start the runs of all crons whose time has come; answers how many this process started."""
        fired = 0
        while True:
            due = await self._table.due(limit=_BATCH)
            started = [await self._fire_safely(item) for item in due]
            fired += sum(started)
            if len(due) < _BATCH or not any(started):
                return fired

    async def _fire_safely(self, due: Due) -> bool:
        """What one user stored must not keep everybody's crons from running."""
        try:
            return await self._fire(due)
        except AppError:
            raise
        except Exception as error:  # the edge to what users chose
            log.error("cron_failed", cron_id=due.cron.cron_id, exc_info=error)
            reason = "Something went wrong inside the server; its log has more"
            await self._miss(due, Missed(reason, for_good=True, next_run_date=None))
            return False

    async def _fire(self, due: Due) -> bool:
        """Whether it was this process that started the run. Whatever comes in its way, the cron moves on."""
        following: datetime | None = None
        try:
            following = due.cron.schedule.next_after(max(due.now, due.occurrence))
            if not due.owner_active:
                raise UserDisabled
            await self._check_assistant(due.cron.owner_id, due.cron.assistant_id)
            started = await self._table.fire(due, _firing(due, following))
        except Unavailable:
            raise  # the next look finds it where it is
        except AppError as error:
            await self._miss(due, Missed(error.detail, for_good=_is_for_good(error), next_run_date=following))
            return False
        if started is None:
            return False
        for run_id in started.stops:
            self._hear_stop(f"{run_id} {_STOPS[due.cron.policy]}")
        return True

    async def _miss(self, due: Due, missed: Missed) -> None:
        log.warning("cron_missed", cron_id=due.cron.cron_id, reason=missed.reason, for_good=missed.for_good)
        await self._table.miss(due, missed)


def check_schedule(expression: str, timezone: str | None, end_time: datetime | None) -> Schedule:
    """A schedule that can be kept; raises InvalidSchedule, which names the field."""
    words = expression.split()
    text = " ".join(words)
    if text not in _ALIASES and len(words) != _FIELDS:
        raise InvalidSchedule("schedule", "must have five fields: minute hour day-of-month month day-of-week")
    _occurrences(text, datetime.now(_zone(timezone)))
    if end_time is not None and end_time.year > _LATEST_YEAR:
        raise InvalidSchedule("end_time", f"must not be after the year {_LATEST_YEAR}")
    if end_time is not None and end_time.tzinfo is None:
        end_time = end_time.replace(tzinfo=UTC)
    return Schedule(text, timezone, end_time)


def _occurrences(expression: str, after: datetime) -> CronSim:
    try:
        return CronSim(_ALIASES.get(expression, expression), after)
    except CronSimError as error:
        raise InvalidSchedule("schedule", f"is no cron expression: {error}") from None


def _zone(name: str | None) -> ZoneInfo:
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):  # unknown, a path, a folder of the zones' data
        raise InvalidSchedule("timezone", "must be a time zone of the IANA database, such as Europe/Berlin") from None


def _first(schedule: Schedule, now: datetime) -> datetime:
    first = schedule.next_after(now)
    if first is None and schedule.end_time is not None:
        raise InvalidSchedule("end_time", "leaves no time for a run")
    if first is None:
        raise InvalidSchedule("schedule", "never comes")
    return first


def _is_for_good(error: AppError) -> bool:
    """Whether the next occurrence would fare no better, as it may where a thread is busy or a quota used up."""
    return isinstance(error, SessionClosed) or not isinstance(error, LimitExceeded | Conflict)


def _firing(due: Due, following: datetime | None) -> Firing:
    """The run of an occurrence. Its messages have ids of their own, so that none replaces an earlier one."""
    cron = due.cron
    messages = tuple(
        {**message, "id": str(uuid.uuid5(_MESSAGE_IDS, f"{cron.cron_id} {due.occurrence.isoformat()} {position}"))}
        for position, message in enumerate(cron.request.messages)
    )
    metadata = {**cron.request.metadata, "cron_id": cron.cron_id}
    request = replace(cron.request, messages=messages, metadata=metadata)
    if cron.thread_id is not None:
        return Firing(cron.thread_id, False, request, following)
    thread_metadata = {**cron.request.thread_metadata, "cron_id": cron.cron_id}
    ephemeral = cron.on_run_completed is not OnRunCompleted.KEEP
    request = replace(request, thread_metadata=thread_metadata, ephemeral=ephemeral)
    return Firing(new_thread_id(cron.owner_id), True, request, following)

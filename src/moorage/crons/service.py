"""What a user can do with crons, and what starts their runs."""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from moorage.claims import StopReason
from moorage.crons.cron import (
    Cron,
    CronChange,
    CronFilter,
    CronNotFound,
    CronSort,
    CronTable,
    Due,
    Firing,
    Missed,
    NewCron,
    OnRunCompleted,
    UserDisabled,
)
from moorage.crons.schedule import InvalidSchedule, Schedule
from moorage.errors import AppError, Conflict, LimitExceeded, Unavailable
from moorage.ids import UserId, new_thread_id
from moorage.runs.run import BusyPolicy
from moorage.telemetry import get_logger
from moorage.threads import SessionClosed

_BATCH = 100
_MESSAGE_IDS = uuid.UUID("0d5c3a0e-4f0c-5b59-9a67-0a1d53f6c2be")
_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}

log = get_logger(__name__)


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
        # As broad as what a stored schedule or request may bring about in the libraries that read it. All but AppErrors
        # ends the chore that this is part of, and the server with it: one user's cron would do so at each start again.
        except Exception as error:
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

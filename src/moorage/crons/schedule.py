"""When a cron's runs start."""

from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from moorage.errors import InvalidPayload

LONGEST_SCHEDULE = 200
_FIELDS = 5
_LATEST_YEAR = 9000
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class InvalidSchedule(InvalidPayload):
    code = "invalid_schedule"

    def __init__(self, field: str, reason: str) -> None:
        errors = [{"loc": ["body", field], "msg": reason, "type": "schedule"}]
        super().__init__(f"{field}: {reason}", errors=errors)


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

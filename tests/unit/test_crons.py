"""When crons run: cron expressions in time zones whose clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from moorage.crons import InvalidSchedule, Schedule, check_schedule

BERLIN = "Europe/Berlin"


def occurrences(expression: str, after: str, count: int, timezone: str | None = BERLIN) -> list[str]:
    """The next ones, as UTC. `after` is local time."""
    at = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(timezone or "UTC"))
    schedule = check_schedule(expression, timezone, None)
    found: list[str] = []
    for _ in range(count):
        following = schedule.next_after(at)
        assert following is not None
        at = following
        found.append(f"{at:%m-%dT%H:%M}")
    return found


def test_a_set_time_is_local_time_in_summer_and_winter() -> None:
    assert occurrences("0 3 * * *", "2026-07-01T12:00", 1) == ["07-02T01:00"]
    assert occurrences("0 3 * * *", "2026-11-21T12:00", 1) == ["11-22T02:00"]
    assert occurrences("0 3 * * *", "2026-11-21T12:00", 1, timezone=None) == ["11-22T03:00"]


def test_a_time_that_the_day_skips_comes_right_after_the_gap() -> None:
    assert occurrences("30 2 * * *", "2026-03-28T12:00", 2) == ["03-29T01:00", "03-30T00:30"]


def test_a_time_that_the_day_has_twice_comes_once() -> None:
    assert occurrences("30 2 * * *", "2026-10-24T12:00", 2) == ["10-25T00:30", "10-26T01:30"]


def test_every_hour_is_every_hour_when_clocks_change() -> None:
    assert occurrences("0 * * * *", "2026-03-29T00:30", 3) == ["03-29T00:00", "03-29T01:00", "03-29T02:00"]
    assert occurrences("0 * * * *", "2026-10-25T01:30", 3) == ["10-25T00:00", "10-25T01:00", "10-25T02:00"]


def test_an_occurrence_is_strictly_after_the_moment() -> None:
    at = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)
    assert Schedule("0 10 * * *").next_after(at) == at + timedelta(days=1)


def test_nothing_comes_after_the_end() -> None:
    at = datetime(2026, 5, 1, 9, 0, tzinfo=UTC)
    end = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)
    assert Schedule("0 10 * * *", end_time=end).next_after(at) == end
    assert Schedule("0 10 * * *", end_time=end).next_after(end) is None


def test_an_end_without_a_zone_is_in_utc() -> None:
    assert check_schedule("@daily", None, datetime(2030, 1, 1)).end_time == datetime(2030, 1, 1, tzinfo=UTC)  # noqa: DTZ001


@pytest.mark.parametrize(
    "expression", ["@daily", " 0  0 * * * ", "*/5 9-17 * jan-mar mon-fri", "0 0 L * *", "0 0 * * mon#2"]
)
def test_expressions_of_cron_are_taken(expression: str) -> None:
    assert check_schedule(expression, None, None).next_after(datetime.now(UTC)) is not None


@pytest.mark.parametrize(
    "expression",
    ["", "bogus", "* * * *", "* * * * * *", "60 * * * *", "*/0 * * * *", "0 0 31 4 *", "@reboot", "٣ * * * *"],
)
def test_what_is_no_schedule_is_refused_by_name(expression: str) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        check_schedule(expression, None, None)
    assert refused.value.errors[0]["loc"] == ["body", "schedule"]


@pytest.mark.parametrize("timezone", ["Nowhere", "../../etc/passwd", "/etc/passwd", "Europe", "UTC\x00", "a" * 300])
def test_what_is_no_time_zone_is_refused_by_name(timezone: str) -> None:
    with pytest.raises(InvalidSchedule) as refused:
        check_schedule("@daily", timezone, None)
    assert refused.value.errors[0]["loc"] == ["body", "timezone"]

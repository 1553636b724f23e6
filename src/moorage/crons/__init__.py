"""Crons: runs that start by themselves at set times, on a thread or each on a new one.

Exactly one run starts for an occurrence: it is stored in the transaction that moves the cron on to the next one. What
was missed while no server ran starts once, however often it was missed.
"""

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
    TooManyCrons,
    UserDisabled,
)
from moorage.crons.schedule import LONGEST_SCHEDULE, InvalidSchedule, Schedule, check_schedule
from moorage.crons.service import Crons

__all__ = [
    "LONGEST_SCHEDULE",
    "Cron",
    "CronChange",
    "CronFilter",
    "CronNotFound",
    "CronSort",
    "CronTable",
    "Crons",
    "Due",
    "Firing",
    "InvalidSchedule",
    "Missed",
    "NewCron",
    "OnRunCompleted",
    "Schedule",
    "TooManyCrons",
    "UserDisabled",
    "check_schedule",
]

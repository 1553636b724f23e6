"""Crons put together, and how often a process looks for those whose time has come."""

from collections.abc import Callable
from datetime import UTC, datetime

from moorage.adapters.postgres.crons import PostgresCronTable
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.assistants import Assistants
from moorage.crons import Crons
from moorage.runs.keeper import Chore
from moorage.runs.service import Runs
from moorage.settings import Settings

_LOOK_SECONDS = 5.0


def make_crons(
    settings: Settings,
    database: Database,
    log: PostgresEventLog,
    assistants: Assistants,
    runs: Runs,
    *,
    on_submitted: Callable[[], None],
) -> Crons:
    table = PostgresCronTable(
        database,
        log,
        on_submitted=on_submitted,
        queue_limit=settings.run_queue_per_thread,
        session_quota=settings.quota_active_sessions,
        session_life=settings.session_life_hours * 3600,
    )
    return Crons(
        table,
        quota=settings.run_crons_per_user,
        clock=lambda: datetime.now(UTC),
        check_assistant=assistants.get,
        hear_stop=runs.hear_stop,
    )


def cron_chore(crons: Crons) -> Chore:
    """What every process does, so that crons run while any of them lives."""
    return Chore("fire_crons", _LOOK_SECONDS, crons.fire_due)

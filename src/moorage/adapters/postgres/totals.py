"""How much there is in all, for administrators: numbers only, and nothing of what users wrote."""

from dataclasses import dataclass
from datetime import timedelta

from moorage.adapters.postgres.pool import Database

_TOTALS = """
WITH u AS (
    SELECT count(*) AS users, count(*) FILTER (WHERE is_active) AS active_users,
        count(*) FILTER (WHERE is_active AND is_admin) AS active_admins
    FROM users
), t AS (
    SELECT count(*) FILTER (WHERE status = 'closed') AS sessions_closed,
        count(*) FILTER (WHERE status <> 'closed' AND expired) AS sessions_expired,
        count(*) FILTER (WHERE status <> 'closed' AND NOT expired) AS sessions_active
    FROM (
        SELECT status, %(life)s > 0 AND last_active < now() - make_interval(secs => %(life)s) AS expired FROM threads
    ) found
), r AS (
    SELECT count(*) FILTER (WHERE status = 'queued') AS runs_queued,
        count(*) FILTER (WHERE status = 'running') AS runs_running
    FROM runs WHERE status IN ('queued', 'running')
), i AS (
    SELECT count(*) AS approvals_pending FROM interrupts WHERE status = 'pending' AND expires_at > now()
)
SELECT * FROM u, t, r, i
"""


@dataclass(frozen=True, slots=True)
class Totals:
    """Of the whole installation, as of one moment."""

    users: int
    active_users: int
    active_admins: int
    sessions_active: int
    sessions_closed: int
    sessions_expired: int
    runs_queued: int
    runs_running: int
    approvals_pending: int


class PostgresTotals:
    """Counts over all users, in one query as the system role."""

    def __init__(self, database: Database, *, session_life: timedelta) -> None:
        """Sessions without activity for `session_life` are expired; 0 means never."""
        self._database = database
        self._life = session_life.total_seconds()

    async def read(self) -> Totals:
        async with self._database.system_transaction() as connection:
            [row] = await (await connection.execute(_TOTALS, {"life": self._life})).fetchall()
        return Totals(**row)

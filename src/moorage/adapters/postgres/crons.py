"""Crons in Postgres. A run is stored in the transaction that moves its cron on: no fault doubles or loses it."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb
from pydantic import TypeAdapter

from moorage.adapters.postgres.event_log import Placed, PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_endings import LOCK_THREAD
from moorage.adapters.postgres.submissions import Submission
from moorage.crons import (
    Cron,
    CronChange,
    CronFilter,
    CronSort,
    Due,
    Firing,
    Missed,
    NewCron,
    OnRunCompleted,
    Schedule,
    TooManyCrons,
)
from moorage.events import encode
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.run import ApprovalPending, BusyPolicy, RunRequest, Started
from moorage.threads import SessionQuotaExceeded

type Row = dict[str, Any]

_REQUEST = TypeAdapter(RunRequest)
_FOR_EVER = 0.0  # a thread on which something is to run at set times is in use, however seldom

_FROM = "FROM crons c LEFT JOIN threads t ON t.thread_id = c.thread_id"
_COLUMNS = "c.*, COALESCE(t.wire_id, c.thread_id) AS wire_thread_id"

_LOCK_OWNER = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 4))"
_COUNT_ALL = "SELECT count(*) AS count FROM crons WHERE owner_id = %s"

_INSERT = """
INSERT INTO crons (cron_id, owner_id, assistant_id, thread_id, schedule, timezone, end_time, payload, request, policy,
    on_run_completed, metadata, enabled, next_run_date)
VALUES (%(cron_id)s, %(owner)s, %(assistant_id)s, %(thread_id)s, %(schedule)s, %(timezone)s, %(end_time)s, %(payload)s,
    %(request)s, %(policy)s, %(on_run_completed)s, %(metadata)s, %(enabled)s, %(first)s)
"""

_CHANGE = """
UPDATE crons SET assistant_id = %(assistant_id)s, schedule = %(schedule)s, timezone = %(timezone)s,
    end_time = %(end_time)s, payload = %(payload)s, request = %(request)s, policy = %(policy)s,
    on_run_completed = %(on_run_completed)s, metadata = %(metadata)s, enabled = %(enabled)s, updated_at = now(),
    next_run_date = CASE WHEN %(restarts)s THEN %(first)s::timestamptz ELSE next_run_date END,
    disabled_reason = CASE WHEN %(restarts)s THEN NULL ELSE disabled_reason END,
    last_error = CASE WHEN %(restarts)s THEN NULL ELSE last_error END
WHERE cron_id = %(cron_id)s AND owner_id = %(owner)s
"""

_FIND = f"SELECT {_COLUMNS} {_FROM} WHERE c.cron_id = %s AND c.owner_id = %s"

_WANTED = """
c.owner_id = %(owner)s
    AND (%(assistant_id)s::text IS NULL OR c.assistant_id = %(assistant_id)s)
    AND (%(thread_id)s::text IS NULL OR c.thread_id = %(thread_id)s)
    AND (%(enabled)s::boolean IS NULL OR c.enabled = %(enabled)s)
    AND c.metadata @> %(metadata)s
"""

_SEARCH = f"""
SELECT {_COLUMNS} {_FROM} WHERE {_WANTED}
ORDER BY c.{{sort_by}} {{order}} NULLS LAST, c.cron_id LIMIT %(limit)s OFFSET %(offset)s
"""

_COUNT = f"SELECT count(*) AS count FROM crons c WHERE {_WANTED}"  # noqa: S608 -- constant parts

_DUE = f"""
SELECT {_COLUMNS}, now() AS now, u.is_active {_FROM} JOIN users u ON u.user_id = c.owner_id
WHERE c.enabled AND c.next_run_date <= now() ORDER BY c.next_run_date LIMIT %s
"""

_STILL_DUE = """
SELECT FROM crons WHERE cron_id = %s AND enabled AND next_run_date = %s AND updated_at = %s FOR NO KEY UPDATE
"""

_WAITS = "SELECT FROM interrupts WHERE thread_id = %s AND status = 'pending' AND expires_at > now() LIMIT 1"

_LOCK_QUOTA = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))"  # the one that new threads are counted under
_COUNT_THREADS = """
SELECT count(*) AS count FROM threads WHERE owner_id = %(owner)s AND status = 'active'
    AND (%(life)s = 0 OR last_active >= now() - make_interval(secs => %(life)s))
"""

_NEW_THREAD = "INSERT INTO threads (thread_id, owner_id, assistant_id) VALUES (%s, %s, %s)"

_FIRED = """
UPDATE crons SET next_run_date = %s, last_run_date = %s, last_run_id = %s, last_error = NULL WHERE cron_id = %s
"""

_MISSED = """
UPDATE crons SET next_run_date = %(following)s, last_error = %(reason)s,
    enabled = enabled AND NOT %(for_good)s,
    disabled_reason = CASE WHEN %(for_good)s THEN %(reason)s ELSE disabled_reason END
WHERE cron_id = %(cron_id)s AND enabled AND next_run_date = %(occurrence)s
"""


class PostgresCronTable:
    """`moorage.crons.CronTable` on Postgres."""

    def __init__(
        self,
        database: Database,
        log: PostgresEventLog,
        *,
        on_submitted: Callable[[], None],
        queue_limit: int,
        session_quota: int,
        session_life: float,
    ) -> None:
        """`session_life` is in seconds. A run beyond `queue_limit` waiting ones, or on a new thread that is to stay
        beyond `session_quota`, does not start.
        """
        self._database = database
        self._log = log
        self._on_submitted = on_submitted
        self._queue_limit = queue_limit
        self._quota = session_quota
        self._life = session_life

    async def insert(self, owner: UserId, cron_id: str, new: NewCron, *, first: datetime | None, quota: int) -> Cron:
        values = {**_values(new), "cron_id": cron_id, "owner": owner, "thread_id": new.thread_id, "first": first}
        async with self._database.tenant_transaction(owner) as connection:
            if quota:
                await connection.execute(_LOCK_OWNER, [f"crons:{owner}"])
                if await _count(connection, _COUNT_ALL, [owner]) >= quota:
                    raise TooManyCrons(f"{quota} crons are there already: delete one")
            await connection.execute(_INSERT, values)
            return await _existing(connection, owner, cron_id)

    async def find(self, owner: UserId, cron_id: str) -> Cron | None:
        known = _uuid(cron_id)
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_FIND, [known, owner])).fetchone() if known else None
        return _cron(row) if row else None

    async def search(
        self,
        owner: UserId,
        wanted: CronFilter,
        *,
        sort_by: CronSort,
        ascending: bool,
        limit: int,
        offset: int,
    ) -> list[Cron]:
        order = sql.SQL("ASC" if ascending else "DESC")
        statement = sql.SQL(_SEARCH).format(sort_by=sql.Identifier(sort_by.value), order=order)
        values = {**_wanted(owner, wanted), "limit": limit, "offset": offset}
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(statement, values)).fetchall()
        return [_cron(row) for row in rows]

    async def count(self, owner: UserId, wanted: CronFilter) -> int:
        async with self._database.tenant_transaction(owner) as connection:
            return await _count(connection, _COUNT, _wanted(owner, wanted))

    async def change(self, owner: UserId, cron_id: str, change: CronChange, *, first: datetime | None) -> Cron | None:
        values = {**_values(change.cron), "cron_id": cron_id, "owner": owner, "first": first}
        async with self._database.tenant_transaction(owner) as connection:
            changed = await connection.execute(_CHANGE, {**values, "restarts": change.restarts})
            return await _existing(connection, owner, cron_id) if changed.rowcount else None

    async def delete(self, owner: UserId, cron_id: str) -> bool:
        known = _uuid(cron_id)
        async with self._database.tenant_transaction(owner) as connection:
            statement = "DELETE FROM crons WHERE cron_id = %s AND owner_id = %s"
            return known is not None and (await connection.execute(statement, [known, owner])).rowcount > 0

    async def due(self, *, limit: int) -> list[Due]:
        async with self._database.system_transaction() as connection:
            rows = await (await connection.execute(_DUE, [limit])).fetchall()
        return [Due(_cron(row), row["next_run_date"], row["now"], row["is_active"]) for row in rows]

    async def fire(self, due: Due, firing: Firing) -> Started | None:
        cron = due.cron
        async with self._database.tenant_pipeline(cron.owner_id) as connection:
            # First the thread, then the cron: as whoever deletes the thread does.
            await connection.execute(LOCK_THREAD, [firing.thread_id])
            still = await connection.execute(_STILL_DUE, [cron.cron_id, due.occurrence, cron.updated_at])
            if await still.fetchone() is None:
                return None
            started, placed = await self._submit(connection, due, firing)
            values = [firing.next_run_date, due.occurrence, started.run_id, cron.cron_id]
            await connection.execute(_FIRED, values)
        self._log.publish([item.stored() for item in placed])
        self._on_submitted()
        return started

    async def _submit(self, connection: AsyncConnection[Row], due: Due, firing: Firing) -> tuple[Started, list[Placed]]:
        cron = due.cron
        if firing.new_thread:
            await self._make_thread(connection, cron, firing)
        elif await (await connection.execute(_WAITS, [firing.thread_id])).fetchone() is not None:
            raise ApprovalPending("The thread waits for an approval, which no scheduled run may give up")
        request = firing.request
        submission = Submission(
            cron.owner_id, firing.thread_id, None, cron.policy, key=None, digest="", request=request
        )
        return await submission.accept(connection, session_life=_FOR_EVER, queue_limit=self._queue_limit)

    async def _make_thread(self, connection: AsyncConnection[Row], cron: Cron, firing: Firing) -> None:
        if self._quota and not firing.request.ephemeral:
            await connection.execute(_LOCK_QUOTA, [f"quota:{cron.owner_id}"])
            active = await _count(connection, _COUNT_THREADS, {"owner": cron.owner_id, "life": self._life})
            if active >= self._quota:
                raise SessionQuotaExceeded(f"{self._quota} sessions are active already")
        await connection.execute(_NEW_THREAD, [firing.thread_id, cron.owner_id, cron.assistant_id])

    async def miss(self, due: Due, missed: Missed) -> None:
        values = {
            "following": missed.next_run_date,
            "reason": missed.reason,
            "for_good": missed.for_good,
            "cron_id": due.cron.cron_id,
            "occurrence": due.occurrence,
        }
        async with self._database.tenant_transaction(due.cron.owner_id) as connection:
            await connection.execute(_MISSED, values)


async def _count(connection: AsyncConnection[Row], statement: Any, values: Any) -> int:
    row = await (await connection.execute(statement, values)).fetchone()
    return row["count"] if row else 0


async def _existing(connection: AsyncConnection[Row], owner: UserId, cron_id: str) -> Cron:
    row = await (await connection.execute(_FIND, [cron_id, owner])).fetchone()
    return _cron(row or {})


def _values(new: NewCron) -> dict[str, Any]:
    return {
        "assistant_id": new.assistant_id,
        "schedule": new.schedule.expression,
        "timezone": new.schedule.timezone,
        "end_time": new.schedule.end_time,
        "payload": Jsonb(dict(new.payload), dumps=encode),
        "request": Jsonb(_REQUEST.dump_python(new.request, mode="json"), dumps=encode),
        "policy": new.policy.value,
        "on_run_completed": new.on_run_completed.value if new.on_run_completed else None,
        "metadata": Jsonb(dict(new.metadata), dumps=encode),
        "enabled": new.enabled,
    }


def _wanted(owner: UserId, wanted: CronFilter) -> dict[str, Any]:
    return {
        "owner": owner,
        "assistant_id": wanted.assistant_id,
        "thread_id": wanted.thread_id,
        "enabled": wanted.enabled,
        "metadata": Jsonb(dict(wanted.metadata or {}), dumps=encode),
    }


def _uuid(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _cron(row: Row) -> Cron:
    return Cron(
        cron_id=str(row["cron_id"]),
        owner_id=UserId(row["owner_id"]),
        assistant_id=row["assistant_id"],
        thread_id=ThreadId(row["thread_id"]) if row["thread_id"] else None,
        wire_thread_id=row["wire_thread_id"],
        schedule=Schedule(row["schedule"], row["timezone"], row["end_time"]),
        payload=row["payload"],
        request=_REQUEST.validate_python(row["request"]),
        policy=BusyPolicy(row["policy"]),
        on_run_completed=OnRunCompleted(row["on_run_completed"]) if row["on_run_completed"] else None,
        metadata=row["metadata"],
        enabled=row["enabled"],
        disabled_reason=row["disabled_reason"],
        last_error=row["last_error"],
        last_run_date=row["last_run_date"],
        last_run_id=RunId(str(row["last_run_id"])) if row["last_run_id"] else None,
        next_run_date=row["next_run_date"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )

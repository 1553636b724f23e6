"""Runs in Postgres as their owners look at them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from moorage.adapters.postgres.pool import Database
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.run import Run, RunKind, RunStatus

type Row = dict[str, Any]

_COLUMNS = """run_id, thread_id, assistant_id, kind, status, (input ->> 'first_seq')::bigint AS first_seq, metadata,
    kwargs, multitask_strategy, stop_reason, error, created_at, updated_at"""

# What was rolled back is as if it had never been.
_THERE = "NOT (status = 'cancelled' AND stop_reason IS NOT DISTINCT FROM 'rollback')"

_FIND = f"""
SELECT {_COLUMNS} FROM runs
WHERE owner_id = %s AND run_id = %s AND (%s::text IS NULL OR thread_id = %s) AND {_THERE}
"""  # noqa: S608 -- constant columns

_SEARCH = f"""
SELECT {_COLUMNS} FROM runs
WHERE owner_id = %s AND thread_id = %s AND kind <> 'update' AND {_THERE} AND (%s::text[] IS NULL OR status = ANY(%s))
ORDER BY queue_no DESC LIMIT %s OFFSET %s
"""  # noqa: S608 -- constant columns

_ACTIVE = f"""
SELECT {_COLUMNS} FROM runs
WHERE owner_id = %(owner)s AND status IN ('queued', 'running')
    AND (%(thread)s::text IS NULL OR thread_id = %(thread)s)
    AND (%(runs)s::uuid[] IS NULL OR run_id = ANY(%(runs)s))
    AND (%(status)s::text IS NULL OR status = %(status)s)
ORDER BY queue_no LIMIT 1000
"""  # noqa: S608 -- constant columns

_DELETE = """
DELETE FROM runs WHERE owner_id = %s AND thread_id = %s AND run_id = %s AND status NOT IN ('queued', 'running')
RETURNING run_id
"""


class PostgresRunRecords:
    """`moorage.runs.ports.RunRecords` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, owner: UserId, run_id: str, *, thread_id: ThreadId | None = None) -> Run | None:
        if (wanted := _uuid(run_id)) is None:
            return None
        rows = await self._database.tenant_rows(owner, _FIND, [owner, wanted, thread_id, thread_id])
        return _run(rows[0]) if rows else None

    async def search(
        self, owner: UserId, thread_id: ThreadId, *, statuses: Sequence[RunStatus], limit: int, offset: int
    ) -> list[Run]:
        wanted = [status.value for status in statuses] or None
        rows = await self._database.tenant_rows(owner, _SEARCH, [owner, thread_id, wanted, wanted, limit, offset])
        return [_run(row) for row in rows]

    async def active(
        self, owner: UserId, *, thread_id: ThreadId | None, run_ids: Sequence[str] | None, status: RunStatus | None
    ) -> list[Run]:
        wanted = None if run_ids is None else [found for item in run_ids if (found := _uuid(item)) is not None]
        values = {"owner": owner, "thread": thread_id, "runs": wanted, "status": status}
        rows = await self._database.tenant_rows(owner, _ACTIVE, values)
        return [_run(row) for row in rows]

    async def delete(self, owner: UserId, thread_id: ThreadId, run_id: RunId) -> bool:
        async with self._database.tenant_transaction(owner) as connection:
            return await (await connection.execute(_DELETE, [owner, thread_id, run_id])).fetchone() is not None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _run(row: Row) -> Run:
    return Run(
        run_id=RunId(str(row["run_id"])),
        thread_id=ThreadId(row["thread_id"]),
        assistant_id=row["assistant_id"],
        kind=RunKind(row["kind"]),
        status=RunStatus(row["status"]),
        first_seq=row["first_seq"] or 1,
        metadata=row["metadata"],
        kwargs=row["kwargs"],
        multitask_strategy=row["multitask_strategy"],
        cancel_reason=row["stop_reason"],
        error=row["error"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )

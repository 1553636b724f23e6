"""The statement by which a worker takes runs: each once, one per thread, in order, within everybody's limits."""

from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection

type Row = dict[str, Any]

_LIMITS_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('moorage.run_limits', 2))"

# A run may start when its time has come, its thread runs nothing, it is the first in line there, and, unless it is the
# answer to one, no approval is pending, nor overdue and not yet closed: the model must learn what became of it. The
# unique index on running runs is what makes two claims at once safe.
_READY: LiteralString = """
r.status = 'queued' AND (r.not_before IS NULL OR r.not_before <= now())
    AND NOT EXISTS (SELECT FROM runs b WHERE b.thread_id = r.thread_id AND b.status = 'running')
    AND NOT EXISTS (
        SELECT FROM runs f WHERE f.thread_id = r.thread_id AND f.status = 'queued'
        AND (f.not_before IS NULL OR f.not_before <= now())
        AND (f.priority, -f.queue_no) > (r.priority, -r.queue_no))
    AND (r.kind IN ('resume', 'update') OR r.generation > 0 OR NOT EXISTS (
        SELECT FROM interrupts i WHERE i.thread_id = r.thread_id AND i.status = 'pending'))
"""

_PICK: LiteralString = f"""
    SELECT r.run_id FROM runs r WHERE {_READY}
    ORDER BY r.priority DESC, r.queue_no LIMIT %(limit)s FOR UPDATE SKIP LOCKED
"""  # noqa: S608 -- constant parts

# Users take turns: everybody's first before anybody's second.
_PICK_WITHIN_LIMITS: LiteralString = f"""
    SELECT r.run_id FROM runs r
    JOIN (
        SELECT r.run_id, row_number() OVER (PARTITION BY r.owner_id ORDER BY r.priority DESC, r.queue_no)
            + (SELECT count(*) FROM runs a WHERE a.owner_id = r.owner_id AND a.status = 'running') AS place
        FROM runs r WHERE {_READY}
    ) ready USING (run_id)
    WHERE (%(per_user)s = 0 OR ready.place <= %(per_user)s)
    ORDER BY r.priority DESC, ready.place, r.queue_no
    LIMIT CASE WHEN %(in_all)s = 0 THEN %(limit)s ELSE least(%(limit)s,
        greatest(0, %(in_all)s - (SELECT count(*) FROM runs a WHERE a.status = 'running'))) END
    FOR UPDATE OF r SKIP LOCKED
"""  # noqa: S608 -- constant parts

# MATERIALIZED, or the planner may run the subquery more than once and take more than the limit.
_TAKE_PICKED: LiteralString = """
UPDATE runs SET status = 'running', generation = generation + 1, attempt = attempt + 1, worker = %(worker)s,
    started_at = COALESCE(started_at, now()), updated_at = now(), lease_expires_at = now() + %(lease)s,
    base_checkpoint_id = CASE WHEN generation > 0 THEN base_checkpoint_id ELSE (
        SELECT max(c.checkpoint_id) FROM checkpoints c WHERE c.thread_id = runs.thread_id AND c.checkpoint_ns = '') END
FROM threads t
WHERE run_id IN (SELECT run_id FROM picked) AND runs.status = 'queued' AND t.thread_id = runs.thread_id
RETURNING run_id, runs.thread_id, runs.owner_id, generation, kind, runs.assistant_id, input, queue_no, attempt,
    t.graph_open, base_checkpoint_id, stop_reason, nextval('run_claims') AS fencing_token
"""

_TAKE: LiteralString = f"WITH picked AS MATERIALIZED ({_PICK}) {_TAKE_PICKED}"
_TAKE_WITHIN_LIMITS: LiteralString = f"WITH picked AS MATERIALIZED ({_PICK_WITHIN_LIMITS}) {_TAKE_PICKED}"


class ClaimStatement:
    """Takes runs, with or without limits over all workers; a limit of 0 is none."""

    def __init__(self, *, per_user: int, in_all: int) -> None:
        self._values = {"per_user": per_user, "in_all": in_all}
        self._limited = bool(per_user or in_all)
        self._statement: LiteralString = _TAKE_WITHIN_LIMITS if self._limited else _TAKE

    async def execute(
        self, connection: AsyncConnection[Row], worker: str, *, limit: int, lease: timedelta
    ) -> list[Row]:
        if self._limited:  # counting and taking must be one: claims wait for one another
            await connection.execute(_LIMITS_LOCK)
        values = {**self._values, "worker": worker, "limit": limit, "lease": lease}
        return await (await connection.execute(self._statement, values)).fetchall()

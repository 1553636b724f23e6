"""The run queue in Postgres: accepted messages become runs, a worker claims each once, and every run ends once."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection, errors
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.approvals import (
    cancel_interrupts,
    decision_event,
    insert_interrupts,
    pending_of,
)
from moorage.adapters.postgres.enqueue import enqueue_run
from moorage.adapters.postgres.event_log import PostgresEventLog, claim_for, insert_events, place
from moorage.adapters.postgres.pool import Database
from moorage.approvals import RaisedInterrupt, seen_by_human
from moorage.claims import Claim, ClaimLost, StopReason
from moorage.errors import Conflict
from moorage.events import EventType, Message, Role, RunEvent, StoredEvent, encode, run_event, scrub_text
from moorage.ids import RunId, ThreadId, UserId, new_message_id, new_run_id
from moorage.runs.run import (
    ApprovalPending,
    ClaimedRun,
    IdempotencyMismatch,
    Outcome,
    QueueFull,
    RunKind,
    RunStatus,
    Started,
)
from moorage.threads import SessionClosed, SessionExpired, ThreadNotFound

type Row = dict[str, Any]

# After these the graph stands in the middle of a step: answering what else that step asked would run its calls again.
_BROKEN_OFF = (RunStatus.ERROR, RunStatus.TIMEOUT, RunStatus.CANCELLED)

_TITLE_CHARACTERS = 60
_KEY_REUSED = "This Idempotency-Key was used for another request"

# A statement that waits for a row lock still sees other tables as they were before the wait. So the thread is locked
# first, and what is true under the lock is asked in a statement of its own.
_LOCK_THREAD = "SELECT FROM threads WHERE thread_id = %s FOR UPDATE"

_THREAD_STATE = """
SELECT t.status, t.assistant_id, t.last_seq,
    (%(life)s > 0 AND t.last_active < now() - make_interval(secs => %(life)s)) AS expired,
    (SELECT count(*) FROM runs r WHERE r.thread_id = t.thread_id AND r.status = 'queued') AS queued,
    EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status IN ('queued', 'running')) AS busy,
    EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending' AND i.expires_at > now())
        AS waiting
FROM threads t WHERE t.thread_id = %(thread_id)s AND t.owner_id = %(owner)s
"""

_SAME_KEY = "SELECT run_id, thread_id, request_digest, input FROM runs WHERE owner_id = %s AND idempotency_key = %s"

_TOUCH_THREAD = """
UPDATE threads SET last_seq = last_seq + 1, message_count = message_count + 1, turn_count = turn_count + 1,
    run_status = 'busy', last_active = now(), title = CASE WHEN title = '' THEN %s ELSE title END
WHERE thread_id = %s
"""

# A run may start when its thread runs nothing, it is the first in line there, and, unless it is the answer to one, no
# approval is pending. The unique index on running runs is what makes two claims at once safe.
# MATERIALIZED, or the planner may run the subquery more than once and take more than the limit.
_CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT r.run_id FROM runs r
    WHERE r.status = 'queued'
    AND NOT EXISTS (SELECT FROM runs b WHERE b.thread_id = r.thread_id AND b.status = 'running')
    AND NOT EXISTS (
        SELECT FROM runs f WHERE f.thread_id = r.thread_id AND f.status = 'queued'
        AND (f.priority, -f.queue_no) > (r.priority, -r.queue_no))
    AND (r.kind = 'resume' OR NOT EXISTS (
        SELECT FROM interrupts i WHERE i.thread_id = r.thread_id AND i.status = 'pending' AND i.expires_at > now()))
    ORDER BY r.priority DESC, r.queue_no LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE runs SET status = 'running', generation = generation + 1, attempt = attempt + 1, worker = %s,
    started_at = COALESCE(started_at, now()), lease_expires_at = now() + %s
WHERE run_id IN (SELECT run_id FROM picked) AND status = 'queued'
RETURNING run_id, thread_id, owner_id, generation, kind, assistant_id, input, queue_no
"""

_HEARTBEAT = """
UPDATE runs r SET lease_expires_at = now() + %s
FROM unnest(%s::uuid[], %s::bigint[]) AS held(run_id, generation)
WHERE r.run_id = held.run_id AND r.generation = held.generation AND r.status = 'running'
RETURNING r.run_id, r.stop_reason
"""

_HELD = """
SELECT t.last_seq FROM threads t JOIN runs r USING (thread_id)
WHERE r.run_id = %s AND r.generation = %s AND r.status = 'running'
"""

_FINISH_RUN = """
UPDATE runs SET status = %s, error = %s, usage = %s, finished_at = now(), lease_expires_at = NULL WHERE run_id = %s
"""

_SETTLE_THREAD = """
UPDATE threads t SET last_seq = %s, last_active = now(), run_status = CASE
    WHEN EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending'
        AND i.expires_at > now()) THEN 'interrupted'
    WHEN EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status = 'queued') THEN 'busy'
    ELSE %s END
WHERE thread_id = %s
"""

# Waits for a claim of one of them that is about to commit: a stop must not fall between.
_LOCK_RUNS = "SELECT FROM runs WHERE thread_id = %s AND status IN ('queued', 'running') FOR UPDATE"

_REQUEST_STOP = """
UPDATE runs SET stop_reason = %s WHERE thread_id = %s AND status = 'running' RETURNING run_id
"""

_TAKE_BACK_QUEUED = """
UPDATE runs SET status = 'running', generation = generation + 1, worker = 'server'
WHERE run_id = (SELECT run_id FROM runs WHERE thread_id = %s AND status = 'queued'
    ORDER BY priority DESC, queue_no LIMIT 1)
RETURNING run_id, thread_id, owner_id, generation
"""

_QUEUED = """
SELECT run_id, thread_id, owner_id, generation FROM runs
WHERE thread_id = %s AND status = 'queued' AND (%s::text IS NULL OR kind = %s) ORDER BY queue_no
"""

_LOST = """
SELECT run_id, thread_id, owner_id, generation FROM runs WHERE status = 'running' AND lease_expires_at < now() LIMIT 100
"""


class PostgresRunQueue:
    """`moorage.runs.ports.RunQueue` on Postgres."""

    def __init__(
        self, database: Database, log: PostgresEventLog, *, session_life: timedelta, queue_limit: int, ttl: timedelta
    ) -> None:
        """`queue_limit` messages may wait per thread, an approval for `ttl`; a session life of 0 is for ever."""
        self._database = database
        self._log = log
        self._life = session_life.total_seconds()
        self._queue_limit = queue_limit
        self._ttl = ttl
        self._work = asyncio.Event()

    def wake(self) -> None:
        """Say that there may be something to claim."""
        self._work.set()

    async def wait_for_work(self, *, at_most: float) -> None:
        """Return when there may be something to claim, after `at_most` seconds in any case."""
        try:
            async with asyncio.timeout(at_most):
                await self._work.wait()
        except TimeoutError:
            return
        self._work.clear()

    async def submit(
        self,
        owner: UserId,
        thread_id: ThreadId,
        *,
        content: str,
        reject_when_busy: bool,
        idempotency_key: str | None,
    ) -> Started:
        content = scrub_text(content)
        key = (idempotency_key, hashlib.sha256(f"{thread_id}\n{content}".encode()).hexdigest())
        try:
            started, stored = await self._accept(owner, thread_id, content, key, reject_when_busy=reject_when_busy)
        except errors.UniqueViolation as error:  # the same key came to another thread in this very moment
            if error.diag.constraint_name != "runs_idempotency":
                raise
            raise IdempotencyMismatch(_KEY_REUSED) from None
        self._log.publish(stored)
        self.wake()
        return started

    async def _accept(
        self,
        owner: UserId,
        thread_id: ThreadId,
        content: str,
        key: tuple[str | None, str],
        *,
        reject_when_busy: bool,
    ) -> tuple[Started, list[StoredEvent]]:
        """`key` is the idempotency key and the digest of what was sent with it."""
        async with self._database.tenant_pipeline(owner) as connection:
            row = await self._lock_thread(connection, owner, thread_id)
            if key[0] and (earlier := await _same_key(connection, owner, key[0], key[1])):
                return earlier, []
            _refuse(row, reject_when_busy=reject_when_busy, queue_limit=self._queue_limit)
            claim = claim_for(thread_id, owner, new_run_id())
            event = _received(claim, content)
            placed = place(claim, [event], before=row["last_seq"])
            run_input = {"message_id": _id_of(event), "content": content, "first_seq": placed[0].seq}
            await connection.execute(_TOUCH_THREAD, [_title(content), thread_id])
            await enqueue_run(
                connection,
                claim,
                assistant_id=row["assistant_id"],
                kind=RunKind.MESSAGE,
                run_input=run_input,
                key=key[0],
                digest=key[1],
            )
            await insert_events(connection, placed)
        return Started(claim.run_id, placed[0].seq), [item.stored() for item in placed]

    async def _lock_thread(self, connection: AsyncConnection[Row], owner: UserId, thread_id: ThreadId) -> Row:
        values = {"life": self._life, "thread_id": thread_id, "owner": owner}
        await connection.execute(_LOCK_THREAD, [thread_id])
        row = await (await connection.execute(_THREAD_STATE, values)).fetchone()
        if row is None:
            raise ThreadNotFound
        return row

    async def claim(self, worker: str, *, limit: int, lease: timedelta) -> list[ClaimedRun]:
        try:
            async with self._database.system_pipeline() as connection:
                rows = await (await connection.execute(_CLAIM, [limit, worker, lease])).fetchall()
        except errors.UniqueViolation:  # another worker took a run of the same thread in this very moment
            self.wake()
            return []
        return [_claimed(row) for row in sorted(rows, key=lambda row: row["queue_no"])]

    async def heartbeat(self, claims: Sequence[Claim], *, lease: timedelta) -> Mapping[RunId, StopReason]:
        held = [[claim.run_id for claim in claims], [claim.generation for claim in claims]]
        async with self._database.system_pipeline() as connection:
            rows = await (await connection.execute(_HEARTBEAT, [lease, *held])).fetchall()
        alive = {str(row["run_id"]): row["stop_reason"] for row in rows}
        stops = {claim.run_id: alive.get(claim.run_id, StopReason.DELETED) for claim in claims}
        return {run_id: StopReason(reason) for run_id, reason in stops.items() if reason}

    async def finish(self, claim: Claim, outcome: Outcome) -> None:
        async with self._database.system_pipeline() as connection:
            stored = await self._finish(connection, claim, outcome)
        self._log.publish(stored)
        self.wake()

    async def _finish(self, connection: AsyncConnection[Row], claim: Claim, outcome: Outcome) -> list[StoredEvent]:
        await connection.execute(_LOCK_THREAD, [claim.thread_id])
        row = await (await connection.execute(_HELD, [claim.run_id, claim.generation])).fetchone()
        if row is None:
            raise ClaimLost("This run is not this worker's any more")
        events: list[RunEvent] = []
        ended: list[StoredEvent] = []
        if outcome.status in _BROKEN_OFF:
            ended = await self._cancel_queued(connection, claim.thread_id, RunKind.RESUME)
            cancelled = await cancel_interrupts(connection, claim.thread_id, by=None, via="run_ended")
            events = [decision_event(interrupt) for interrupt in cancelled]
        before: int = row["last_seq"] + len(ended)
        events += await self._raise_interrupts(connection, claim, outcome.interrupts, seq=before + 1)
        placed = place(claim, [*events, *_last_events(claim, outcome)], before=before)
        await insert_events(connection, placed)
        error = Jsonb(outcome.error, dumps=encode) if outcome.error else None
        usage = Jsonb(dict(outcome.usage), dumps=encode)
        await connection.execute(_FINISH_RUN, [outcome.status.value, error, usage, claim.run_id])
        after = "error" if outcome.status in (RunStatus.ERROR, RunStatus.TIMEOUT) else "idle"
        await connection.execute(_SETTLE_THREAD, [placed[-1].seq, after, claim.thread_id])
        return [*ended, *(item.stored() for item in placed)]

    async def _raise_interrupts(
        self, connection: AsyncConnection[Row], claim: Claim, raised: Sequence[RaisedInterrupt], *, seq: int
    ) -> list[RunEvent]:
        """Store what waits for a human; the event lists all that is pending now, what waited before this run too."""
        if not raised:
            return []
        await insert_interrupts(connection, claim, raised, ttl=self._ttl, seq=seq)
        shown = [seen_by_human(item) for item in await pending_of(connection, claim.thread_id)]
        return [run_event(EventType.INTERRUPT, {"interrupts": shown})] if shown else []

    async def request_stop(self, thread_id: ThreadId, reason: StopReason) -> list[RunId]:
        stored: list[StoredEvent] = []
        async with self._database.system_pipeline() as connection:
            await connection.execute(_LOCK_THREAD, [thread_id])
            await connection.execute(_LOCK_RUNS, [thread_id])
            running = await (await connection.execute(_REQUEST_STOP, [reason.value, thread_id])).fetchall()
            while not running and (row := await (await connection.execute(_TAKE_BACK_QUEUED, [thread_id])).fetchone()):
                stored += await self._finish(connection, _claim_of(row), Outcome(RunStatus.CANCELLED))
            if running:
                stored += await self._cancel_queued(connection, thread_id)
        self._log.publish(stored)
        return [RunId(str(row["run_id"])) for row in running]

    async def _cancel_queued(
        self, connection: AsyncConnection[Row], thread_id: ThreadId, kind: RunKind | None = None
    ) -> list[StoredEvent]:
        """End a thread's queued runs (of one kind) before any worker has them: their last events, in order."""
        rows = await (await connection.execute(_QUEUED, [thread_id, kind, kind])).fetchall()
        if not rows:
            return []
        update = "UPDATE threads SET last_seq = last_seq + %s WHERE thread_id = %s RETURNING last_seq"
        counted = await (await connection.execute(update, [len(rows), thread_id])).fetchone()
        before = (counted["last_seq"] if counted else 0) - len(rows)
        outcome = Outcome(RunStatus.CANCELLED)
        placed = [
            item
            for offset, row in enumerate(rows)
            for item in place(_claim_of(row), _last_events(_claim_of(row), outcome), before=before + offset)
        ]
        await insert_events(connection, placed)
        ended = "UPDATE runs SET status = 'cancelled', finished_at = now() WHERE run_id = ANY(%s)"
        await connection.execute(ended, [[row["run_id"] for row in rows]])
        return [item.stored() for item in placed]

    async def fail_lost(self) -> int:
        error = {"code": "worker_lost", "detail": "The server stopped while this run was going on"}
        async with self._database.system_pipeline() as connection:
            lost = await (await connection.execute(_LOST)).fetchall()
        for row in lost:
            try:
                await self.finish(_claim_of(row), Outcome(RunStatus.ERROR, error=error))
            except ClaimLost:
                continue  # it ended, or another server was quicker
        return len(lost)


def _refuse(row: Row, *, reject_when_busy: bool, queue_limit: int) -> None:
    """Raise if a thread in this state takes no message."""
    if row["status"] == "closed":
        raise SessionClosed("This session is closed")
    if row["expired"]:
        raise SessionExpired("This session has expired: open a new one")
    if row["waiting"]:
        raise ApprovalPending("This session waits for an approval: decide it first")
    if row["busy"] and reject_when_busy:
        raise Conflict("This session is busy", code="thread_busy")
    if row["queued"] >= queue_limit > 0:
        raise QueueFull(f"{queue_limit} messages wait in this session already", retry_after=5)


async def _same_key(connection: AsyncConnection[Row], owner: UserId, key: str, digest: str) -> Started | None:
    row = await (await connection.execute(_SAME_KEY, [owner, key])).fetchone()
    if row is None:
        return None
    if row["request_digest"] != digest:
        raise IdempotencyMismatch(_KEY_REUSED)
    return Started(RunId(str(row["run_id"])), row["input"]["first_seq"])


def _received(claim: Claim, content: str) -> RunEvent:
    message = Message(new_message_id(), Role.USER, content)
    data = {"message_id": message.id, "run_id": claim.run_id, "thread_id": claim.thread_id, "content": content}
    return run_event(EventType.MESSAGE_RECEIVED, data, message=message)


def _id_of(event: RunEvent) -> str:
    return event.message.id if event.message else ""


def _title(content: str) -> str:
    line = next((line.strip() for line in content.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"


def _last_events(claim: Claim, outcome: Outcome) -> list[RunEvent]:
    end = {"run_id": claim.run_id, "status": outcome.status.value, "usage": dict(outcome.usage)}
    failed = [run_event(EventType.ERROR, {**outcome.error, "run_id": claim.run_id})] if outcome.error else []
    return [*failed, run_event(EventType.RUN_END, end)]


def _claim_of(row: Row) -> Claim:
    return Claim(RunId(str(row["run_id"])), ThreadId(row["thread_id"]), UserId(row["owner_id"]), row["generation"])


def _claimed(row: Row) -> ClaimedRun:
    return ClaimedRun(_claim_of(row), RunKind(row["kind"]), row["assistant_id"], row["input"])

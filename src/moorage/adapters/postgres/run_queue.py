"""The run queue in Postgres: accepted messages become runs, a worker holds each by a lease, and every run ends once."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection, errors

from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.notices import notify
from moorage.adapters.postgres.patience import patiently
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_claims import ClaimStatement
from moorage.adapters.postgres.run_endings import LOCK_THREAD, claim_of, end_queued, end_run
from moorage.adapters.postgres.submissions import KEY_REUSED, LOCK_RUNS, Submission
from moorage.claims import Claim, ClaimLost, StopReason
from moorage.events import StoredEvent, encode, scrub_text
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.run import (
    BusyPolicy,
    ClaimedRun,
    IdempotencyMismatch,
    Outcome,
    RunKind,
    RunNotFound,
    RunRequest,
    RunStatus,
    Started,
)

type Row = dict[str, Any]

_FIRST_IN_LINE = 2  # before answers (1) and messages (0): what was running goes on first

_HEARTBEAT = """
UPDATE runs r SET lease_expires_at = now() + %s
FROM unnest(%s::uuid[], %s::bigint[]) AS held(run_id, generation)
WHERE r.run_id = held.run_id AND r.generation = held.generation AND r.status = 'running'
RETURNING r.run_id, r.stop_reason
"""

_REQUEST_STOP = """
UPDATE runs SET stop_reason = %s WHERE thread_id = %s AND status = 'running' RETURNING run_id
"""

_TAKE_BACK_QUEUED = """
UPDATE runs SET status = 'running', generation = generation + 1, worker = 'server'
WHERE run_id = (SELECT run_id FROM runs WHERE thread_id = %s AND status = 'queued'
    ORDER BY priority DESC, queue_no LIMIT 1)
RETURNING run_id, thread_id, owner_id, generation
"""

_STANDING = """
SELECT status, generation,
    EXISTS (SELECT FROM runs o WHERE o.thread_id = r.thread_id AND o.status = 'running') AS others
FROM runs r WHERE run_id = %s AND thread_id = %s FOR UPDATE
"""

_STOP_ONE = "UPDATE runs SET stop_reason = COALESCE(stop_reason, %s) WHERE run_id = %s"

_TAKE_BACK_ONE = """
UPDATE runs SET status = 'running', generation = generation + 1, worker = 'server' WHERE run_id = %s
RETURNING run_id, thread_id, owner_id, generation
"""

_HAND_BACK = """
UPDATE runs SET status = 'queued', priority = %s, worker = NULL, lease_expires_at = NULL, attempt = attempt - %s
WHERE run_id = %s AND generation = %s AND status = 'running'
"""

_LOST = """
SELECT run_id, thread_id, owner_id, generation FROM runs WHERE status = 'running' AND lease_expires_at < now() LIMIT 100
"""

# Locked: its worker may be renewing the lease in this very moment, and start a tool on the strength of it.
_STILL_LOST = """
SELECT attempt, stop_reason FROM runs
WHERE run_id = %s AND generation = %s AND status = 'running' AND lease_expires_at < now() FOR UPDATE
"""

_STOPPING = "SELECT stop_reason FROM runs WHERE run_id = %s AND generation = %s AND status = 'running'"

_ENDED_BY_US = """
SELECT FROM runs WHERE run_id = %s AND generation = %s AND status NOT IN ('queued', 'running')
"""

_ALIVE = "SELECT count(*) AS alive FROM runs WHERE run_id = ANY(%s::uuid[]) AND status IN ('queued', 'running')"


class PostgresRunQueue:
    """`moorage.runs.ports.RunQueue` on Postgres."""

    def __init__(
        self,
        database: Database,
        log: PostgresEventLog,
        *,
        session_life: timedelta,
        queue_limit: int,
        ttl: timedelta,
        per_user: int = 0,
        in_all: int = 0,
    ) -> None:
        """`queue_limit` messages may wait per thread, an approval for `ttl`; a session life of 0 is for ever.

        At most `per_user` runs of one user and `in_all` of everybody run at a time, over all workers; 0 is no limit.
        """
        self._database = database
        self._log = log
        self._life = session_life.total_seconds()
        self._queue_limit = queue_limit
        self._ttl = ttl
        self._claiming = ClaimStatement(per_user=per_user, in_all=in_all)
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
        content: str | None,
        policy: BusyPolicy,
        idempotency_key: str | None,
        request: RunRequest | None = None,
    ) -> Started:
        content = None if content is None else scrub_text(content)
        digest = _digest(thread_id, policy, content, request) if idempotency_key else ""
        message = Submission(owner, thread_id, content, policy, key=idempotency_key, digest=digest, request=request)
        try:
            async with self._database.tenant_pipeline(owner) as connection:
                started, placed = await message.accept(
                    connection, session_life=self._life, queue_limit=self._queue_limit
                )
        except errors.UniqueViolation as error:  # the same key came to another thread in this very moment
            if error.diag.constraint_name != "runs_idempotency":
                raise
            raise IdempotencyMismatch(KEY_REUSED) from None
        self._log.publish([item.stored() for item in placed])
        self.wake()
        return started

    async def claim(self, worker: str, *, limit: int, lease: timedelta) -> list[ClaimedRun]:
        try:
            async with self._database.system_pipeline() as connection:
                rows = await self._claiming.execute(connection, worker, limit=limit, lease=lease)
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
        tries = 0

        async def end() -> list[StoredEvent]:
            nonlocal tries
            tries += 1
            async with self._database.system_pipeline() as connection:
                await connection.execute(LOCK_THREAD, [claim.thread_id])
                if tries > 1 and await self._ended(connection, claim):
                    return []  # the commit whose answer was lost had arrived; readers find its events in the table
                return await end_run(connection, claim, outcome, approval_ttl=self._ttl)

        self._log.publish(await patiently(end))
        self.wake()

    async def release(self, claim: Claim) -> None:
        async def hand_back() -> list[StoredEvent]:
            async with self._database.system_pipeline() as connection:
                await connection.execute(LOCK_THREAD, [claim.thread_id])
                row = await (await connection.execute(_STOPPING, [claim.run_id, claim.generation])).fetchone()
                if row is None:
                    raise ClaimLost("This run is not this worker's any more")
                if row["stop_reason"]:
                    return await end_run(connection, claim, Outcome(RunStatus.CANCELLED), approval_ttl=self._ttl)
                await connection.execute(_HAND_BACK, [_FIRST_IN_LINE, 1, claim.run_id, claim.generation])
                await notify(connection, "work", "")
                return []

        self._log.publish(await hand_back())

    async def request_stop(self, thread_id: ThreadId, reason: StopReason) -> list[RunId]:
        stored: list[StoredEvent] = []
        cancelled = Outcome(RunStatus.CANCELLED)
        async with self._database.system_pipeline() as connection:
            await connection.execute(LOCK_THREAD, [thread_id])
            await connection.execute(LOCK_RUNS, [thread_id])
            running = await (await connection.execute(_REQUEST_STOP, [reason.value, thread_id])).fetchall()
            while not running and (row := await (await connection.execute(_TAKE_BACK_QUEUED, [thread_id])).fetchone()):
                stored += await end_run(connection, claim_of(row), cancelled, approval_ttl=self._ttl)
            if running:
                stored += await end_queued(connection, thread_id)
            for row in running:
                await notify(connection, "stop", f"{row['run_id']} {reason}")
        self._log.publish(stored)
        return [RunId(str(row["run_id"])) for row in running]

    async def stop_run(self, thread_id: ThreadId, run_id: RunId, reason: StopReason) -> bool:
        stored: list[StoredEvent] = []
        async with self._database.system_pipeline() as connection:
            await connection.execute(LOCK_THREAD, [thread_id])
            await connection.execute(LOCK_RUNS, [thread_id])
            row = await (await connection.execute(_STANDING, [run_id, thread_id])).fetchone()
            if row is None:
                raise RunNotFound
            is_running, is_queued = row["status"] == RunStatus.RUNNING, row["status"] == RunStatus.QUEUED
            undo = reason is StopReason.ROLLBACK
            if is_running or (is_queued and (undo or row["generation"] > 0)):  # what it did may have to be undone
                await connection.execute(_STOP_ONE, [reason.value, run_id])
            if is_running:
                await notify(connection, "stop", f"{run_id} {reason}")
            elif is_queued and row["others"]:
                stored = await end_queued(connection, thread_id, only=run_id, rolled_back=undo)
            elif is_queued:
                taken = await (await connection.execute(_TAKE_BACK_ONE, [run_id])).fetchone()
                cancelled = Outcome(RunStatus.CANCELLED)
                stored = await end_run(connection, claim_of(taken or {}), cancelled, approval_ttl=self._ttl)
        self._log.publish(stored)
        return is_running

    async def have_ended(self, run_ids: Sequence[RunId]) -> bool:
        async with self._database.system_pipeline() as connection:
            row = await (await connection.execute(_ALIVE, [list(run_ids)])).fetchone()
        return row is None or row["alive"] == 0

    async def recover_lost(self, *, max_attempts: int) -> int:
        async with self._database.system_pipeline() as connection:
            lost = await (await connection.execute(_LOST)).fetchall()
        for row in lost:
            self._log.publish(await self._recover(claim_of(row), max_attempts=max_attempts))
        if lost:
            self.wake()
        return len(lost)

    async def _recover(self, claim: Claim, *, max_attempts: int) -> list[StoredEvent]:
        async with self._database.system_pipeline() as connection:
            await connection.execute(LOCK_THREAD, [claim.thread_id])
            row = await (await connection.execute(_STILL_LOST, [claim.run_id, claim.generation])).fetchone()
            if row is None:
                return []  # it ended, or another server was quicker
            if row["stop_reason"]:
                return await end_run(connection, claim, Outcome(RunStatus.CANCELLED), approval_ttl=self._ttl)
            if row["attempt"] >= max_attempts:
                return await end_run(connection, claim, _crashed(row["attempt"]), approval_ttl=self._ttl)
            await connection.execute(_HAND_BACK, [_FIRST_IN_LINE, 0, claim.run_id, claim.generation])
            await notify(connection, "work", "")
        return []

    async def _ended(self, connection: AsyncConnection[Row], claim: Claim) -> bool:
        found = await connection.execute(_ENDED_BY_US, [claim.run_id, claim.generation])
        return await found.fetchone() is not None


def _digest(thread_id: ThreadId, policy: BusyPolicy, content: str | None, request: RunRequest | None) -> str:
    asked = f"{thread_id}\n{policy}\n{content}".encode()
    if request is not None:
        asked += encode(dict(request.kwargs))
    return hashlib.sha256(asked).hexdigest()


def _crashed(attempts: int) -> Outcome:
    detail = f"The server died {attempts} times while this run was going on; it is not tried again"
    return Outcome(RunStatus.ERROR, error={"code": "crashed_repeatedly", "detail": detail})


def _claimed(row: Row) -> ClaimedRun:
    fresh = row["kind"] == RunKind.MESSAGE and row["generation"] == 1 and not row["graph_open"]
    return ClaimedRun(
        claim_of(row),
        RunKind(row["kind"]),
        row["assistant_id"],
        row["input"],
        attempt=row["attempt"],
        fresh=fresh,
        blank=fresh and row["base_checkpoint_id"] is None,
        base_checkpoint_id=row["base_checkpoint_id"],
        stop_reason=StopReason(row["stop_reason"]) if row["stop_reason"] else None,
    )

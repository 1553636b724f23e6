"""How runs end in Postgres: outcome, interrupts, last events and the thread's state in the caller's transaction.

The thread's row is locked first, everywhere: whoever holds it is the only one who ends, stops or hands over its runs.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.event_log import insert_events, place
from moorage.adapters.postgres.interrupts import insert_interrupts, pending_of
from moorage.adapters.postgres.pruning import delete_checkpoints_after
from moorage.adapters.postgres.webhook_deliveries import enqueue_deliveries
from moorage.approvals import RaisedInterrupt, seen_by_human
from moorage.claims import Claim, ClaimLost, StopReason
from moorage.events import EventType, RunEvent, StoredEvent, encode, run_event
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.run import Outcome, RunKind, RunStatus

type Row = dict[str, Any]

# A statement that waits for a row lock still sees other tables as they were before the wait. So the thread is locked
# first, and what is true under the lock is asked in a statement of its own. NO KEY: rows that only refer to the thread,
# such as that of a tool that starts, are inserted by whoever holds a run's row, and must not wait for the thread's.
LOCK_THREAD = "SELECT FROM threads WHERE thread_id = %s FOR NO KEY UPDATE"

# Locked: a worker that lost the run must not save between what is read here and its end.
_HELD = """
SELECT t.last_seq, r.kind, r.ephemeral, r.stop_reason, r.base_checkpoint_id, r.started_at IS NOT NULL AS started
FROM threads t JOIN runs r USING (thread_id)
WHERE r.run_id = %s AND r.generation = %s AND r.status = 'running' FOR UPDATE OF r
"""

_FINISH_RUN = """
UPDATE runs SET status = %s, error = %s, usage = %s, finished_at = now(), updated_at = now(), lease_expires_at = NULL
WHERE run_id = %s
"""

_SETTLE_THREAD = """
UPDATE threads t SET last_seq = %(seq)s, last_active = now(), updated_at = now(), state_updated_at = now(),
    graph_open = CASE WHEN %(started)s THEN %(open)s ELSE graph_open END,
    state_values = state_values || %(values)s, error = %(error)s,
    expires_at = CASE WHEN %(life)s::interval IS NULL THEN expires_at ELSE now() + %(life)s END,
    run_status = CASE
        WHEN EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending'
            AND i.expires_at > now()) THEN 'interrupted'
        WHEN EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status = 'queued') THEN 'busy'
        ELSE %(after)s END
WHERE thread_id = %(thread_id)s
"""

_FORGET_MESSAGES = """
WITH gone AS (DELETE FROM messages WHERE thread_id = %(thread_id)s AND run_id = %(run_id)s RETURNING role)
UPDATE threads SET message_count = message_count - (SELECT count(*) FROM gone),
    turn_count = turn_count - (SELECT count(*) FROM gone WHERE role = 'user')
WHERE thread_id = %(thread_id)s
"""

_QUEUED = """
SELECT run_id, thread_id, owner_id, generation FROM runs
WHERE thread_id = %s AND status = 'queued' AND (%s::uuid IS NULL OR run_id = %s) ORDER BY priority DESC, queue_no
"""


_LAST_LOOK = timedelta(minutes=1)

# A run that stopped before a node where its client wanted it to has nothing to ask, and its thread is interrupted.
_STANDING_AFTER = {RunStatus.ERROR: "error", RunStatus.TIMEOUT: "error", RunStatus.INTERRUPTED: "interrupted"}


async def end_run(
    connection: AsyncConnection[Row], claim: Claim, outcome: Outcome, *, approval_ttl: timedelta
) -> list[StoredEvent]:
    """End the run that `claim` holds; answers its last events. The caller holds the thread's lock. Raises ClaimLost."""
    row = await (await connection.execute(_HELD, [claim.run_id, claim.generation])).fetchone()
    if row is None:
        raise ClaimLost("This run is not this worker's any more")
    rolled_back = row["stop_reason"] == StopReason.ROLLBACK
    if rolled_back:
        outcome = Outcome(RunStatus.CANCELLED, usage=outcome.usage)
        if row["started"]:
            await delete_checkpoints_after(connection, claim.thread_id, row["base_checkpoint_id"])
        await _forget(connection, claim)
    elif row["stop_reason"] and outcome.interrupts:  # nobody is to be asked any more: who stopped it goes on
        outcome = Outcome(RunStatus.CANCELLED, usage=outcome.usage)
    before: int = row["last_seq"]
    events = await _raise(connection, claim, outcome.interrupts, ttl=approval_ttl, seq=before + 1)
    placed = place(claim, [*events, *last_events(claim, outcome, rolled_back=rolled_back)], before=before)
    await insert_events(connection, placed)
    error = Jsonb(outcome.error, dumps=encode) if outcome.error else None
    usage = Jsonb(dict(outcome.usage), dumps=encode)
    await connection.execute(_FINISH_RUN, [outcome.status.value, error, usage, claim.run_id])
    await enqueue_deliveries(connection, [claim.run_id])
    settled = {
        "seq": placed[-1].seq,
        "started": row["started"],
        "open": outcome.status is not RunStatus.SUCCESS or row["kind"] == RunKind.UPDATE,
        "after": "idle" if row["kind"] == RunKind.UPDATE else _STANDING_AFTER.get(outcome.status, "idle"),
        "values": Jsonb(dict(outcome.values), dumps=encode),
        "error": error,
        "life": _life_after(outcome.status, approval_ttl) if row["ephemeral"] else None,
        "thread_id": claim.thread_id,
    }
    await connection.execute(_SETTLE_THREAD, settled)
    return [item.stored() for item in placed]


def _life_after(status: RunStatus, approval_ttl: timedelta) -> timedelta:
    """How long the thread of a run that takes it along stays: as long as somebody may ask how it ended, or answer."""
    return _LAST_LOOK + approval_ttl if status is RunStatus.INTERRUPTED else _LAST_LOOK


async def end_queued(
    connection: AsyncConnection[Row], thread_id: ThreadId, *, only: RunId | None = None, rolled_back: bool = False
) -> list[StoredEvent]:
    """End a busy thread's queued runs, or one, before any worker has them: their last events, in order."""
    rows = await (await connection.execute(_QUEUED, [thread_id, only, only])).fetchall()
    if not rows:
        return []
    update = "UPDATE threads SET last_seq = last_seq + %s WHERE thread_id = %s RETURNING last_seq"
    counted = await (await connection.execute(update, [len(rows), thread_id])).fetchone()
    before = (counted["last_seq"] if counted else 0) - len(rows)
    placed = [
        item
        for offset, row in enumerate(rows)
        for item in place(
            claim_of(row),
            last_events(claim_of(row), Outcome(RunStatus.CANCELLED), rolled_back=rolled_back),
            before=before + offset,
        )
    ]
    for row in rows if rolled_back else ():
        await _forget(connection, claim_of(row))
    await insert_events(connection, placed)
    ended = "UPDATE runs SET status = 'cancelled', finished_at = now(), updated_at = now() WHERE run_id = ANY(%s)"
    await connection.execute(ended, [[row["run_id"] for row in rows]])
    await enqueue_deliveries(connection, [row["run_id"] for row in rows])
    return [item.stored() for item in placed]


async def _forget(connection: AsyncConnection[Row], claim: Claim) -> None:
    """Take back what the run left in the thread's history. Its events stay: they happened."""
    await connection.execute(_FORGET_MESSAGES, {"thread_id": claim.thread_id, "run_id": claim.run_id})


async def _raise(
    connection: AsyncConnection[Row], claim: Claim, raised: Sequence[RaisedInterrupt], *, ttl: timedelta, seq: int
) -> list[RunEvent]:
    """Store what waits for a human; the event lists all that is pending now, what waited before this run too."""
    if not raised:
        return []
    await insert_interrupts(connection, claim, raised, ttl=ttl, seq=seq)
    shown = [seen_by_human(item) for item in await pending_of(connection, claim.thread_id)]
    return [run_event(EventType.INTERRUPT, {"interrupts": shown})] if shown else []


def last_events(claim: Claim, outcome: Outcome, *, rolled_back: bool = False) -> list[RunEvent]:
    end = {
        "run_id": claim.run_id,
        "status": outcome.status.value,
        "usage": dict(outcome.usage),
        "rolled_back": True if rolled_back else None,
    }
    failed = [run_event(EventType.ERROR, {**outcome.error, "run_id": claim.run_id})] if outcome.error else []
    return [*failed, run_event(EventType.RUN_END, end)]


def claim_of(row: Row) -> Claim:
    """`fencing_token` is there when a worker takes the run, and not when the server ends one."""
    return Claim(
        RunId(str(row["run_id"])),
        ThreadId(row["thread_id"]),
        UserId(row["owner_id"]),
        row["generation"],
        row.get("fencing_token"),
    )

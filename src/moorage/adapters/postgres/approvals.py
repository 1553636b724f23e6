"""Interrupts in Postgres: raised in the transaction that ends their run, answered by one compare-and-set."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.enqueue import enqueue_run
from moorage.adapters.postgres.event_log import PostgresEventLog, claim_for, insert_events, place
from moorage.adapters.postgres.pool import Database
from moorage.approvals import (
    STATUS_AFTER,
    Decided,
    Decision,
    DecisionType,
    Interrupt,
    InterruptDecided,
    InterruptStatus,
    RaisedInterrupt,
    digest_of,
)
from moorage.claims import Claim
from moorage.events import EventType, RunEvent, encode, run_event, scrub_text
from moorage.ids import InterruptId, RunId, ThreadId, UserId, new_run_id
from moorage.paging import Page, decode_time_cursor, encode_cursor
from moorage.runs.run import RunKind
from moorage.threads import ThreadNotFound

type Row = dict[str, Any]

_COLUMNS = """id, thread_id, run_id, call_id, tool_name, tool_input, description, facts, base_file_hash, digest,
    allowed_decisions, args_schema, agent, parent_call_id, status, decision, decided_by, decided_via, decided_at,
    executed_input, seq, created_at, expires_at"""

_INSERT = """
INSERT INTO interrupts (id, thread_id, owner_id, run_id, call_id, tool_name, tool_input, description, facts,
    base_file_hash, digest, allowed_decisions, args_schema, agent, parent_call_id, seq, expires_at,
    created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s,
    now() + %s * interval '1 microsecond')
ON CONFLICT (id) DO NOTHING
"""

_PENDING = f"""
SELECT {_COLUMNS} FROM interrupts
WHERE thread_id = %s AND status = 'pending' AND expires_at > now() ORDER BY seq, created_at, id
"""  # noqa: S608 -- constant columns

_DECIDE = f"""
UPDATE interrupts SET status = %s, decision = %s, decided_by = %s, decided_via = %s, decided_at = now(),
    executed_input = %s, resume_run_id = %s
WHERE id = %s AND thread_id = %s AND owner_id = %s AND status = 'pending' AND expires_at > now()
RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_CANCEL = f"""
UPDATE interrupts SET status = 'cancelled', decision = '{{"type": "reject", "message": ""}}', decided_by = %s,
    decided_via = %s, decided_at = now()
WHERE thread_id = %s AND status = 'pending' RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_LIST = f"""
SELECT {_COLUMNS} FROM interrupts
WHERE owner_id = %(owner)s
    AND (%(status)s::text IS NULL OR status = %(status)s)
    AND (%(thread)s::text IS NULL OR thread_id = %(thread)s)
    AND (%(at)s::timestamptz IS NULL OR (created_at, id) < (%(at)s, %(id)s))
ORDER BY created_at DESC, id DESC LIMIT %(limit)s
"""  # noqa: S608 -- constant columns


async def insert_interrupts(
    connection: AsyncConnection[Row], claim: Claim, raised: Sequence[RaisedInterrupt], *, ttl: timedelta, seq: int
) -> None:
    """Store interrupts in the order in which they were raised; one raised before, maybe decided by now, stays."""
    rows = [
        (
            item.id, claim.thread_id, claim.owner_id, claim.run_id, scrub_text(item.call_id),
            scrub_text(item.tool_name), Jsonb(item.tool_input, dumps=encode), scrub_text(item.description),
            Jsonb(item.facts, dumps=encode), item.base_file_hash, digest_of(claim.thread_id, item),
            item.allowed_decisions, Jsonb(item.args_schema, dumps=encode), item.agent, item.parent_call_id, seq, ttl,
            position,
        )
        for position, item in enumerate(raised)
    ]  # fmt: skip
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT, rows)


async def pending_of(connection: AsyncConnection[Row], thread_id: ThreadId) -> list[Interrupt]:
    rows = await (await connection.execute(_PENDING, [thread_id])).fetchall()
    return [_interrupt(row) for row in rows]


async def cancel_interrupts(
    connection: AsyncConnection[Row], thread_id: ThreadId, *, by: UserId | None, via: str
) -> list[Interrupt]:
    """Nobody can answer what is pending any more; answers what was."""
    rows = await (await connection.execute(_CANCEL, [by, via, thread_id])).fetchall()
    return [_interrupt(row) for row in rows]


class PostgresApprovalStore:
    """`moorage.approvals.ApprovalStore` on Postgres."""

    def __init__(self, database: Database, log: PostgresEventLog, *, on_decided: Callable[[], None]) -> None:
        """`on_decided` is called after the commit of a decision, when its run can be claimed."""
        self._database = database
        self._log = log
        self._on_decided = on_decided

    async def pending(self, owner: UserId, thread_id: ThreadId) -> list[Interrupt]:
        async with self._database.tenant_transaction(owner) as connection:
            return await pending_of(connection, thread_id)

    async def find(self, owner: UserId, interrupt_id: str) -> Interrupt | None:
        sql = f"SELECT {_COLUMNS} FROM interrupts WHERE id = %s AND owner_id = %s"  # noqa: S608 -- constant columns
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(sql, [scrub_text(interrupt_id), owner])).fetchone()
        return _interrupt(row) if row else None

    async def search(
        self, owner: UserId, *, status: InterruptStatus | None, thread_id: str | None, limit: int, cursor: str | None
    ) -> Page[Interrupt]:
        at, last_id = decode_time_cursor(cursor) if cursor else (None, None)
        values = {
            "owner": owner,
            "status": status.value if status else None,
            "thread": thread_id and scrub_text(thread_id),
            "at": at,
            "id": last_id,
            "limit": limit + 1,
        }
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(_LIST, values)).fetchall()
        last = rows[limit - 1] if len(rows) > limit else None
        more = encode_cursor(last["created_at"].isoformat(), last["id"]) if last else None
        return Page([_interrupt(row) for row in rows[:limit]], more)

    async def decide(
        self, owner: UserId, thread_id: ThreadId, decisions: Sequence[tuple[Interrupt, Decision]], *, via: str
    ) -> Decided:
        claim = claim_for(thread_id, owner, new_run_id())
        async with self._database.tenant_transaction(owner) as connection:
            thread = await _lock_thread(connection, thread_id)
            decided = [
                await _compare_and_set(connection, claim, interrupt, decision, via=via)
                for interrupt, decision in decisions
            ]
            placed = place(claim, [decision_event(item) for item in decided], before=thread["last_seq"])
            resume = {
                item.raised.id: decision.as_resume() for item, (_, decision) in zip(decided, decisions, strict=True)
            }
            await enqueue_run(
                connection,
                claim,
                assistant_id=thread["assistant_id"],
                kind=RunKind.RESUME,
                run_input={"resume": resume, "first_seq": placed[0].seq},
            )
            await insert_events(connection, placed)
            await connection.execute(
                "UPDATE threads SET last_seq = %s, run_status = 'busy', last_active = now() WHERE thread_id = %s",
                [placed[-1].seq, thread_id],
            )
        self._log.publish([item.stored() for item in placed])
        self._on_decided()
        return Decided(claim.run_id, placed[0].seq, decided)

    async def cancel_pending(self, owner: UserId, thread_id: ThreadId) -> None:
        async with self._database.tenant_transaction(owner) as connection:
            thread = await _lock_thread(connection, thread_id)
            cancelled = await cancel_interrupts(connection, thread_id, by=owner, via="cancel")
            placed = [
                item
                for seq, interrupt in enumerate(cancelled, start=thread["last_seq"])
                for item in place(
                    claim_for(thread_id, owner, interrupt.run_id), [decision_event(interrupt)], before=seq
                )
            ]
            if placed:
                await insert_events(connection, placed)
            await connection.execute(
                "UPDATE threads SET last_seq = last_seq + %s, run_status ="
                " CASE run_status WHEN 'interrupted' THEN 'idle' ELSE run_status END WHERE thread_id = %s",
                [len(placed), thread_id],
            )
        self._log.publish([item.stored() for item in placed])


async def _lock_thread(connection: AsyncConnection[Row], thread_id: ThreadId) -> Row:
    sql = "SELECT last_seq, assistant_id FROM threads WHERE thread_id = %s FOR UPDATE"
    row = await (await connection.execute(sql, [thread_id])).fetchone()
    if row is None:
        raise ThreadNotFound
    return row


async def _compare_and_set(
    connection: AsyncConnection[Row], claim: Claim, interrupt: Interrupt, decision: Decision, *, via: str
) -> Interrupt:
    raised = interrupt.raised
    executed = {DecisionType.APPROVE: raised.tool_input, DecisionType.EDIT: decision.edited_args}.get(decision.type)
    row = await (
        await connection.execute(
            _DECIDE,
            [
                STATUS_AFTER[decision.type].value,
                Jsonb(decision.as_resume(), dumps=encode),
                claim.owner_id,
                via,
                Jsonb(executed, dumps=encode) if executed is not None else None,
                claim.run_id,
                raised.id,
                claim.thread_id,
                claim.owner_id,
            ],
        )
    ).fetchone()
    if row is None:
        raise InterruptDecided("This approval is not pending any more")
    return _interrupt(row)


def decision_event(interrupt: Interrupt) -> RunEvent:
    decision = interrupt.decision or {}
    data = {
        "interrupt_id": interrupt.raised.id,
        "call_id": interrupt.raised.call_id,
        "type": decision.get("type"),
        "decided_by": interrupt.decided_by,
        "decided_via": interrupt.decided_via,
        "executed_input": decision.get("args"),
        "message": decision.get("message") or None,
        "parent_call_id": interrupt.raised.parent_call_id,
    }
    return run_event(EventType.DECISION, data)


def _interrupt(row: Row) -> Interrupt:
    raised = RaisedInterrupt(
        id=InterruptId(row["id"]),
        call_id=row["call_id"],
        tool_name=row["tool_name"],
        tool_input=row["tool_input"],
        description=row["description"],
        allowed_decisions=row["allowed_decisions"],
        args_schema=row["args_schema"],
        facts=row["facts"],
        agent=row["agent"],
        parent_call_id=row["parent_call_id"],
        base_file_hash=row["base_file_hash"],
    )
    run_id: UUID = row["run_id"]
    return Interrupt(
        raised=raised,
        thread_id=ThreadId(row["thread_id"]),
        run_id=RunId(str(run_id)),
        status=InterruptStatus(row["status"]),
        digest=row["digest"],
        seq=row["seq"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        decision=row["decision"],
        decided_by=row["decided_by"],
        decided_at=row["decided_at"],
        decided_via=row["decided_via"],
        executed_input=row["executed_input"],
    )

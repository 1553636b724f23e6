"""Interrupts within a caller's transaction, which holds the thread's lock: raised, listed, closed, and told of."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.approvals import Interrupt, InterruptStatus, RaisedInterrupt, digest_of
from moorage.claims import Claim
from moorage.events import EventType, Message, Role, RunEvent, encode, run_event, scrub_text
from moorage.ids import InterruptId, RunId, ThreadId, UserId, result_message_id

type Row = dict[str, Any]

_ACCEPTED = ("approved", "edited")
_TOO_LATE = "The user did not decide in time"

# What was not answered in time cannot be answered any more, whether or not the reaper has come by.
STATUS = "CASE WHEN i.status = 'pending' AND i.expires_at <= now() THEN 'expired' ELSE i.status END"

COLUMNS = f"""i.id, i.thread_id, i.run_id, i.call_id, i.tool_name, i.tool_input, i.description, i.facts,
    i.base_file_hash, i.diff, i.digest, i.allowed_decisions, i.args_schema, i.agent, i.parent_call_id, i.checkpoint_ns,
    i.message_id, i.position, i.graph_id, {STATUS} AS status, i.decision, i.decided_by, i.decided_via, i.decided_at,
    i.executed_input, i.seq, i.created_at, i.expires_at"""

# Of each question that was asked before, the latest: what became of it, and whether its answer is still in the queue.
_ASKED_BEFORE = """
SELECT i.graph_id, count(*) AS times, (array_agg(i.id ORDER BY i.created_at DESC, i.id))[1] AS id,
    (array_agg(i.status ORDER BY i.created_at DESC, i.id))[1] AS status,
    (array_agg(i.decided_at ORDER BY i.created_at DESC, i.id))[1]
        < (SELECT started_at FROM runs WHERE run_id = %s) AS known,
    bool_or(r.status = 'queued') AS answer_waits
FROM interrupts i LEFT JOIN runs r ON r.run_id = i.resume_run_id
WHERE i.thread_id = %s AND i.graph_id = ANY(%s) GROUP BY i.graph_id
"""

# A changed state has new tasks, and LangGraph makes its ids from those: the call that waits is known by its place.
_WAITING = """
SELECT checkpoint_ns, message_id, position FROM interrupts
WHERE thread_id = %s AND status = 'pending' AND expires_at > now() AND message_id <> ''
"""

_TAKEN_IDS = "SELECT id FROM interrupts WHERE id = ANY(%s) AND thread_id <> %s"

_SUPERSEDE = "UPDATE interrupts SET status = 'superseded' WHERE id = ANY(%s)"

_INSERT = """
INSERT INTO interrupts (id, thread_id, owner_id, run_id, call_id, tool_name, tool_input, description, facts,
    base_file_hash, diff, digest, allowed_decisions, args_schema, agent, parent_call_id, checkpoint_ns, message_id,
    position, graph_id, seq, expires_at, created_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + %s,
    now() + %s * interval '1 microsecond')
ON CONFLICT (id) DO NOTHING
"""

_PENDING = f"""
SELECT {COLUMNS} FROM interrupts i
WHERE i.thread_id = %s AND i.status = 'pending' AND i.expires_at > now() ORDER BY i.seq, i.created_at, i.id
"""  # noqa: S608 -- constant columns

_OF_RUNS = f"""
SELECT {COLUMNS} FROM interrupts i WHERE i.thread_id = %s AND i.run_id = ANY(%s) ORDER BY i.seq, i.created_at, i.id
"""  # noqa: S608 -- constant columns

# The journal is where the graph looks before it runs a call: with a rejection there, no model needs to be called now.
_CLOSE = f"""
WITH closed AS (
    UPDATE interrupts i SET status = %(status)s, decided_by = %(by)s, decided_via = %(via)s, decided_at = now(),
        decision = jsonb_build_object('type', 'reject', 'message',
            %(message)s::text || '; this ' || i.tool_name || ' call was not run.')
    WHERE i.thread_id = %(thread)s AND i.status = 'pending' AND (NOT %(overdue)s OR i.expires_at <= now())
    RETURNING {COLUMNS}, i.owner_id
), journal AS (
    INSERT INTO tool_calls (thread_id, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
        tool, args, state, result, finished_at)
    SELECT thread_id, checkpoint_ns, message_id, position, owner_id, run_id, 0, call_id, tool_name, tool_input, 'done',
        jsonb_build_object('content', decision ->> 'message', 'status', 'error', 'kind', 'rejected'), now()
    FROM closed WHERE message_id <> ''
    ON CONFLICT DO NOTHING
)
SELECT * FROM closed ORDER BY seq, created_at, id
"""  # noqa: S608 -- constant columns


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A call that asked: its place, and the latest question with what was decided."""

    checkpoint_ns: str
    message_id: str
    position: int
    interrupt: Interrupt


async def insert_interrupts(
    connection: AsyncConnection[Row], claim: Claim, raised: Sequence[RaisedInterrupt], *, ttl: timedelta, seq: int
) -> None:
    """Store interrupts in the order in which they were raised.

    One raised before stays as it is while it waits for its answer, or its answer for its run. When the run of an
    accepted answer asks again, the old question is superseded and the new one gets an id of its own; so does one that
    is asked again although it was closed before its run began.
    """
    before = await _asked_before(connection, claim, raised)
    taken = await _taken_ids(connection, claim.thread_id, raised)
    waiting = await _waiting_places(connection, claim.thread_id)
    rows: list[tuple[Any, ...]] = []
    superseded: list[str] = []
    for index, item in enumerate(raised):
        place = item.checkpoint_ns, item.message_id, item.position
        if item.message_id and place in waiting:
            continue
        earlier = before.get(_graph_id(item))
        if earlier is not None and not _asks_again(earlier):
            continue
        if earlier is not None and earlier["status"] in _ACCEPTED:
            superseded.append(earlier["id"])
        is_new = earlier is None and _graph_id(item) not in taken
        stored_id = _graph_id(item) if is_new else _later_id(claim.thread_id, item, earlier["times"] if earlier else 0)
        waiting.add(place)
        rows.append(_row(claim, item, InterruptId(stored_id), ttl=ttl, seq=seq, index=index))
    if superseded:
        await connection.execute(_SUPERSEDE, [superseded])
    if rows:
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT, rows)


async def _asked_before(
    connection: AsyncConnection[Row], claim: Claim, raised: Sequence[RaisedInterrupt]
) -> dict[str, Row]:
    values = [claim.run_id, claim.thread_id, list(map(_graph_id, raised))]
    rows = await (await connection.execute(_ASKED_BEFORE, values)).fetchall()
    return {row["graph_id"]: row for row in rows}


async def _waiting_places(connection: AsyncConnection[Row], thread_id: ThreadId) -> set[tuple[str, str, int]]:
    rows = await (await connection.execute(_WAITING, [thread_id])).fetchall()
    return {(row["checkpoint_ns"], row["message_id"], row["position"]) for row in rows}


async def _taken_ids(
    connection: AsyncConnection[Row], thread_id: ThreadId, raised: Sequence[RaisedInterrupt]
) -> set[str]:
    """LangGraph makes its ids from checkpoints, and a copied thread has the same ones."""
    rows = await (await connection.execute(_TAKEN_IDS, [list(map(_graph_id, raised)), thread_id])).fetchall()
    return {row["id"] for row in rows}


def _asks_again(earlier: Row) -> bool:
    return (earlier["status"] in _ACCEPTED or bool(earlier["known"])) and not earlier["answer_waits"]


def _graph_id(item: RaisedInterrupt) -> str:
    return item.graph_id or item.id


def _later_id(thread_id: ThreadId, item: RaisedInterrupt, times: int) -> str:
    return sha256(f"{thread_id} {_graph_id(item)} {times}".encode()).hexdigest()[:32]


def _row(
    claim: Claim, item: RaisedInterrupt, stored_id: InterruptId, *, ttl: timedelta, seq: int, index: int
) -> tuple[Any, ...]:
    return (
        stored_id, claim.thread_id, claim.owner_id, claim.run_id, scrub_text(item.call_id),
        scrub_text(item.tool_name), Jsonb(item.tool_input, dumps=encode), scrub_text(item.description),
        Jsonb(item.facts, dumps=encode), item.base_file_hash, item.diff and scrub_text(item.diff),
        digest_of(claim.thread_id, replace(item, id=stored_id)), item.allowed_decisions,
        Jsonb(item.args_schema, dumps=encode), item.agent, item.parent_call_id, item.checkpoint_ns, item.message_id,
        item.position, _graph_id(item), seq, ttl, index,
    )  # fmt: skip


async def pending_of(connection: AsyncConnection[Row], thread_id: ThreadId) -> list[Interrupt]:
    rows = await (await connection.execute(_PENDING, [thread_id])).fetchall()
    return [interrupt_of(row) for row in rows]


async def load_decided(
    connection: AsyncConnection[Row], thread_id: ThreadId, run_ids: Sequence[RunId]
) -> list[AskedCall]:
    """What these runs asked, in order, whatever became of it; of a call that asked again the latest question."""
    rows = await (await connection.execute(_OF_RUNS, [thread_id, list(run_ids)])).fetchall()
    asked: dict[tuple[str, str, int], AskedCall] = {}
    for row in rows:
        place = (row["checkpoint_ns"], row["message_id"] or "", row["position"] or 0)
        asked.pop(place, None)
        asked[place] = AskedCall(*place, interrupt_of(row))
    return list(asked.values())


async def close_interrupts(
    connection: AsyncConnection[Row],
    thread_id: ThreadId,
    *,
    status: InterruptStatus,
    by: UserId | None,
    via: str,
    message: str,
    only_overdue: bool = False,
) -> list[Interrupt]:
    """Nobody can answer what is pending (or only what is overdue) any more; answers what was.

    The graph's journal says that the calls were rejected: `message`, such as "The user cancelled", begins the sentence
    that the model will read.
    """
    values = {"thread": thread_id, "status": status.value, "by": by, "via": via, "message": message}
    cursor = await connection.execute(_CLOSE, {**values, "overdue": only_overdue})
    return [interrupt_of(row) for row in await cursor.fetchall()]


async def close_overdue(connection: AsyncConnection[Row], thread_id: ThreadId) -> list[Interrupt]:
    """`close_interrupts` for what nobody decided in time."""
    return await close_interrupts(
        connection,
        thread_id,
        status=InterruptStatus.EXPIRED,
        by=None,
        via="expired",
        message=_TOO_LATE,
        only_overdue=True,
    )


def closing_events(interrupts: Sequence[Interrupt]) -> list[RunEvent]:
    """What readers of the thread are told of closed interrupts: for each its decision and its call's result."""
    return [event for item in interrupts for event in (decision_event(item), _rejected_event(item))]


def _rejected_event(interrupt: Interrupt) -> RunEvent:
    raised = interrupt.raised
    content = (interrupt.decision or {}).get("message", "")
    message_id = result_message_id(interrupt.thread_id, raised.checkpoint_ns, raised.message_id, raised.position)
    data = {
        "call_id": raised.call_id,
        "status": "rejected",
        "result": content,
        "duration_ms": 0,
        "message_id": message_id,
        "agent": raised.agent,
        "parent_call_id": raised.parent_call_id,
    }
    message = None if raised.parent_call_id else Message(message_id, Role.TOOL, content, call_id=raised.call_id)
    return run_event(EventType.TOOL_RESULT, data, message=message)


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


def interrupt_of(row: Row) -> Interrupt:
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
        diff=row["diff"],
        checkpoint_ns=row["checkpoint_ns"],
        message_id=row["message_id"] or "",
        position=row["position"] or 0,
        graph_id=row["graph_id"] or row["id"],
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

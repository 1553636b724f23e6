"""Approvals in Postgres: interrupts are answered by one compare-and-set, which also enqueues the run that goes on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.enqueue import enqueue_run
from moorage.adapters.postgres.event_log import Placed, PostgresEventLog, claim_for, insert_events, place
from moorage.adapters.postgres.idempotency import earlier_answer, find_answer, keep_answer
from moorage.adapters.postgres.interrupts import (
    COLUMNS,
    STATUS,
    close_interrupts,
    close_overdue,
    closing_events,
    decision_event,
    interrupt_of,
    pending_of,
)
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.rules import insert_rule
from moorage.approvals import (
    STATUS_AFTER,
    Change,
    CheckedDecision,
    Decided,
    DecisionType,
    FileChanged,
    Interrupt,
    InterruptDecided,
    InterruptStatus,
    as_decided,
    digest_of,
    seen_by_human,
    with_change,
)
from moorage.claims import Claim
from moorage.events import EventType, StoredEvent, encode, run_event, scrub_text
from moorage.idempotency import RequestKey
from moorage.ids import RunId, ThreadId, UserId, new_run_id
from moorage.paging import Page, decode_time_cursor, encode_cursor
from moorage.run_request import RunRequest
from moorage.runs.run import RunKind
from moorage.threads import SessionClosed, SessionExpired, ThreadNotFound

type Row = dict[str, Any]

_CANCELLED = "The user cancelled"

# Locked in a statement of its own: one that waits for a lock still sees other tables as they were before the wait.
_LOCK_THREAD = """
SELECT last_seq, assistant_id, status,
    (%s > 0 AND last_active < now() - make_interval(secs => %s)) AS expired
FROM threads WHERE thread_id = %s FOR NO KEY UPDATE
"""

_DECIDE = f"""
UPDATE interrupts i SET status = %s, decision = %s, decided_by = %s, decided_via = %s, decided_at = now(),
    executed_input = %s, resume_run_id = %s
WHERE i.id = %s AND i.thread_id = %s AND i.owner_id = %s AND i.digest = %s AND i.status = 'pending'
    AND i.expires_at > now()
RETURNING {COLUMNS}
"""  # noqa: S608 -- constant columns

_SHOW_CHANGE = """
UPDATE interrupts SET base_file_hash = %s, diff = %s, facts = %s, digest = %s, seq = %s
WHERE id = %s AND thread_id = %s AND owner_id = %s AND digest = %s AND status = 'pending' AND expires_at > now()
RETURNING id
"""

_FIND = f"SELECT {COLUMNS} FROM interrupts i WHERE i.id = %s AND i.owner_id = %s"  # noqa: S608 -- constant columns

_FIND_ALL = f"SELECT {COLUMNS} FROM interrupts i WHERE i.id = ANY(%s) AND i.owner_id = %s"  # noqa: S608 -- constant

_LIST = f"""
SELECT {COLUMNS} FROM interrupts i
WHERE i.owner_id = %(owner)s
    AND (%(status)s::text IS NULL OR {STATUS} = %(status)s)
    AND (%(thread)s::text IS NULL OR i.thread_id = %(thread)s)
    AND (%(at)s::timestamptz IS NULL OR (i.created_at, i.id) < (%(at)s, %(id)s))
ORDER BY i.created_at DESC, i.id DESC LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

_ASKER = "SELECT assistant_id, input -> 'graph' -> 'context' AS context FROM runs WHERE run_id = %s"

_OVERDUE = """
SELECT DISTINCT thread_id, owner_id FROM interrupts WHERE status = 'pending' AND expires_at <= now() LIMIT 100
"""

_SETTLE = """
UPDATE threads t SET last_seq = %(last)s, message_count = message_count + %(messages)s, run_status = CASE
    WHEN EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status IN ('queued', 'running')) THEN 'busy'
    WHEN run_status = 'interrupted' AND NOT EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id
        AND i.status = 'pending' AND i.expires_at > now()) THEN 'idle'
    ELSE run_status END
WHERE t.thread_id = %(thread)s
"""


class PostgresApprovalStore:
    """`moorage.approvals.ApprovalStore` on Postgres."""

    def __init__(
        self,
        database: Database,
        log: PostgresEventLog,
        *,
        on_decided: Callable[[], None],
        session_life: timedelta = timedelta(0),
    ) -> None:
        """`on_decided` is called after the commit of a decision, when its run can be claimed.

        Sessions without activity for `session_life` are expired; 0 means never.
        """
        self._database = database
        self._log = log
        self._on_decided = on_decided
        self._life = session_life.total_seconds()

    async def pending(self, owner: UserId, thread_id: ThreadId) -> list[Interrupt]:
        async with self._database.tenant_transaction(owner) as connection:
            return await pending_of(connection, thread_id)

    async def find(self, owner: UserId, interrupt_id: str) -> Interrupt | None:
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_FIND, [scrub_text(interrupt_id), owner])).fetchone()
        return interrupt_of(row) if row else None

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
        return Page([interrupt_of(row) for row in rows[:limit]], more)

    async def find_answer(self, owner: UserId, request: RequestKey) -> Decided | None:
        async with self._database.tenant_transaction(owner) as connection:
            answer = await find_answer(connection, owner, request)
            return await _decided_before(connection, owner, answer) if answer else None

    async def check_open(self, owner: UserId, thread_id: ThreadId) -> None:
        async with self._database.tenant_transaction(owner) as connection:
            _refuse_closed(await self._lock_thread(connection, thread_id))

    async def decide(
        self,
        owner: UserId,
        thread_id: ThreadId,
        decisions: Sequence[CheckedDecision],
        *,
        via: str,
        request: RequestKey | None,
        run: RunRequest | None = None,
    ) -> Decided:
        claim = claim_for(thread_id, owner, new_run_id())
        async with self._database.tenant_transaction(owner) as connection:
            thread = await self._lock_thread(connection, thread_id)
            if (answer := await earlier_answer(connection, owner, request)) is not None:
                return await _decided_before(connection, owner, answer)
            _refuse_closed(thread)
            decided = [await _compare_and_set(connection, claim, item, via=via) for item in decisions]
            for item in decisions:
                if item.rule is not None:
                    await insert_rule(connection, claim, item.rule, interrupt_id=item.interrupt.raised.id)
            placed = place(claim, [decision_event(item) for item in decided], before=thread["last_seq"])
            asker = await _asker(connection, decided[0].run_id)
            await _enqueue(
                connection,
                claim,
                asker["assistant_id"] if asker else thread["assistant_id"],
                decisions,
                first_seq=placed[0].seq,
                request=replace(run or RunRequest(), context=(asker and asker["context"]) or {}),
            )
            await insert_events(connection, placed)
            await connection.execute(
                "UPDATE threads SET last_seq = %s, run_status = 'busy', last_active = now(), updated_at = now()"
                " WHERE thread_id = %s",
                [placed[-1].seq, thread_id],
            )
            ids = [item.raised.id for item in decided]
            answer = {"run_id": claim.run_id, "first_seq": placed[0].seq, "interrupts": ids}
            await keep_answer(connection, owner, request, answer)
        self._log.publish([item.stored() for item in placed])
        self._on_decided()
        return Decided(claim.run_id, placed[0].seq, decided)

    async def show_change(self, owner: UserId, interrupt: Interrupt, change: Change) -> None:
        thread_id, seen = interrupt.thread_id, with_change(interrupt.raised, change)
        placed: list[Placed] = []
        async with self._database.tenant_transaction(owner) as connection:
            thread = await self._lock_thread(connection, thread_id)
            before: int = thread["last_seq"]
            values = [seen.base_file_hash, seen.diff, Jsonb(seen.facts, dumps=encode), digest_of(thread_id, seen)]
            key = [seen.id, thread_id, owner, interrupt.digest]
            if await (await connection.execute(_SHOW_CHANGE, [*values, before + 1, *key])).fetchone():
                shown = [seen_by_human(item) for item in await pending_of(connection, thread_id)]
                event = run_event(EventType.INTERRUPT, {"interrupts": shown})
                placed = place(claim_for(thread_id, owner, interrupt.run_id), [event], before=before)
                await insert_events(connection, placed)
                await connection.execute(
                    "UPDATE threads SET last_seq = %s WHERE thread_id = %s", [before + 1, thread_id]
                )
        self._log.publish([item.stored() for item in placed])

    async def cancel_pending(self, owner: UserId, thread_id: ThreadId) -> None:
        async with self._database.tenant_transaction(owner) as connection:
            thread = await self._lock_thread(connection, thread_id)
            closed = await close_interrupts(
                connection,
                thread_id,
                status=InterruptStatus.CANCELLED,
                by=owner,
                via="cancel",
                message=_CANCELLED,
            )
            stored = await _tell(connection, owner, thread_id, closed, before=thread["last_seq"])
        self._log.publish(stored)

    async def expire(self) -> int:
        async with self._database.system_transaction() as connection:
            overdue = await (await connection.execute(_OVERDUE)).fetchall()
        return sum([await self._expire(UserId(row["owner_id"]), ThreadId(row["thread_id"])) for row in overdue])

    async def _expire(self, owner: UserId, thread_id: ThreadId) -> int:
        async with self._database.system_transaction() as connection:
            try:
                thread = await self._lock_thread(connection, thread_id)
            except ThreadNotFound:  # removed in this very moment
                return 0
            closed = await close_overdue(connection, thread_id)
            stored = await _tell(connection, owner, thread_id, closed, before=thread["last_seq"])
        self._log.publish(stored)
        return len(closed)

    async def _lock_thread(self, connection: AsyncConnection[Row], thread_id: ThreadId) -> Row:
        row = await (await connection.execute(_LOCK_THREAD, [self._life, self._life, thread_id])).fetchone()
        if row is None:
            raise ThreadNotFound
        return row


def _refuse_closed(thread: Row) -> None:
    if thread["status"] == "closed":
        raise SessionClosed("This session is closed")
    if thread["expired"]:
        raise SessionExpired("This session has expired: open a new one")


async def _tell(
    connection: AsyncConnection[Row], owner: UserId, thread_id: ThreadId, closed: Iterable[Interrupt], *, before: int
) -> list[StoredEvent]:
    """Store what readers are told of closed interrupts, and settle the thread that waited for them."""
    placed: list[Placed] = []
    for item in closed:
        placed += place(claim_for(thread_id, owner, item.run_id), closing_events([item]), before=before + len(placed))
    if placed:
        await insert_events(connection, placed)
    messages = sum(item.event.message is not None for item in placed)
    values = {"last": before + len(placed), "messages": messages, "thread": thread_id}
    await connection.execute(_SETTLE, values)
    return [item.stored() for item in placed]


async def _asker(connection: AsyncConnection[Row], run_id: RunId) -> Row | None:
    """As whom the run asked: who goes on must be the same."""
    return await (await connection.execute(_ASKER, [run_id])).fetchone()


async def _enqueue(
    connection: AsyncConnection[Row],
    claim: Claim,
    assistant_id: str,
    decisions: Sequence[CheckedDecision],
    *,
    first_seq: int,
    request: RunRequest,
) -> None:
    resume = {item.interrupt.raised.id: item.decision.as_resume() for item in decisions}
    run_input = {"resume": resume, "first_seq": first_seq}
    await enqueue_run(
        connection, claim, assistant_id=assistant_id, kind=RunKind.RESUME, run_input=run_input, request=request
    )


async def _compare_and_set(
    connection: AsyncConnection[Row], claim: Claim, checked: CheckedDecision, *, via: str
) -> Interrupt:
    raised, decision = checked.interrupt.raised, checked.decision
    executed = _executed(checked)
    values = [
        STATUS_AFTER[decision.type].value,
        Jsonb(decision.as_resume(), dumps=encode),
        claim.owner_id,
        via,
        Jsonb(executed, dumps=encode) if executed is not None else None,
        claim.run_id,
    ]
    key = [raised.id, claim.thread_id, claim.owner_id, checked.interrupt.digest]
    row = await (await connection.execute(_DECIDE, [*values, *key])).fetchone()
    if row is not None:
        return interrupt_of(row)
    now = await (await connection.execute(_FIND, [raised.id, claim.owner_id])).fetchone()
    if now is not None and now["status"] == InterruptStatus.PENDING:
        raise FileChanged
    raise InterruptDecided("This approval is not pending any more")


def _executed(checked: CheckedDecision) -> dict[str, Any] | None:
    match checked.decision.type:
        case DecisionType.APPROVE:
            return checked.interrupt.raised.tool_input
        case DecisionType.EDIT:
            return checked.decision.edited_args
        case DecisionType.REJECT | DecisionType.RESPOND:
            return None


async def _decided_before(connection: AsyncConnection[Row], owner: UserId, answer: dict[str, Any]) -> Decided:
    """The answer as it was given: what became of a question later, such as superseded, is not in it."""
    rows = await (await connection.execute(_FIND_ALL, [answer["interrupts"], owner])).fetchall()
    found = {row["id"]: interrupt_of(row) for row in rows}
    interrupts = [as_decided(found[item]) for item in answer["interrupts"] if item in found]
    return Decided(RunId(answer["run_id"]), answer["first_seq"], interrupts)

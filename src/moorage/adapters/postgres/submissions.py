"""Accepting a message in Postgres: its run and its first event in one transaction, under the thread's lock."""

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.enqueue import enqueue_run
from moorage.adapters.postgres.event_log import Placed, claim_for, insert_events, place
from moorage.adapters.postgres.interrupts import close_interrupts, close_overdue, closing_events
from moorage.adapters.postgres.notices import notify
from moorage.adapters.postgres.run_endings import LOCK_THREAD
from moorage.agent.wire_json import text_of
from moorage.approvals import InterruptStatus
from moorage.claims import Claim, StopReason
from moorage.errors import Conflict
from moorage.events import EventType, Message, Role, RunEvent, encode, run_event, scrub_text
from moorage.ids import RunId, ThreadId, UserId, new_message_id, new_run_id
from moorage.runs.run import ApprovalPending, BusyPolicy, IdempotencyMismatch, QueueFull, RunKind, RunRequest, Started
from moorage.threads import SessionClosed, SessionExpired, ThreadNotFound

type Row = dict[str, Any]

KEY_REUSED = "This Idempotency-Key was used for another request"
_TITLE_CHARACTERS = 60
_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}

_THREAD_STATE = """
SELECT t.status, t.assistant_id, t.last_seq,
    (%(life)s > 0 AND t.last_active < now() - make_interval(secs => %(life)s)) AS expired,
    (SELECT count(*) FROM runs r WHERE r.thread_id = t.thread_id AND r.status = 'queued') AS queued,
    EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status IN ('queued', 'running')) AS busy,
    EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending' AND i.expires_at > now())
        AS waiting,
    EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending' AND i.expires_at <= now())
        AS overdue
FROM threads t WHERE t.thread_id = %(thread_id)s AND t.owner_id = %(owner)s
"""

_SAME_KEY = "SELECT run_id, thread_id, request_digest, input FROM runs WHERE owner_id = %s AND idempotency_key = %s"

_TOUCH_THREAD = """
UPDATE threads SET last_seq = last_seq + %(events)s, message_count = message_count + %(messages)s,
    turn_count = turn_count + %(turns)s, run_status = 'busy', archived = false, last_active = now(), updated_at = now(),
    title = CASE WHEN title = '' THEN %(title)s ELSE title END, assistant_id = %(assistant_id)s,
    metadata = metadata || %(metadata)s, per_call = COALESCE(%(per_call)s, per_call)
WHERE thread_id = %(thread_id)s
"""

# Waits for a claim of one of them that is about to commit: a stop must not fall between.
LOCK_RUNS = "SELECT FROM runs WHERE thread_id = %s AND status IN ('queued', 'running') FOR UPDATE"

# A run between two workers is stopped, too: by whoever takes it.
_STOP_RUNNING = """
UPDATE runs SET stop_reason = %s WHERE thread_id = %s AND stop_reason IS NULL
    AND (status = 'running' OR status = 'queued' AND generation > 0)
RETURNING run_id
"""


class Submission:
    """One message, or one request of the wire, on its way in.

    `digest` is that of what was sent with the idempotency key.
    """

    def __init__(
        self,
        owner: UserId,
        thread_id: ThreadId,
        content: str | None,
        policy: BusyPolicy,
        *,
        key: str | None,
        digest: str,
        request: RunRequest | None = None,
    ) -> None:
        """Without `content` the request alone says what is fed to the graph."""
        self._claim = claim_for(thread_id, owner, new_run_id())
        self._content = content
        self._request = request or RunRequest()
        self._policy = policy
        self._key = key
        self._digest = digest

    async def accept(
        self, connection: AsyncConnection[Row], *, session_life: float, queue_limit: int
    ) -> tuple[Started, list[Placed]]:
        """Store it. Raises what `RunQueue.submit` says; a repeated key answers with its run and stores nothing."""
        row = await self._lock(connection, session_life)
        if earlier := await self._same_key(connection):
            return earlier, []
        _refuse(row, self._policy, queue_limit=queue_limit, needs_answer=self._needs_answer)
        closing = closing_events(await close_overdue(connection, self._claim.thread_id)) if row["overdue"] else []
        closing += await self._reject_pending(connection) if row["waiting"] and self._comes_now else []
        stops = await self._stop_running(connection) if self._policy in _STOPS else []
        given = self._given()
        placed = place(self._claim, [*closing, *given], before=row["last_seq"])
        first_seq = row["last_seq"] + len(closing) + 1
        await self._store(connection, self._request.assistant_id or row["assistant_id"], given, placed, first_seq)
        return Started(self._claim.run_id, first_seq, tuple(stops)), placed

    @property
    def _needs_answer(self) -> bool:
        """Whether it cannot go on while something waits for approval: it brings nothing that could take its place.

        A client of the wire that brings something gives up what waits, as it does with LangGraph's own server.
        """
        if self._content is not None:
            return self._policy is not BusyPolicy.REJECT_AND_CONTINUE
        return not self._request.adds_input and not self._is_update

    @property
    def _comes_now(self) -> bool:
        """Whether it takes the place of what waits: an update leaves that alone, and a delayed run waits for it."""
        return not self._is_update and not self._request.after_seconds

    @property
    def _is_update(self) -> bool:
        return self._request.state_update is not None

    def _given(self) -> list[RunEvent]:
        """What readers are told of the messages that came in."""
        if self._content is not None:
            return [_received(self._claim, new_message_id(), self._content)]
        return [event for item in self._request.messages for event in _given(self._claim, item)]

    async def _lock(self, connection: AsyncConnection[Row], session_life: float) -> Row:
        claim = self._claim
        values = {"life": session_life, "thread_id": claim.thread_id, "owner": claim.owner_id}
        await connection.execute(LOCK_THREAD, [claim.thread_id])
        row = await (await connection.execute(_THREAD_STATE, values)).fetchone()
        if row is None:
            raise ThreadNotFound
        return row

    async def _same_key(self, connection: AsyncConnection[Row]) -> Started | None:
        if self._key is None:
            return None
        row = await (await connection.execute(_SAME_KEY, [self._claim.owner_id, self._key])).fetchone()
        if row is None:
            return None
        if row["request_digest"] != self._digest:
            raise IdempotencyMismatch(KEY_REUSED)
        return Started(RunId(str(row["run_id"])), row["input"]["first_seq"])

    async def _reject_pending(self, connection: AsyncConnection[Row]) -> list[RunEvent]:
        closed = await close_interrupts(
            connection,
            self._claim.thread_id,
            status=InterruptStatus.REJECTED,
            by=self._claim.owner_id,
            via="message",
            message="The user went on with another message instead",
        )
        return closing_events(closed)

    async def _stop_running(self, connection: AsyncConnection[Row]) -> list[RunId]:
        reason = _STOPS[self._policy]
        await connection.execute(LOCK_RUNS, [self._claim.thread_id])
        rows = await (await connection.execute(_STOP_RUNNING, [reason.value, self._claim.thread_id])).fetchall()
        for row in rows:
            await notify(connection, "stop", f"{row['run_id']} {reason}")
        return [RunId(str(row["run_id"])) for row in rows]

    async def _store(
        self,
        connection: AsyncConnection[Row],
        assistant_id: str,
        given: list[RunEvent],
        placed: list[Placed],
        first_seq: int,
    ) -> None:
        asked = [event.message for event in given if event.message and event.message.role is Role.USER]
        touched = {
            "events": len(placed),
            "messages": sum(item.event.message is not None for item in placed),
            "turns": 1 if asked else 0,
            "title": _title(asked[0].content if asked else ""),
            "assistant_id": assistant_id,
            "metadata": Jsonb(dict(self._request.thread_metadata), dumps=encode),
            "per_call": self._request.per_call if self._content is None and not self._is_update else None,
            "thread_id": self._claim.thread_id,
        }
        await connection.execute(_TOUCH_THREAD, touched)
        run_input: dict[str, Any] = {"first_seq": first_seq}
        if self._content is not None:
            run_input |= {"message_id": asked[0].id, "content": self._content}
        if self._request.state_update is not None:
            run_input["update"] = dict(self._request.state_update)
        await enqueue_run(
            connection,
            self._claim,
            assistant_id=assistant_id,
            kind=RunKind.UPDATE if self._is_update else RunKind.MESSAGE,
            run_input=run_input,
            key=self._key,
            digest=self._digest,
            policy=self._policy,
            request=self._request,
        )
        await insert_events(connection, placed)
        await notify(connection, "work", "")


def _refuse(row: Row, policy: BusyPolicy, *, queue_limit: int, needs_answer: bool) -> None:
    """Raise if a thread in this state takes no message."""
    if row["status"] == "closed":
        raise SessionClosed("This session is closed")
    if row["expired"]:
        raise SessionExpired("This session has expired: open a new one")
    if row["waiting"] and needs_answer:
        raise ApprovalPending(
            "This session waits for an approval: decide it first, or send the message with multitask_strategy"
            " reject_and_continue"
        )
    if row["busy"] and policy is BusyPolicy.REJECT:
        raise Conflict("This session is busy", code="thread_busy")
    if row["queued"] >= queue_limit > 0:
        raise QueueFull(f"{queue_limit} messages wait in this session already", retry_after=5)


def _given(claim: Claim, message: Mapping[str, Any]) -> Iterator[RunEvent]:
    """Of messages in LangChain's JSON: what the user said, and what the model is to have said before."""
    text = scrub_text(text_of(message))
    if message["type"] == "human":
        yield _received(claim, message["id"], text)
    elif message["type"] == "ai" and text:
        told: dict[str, Any] = {"message_id": message["id"], "final_content": text, "agent": "input", "metadata": {}}
        yield run_event(EventType.MESSAGE_COMPLETE, told, message=Message(message["id"], Role.ASSISTANT, text))


def _received(claim: Claim, message_id: str, content: str) -> RunEvent:
    message = Message(message_id, Role.USER, content)
    data = {"message_id": message.id, "run_id": claim.run_id, "thread_id": claim.thread_id, "content": content}
    return run_event(EventType.MESSAGE_RECEIVED, data, message=message)


def _title(content: str) -> str:
    line = next((line.strip() for line in content.splitlines() if line.strip()), "")
    return line if len(line) <= _TITLE_CHARACTERS else line[: _TITLE_CHARACTERS - 1] + "…"

"""Approvals: the interrupts that wait for a human, and the rules an answer must meet before it touches the graph."""

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Protocol, assert_never, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]

from moorage.errors import AppError, Conflict, InvalidPayload, NotFound
from moorage.events import encode, survives_encoding
from moorage.idempotency import RequestKey
from moorage.ids import InterruptId, RunId, ThreadId, UserId
from moorage.paging import Page
from moorage.rules import Effect, NewRule, Remember, ResolvePath, new_rule

MAX_ARGUMENT_BYTES = 256 * 1024
MAX_MESSAGE_CHARACTERS = 10_000
ABSENT = "absent"


class InterruptStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    EDITED = "edited"
    REJECTED = "rejected"
    RESPONDED = "responded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class DecisionType(StrEnum):
    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"


STATUS_AFTER: Mapping[DecisionType, InterruptStatus] = {
    DecisionType.APPROVE: InterruptStatus.APPROVED,
    DecisionType.EDIT: InterruptStatus.EDITED,
    DecisionType.REJECT: InterruptStatus.REJECTED,
    DecisionType.RESPOND: InterruptStatus.RESPONDED,
}


@dataclass(frozen=True, slots=True)
class Change:
    """What a call would change in a file.

    `base_file_hash` is the hex SHA-256 of the file's present bytes, "absent" or "unreadable"; `diff` a unified diff,
    None when there can be none; `note` says why, or what else the human should know.
    """

    base_file_hash: str
    diff: str | None
    note: str | None


type InspectChange = Callable[[ThreadId, str, dict[str, Any]], Awaitable[Change | None]]
"""What a call of this tool with these arguments would change in the thread's files now; None: nothing to compare."""


@dataclass(frozen=True, slots=True)
class RaisedInterrupt:
    """A tool call that stopped and asks: what the agent wants to do, as the gate raised it.

    The call is `position` (from 0) of the AI message `message_id` in the graph at `checkpoint_ns` ("" is the root).
    `graph_id` is LangGraph's id, which a call that asks again keeps; `id` is the same but for such later questions.
    For a call that changes a file, `base_file_hash` is the hex SHA-256 of what is there now, "absent" for nothing, and
    `diff` a unified diff.
    """

    id: InterruptId
    call_id: str
    tool_name: str
    tool_input: dict[str, Any]
    description: str
    allowed_decisions: list[str]
    args_schema: dict[str, Any]
    facts: dict[str, Any]
    agent: str
    parent_call_id: str | None = None
    base_file_hash: str | None = None
    diff: str | None = None
    checkpoint_ns: str = ""
    message_id: str = ""
    position: int = 0
    graph_id: str = ""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """An interrupt as stored, with its decision once there is one. `seq` is that of the event that announced it."""

    raised: RaisedInterrupt
    thread_id: ThreadId
    run_id: RunId
    status: InterruptStatus
    digest: str
    seq: int
    created_at: datetime
    expires_at: datetime
    decision: dict[str, Any] | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    decided_via: str | None = None
    executed_input: dict[str, Any] | None = None


def seen_by_human(interrupt: Interrupt) -> dict[str, Any]:
    """What a human decides on, as events and the API show it."""
    raised = interrupt.raised
    shown = {
        "id": raised.id,
        "call_id": raised.call_id,
        "tool_name": raised.tool_name,
        "tool_input": raised.tool_input,
        "description": raised.description,
        "allowed_decisions": raised.allowed_decisions,
        "facts": raised.facts,
        "diff": raised.diff,
        "digest": interrupt.digest,
        "expires_at": interrupt.expires_at.isoformat(),
        "agent": raised.agent,
        "parent_call_id": raised.parent_call_id,
    }
    return {key: value for key, value in shown.items() if value is not None}


def with_change(raised: RaisedInterrupt, change: Change) -> RaisedInterrupt:
    """The same question about the file as it is now."""
    facts = {name: value for name, value in raised.facts.items() if name != "note"}
    if change.note is not None:
        facts["note"] = change.note
    return replace(raised, base_file_hash=change.base_file_hash, diff=change.diff, facts=facts)


def as_decided(interrupt: Interrupt) -> Interrupt:
    """The interrupt as it was right after its decision, whatever became of it since."""
    kind = (interrupt.decision or {}).get("type")
    return replace(interrupt, status=STATUS_AFTER[DecisionType(kind)]) if kind else interrupt


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer to one interrupt. Exactly one of `edited_args` (edit) and `message` (respond, maybe reject) fits."""

    type: DecisionType
    edited_args: dict[str, Any] | None = None
    edited_name: str | None = None
    message: str | None = None
    digest: str | None = None
    remember: Remember | None = None

    def as_resume(self) -> dict[str, Any]:
        """What is decided, as it is stored."""
        match self.type:
            case DecisionType.EDIT:
                return {"type": "edit", "args": self.edited_args}
            case DecisionType.REJECT | DecisionType.RESPOND:
                return {"type": self.type.value, "message": self.message or ""}
            case DecisionType.APPROVE:
                return {"type": "approve"}
        assert_never(self.type)


class InterruptNotFound(NotFound):
    code = "interrupt_not_found"

    def __init__(self) -> None:
        super().__init__("No such approval in this session")


class InterruptDecided(Conflict):
    code = "interrupt_decided"


class NothingPending(Conflict):
    code = "nothing_pending"


class InvalidDecision(InvalidPayload):
    code = "invalid_decision"


class StaleDigest(Conflict):
    code = "stale_digest"


class FileChanged(Conflict):
    code = "file_changed"

    def __init__(self) -> None:
        super().__init__("The file has changed since this was asked: look at the new difference and decide again")


def digest_of(thread_id: str, raised: RaisedInterrupt) -> str:
    """What binds a decision to what the human saw: hex SHA-256 of canonical JSON (sorted keys, no spaces, UTF-8)."""
    seen = {
        "base_hash": raised.base_file_hash,
        "id": raised.id,
        "thread_id": thread_id,
        "tool_input": raised.tool_input,
        "tool_name": raised.tool_name,
    }
    text = json.dumps(seen, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def check_decision(interrupt: Interrupt, decision: Decision) -> None:
    """Refuse a decision that does not fit its interrupt, before anything is written.

    Raises InvalidDecision (the answer is malformed) or StaleDigest (it is about something else than what waits).
    """
    if decision.type not in interrupt.raised.allowed_decisions:
        allowed = ", ".join(interrupt.raised.allowed_decisions)
        raise InvalidDecision(f"decision {decision.type.value} is not allowed here; allowed: {allowed}")
    if decision.digest is not None and decision.digest != interrupt.digest:
        raise StaleDigest("What waits for approval is not what this decision was made for: look again")
    if decision.type is DecisionType.EDIT:
        _check_edit(interrupt.raised, decision)
    elif decision.edited_args is not None or decision.edited_name is not None:
        raise InvalidDecision("edited_action belongs to decision type edit only")
    if decision.type is DecisionType.RESPOND and not decision.message:
        raise InvalidDecision("decision respond needs a message")
    if decision.message is not None:
        _check_message(decision)
    if decision.remember is not None and decision.type not in (DecisionType.APPROVE, DecisionType.REJECT):
        raise InvalidDecision("remember belongs to decisions approve and reject only")


def _check_edit(raised: RaisedInterrupt, decision: Decision) -> None:
    if decision.edited_args is None or decision.edited_name is None:
        raise InvalidDecision("decision edit needs edited_action with name and args")
    if decision.edited_name != raised.tool_name:
        raise InvalidDecision("an edit must keep the tool: edited_action.name differs from the tool that asks")
    if not survives_encoding(decision.edited_args):
        raise InvalidDecision("edited arguments hold NUL, broken characters, too large a number or too much nesting")
    if len(encode(decision.edited_args)) > MAX_ARGUMENT_BYTES:
        raise InvalidDecision(f"edited arguments are larger than {MAX_ARGUMENT_BYTES} bytes")
    validator = Draft202012Validator(raised.args_schema)
    problem = cast("ValidationError | None", best_match(validator.iter_errors(decision.edited_args)))  # pyright: ignore[reportUnknownMemberType]
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path) or "args"
        raise InvalidDecision(f"edited arguments do not fit the tool's schema at {place} ({problem.validator})")


def _check_message(decision: Decision) -> None:
    if decision.type in (DecisionType.APPROVE, DecisionType.EDIT):
        raise InvalidDecision("message belongs to decisions reject and respond only")
    if len(decision.message or "") > MAX_MESSAGE_CHARACTERS:
        raise InvalidDecision(f"message is longer than {MAX_MESSAGE_CHARACTERS} characters")


@dataclass(frozen=True, slots=True)
class Decided:
    """What an accepted answer started."""

    run_id: RunId
    first_seq: int
    interrupts: list[Interrupt]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision addressed to one interrupt, by its id or by its call id."""

    decision: Decision
    interrupt_id: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedDecision:
    """A decision that fits its interrupt as it was read, and the rule that is to be remembered with it."""

    interrupt: Interrupt
    decision: Decision
    rule: NewRule | None = None


class ApprovalStore(Protocol):
    """Where interrupts are kept. Every call sees those of `owner` only."""

    async def pending(self, owner: UserId, thread_id: ThreadId) -> list[Interrupt]: ...

    async def find(self, owner: UserId, interrupt_id: str) -> Interrupt | None: ...

    async def search(
        self, owner: UserId, *, status: InterruptStatus | None, thread_id: str | None, limit: int, cursor: str | None
    ) -> Page[Interrupt]: ...

    async def find_answer(self, owner: UserId, request: RequestKey) -> Decided | None:
        """What was answered to this request before; raises IdempotencyMismatch when its key was another's."""
        ...

    async def decide(
        self,
        owner: UserId,
        thread_id: ThreadId,
        decisions: Sequence[CheckedDecision],
        *,
        via: str,
        request: RequestKey | None,
    ) -> Decided:
        """Compare-and-set all of `decisions`, store their rules, enqueue the continuing run: in one transaction.

        Answers what it answered before when `request` is a repetition. Raises, changing nothing, InterruptDecided when
        one of them is not pending any more or has expired, FileChanged when it is not what was checked, SessionClosed,
        SessionExpired or IdempotencyMismatch.
        """
        ...

    async def show_change(self, owner: UserId, interrupt: Interrupt, change: Change) -> None:
        """Bind a pending interrupt to the file as it is now, and tell the thread's readers its new digest."""
        ...

    async def cancel_pending(self, owner: UserId, thread_id: ThreadId) -> None:
        """Mark what waits as cancelled and leave the thread idle, without a model call."""
        ...

    async def expire(self) -> int:
        """Close the interrupts of all users whose time is over, without a model call; answers how many."""
        ...


class Approvals:
    """How humans answer what agents want to do."""

    def __init__(
        self, store: ApprovalStore, *, inspect: InspectChange | None = None, resolve: ResolvePath | None = None
    ) -> None:
        """Without `inspect` nobody looks whether a file changed; without `resolve` rules take paths as written."""
        self._store = store
        self._inspect = inspect
        self._resolve = resolve

    async def pending(self, owner: UserId, thread_id: ThreadId) -> list[Interrupt]:
        return await self._store.pending(owner, thread_id)

    async def get(self, owner: UserId, interrupt_id: str) -> Interrupt:
        interrupt = await self._store.find(owner, interrupt_id)
        if interrupt is None:
            raise InterruptNotFound
        return interrupt

    async def search(
        self, owner: UserId, *, status: InterruptStatus | None, thread_id: str | None, limit: int, cursor: str | None
    ) -> Page[Interrupt]:
        return await self._store.search(owner, status=status, thread_id=thread_id, limit=limit, cursor=cursor)

    async def answer(
        self,
        owner: UserId,
        thread_id: ThreadId,
        answers: Sequence[Answer],
        *,
        via: str,
        request: RequestKey | None = None,
    ) -> Decided:
        """Answer call by call. All are checked before any is written; they take effect together or not at all.

        A repeated `request` gets the answer of the first. What it raises is in `check_decision`, `new_rule` and
        `ApprovalStore.decide`; FileChanged comes with the interrupt already bound to the new file.
        """

        async def act() -> Decided:
            pending = await self._store.pending(owner, thread_id)
            chosen = [(await self._addressed(owner, thread_id, pending, answer), answer.decision) for answer in answers]
            if len({interrupt.raised.id for interrupt, _ in chosen}) < len(chosen):
                raise InvalidDecision("two decisions address the same approval")
            for interrupt, decision in chosen:
                check_decision(interrupt, decision)
            return await self._decide(owner, thread_id, chosen, via=via, request=request)

        return await self._once(owner, request, act)

    async def answer_all(
        self,
        owner: UserId,
        thread_id: ThreadId,
        decision: Decision,
        *,
        up_to_seq: int | None,
        via: str,
        request: RequestKey | None = None,
    ) -> Decided:
        """Give all that is pending one answer. Raises InterruptDecided if something was raised after `up_to_seq`."""

        async def act() -> Decided:
            pending = await self._store.pending(owner, thread_id)
            if not pending:
                raise NothingPending("Nothing waits for approval in this session")
            if up_to_seq is not None and any(interrupt.seq > up_to_seq for interrupt in pending):
                raise InterruptDecided("More came up for approval since: look again", code="approvals_changed")
            for interrupt in pending:
                check_decision(interrupt, decision)
            chosen = [(interrupt, decision) for interrupt in pending]
            return await self._decide(owner, thread_id, chosen, via=via, request=request)

        return await self._once(owner, request, act)

    async def cancel_pending(self, owner: UserId, thread_id: ThreadId) -> None:
        await self._store.cancel_pending(owner, thread_id)

    async def expire(self) -> int:
        """Close what nobody decided in time; answers how many approvals that were."""
        return await self._store.expire()

    async def _once(self, owner: UserId, request: RequestKey | None, act: Callable[[], Awaitable[Decided]]) -> Decided:
        """The first answer to a repeated request, also when it came while this repetition was being checked."""
        if request is None:
            return await act()
        if (earlier := await self._store.find_answer(owner, request)) is not None:
            return earlier
        try:
            return await act()
        except AppError:
            if (earlier := await self._store.find_answer(owner, request)) is not None:
                return earlier
            raise

    async def _decide(
        self,
        owner: UserId,
        thread_id: ThreadId,
        chosen: Sequence[tuple[Interrupt, Decision]],
        *,
        via: str,
        request: RequestKey | None,
    ) -> Decided:
        checked = [
            CheckedDecision(interrupt, decision, await self._rule(interrupt, decision))
            for interrupt, decision in chosen
        ]
        changes = [(interrupt, await self._change(interrupt, decision)) for interrupt, decision in chosen]
        if any(change is not None for _, change in changes):
            for interrupt, change in changes:
                if change is not None:
                    await self._store.show_change(owner, interrupt, change)
            raise FileChanged
        return await self._store.decide(owner, thread_id, checked, via=via, request=request)

    async def _rule(self, interrupt: Interrupt, decision: Decision) -> NewRule | None:
        if decision.remember is None:
            return None
        effect = Effect.ALLOW if decision.type is DecisionType.APPROVE else Effect.DENY
        resolve = partial(self._resolve, interrupt.thread_id) if self._resolve else None
        raised = interrupt.raised
        return await new_rule(effect, raised.tool_name, raised.tool_input, decision.remember, resolve=resolve)

    async def _change(self, interrupt: Interrupt, decision: Decision) -> Change | None:
        """The change as it would be now, if this decision changes a file that is not what the human saw any more."""
        raised = interrupt.raised
        if self._inspect is None or raised.base_file_hash is None or not _touches_the_same_file(raised, decision):
            return None
        change = await self._inspect(interrupt.thread_id, raised.tool_name, raised.tool_input)
        return change if change is not None and change.base_file_hash != raised.base_file_hash else None

    async def _addressed(
        self, owner: UserId, thread_id: ThreadId, pending: Sequence[Interrupt], answer: Answer
    ) -> Interrupt:
        matches = [
            item
            for item in pending
            if answer.interrupt_id in (None, item.raised.id) and answer.call_id in (None, item.raised.call_id)
        ]
        if len(matches) > 1:
            raise InvalidDecision("call_id fits more than one pending approval: use interrupt_id")
        if matches:
            return matches[0]
        decided = await self._store.find(owner, answer.interrupt_id) if answer.interrupt_id else None
        if decided is not None and decided.thread_id == thread_id and decided.status is not InterruptStatus.PENDING:
            raise InterruptDecided(f"This approval is not pending any more: {decided.status.value}")
        if not pending:
            raise NothingPending("Nothing waits for approval in this session")
        raise InterruptNotFound


def _touches_the_same_file(raised: RaisedInterrupt, decision: Decision) -> bool:
    match decision.type:
        case DecisionType.APPROVE:
            return True
        case DecisionType.EDIT:
            return (decision.edited_args or {}).get("file_path") == raised.tool_input.get("file_path")
        case DecisionType.REJECT | DecisionType.RESPOND:
            return False

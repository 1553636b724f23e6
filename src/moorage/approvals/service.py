"""How humans answer: what waits is looked up, checked, compared with the files as they are, and decided in one go."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

from moorage.approvals.decisions import (
    Answer,
    CheckedDecision,
    Decided,
    Decision,
    DecisionType,
    FileChanged,
    InterruptDecided,
    InterruptNotFound,
    InvalidDecision,
    NothingPending,
    check_decision,
)
from moorage.approvals.interrupts import Change, InspectChange, Interrupt, InterruptStatus, RaisedInterrupt
from moorage.errors import AppError
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId, UserId
from moorage.paging import Page
from moorage.rules import Effect, Match, NewRule, ResolvePath, new_rule
from moorage.run_request import RunRequest


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

    async def check_open(self, owner: UserId, thread_id: ThreadId) -> None:
        """Raise SessionClosed or SessionExpired when `decide` would."""
        ...

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
        self._turns = WeakValueDictionary[ThreadId, asyncio.Lock]()

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
        run: RunRequest | None = None,
    ) -> Decided:
        """Answer call by call. All are checked before any is written; they take effect together or not at all.

        `run` is what a client of the wire asks of the run that goes on.

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
            return await self._decide(owner, thread_id, chosen, via=via, request=request, run=run)

        return await self._once(owner, thread_id, request, act)

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

        return await self._once(owner, thread_id, request, act)

    async def cancel_pending(self, owner: UserId, thread_id: ThreadId) -> None:
        await self._store.cancel_pending(owner, thread_id)

    async def expire(self) -> int:
        """Close what nobody decided in time; answers how many approvals that were."""
        return await self._store.expire()

    async def _once(
        self, owner: UserId, thread_id: ThreadId, request: RequestKey | None, act: Callable[[], Awaitable[Decided]]
    ) -> Decided:
        """The first answer to a repeated request, also when it came while this repetition was being checked."""
        if request is None:
            return await self._in_turn(thread_id, act)
        if (earlier := await self._store.find_answer(owner, request)) is not None:
            return earlier
        try:
            return await self._in_turn(thread_id, act)
        except AppError:
            if (earlier := await self._store.find_answer(owner, request)) is not None:
                return earlier
            raise

    async def _in_turn(self, thread_id: ThreadId, act: Callable[[], Awaitable[Decided]]) -> Decided:
        """One answer to a thread after the other: of a hundred that come at once, one reads the whole file."""
        async with self._turns.setdefault(thread_id, asyncio.Lock()):
            return await act()

    async def _decide(
        self,
        owner: UserId,
        thread_id: ThreadId,
        chosen: Sequence[tuple[Interrupt, Decision]],
        *,
        via: str,
        request: RequestKey | None,
        run: RunRequest | None = None,
    ) -> Decided:
        if any(_looks_at_files(interrupt, decision) for interrupt, decision in chosen):
            await self._store.check_open(owner, thread_id)  # a sandbox starts for it: not for a session that is over
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
        return await self._store.decide(owner, thread_id, checked, via=via, request=request, run=run)

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


def _looks_at_files(interrupt: Interrupt, decision: Decision) -> bool:
    changes = interrupt.raised.base_file_hash is not None and _touches_the_same_file(interrupt.raised, decision)
    return changes or (decision.remember is not None and decision.remember.match is Match.PATH)


def _touches_the_same_file(raised: RaisedInterrupt, decision: Decision) -> bool:
    match decision.type:
        case DecisionType.APPROVE:
            return True
        case DecisionType.EDIT:
            return (decision.edited_args or {}).get("file_path") == raised.tool_input.get("file_path")
        case DecisionType.REJECT | DecisionType.RESPOND:
            return False

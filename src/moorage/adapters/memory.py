"""The run queue and the event log in one process, for unit tests: nothing is stored, and there is no second server."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from moorage.claims import Claim, ClaimLost, StopReason
from moorage.errors import Conflict
from moorage.events import EventType, Message, Role, RunEvent, StoredEvent, run_event, scrub_text
from moorage.ids import InterruptId, RunId, ThreadId, UserId, new_message_id, new_run_id
from moorage.runs.run import (
    ApprovalPending,
    BusyPolicy,
    ClaimedRun,
    IdempotencyMismatch,
    Outcome,
    QueueFull,
    RunKind,
    RunNotFound,
    RunStatus,
    Started,
)
from moorage.threads import SessionClosed, ThreadNotFound

_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}


@dataclass(slots=True)
class _Run:
    claim: Claim
    input: dict[str, Any]
    first_seq: int
    key: str | None
    policy: BusyPolicy
    attempt: int = 0
    taken_back: bool = False
    status: RunStatus = RunStatus.QUEUED
    stop_reason: StopReason | None = None
    lease_ends: float = 0.0


@dataclass(slots=True)
class _Thread:
    owner_id: UserId
    closed: bool = False
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    runs: list[_Run] = field(default_factory=list[_Run])
    pending: set[InterruptId] = field(default_factory=set[InterruptId])
    graph_open: bool = False

    def with_status(self, status: RunStatus) -> list[_Run]:
        return [run for run in self.runs if run.status is status]


class MemoryEventLog:
    """`moorage.runs.ports.EventLog`, and the threads that it and `MemoryRunQueue` know."""

    def __init__(self) -> None:
        self.threads: dict[ThreadId, _Thread] = {}
        self._readers: set[asyncio.Event] = set()
        self._closed = False

    def add_thread(self, thread_id: ThreadId, owner: UserId) -> None:
        self.threads[thread_id] = _Thread(owner)
        self._tell_readers()

    def close_thread(self, thread_id: ThreadId) -> None:
        self.threads[thread_id].closed = True

    def delete_thread(self, thread_id: ThreadId) -> None:
        del self.threads[thread_id]

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        self.running(claim)
        self.store(claim, events)

    def running(self, claim: Claim) -> _Run:
        """The run that `claim` holds; raises ClaimLost."""
        thread = self.threads.get(claim.thread_id)
        for run in thread.with_status(RunStatus.RUNNING) if thread else ():
            if run.claim == claim:
                return run
        raise ClaimLost("This run is not this worker's any more")

    def store(self, claim: Claim, events: Sequence[RunEvent]) -> int:
        """Append without asking who holds the run; answers the seq of the first event."""
        log = self.threads[claim.thread_id].events
        first = len(log) + 1
        for seq, event in enumerate(events, start=first):
            log.append(StoredEvent(claim.thread_id, seq, claim.run_id, event.type, event.data))
        self._tell_readers()
        return first

    async def read(self, thread_id: ThreadId, *, after: int, limit: int) -> list[StoredEvent]:
        thread = self.threads.get(thread_id)
        return thread.events[after : after + limit] if thread else []

    async def follow(self, thread_id: ThreadId, *, after: int, idle: float) -> AsyncGenerator[list[StoredEvent]]:
        news = asyncio.Event()
        self._readers.add(news)
        try:
            while not self._closed:
                news.clear()
                if batch := await self.read(thread_id, after=after, limit=1000):
                    after = batch[-1].seq
                    yield batch
                elif not await _heard(news, idle):
                    yield []
        finally:
            self._readers.discard(news)

    async def arrival(self, thread_id: ThreadId, *, idle: float) -> AsyncGenerator[bool]:
        news = asyncio.Event()
        self._readers.add(news)
        try:
            while not self._closed:
                news.clear()
                heard = thread_id in self.threads or await _heard(news, idle)
                if not self._closed:
                    yield heard
        finally:
            self._readers.discard(news)

    def close_readers(self) -> None:
        self._closed = True
        self._tell_readers()

    def _tell_readers(self) -> None:
        for news in self._readers:
            news.set()


class MemoryRunQueue:
    """`moorage.runs.ports.MessageQueue`. Sessions do not expire here."""

    def __init__(self, log: MemoryEventLog, *, queue_limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._queue_limit = queue_limit
        self._clock = clock
        self._work = asyncio.Event()
        self._claims = itertools.count(1)

    async def submit(
        self, owner: UserId, thread_id: ThreadId, *, content: str, policy: BusyPolicy, idempotency_key: str | None
    ) -> Started:
        thread = self._log.threads.get(thread_id)
        if thread is None or thread.owner_id != owner:
            raise ThreadNotFound
        content = scrub_text(content)
        if idempotency_key and (earlier := self._same_key(owner, idempotency_key)):
            if (earlier.claim.thread_id, earlier.input["content"], earlier.policy) != (thread_id, content, policy):
                raise IdempotencyMismatch("This Idempotency-Key was used for another request")
            return Started(earlier.claim.run_id, earlier.first_seq)
        self._refuse(thread, policy)
        taken_back = [run for run in thread.with_status(RunStatus.QUEUED) if run.taken_back]
        stopped = [*thread.with_status(RunStatus.RUNNING), *taken_back] if policy in _STOPS else []
        for run in stopped:
            run.stop_reason = run.stop_reason or _STOPS.get(policy)
        stops = [run.claim.run_id for run in stopped]
        thread.pending.clear()
        claim = Claim(new_run_id(), thread_id, owner, 0)
        message = Message(new_message_id(), Role.USER, content)
        data = {"message_id": message.id, "run_id": claim.run_id, "thread_id": thread_id, "content": content}
        first_seq = self._log.store(claim, [run_event(EventType.MESSAGE_RECEIVED, data, message=message)])
        run_input = {"message_id": message.id, "content": content, "first_seq": first_seq}
        thread.runs.append(_Run(claim, run_input, first_seq, idempotency_key, policy))
        self.wake()
        return Started(claim.run_id, first_seq, tuple(stops))

    def _same_key(self, owner: UserId, key: str) -> _Run | None:
        runs = (run for thread in self._log.threads.values() for run in thread.runs)
        return next((run for run in runs if run.key == key and run.claim.owner_id == owner), None)

    def _refuse(self, thread: _Thread, policy: BusyPolicy) -> None:
        queued = thread.with_status(RunStatus.QUEUED)
        if thread.closed:
            raise SessionClosed("This session is closed")
        if thread.pending and policy is not BusyPolicy.REJECT_AND_CONTINUE:
            raise ApprovalPending("This session waits for an approval: decide it first")
        if policy is BusyPolicy.REJECT and (queued or thread.with_status(RunStatus.RUNNING)):
            raise Conflict("This session is busy", code="thread_busy")
        if len(queued) >= self._queue_limit > 0:
            raise QueueFull(f"{self._queue_limit} messages wait in this session already", retry_after=5)

    def wake(self) -> None:
        self._work.set()

    async def wait_for_work(self, *, at_most: float) -> None:
        if await _heard(self._work, at_most):
            self._work.clear()

    async def claim(self, worker: str, *, limit: int, lease: timedelta) -> list[ClaimedRun]:  # noqa: ARG002 -- the port's
        claimed: list[ClaimedRun] = []
        for thread in self._log.threads.values():
            queued = thread.with_status(RunStatus.QUEUED)
            if len(claimed) < limit and queued and not thread.pending and not thread.with_status(RunStatus.RUNNING):
                run = next((run for run in queued if run.taken_back), queued[0])
                generation, token = run.claim.generation + 1, next(self._claims)
                run.claim = replace(run.claim, generation=generation, fencing_token=token)
                run.attempt += 1
                run.status, run.lease_ends = RunStatus.RUNNING, self._clock() + lease.total_seconds()
                fresh = run.claim.generation == 1 and not thread.graph_open
                taken = ClaimedRun(run.claim, RunKind.MESSAGE, "agent", run.input, run.attempt, fresh)
                taken = replace(taken, stop_reason=run.stop_reason)
                claimed.append(taken)
        return claimed

    async def heartbeat(self, claims: Sequence[Claim], *, lease: timedelta) -> Mapping[RunId, StopReason]:
        stops: dict[RunId, StopReason] = {}
        for claim in claims:
            try:
                run = self._log.running(claim)
            except ClaimLost:
                stops[claim.run_id] = StopReason.DELETED
                continue
            run.lease_ends = self._clock() + lease.total_seconds()
            if run.stop_reason:
                stops[claim.run_id] = run.stop_reason
        return stops

    async def finish(self, claim: Claim, outcome: Outcome) -> None:
        self._end(self._log.running(claim), outcome)
        self.wake()

    def _end(self, run: _Run, outcome: Outcome) -> None:
        thread = self._log.threads[run.claim.thread_id]
        rolled_back = run.stop_reason is StopReason.ROLLBACK
        if rolled_back:
            outcome = Outcome(RunStatus.CANCELLED, usage=outcome.usage)
        thread.pending |= {raised.id for raised in outcome.interrupts}
        thread.graph_open = thread.graph_open if run.attempt == 0 else outcome.status is not RunStatus.SUCCESS
        shown = [{"id": raised.id, "call_id": raised.call_id} for raised in outcome.interrupts]
        events = [run_event(EventType.INTERRUPT, {"interrupts": shown})] if shown else []
        if outcome.error:
            events.append(run_event(EventType.ERROR, {**outcome.error, "run_id": run.claim.run_id}))
        end = {
            "run_id": run.claim.run_id,
            "status": outcome.status.value,
            "usage": dict(outcome.usage),
            "rolled_back": True if rolled_back else None,
        }
        self._log.store(run.claim, [*events, run_event(EventType.RUN_END, end)])
        run.status = outcome.status

    async def release(self, claim: Claim) -> None:
        run = self._log.running(claim)
        run.attempt -= 1
        self._take_back(run)

    def _take_back(self, run: _Run) -> None:
        if run.stop_reason:
            self._end(run, Outcome(RunStatus.CANCELLED))
        else:
            run.status, run.taken_back = RunStatus.QUEUED, True
        self.wake()

    async def stop_run(self, thread_id: ThreadId, run_id: RunId, reason: StopReason) -> bool:
        thread = self._log.threads.get(thread_id)
        run = next((run for run in thread.runs if run.claim.run_id == run_id), None) if thread else None
        if run is None:
            raise RunNotFound
        if run.status is RunStatus.RUNNING:
            run.stop_reason = run.stop_reason or reason
        elif run.status is RunStatus.QUEUED:
            self._end(run, Outcome(RunStatus.CANCELLED))
        return run.status is RunStatus.RUNNING

    async def have_ended(self, run_ids: Sequence[RunId]) -> bool:
        runs = [run for thread in self._log.threads.values() for run in thread.runs if run.claim.run_id in run_ids]
        return all(run.status not in (RunStatus.QUEUED, RunStatus.RUNNING) for run in runs)

    async def request_stop(self, thread_id: ThreadId, reason: StopReason) -> list[RunId]:
        thread = self._log.threads.get(thread_id)
        if thread is None:
            return []
        for run in thread.with_status(RunStatus.QUEUED):
            self._end(run, Outcome(RunStatus.CANCELLED))
        running = thread.with_status(RunStatus.RUNNING)
        for run in running:
            run.stop_reason = reason
        return [run.claim.run_id for run in running]

    async def recover_lost(self, *, max_attempts: int) -> int:
        running = [run for thread in self._log.threads.values() for run in thread.with_status(RunStatus.RUNNING)]
        lost = [run for run in running if run.lease_ends < self._clock()]
        for run in lost:
            if run.attempt >= max_attempts and not run.stop_reason:
                error = {"code": "crashed_repeatedly", "detail": f"The server died {run.attempt} times"}
                self._end(run, Outcome(RunStatus.ERROR, error=error))
            else:
                self._take_back(run)
        return len(lost)


async def _heard(news: asyncio.Event, at_most: float) -> bool:
    try:
        async with asyncio.timeout(at_most):
            return await news.wait()
    except TimeoutError:
        return False

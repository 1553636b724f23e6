"""What runs need: a queue that hands each run to one worker, and a log that every reader can follow."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from moorage.claims import Claim, StopReason
from moorage.events import RunEvent, StoredEvent
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.run import BusyPolicy, ClaimedRun, Outcome, Run, RunRequest, RunStatus, Started


class MessageQueue(Protocol):
    """Runs that answer messages: they wait, run and end. One run of a thread at a time, first in, first out."""

    async def submit(
        self, owner: UserId, thread_id: ThreadId, *, content: str, policy: BusyPolicy, idempotency_key: str | None
    ) -> Started:
        """Store a message and its run in one transaction, with what its policy does to the run before it.

        Raises SessionClosed, SessionExpired, ApprovalPending, QueueFull, Conflict (busy) or IdempotencyMismatch. A
        repeated `idempotency_key` with the same content answers with the run that it started.
        """
        ...

    def wake(self) -> None:
        """Say that there may be something to claim."""
        ...

    async def wait_for_work(self, *, at_most: float) -> None:
        """Return when there may be something to claim, after `at_most` seconds in any case."""
        ...

    async def claim(self, worker: str, *, limit: int, lease: timedelta) -> list[ClaimedRun]:
        """Take up to `limit` runs that may start now."""
        ...

    async def heartbeat(self, claims: Sequence[Claim], *, lease: timedelta) -> Mapping[RunId, StopReason]:
        """Prolong the leases; answers which of these runs must stop, and why. A lost claim counts as deleted."""
        ...

    async def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Write the outcome, its interrupts and the run's last events in one transaction; raises ClaimLost.

        A run that was asked to be rolled back ends as cancelled, whatever its outcome, and leaves nothing behind.
        """
        ...

    async def release(self, claim: Claim) -> None:
        """Hand an unfinished run back, first in line, without counting the attempt; raises ClaimLost."""
        ...

    async def request_stop(self, thread_id: ThreadId, reason: StopReason) -> list[RunId]:
        """Ask the thread's running run to stop, and end its queued ones; answers the running ones' ids."""
        ...

    async def stop_run(self, thread_id: ThreadId, run_id: RunId, reason: StopReason) -> bool:
        """Ask this one run to stop, or end it if no worker has it; answers whether a worker has it.

        Raises RunNotFound; one that has ended stays as it is.
        """
        ...

    async def have_ended(self, run_ids: Sequence[RunId]) -> bool:
        """Whether none of these runs is queued or running any more."""
        ...

    async def recover_lost(self, *, max_attempts: int) -> int:
        """Put runs whose lease ran out back, first in line; answers how many leases had.

        One that was claimed `max_attempts` times ends as `crashed_repeatedly`, one that was to stop as cancelled.
        """
        ...


class RunQueue(MessageQueue, Protocol):
    """The same, and runs that clients of the wire ask for: these need states, which only a database has."""

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
        """As for a message. Without `content` it is the request that says what the graph is fed."""
        ...


class RunRecords(Protocol):
    """The runs of a user's threads, as they stand. Every call sees those of `owner` only."""

    async def find(self, owner: UserId, run_id: str, *, thread_id: ThreadId | None = None) -> Run | None:
        """The run with this id, of this thread or of any."""
        ...

    async def search(
        self, owner: UserId, thread_id: ThreadId, *, statuses: Sequence[RunStatus], limit: int, offset: int
    ) -> list[Run]:
        """Newest first, without those that only changed the state; no `statuses` are all."""
        ...

    async def active(
        self, owner: UserId, *, thread_id: ThreadId | None, run_ids: Sequence[str] | None, status: RunStatus | None
    ) -> list[Run]:
        """Runs that are queued or running, of one thread or of all."""
        ...

    async def delete(self, owner: UserId, thread_id: ThreadId, run_id: RunId) -> bool:
        """False when it is queued or running."""
        ...


class EventLog(Protocol):
    """The one append-only log per thread."""

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        """Store `events` in order and make them visible; returns after the commit. Raises ClaimLost."""
        ...

    async def read(self, thread_id: ThreadId, *, after: int, limit: int) -> list[StoredEvent]:
        """Events with a seq above `after`, in order."""
        ...

    def follow(self, thread_id: ThreadId, *, after: int, idle: float) -> AsyncGenerator[list[StoredEvent]]:
        """Batches of events with a seq above `after`: the stored ones, then each new one after its commit.

        An empty batch comes after `idle` quiet seconds. Ends only when the log is closed for readers.
        """
        ...

    def arrival(self, thread_id: ThreadId, *, idle: float) -> AsyncGenerator[bool]:
        """Wait for a thread that is not there yet: True when it may be, False after `idle` quiet seconds.

        Ends only when the log is closed for readers.
        """
        ...

    def close_readers(self) -> None:
        """End every `follow`, and each new one at once: the server stops."""
        ...

"""What a run is, and how it can end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from moorage.approvals import RaisedInterrupt
from moorage.claims import Claim, StopReason
from moorage.errors import Conflict, InvalidPayload, LimitExceeded, NotFound
from moorage.ids import RunId, ThreadId
from moorage.run_request import Record as Record
from moorage.run_request import RunRequest as RunRequest


class RunKind(StrEnum):
    MESSAGE = "message"
    RESUME = "resume"
    UPDATE = "update"  # changes the thread's state, and runs nothing


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


class BusyPolicy(StrEnum):
    """What a message does that finds its thread busy, or waiting for an approval."""

    ENQUEUE = "enqueue"  # waits its turn
    REJECT = "reject"  # is refused
    INTERRUPT = "interrupt"  # stops the running run, keeping what it did
    ROLLBACK = "rollback"  # stops the running run and undoes it
    REJECT_AND_CONTINUE = "reject_and_continue"  # rejects what waits for approval, then waits its turn


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is stored. `first_seq` is that of its first event; `error` a problem object."""

    run_id: RunId
    thread_id: ThreadId
    assistant_id: str
    kind: RunKind
    status: RunStatus
    first_seq: int
    metadata: dict[str, Any]
    kwargs: dict[str, Any]
    multitask_strategy: str
    cancel_reason: str | None
    error: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run handed to a worker. `input` is `{message_id, content}`, for a resume `{resume: {interrupt_id: value}}`.

    `attempt` counts from 1. A `fresh` run was never claimed before, and nothing is left open in its thread, which is
    `blank` when nothing was ever saved in it; `base_checkpoint_id` is its latest checkpoint when the run first started.
    With a `stop_reason` it is only to be ended: somebody stopped it while no worker had it.
    """

    claim: Claim
    kind: RunKind
    assistant_id: str
    input: dict[str, Any]
    attempt: int = 1
    fresh: bool = True
    blank: bool = False
    base_checkpoint_id: str | None = None
    stop_reason: StopReason | None = None

    @property
    def taken_over(self) -> bool:
        """Whether another worker had it before, who may have left something running."""
        return self.claim.generation > 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `error` is a problem object: `{code, detail, retry_after?}`.

    `values` is what it wrote to the thread's state beside messages, in JSON.
    """

    status: RunStatus
    interrupts: Sequence[RaisedInterrupt] = ()
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, int] = field(default_factory=dict[str, int])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Started:
    """An accepted message: the run that will answer it, the seq of its first event, and the runs that it stops."""

    run_id: RunId
    first_seq: int
    stops: tuple[RunId, ...] = ()


class RunNotFound(NotFound):
    code = "run_not_found"

    def __init__(self) -> None:
        super().__init__("No such run in this session")


class RunActive(Conflict):
    code = "run_active"

    def __init__(self) -> None:
        super().__init__("This run has not ended: cancel it first")


class ApprovalPending(Conflict):
    code = "approval_pending"


class QueueFull(LimitExceeded):
    code = "queue_full"


class IdempotencyMismatch(InvalidPayload):
    code = "idempotency_key_reused"

"""What a run is, and how it can end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from moorage.approvals import RaisedInterrupt
from moorage.claims import Claim
from moorage.errors import Conflict, InvalidPayload, LimitExceeded
from moorage.ids import RunId


class RunKind(StrEnum):
    MESSAGE = "message"
    RESUME = "resume"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SUCCESS = "success"
    ERROR = "error"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run handed to a worker. `input` is `{message_id, content}`, for a resume `{resume: {interrupt_id: value}}`."""

    claim: Claim
    kind: RunKind
    assistant_id: str
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `error` is a problem object: `{code, detail, retry_after?}`."""

    status: RunStatus
    interrupts: Sequence[RaisedInterrupt] = ()
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Started:
    """An accepted message: the run that will answer it, and the seq of its first event."""

    run_id: RunId
    first_seq: int


class ApprovalPending(Conflict):
    code = "approval_pending"


class QueueFull(LimitExceeded):
    code = "queue_full"


class IdempotencyMismatch(InvalidPayload):
    code = "idempotency_key_reused"

"""What a run is, and how it can end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from moorage.approvals import RaisedInterrupt
from moorage.claims import Claim, StopReason
from moorage.errors import Conflict, InvalidPayload, LimitExceeded
from moorage.ids import RunId, ThreadId


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


class Record(StrEnum):
    """What of LangGraph's own streams a run's log keeps beside our events."""

    VALUES = "values"
    UPDATES = "updates"
    TASKS = "tasks"
    CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a client of the LangGraph wire may ask of a run, beside or instead of a message.

    `messages` are LangChain messages in JSON, each with an id; `values` the rest of the graph's input. With neither the
    graph is entered where it stands. `update` and `goto` are those of a LangGraph command; `checkpoint_id` is where the
    run branches off. `interrupt_before` and `interrupt_after` name nodes, "*" all. `kwargs` is what the client sent, as
    it is shown; `thread_metadata` is added to the thread's. An `ephemeral` run takes its thread with it when it ends.
    """

    assistant_id: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    update: Mapping[str, Any] | None = None
    goto: tuple[str, ...] = ()
    checkpoint_id: str | None = None
    interrupt_before: tuple[str, ...] = ()
    interrupt_after: tuple[str, ...] = ()
    record: tuple[Record, ...] = ()
    recursion_limit: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    webhook: str | None = None
    after_seconds: float = 0
    ephemeral: bool = False
    thread_metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def adds_input(self) -> bool:
        """Whether it brings something, instead of going on where the graph stands."""
        return bool(self.messages or self.values or self.update or self.goto)

    def for_graph(self) -> dict[str, Any]:
        """The part that the graph is entered with, in JSON; only what was asked for."""
        asked = {
            "messages": list(self.messages),
            "values": dict(self.values),
            "update": dict(self.update) if self.update is not None else None,
            "goto": list(self.goto),
            "checkpoint_id": self.checkpoint_id,
            "interrupt_before": list(self.interrupt_before),
            "interrupt_after": list(self.interrupt_after),
            "record": [kind.value for kind in self.record],
            "recursion_limit": self.recursion_limit,
        }
        return {key: value for key, value in asked.items() if value}


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


class ApprovalPending(Conflict):
    code = "approval_pending"


class QueueFull(LimitExceeded):
    code = "queue_full"


class IdempotencyMismatch(InvalidPayload):
    code = "idempotency_key_reused"

"""Approvals as clients are shown them: in events, in lists, in a session's state. A key without a value is missing."""

from typing import Any, Literal, NotRequired, TypedDict, cast

from moorage.approvals import DecisionType, Interrupt, InterruptStatus, seen_by_human


class Limits(TypedDict):
    """What a sandbox may use; `command_seconds` is how long a command may take that says nothing else."""

    cpus: float
    memory_mb: int
    pids: int
    disk_mb: int
    command_seconds: int


class HiddenCharacters(TypedDict):
    """Characters in an argument that hide, reorder or imitate others: up to 20 of them by name, all of them counted."""

    field: str
    characters: list[str]
    count: int


class Facts(TypedDict):
    """What the server itself knows about a call, whatever the agent says.

    `allowed_hosts` is there when the network is `allowlist`. `warnings` and `risks` (codes) are what a human should
    look at twice. `note` says of a file what the diff cannot.
    """

    sandbox: str
    runtime: str
    profile: str
    network: str
    folder: str
    limits: Limits
    allowed_hosts: NotRequired[list[str]]
    warnings: NotRequired[list[HiddenCharacters]]
    risks: NotRequired[list[str]]
    note: NotRequired[str]


class Question(TypedDict):
    """A tool call that waits for a human: what the agent wants to do, as the `interrupt` event tells it.

    `diff` is the unified diff of a file that would change. `parent_call_id` is there for a sub-agent's call. A decision
    that names `digest` holds for nothing else than what is here.
    """

    id: str
    call_id: str
    tool_name: str
    tool_input: dict[str, Any]
    description: str
    allowed_decisions: list[DecisionType]
    facts: Facts
    diff: NotRequired[str]
    digest: str
    expires_at: str
    agent: str
    parent_call_id: NotRequired[str]


class PendingApproval(Question):
    """An approval that waits, with where it belongs."""

    thread_id: str
    run_id: str
    status: Literal["pending"]


class ApprovalDecision(TypedDict):
    """`args` is there for `edit`, `message` for `reject` and `respond`."""

    type: DecisionType
    args: NotRequired[dict[str, Any]]
    message: NotRequired[str]


class Approval(Question):
    """An approval with what became of it.

    `decided_via` is `api`, `resume`, `langgraph`, `cancel`, `message` or `expired`; `executed_input` is what ran.
    """

    thread_id: str
    run_id: str
    status: InterruptStatus
    decision: NotRequired[ApprovalDecision]
    decided_by: NotRequired[str]
    decided_at: NotRequired[str]
    decided_via: NotRequired[str]
    executed_input: NotRequired[dict[str, Any]]


def shown_approval(interrupt: Interrupt) -> Approval:
    """What the human saw, and what became of it."""
    became = {
        "thread_id": interrupt.thread_id,
        "run_id": interrupt.run_id,
        "status": interrupt.status.value,
        "decision": interrupt.decision,
        "decided_by": interrupt.decided_by,
        "decided_at": interrupt.decided_at.isoformat() if interrupt.decided_at else None,
        "decided_via": interrupt.decided_via,
        "executed_input": interrupt.executed_input,
    }
    shown = seen_by_human(interrupt) | {key: value for key, value in became.items() if value is not None}
    return cast("Approval", shown)


def shown_pending(interrupt: Interrupt) -> PendingApproval:
    """One that waits: nothing became of it yet."""
    return cast("PendingApproval", shown_approval(interrupt))

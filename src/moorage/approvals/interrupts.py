"""Interrupts: what the agent wants to do and a human decides, as it was raised, stored and shown."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from moorage.ids import InterruptId, RunId, ThreadId

ABSENT = "absent"
WARNINGS = "warnings"
RISKS = "risks"


class InterruptStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    EDITED = "edited"
    REJECTED = "rejected"
    RESPONDED = "responded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


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


def is_flagged(raised: RaisedInterrupt) -> bool:
    """Whether its facts tell a human to look twice: hidden characters, or a risky shape."""
    return any(raised.facts.get(name) for name in (WARNINGS, RISKS))


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

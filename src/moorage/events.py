"""The public vocabulary of what happens in a thread, as stored in the event log and sent over SSE.

The names and payloads are those of design/events.md. An event's `data` is encoded to JSON once, when it is made, and
those bytes are what the log stores and every reader gets.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from moorage.ids import RunId, ThreadId

_LONGEST_INTEGER = 63
_DEEPEST = 200


class EventType(StrEnum):
    MESSAGE_RECEIVED = "message_received"
    AGENT_START = "agent_start"
    CONTENT_STREAM = "content_stream"
    TOOL_CALL = "tool_call"
    TOOL_OUTPUT = "tool_output"
    TOOL_RESULT = "tool_result"
    TODO_UPDATE = "todo_update"
    INTERRUPT = "interrupt"
    DECISION = "decision"
    MESSAGE_COMPLETE = "message_complete"
    RUN_END = "run_end"
    ERROR = "error"
    GRAPH = "graph"  # what LangGraph itself said, for clients of its wire; the core API does not show it


class Role(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a thread's history as its users read it; stored with the event that completed it."""

    id: str
    role: Role
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    call_id: str | None = None
    usage: dict[str, Any] | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """Something that happened in a run and is not stored yet.

    An event that tells of the graph's state waits until the message `waits_for` is in a checkpoint.
    """

    type: EventType
    data: bytes
    message: Message | None = field(default=None)
    waits_for: str | None = None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event of the log. `seq` counts from 1 within its thread, without gaps; `at` is when it was stored."""

    thread_id: ThreadId
    seq: int
    run_id: RunId
    type: EventType
    data: bytes
    at: datetime | None = field(default=None, compare=False)


def run_event(
    kind: EventType, data: dict[str, Any], *, message: Message | None = None, waits_for: str | None = None
) -> RunEvent:
    """Encode `data` as one line of JSON; keys whose value is None are left out."""
    return RunEvent(kind, encode({key: value for key, value in data.items() if value is not None}), message, waits_for)


def encode(data: Any) -> bytes:
    """JSON bytes that Postgres and browsers accept, for anything that a model or a client may have said.

    NUL and lone surrogates are left out, integers beyond 64 bits become strings, and nesting beyond 200 levels is cut.
    """
    try:
        text = orjson.dumps(data, default=str)
    except TypeError:  # orjson refuses all but NUL
        return orjson.dumps(_scrub(data), default=str)
    return orjson.dumps(_scrub(data), default=str) if b"\\u0000" in text else text


def survives_encoding(data: Any) -> bool:
    """Whether who reads what `encode` made of `data` sees exactly `data`."""
    return orjson.loads(encode(data)) == data


def scrub_text(text: str) -> str:
    """`text` without what Postgres cannot store: NUL and lone surrogates."""
    if text.isascii():
        return text.replace("\x00", "")
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def _scrub(value: Any, depth: int = 0) -> Any:
    match value:
        case str():
            return scrub_text(value)
        case int() if value.bit_length() > _LONGEST_INTEGER:
            return str(value)
        case dict() | list() | tuple() if depth == _DEEPEST:
            return "…"
        case dict():
            return {_scrub(key): _scrub(item, depth + 1) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case list() | tuple():
            return [_scrub(item, depth + 1) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value

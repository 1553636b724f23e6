"""The events of design/events.md, one shape for each: the API's description, and the tests, know them from here.

Nothing is made from these: events are encoded once, where they happen. A key without a value is missing.
"""

from typing import Any, Literal, NotRequired, TypedDict

from pydantic import TypeAdapter

from moorage.approvals import DecisionType
from moorage.events import EventType
from moorage_api.approval_shapes import Question
from moorage_api.message_shapes import TokenCount

type Json = dict[str, Any]

_SCHEMAS = "#/components/schemas/{model}"


class MessageReceivedEvent(TypedDict):
    """The user's message is kept."""

    message_id: str
    run_id: str
    thread_id: str
    content: str


class AgentStartEvent(TypedDict):
    """An agent begins; with an `attempt`, anew: what its run was in the middle of saying counts no more."""

    run_id: str
    agent: str
    attempt: NotRequired[int]
    parent_call_id: NotRequired[str]


class ContentStreamEvent(TypedDict):
    """A piece of a message; `thinking_delta` is one of the model's reasoning."""

    message_id: str
    content_delta: str
    thinking_delta: NotRequired[str]
    agent: str
    parent_call_id: NotRequired[str]


class MessageMetadata(TypedDict):
    """`response_time` is in seconds. Nothing is known of a message that a client put into the model's mouth."""

    model: NotRequired[str]
    usage: NotRequired[TokenCount]
    response_time: NotRequired[float]


class MessageCompleteEvent(TypedDict):
    """A model's message with text is complete."""

    message_id: str
    final_content: str
    agent: str
    parent_call_id: NotRequired[str]
    metadata: MessageMetadata


class ToolCallEvent(TypedDict):
    """The model wants to call a tool: told once for each call, before anybody is asked."""

    call_id: str
    message_id: str
    tool_name: str
    tool_input: dict[str, Any]
    agent: str
    parent_call_id: NotRequired[str]


class ToolOutputEvent(TypedDict):
    """What a command says while it runs, or, once, that what follows is left out."""

    call_id: str
    stream: Literal["stdout", "stderr"]
    delta: NotRequired[str]
    truncated: NotRequired[Literal[True]]
    agent: str
    parent_call_id: NotRequired[str]


class ToolResultEvent(TypedDict):
    """How a call ended. `executed_input` is there after an edit."""

    call_id: str
    message_id: str
    status: Literal["success", "error", "rejected", "outcome_unknown"]
    result: str
    exit_code: NotRequired[int]
    duration_ms: int
    executed_input: NotRequired[dict[str, Any]]
    agent: str
    parent_call_id: NotRequired[str]


class Todo(TypedDict):
    content: str
    status: Literal["pending", "in_progress", "completed"]


class TodoUpdateEvent(TypedDict):
    """The whole plan as it is now."""

    todos: list[Todo]
    agent: str
    parent_call_id: NotRequired[str]


class InterruptEvent(TypedDict):
    """All that waits for a human in the thread now."""

    interrupts: list[Question]


class DecisionEvent(TypedDict):
    """Somebody, or a rule, decided. `executed_input` holds an edit's arguments."""

    interrupt_id: NotRequired[str]
    call_id: str
    type: DecisionType
    decided_by: NotRequired[str]
    decided_via: str
    executed_input: NotRequired[dict[str, Any]]
    message: NotRequired[str]
    parent_call_id: NotRequired[str]


class ErrorEvent(TypedDict):
    """Why the run failed; `retry_after` is in seconds."""

    code: str
    detail: str
    retry_after: NotRequired[int]
    run_id: str


class RunUsage(TypedDict):
    """What a whole run took; empty for one that never ran."""

    model_calls: NotRequired[int]
    input_tokens: NotRequired[int]
    output_tokens: NotRequired[int]
    total_tokens: NotRequired[int]


class RunEndEvent(TypedDict):
    """The last event of each run. `rolled_back`: it was taken out of history and state."""

    run_id: str
    status: Literal["success", "interrupted", "error", "timeout", "cancelled"]
    usage: RunUsage
    rolled_back: NotRequired[Literal[True]]


class StreamClosedEvent(TypedDict):
    """The server ends a stream before its time. Not in the log: the only frame without an id."""

    reason: Literal["server_restart", "lagged", "gap", "unauthorized"]
    last_seq: int


CLOSED = "stream_closed"

SHAPES: dict[str, Any] = {
    EventType.MESSAGE_RECEIVED: MessageReceivedEvent,
    EventType.AGENT_START: AgentStartEvent,
    EventType.CONTENT_STREAM: ContentStreamEvent,
    EventType.MESSAGE_COMPLETE: MessageCompleteEvent,
    EventType.TOOL_CALL: ToolCallEvent,
    EventType.TOOL_OUTPUT: ToolOutputEvent,
    EventType.TOOL_RESULT: ToolResultEvent,
    EventType.TODO_UPDATE: TodoUpdateEvent,
    EventType.INTERRUPT: InterruptEvent,
    EventType.DECISION: DecisionEvent,
    EventType.ERROR: ErrorEvent,
    EventType.RUN_END: RunEndEvent,
    CLOSED: StreamClosedEvent,
}
"""By the event's name. `graph` has none: the core API does not show it."""


def event_schemas() -> Json:
    """The shapes as JSON schemas by their names, for the components of the API's description."""
    adapters = [(name, "serialization", TypeAdapter[Any](shape)) for name, shape in SHAPES.items()]
    _, schemas = TypeAdapter.json_schemas(adapters, ref_template=_SCHEMAS)  # pyright: ignore[reportArgumentType]
    return schemas["$defs"]


def _frame(name: str) -> Json:
    """One frame of the stream, as OpenAPI 3.2 describes server-sent events."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": _SCHEMAS.format(model=SHAPES[name].__name__)},
    }
    properties: Json = {"event": {"const": name}, "data": data}
    if name != CLOSED:
        properties["id"] = {"type": "string", "pattern": "^[0-9]+$"}
    return {"type": "object", "properties": properties, "required": sorted(properties)}


SESSION_EVENTS: dict[int | str, Json] = {
    200: {
        "description": "Server-sent events",
        "content": {"text/event-stream": {"itemSchema": {"oneOf": [_frame(str(name)) for name in SHAPES]}}},
    }
}
"""How the API's description shows a stream of a session's events."""

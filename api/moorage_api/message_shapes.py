"""Messages as clients are shown them. A key without a value is missing."""

from typing import Any, NotRequired, TypedDict, cast

from moorage.events import Role
from moorage.threads import HistoryMessage


class TokenCount(TypedDict):
    """Tokens of one model call."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class MessageCall(TypedDict):
    """A tool call that a model's message makes."""

    call_id: str
    tool_name: str
    tool_input: dict[str, Any]


class Message(TypedDict):
    """What a user or a model said, or how a tool call ended: `call_id` is there for the latter."""

    id: str
    run_id: str
    role: Role
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[MessageCall]]
    call_id: NotRequired[str]
    usage: NotRequired[TokenCount]
    duration_ms: NotRequired[int]
    created_at: str


def shown_message(item: HistoryMessage) -> Message:
    message = item.message
    shown = {
        "id": message.id,
        "run_id": item.run_id,
        "role": message.role.value,
        "content": message.content,
        "thinking": message.thinking,
        "tool_calls": message.tool_calls,
        "call_id": message.call_id,
        "usage": message.usage,
        "duration_ms": message.duration_ms,
        "created_at": item.created_at.isoformat(),
    }
    return cast("Message", {key: value for key, value in shown.items() if value is not None})

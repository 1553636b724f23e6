"""From what LangGraph and LangChain hand out to the JSON that clients of the LangGraph wire read, and back."""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages, message_to_dict
from langchain_core.messages.utils import MessageLikeRepresentation
from langgraph.types import Interrupt
from pydantic import BaseModel

from moorage.errors import InvalidPayload
from moorage.ids import new_message_id


class InvalidMessages(InvalidPayload):
    code = "invalid_messages"


def to_json(value: Any) -> Any:
    """`value` in plain JSON types: messages as LangChain dumps them, an interrupt as `{"value", "id"}`."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case BaseMessage():
            return message_json(value)
        case dict():
            return {str(key): to_json(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list() | tuple() | set() | frozenset():
            return [to_json(item) for item in cast("Iterable[Any]", value)]
        case Interrupt():
            return {"value": to_json(value.value), "id": value.id}
        case BaseModel():
            return to_json(value.model_dump())
        case _ if is_dataclass(value) and not isinstance(value, type):
            return to_json({field.name: getattr(value, field.name) for field in fields(value)})
        case _:
            return str(value)


def message_json(message: BaseMessage) -> dict[str, Any]:
    """One message as LangGraph's server shows it: `model_dump`, whose values may hold objects no more."""
    return {key: to_json(item) for key, item in message.model_dump().items()}


def read_messages(given: object) -> list[dict[str, Any]]:
    """Messages as a client may write them (LangChain's or OpenAI's form, a string) in LangChain's JSON, all with ids.

    Raises InvalidMessages, without a word of what was sent.
    """
    items = cast("list[Any]", given) if isinstance(given, list) else [given]
    try:
        messages = convert_to_messages(cast("list[MessageLikeRepresentation]", [_plain(item) for item in items]))
        return [_with_id(_told_apart(message)) for message in messages]
    except (ValueError, NotImplementedError, TypeError, KeyError, AttributeError):
        raise InvalidMessages(
            'messages take items such as {"role": "user", "content": "..."} or {"type": "human", "content": "..."}'
        ) from None


def text_of(message: Mapping[str, Any]) -> str:
    """The words of a message in JSON, whatever else is in its content."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = cast("list[Any]", content) if isinstance(content, list) else []
    return "\n".join(_text_of_part(part) for part in parts)


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    found = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    return str(found.get("text", "")) if found.get("type", "text") == "text" else f"[{found.get('type')}]"


def _plain(item: Any) -> Any:
    """LangChain's dumped form `{"lc": 1, ...}` would be loaded by class: it is data here, and refused.

    What removes a message needs no words: clients send its id only.
    """
    if not isinstance(item, dict):
        return item
    found = cast("dict[str, Any]", item)
    if "lc" in found:
        raise InvalidMessages("messages take no serialized objects")
    return {"content": "", **found} if found.get("type") == "remove" else found


def _told_apart(message: BaseMessage) -> BaseMessage:
    """Refuse calls that nobody could answer or decide one by one: each of a message's has an id of its own."""
    ids = [call["id"] for call in message.tool_calls] if isinstance(message, AIMessage) else []
    if not all(ids) or len(set(ids)) < len(ids):
        raise InvalidMessages("messages: each call in tool_calls takes an id that no other call of its message has")
    return message


def _with_id(message: BaseMessage) -> dict[str, Any]:
    if not message.id:
        message.id = new_message_id()
    return message_to_dict(message)["data"]

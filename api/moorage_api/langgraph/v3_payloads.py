"""What v3 frames carry: approvals, tool results, checkpoints, made of what the log says. Pure."""

from collections.abc import Mapping
from typing import Any, cast

type Data = dict[str, Any]


def approval(item: Mapping[str, Any]) -> Data:
    """One call that waits, as clients are asked; `item` is that of the `interrupt` event."""
    kept = ("facts", "diff", "digest", "expires_at", "agent", "parent_call_id")
    return {
        "type": "tool_approval",
        "tool_call_id": item["call_id"],
        "name": item["tool_name"],
        "args": item["tool_input"],
        "description": item["description"],
        "allowed_decisions": item["allowed_decisions"],
        "response_schema": response_schema(item["tool_name"], item["allowed_decisions"]),
        **{key: item[key] for key in kept if key in item},
    }


def response_schema(tool_name: str, allowed: list[str]) -> Data:
    """What an answer to one call must look like, as JSON Schema; langchain gives its own approvals the same form."""
    action = {
        "type": "object",
        "properties": {"name": {"const": tool_name, "type": "string"}, "args": {"type": "object"}},
        "required": ["name", "args"],
    }
    own: dict[str, tuple[Data, list[str]]] = {
        "approve": ({}, []),
        "edit": ({"edited_action": action}, ["edited_action"]),
        "reject": ({"message": {"type": "string"}}, []),
        "respond": ({"message": {"type": "string"}}, ["message"]),
    }
    forms = [
        {
            "type": "object",
            "properties": {"type": {"const": kind, "type": "string"}, **own[kind][0]},
            "required": ["type", *own[kind][1]],
        }
        for kind in allowed
        if kind in own
    ]
    return {"oneOf": forms}


def without_interrupts(values: Mapping[str, Any]) -> Data:
    """A copy that stays as it is when the state goes on; what waits has a channel of its own."""
    return {key: value for key, value in values.items() if key != "__interrupt__"}


def tool_ended(call_id: str, name: str, data: Data) -> Data:
    """How a call ended, by its `tool_result`: a call that did not take place is an error."""
    if data["status"] in ("rejected", "outcome_unknown"):
        return {"event": "tool-error", "tool_call_id": call_id, "message": data["result"]}
    output = {
        "type": "tool",
        "content": data["result"],
        "name": name or None,
        "id": data["message_id"],
        "tool_call_id": call_id,
        "status": data["status"],
        "artifact": {"exit_code": data["exit_code"]} if "exit_code" in data else None,
        "additional_kwargs": {},
        "response_metadata": {},
    }
    return {"event": "tool-finished", "tool_call_id": call_id, "output": output}


def checkpoint_of(data: Data) -> Data:
    """A checkpoint's envelope: what a client needs to go back to it."""
    metadata: Data = data.get("metadata") or {}
    above: Data = data.get("parent_config") or {}
    parent: str | None = above.get("configurable", {}).get("checkpoint_id")
    told: Data = {
        "id": data["config"]["configurable"]["checkpoint_id"],
        "parent_id": parent,
        "step": metadata.get("step"),
        "source": metadata.get("source", "update"),
    }
    return {key: value for key, value in told.items() if value is not None}


def ai_messages(update: Mapping[str, Any]) -> list[Data]:
    """What the model said in this step: `update` is `{node: update}`."""
    found: list[Data] = []
    for part in update.values():
        messages = part.get("messages") if isinstance(part, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        for message in messages if isinstance(messages, list) else ():  # pyright: ignore[reportUnknownVariableType]
            if isinstance(message, dict) and message.get("type") == "ai":  # pyright: ignore[reportUnknownMemberType]
                found.append(message)  # pyright: ignore[reportUnknownArgumentType]
    return found


def call_of_task(task: Mapping[str, Any]) -> Data | None:
    """The tool call that a task is for, if it is for one: LangGraph gives a tool's task a list with its call."""
    given = task.get("input")
    found = given[0] if isinstance(given, list) and given else given  # pyright: ignore[reportUnknownVariableType]
    if isinstance(found, dict) and "tool_call" in found:
        found = found["tool_call"]  # pyright: ignore[reportUnknownVariableType]
    return cast("Data", found) if isinstance(found, dict) and {"id", "args"} <= found.keys() else None  # pyright: ignore[reportUnknownMemberType]

"""What is known of a tool call before it runs: its place, whether it can run at all, how to put it to a human."""

import json
from typing import Any, cast

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from pydantic import BaseModel, ValidationError

from moorage.agent.journal import Call, CallKey
from moorage.events import survives_encoding

MAX_ARGUMENT_BYTES = 256 * 1024
MALFORMED_ARGUMENTS = "_malformed_arguments"
_ONE_PER_TURN = "write_todos"


def checkpoint_ns() -> str:
    """The namespace of the task that asks: that of a tool call is below its graph's."""
    return get_config().get("configurable", {}).get("checkpoint_ns", "")


def call_of(request: ToolCallRequest) -> Call:
    """The call with its place. ModelGuard made the ids within one message differ."""
    call = request.tool_call
    messages = cast("list[BaseMessage]", request.state["messages"])
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            ids = [item["id"] for item in message.tool_calls]
            if call["id"] in ids:
                key = CallKey(checkpoint_ns().rpartition("|")[0], message.id or "", ids.index(call["id"]))
                return Call(key, str(call["id"]), call["name"], call["args"])
    raise LookupError("a tool call without the message that made it")


def refusal(request: ToolCallRequest) -> str | None:
    """What to tell the model of a call that must not even be shown to a human; None for all others."""
    call = request.tool_call
    if MALFORMED_ARGUMENTS in call["args"]:
        return "Error: the arguments of this call were not valid JSON. Nothing was run; send the call again."
    if len(json.dumps(call["args"], default=str)) > MAX_ARGUMENT_BYTES:
        return f"Error: the arguments are larger than {MAX_ARGUMENT_BYTES} bytes. Nothing was run; use smaller steps."
    if not survives_encoding(call["args"]):  # a human would approve something else than what runs
        return "Error: the arguments hold NUL or broken characters. Nothing was run; send the call without them."
    if call["name"] == _ONE_PER_TURN:
        calls = getattr(request.state["messages"][-1], "tool_calls", [])
        first = next((item["id"] for item in calls if item["name"] == _ONE_PER_TURN), call["id"])
        if call["id"] != first:
            return f"Error: {_ONE_PER_TURN} may be called once per turn; this call was ignored."
    return None


def would_run(request: ToolCallRequest) -> bool:
    """Whether the tool exists and takes these arguments; if not, the tool node answers the model with what is wrong."""
    if request.tool is None:
        return False
    schema = request.tool.tool_call_schema
    if not (isinstance(schema, type) and issubclass(schema, BaseModel)):
        return True
    try:
        schema.model_validate(request.tool_call["args"])
    except ValidationError:
        return False
    return True


def describe(name: str, args: dict[str, Any]) -> str:
    """One line that says what the agent wants to do."""
    match name:
        case "execute":
            return "Run a command in the sandbox"
        case "write_file":
            return f"Write the file {args.get('file_path')}"
        case "edit_file":
            return f"Edit the file {args.get('file_path')}"
        case "delete":
            return f"Delete {args.get('file_path')}"
        case _:
            return f"Call the tool {name}"


def args_schema(tool: BaseTool) -> dict[str, Any]:
    """The JSON schema of a tool's arguments as the model sees them, closed: nothing extra is accepted."""
    schema = tool.tool_call_schema
    shown = cast("type[BaseModel]", schema).model_json_schema() if isinstance(schema, type) else schema
    return {**shown, "additionalProperties": False}

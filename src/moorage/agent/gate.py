"""The gate around every tool call: it asks a human first where it must, and says what started and how it ended.

One middleware, because what a human decided and what then ran belong in the same record. It raises one LangGraph
interrupt per gated call (never a batch: a bad answer to one must not touch the others). Answers are checked by
`moorage.approvals` before they reach the graph; what arrives here is one of

    {"type": "approve"} | {"type": "edit", "args"} | {"type": "reject", "message"} | {"type": "respond", "message"}
"""

import json
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

from langchain.agents.middleware.types import AgentMiddleware, ToolCallRequest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config, get_stream_writer
from langgraph.types import Command, interrupt
from pydantic import BaseModel, ValidationError

from moorage.agent.backend import created_files, tool_output_sink
from moorage.events import survives_encoding
from moorage.ids import new_message_id

READ_ONLY_TOOLS = frozenset({"ls", "read_file", "glob", "grep", "write_todos", "task"})
ALLOWED_DECISIONS = ("approve", "edit", "reject", "respond")
MAX_ARGUMENT_BYTES = 256 * 1024
MALFORMED_ARGUMENTS = "_malformed_arguments"
_ONE_PER_TURN = "write_todos"

type ToolResult = ToolMessage | Command[Any]
type Handler = Callable[[ToolCallRequest], Awaitable[ToolResult]]


@dataclass(frozen=True, slots=True)
class Gate:
    """What asks first, and what the server knows to tell the human beside what the agent claims."""

    facts: dict[str, Any]


class ToolGate(AgentMiddleware[Any, Any]):
    """Asks before each tool call that is not declared read-only, and reports every call through the custom stream."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate = gate

    async def awrap_tool_call(self, request: ToolCallRequest, handler: Handler) -> ToolResult:
        """Ask, run, report. A pause leaves through LangGraph's own exception; the resumed run comes in here again."""
        call = request.tool_call
        write = get_stream_writer()
        subagent = call["args"].get("subagent_type") if call["name"] == "task" else None
        write({"kind": "call", "call_id": call["id"], "ns": _checkpoint_ns(), "subagent": subagent})
        decision = self._decide(request)
        started = time.monotonic()
        with _live_output(write, str(call["id"])):
            result = await _act(request, _telling_new_files(handler), decision)
        write(_report(str(call["id"]), result, decision, duration=time.monotonic() - started))
        return result

    def _decide(self, request: ToolCallRequest) -> dict[str, Any]:
        if refusal := _refusal(request):
            return {"type": "refuse", "message": refusal}
        if request.tool_call["name"] in READ_ONLY_TOOLS or not _would_run(request):
            return {"type": "pass"}
        return cast("dict[str, Any]", interrupt(self._question(request)))

    def _question(self, request: ToolCallRequest) -> dict[str, Any]:
        call = request.tool_call
        return {
            "type": "tool_approval",
            "tool_call_id": call["id"],
            "name": call["name"],
            "args": call["args"],
            "description": describe(call["name"], call["args"]),
            "allowed_decisions": list(ALLOWED_DECISIONS),
            "args_schema": args_schema(cast("BaseTool", request.tool)),
            "facts": self._gate.facts,
        }


def _checkpoint_ns() -> str:
    return get_config().get("configurable", {}).get("checkpoint_ns", "")


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


def _refusal(request: ToolCallRequest) -> str | None:
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


def _would_run(request: ToolCallRequest) -> bool:
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


async def _act(request: ToolCallRequest, handler: Handler, decision: dict[str, Any]) -> ToolResult:
    call = request.tool_call
    match decision["type"]:
        case "pass" | "approve":
            return await handler(request)
        case "edit":
            edited = request.override(tool_call={**call, "args": decision["args"]})
            return _with_notice(await handler(edited), decision["args"])
        case "respond":
            content, status = decision["message"], "success"
        case "reject":
            content, status = _rejection(call["name"], decision["message"]), "error"
        case _:
            content, status = decision["message"], "error"
    return ToolMessage(content, name=call["name"], tool_call_id=cast("str", call["id"]), status=status)


def _rejection(name: str, reason: str) -> str:
    because = f" Reason: {reason}" if reason else ""
    return f"The user rejected this {name} call; it was not run.{because} Do not repeat it unless the user asks for it."


def _with_notice(result: ToolResult, args: dict[str, Any]) -> ToolResult:
    """Tell the model what really ran: the transcript keeps the call as the model made it."""
    notice = (
        f"The user changed this call before it ran. Executed instead with: {json.dumps(args, ensure_ascii=False)}\n"
    )
    if isinstance(result, ToolMessage):
        return result.model_copy(update={"content": notice + result.text})
    update = cast("dict[str, Any]", result.update)
    messages = [
        item.model_copy(update={"content": notice + item.text}) if isinstance(item, ToolMessage) else item
        for item in update.get("messages", [])
    ]
    return replace(result, update={**update, "messages": messages})


@contextmanager
def _live_output(write: Callable[[Any], None], call_id: str) -> Generator[None]:
    def sink(stream: str, delta: str) -> None:
        write({"kind": "output", "call_id": call_id, "stream": stream, "delta": delta})

    token = tool_output_sink.set(sink)
    try:
        yield
    finally:
        tool_output_sink.reset(token)


def _telling_new_files(handler: Handler) -> Handler:
    """deepagents says `Updated file` of a new one, too."""

    async def told(request: ToolCallRequest) -> ToolResult:
        created: set[str] = set()
        token = created_files.set(created)
        try:
            result = await handler(request)
        finally:
            created_files.reset(token)
        if not created or not isinstance(result, ToolMessage):
            return result
        return result.model_copy(update={"content": result.text.replace("Updated file", "Created file", 1)})

    return told


def _report(call_id: str, result: ToolResult, decision: dict[str, Any], *, duration: float) -> dict[str, Any]:
    message = _message_of(result)
    if message is not None and message.id is None:
        message.id = new_message_id()
    artifact = cast("object", message.artifact) if message else None
    exit_code = cast("dict[str, Any]", artifact).get("exit_code") if isinstance(artifact, dict) else None
    failed = message is not None and (message.status == "error" or exit_code not in (None, 0))
    status = "rejected" if decision["type"] == "reject" else "error" if failed else "success"
    return {
        "kind": "result",
        "call_id": call_id,
        "message_id": message.id if message else None,
        "status": status,
        "result": message.text if message else "",
        "exit_code": exit_code,
        "duration_ms": round(duration * 1000),
        "executed_input": decision["args"] if decision["type"] == "edit" else None,
        "todos": _todos_of(result),
    }


def _message_of(result: ToolResult) -> ToolMessage | None:
    if isinstance(result, ToolMessage):
        return result
    update = cast("object", result.update)
    messages: list[Any] = cast("dict[str, Any]", update).get("messages", []) if isinstance(update, dict) else []
    return next((item for item in messages if isinstance(item, ToolMessage)), None)


def _todos_of(result: ToolResult) -> list[Any] | None:
    update = None if isinstance(result, ToolMessage) else cast("object", result.update)
    return cast("dict[str, Any]", update).get("todos") if isinstance(update, dict) else None

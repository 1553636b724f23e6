"""Results of tool calls: what the model is told, and what readers of the thread are told."""

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.messages import ToolMessage

from moorage.agent.backend import created_files, tool_output_sink
from moorage.agent.journal import ToolResult, message_of

_COMMAND_TOOL = "execute"


def rejection(name: str, reason: str) -> str:
    because = f" Reason: {reason}" if reason else ""
    return f"The user rejected this {name} call; it was not run.{because} Do not repeat it unless the user asks for it."


def answer_for(request: ToolCallRequest, content: str, *, status: str) -> ToolMessage:
    """A result that no tool made."""
    call = request.tool_call
    return ToolMessage(content, name=call["name"], tool_call_id=cast("str", call["id"]), status=status)  # pyright: ignore[reportArgumentType]


def with_notice(result: ToolResult, args: dict[str, Any]) -> ToolResult:
    """Tell the model what really ran: the transcript keeps the call as the model made it."""
    notice = (
        f"The user changed this call before it ran. Executed instead with: {json.dumps(args, ensure_ascii=False)}\n"
    )
    return _rewritten(result, lambda text: notice + text)


def naming_new_files(result: ToolResult, created: set[str]) -> ToolResult:
    """deepagents says `Updated file` of a new one, too."""
    if not created or not isinstance(result, ToolMessage):
        return result
    return result.model_copy(update={"content": result.text.replace("Updated file", "Created file", 1)})


@contextmanager
def watched(write: Callable[[Any], None], call_id: str) -> Generator[set[str]]:
    """Tell live output while a tool runs, and collect the files that it makes anew."""

    def sink(stream: str, delta: str) -> None:
        write({"kind": "output", "call_id": call_id, "stream": stream, "delta": delta})

    created: set[str] = set()
    tokens = tool_output_sink.set(sink), created_files.set(created)
    try:
        yield created
    finally:
        tool_output_sink.reset(tokens[0])
        created_files.reset(tokens[1])


def report_of(result: ToolResult, *, rejected: bool, edited: Any, seconds: float) -> dict[str, Any]:
    """What readers are told of a result, as JSON."""
    message = message_of(result)
    artifact = cast("object", message.artifact) if message else None
    ran = cast("dict[str, Any]", artifact) if isinstance(artifact, dict) else None
    exit_code = ran.get("exit_code") if ran else None
    # A command that ran and has no exit code is one that nobody saw the end of.
    unseen = ran is not None and message is not None and message.name == _COMMAND_TOOL and exit_code is None
    failed = message is not None and (message.status == "error" or exit_code not in (None, 0) or unseen)
    return {
        "status": "rejected" if rejected else "error" if failed else "success",
        "result": message.text if message else "",
        "exit_code": exit_code,
        "duration_ms": round(seconds * 1000),
        "executed_input": edited,
        "todos": _todos_of(result),
    }


def named(result: ToolResult, message_id: str) -> ToolResult:
    """The result under the id that its call's place gives it."""
    message = message_of(result)
    if message is not None:
        message.id = message_id
    return result


def _rewritten(result: ToolResult, change: Callable[[str], str]) -> ToolResult:
    if isinstance(result, ToolMessage):
        return result.model_copy(update={"content": change(result.text)})
    update = cast("dict[str, Any]", result.update)
    messages = [
        item.model_copy(update={"content": change(item.text)}) if isinstance(item, ToolMessage) else item
        for item in update.get("messages", [])
    ]
    return replace(result, update={**update, "messages": messages})


def _todos_of(result: ToolResult) -> list[Any] | None:
    update = None if isinstance(result, ToolMessage) else cast("object", result.update)
    return cast("dict[str, Any]", update).get("todos") if isinstance(update, dict) else None

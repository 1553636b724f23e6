"""A chat completion request, as a script sees it: what was said, what was called, what came back.

The scripted model keeps no state between requests. Everything a script may know is read off the messages, and its
turn is the number of assistant messages since the last user message.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel

_REJECTED = re.compile(r"(the )?user rejected\b", re.IGNORECASE)
_EDITED = re.compile(r"The user changed this call[^\n]*?: (?P<args>\{[^\n]*\})\n?")
_EXIT_CODE = re.compile(r"\n?\[Command (?P<word>succeeded|failed) with exit code -?\d+\]")
_CJK = re.compile(r"[\u3400-\u9fff]")


class Function(BaseModel):
    name: str
    arguments: str = "{}"


class PastCall(BaseModel):
    id: str
    function: Function


class Part(BaseModel):
    type: str = "text"
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class OfferedFunction(BaseModel):
    name: str


class OfferedTool(BaseModel):
    function: OfferedFunction


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatRequest(BaseModel):
    """The part of OpenAI's `POST /v1/chat/completions` that matters here; what else is sent is ignored."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[OfferedTool] | None = None

    @property
    def characters(self) -> int:
        """The length of what was said and called, which prompt tokens are estimated from."""
        arguments = (len(call.function.arguments) for message in self.messages for call in message.tool_calls or ())
        return sum(len(message.text) for message in self.messages) + sum(arguments)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool call came to, beside the call as the model made it."""

    tool: str
    args: dict[str, Any]
    content: str

    @property
    def rejected(self) -> bool:
        return _REJECTED.match(self.content) is not None

    @property
    def failed(self) -> bool:
        status = _EXIT_CODE.search(self.content)
        return self.output.startswith("Error") or (status is not None and status["word"] == "failed")

    @property
    def executed_args(self) -> dict[str, Any] | None:
        """The arguments that ran instead, when the result says that a human changed the call."""
        edited = _EDITED.match(self.content)
        return parse_object(edited["args"]) if edited else None

    @property
    def output(self) -> str:
        """The tool's own words: without the note about an edit and the line about the exit code."""
        return _EXIT_CODE.sub("", _EDITED.sub("", self.content, count=1)).strip("\n")


@dataclass(frozen=True, slots=True)
class Conversation:
    """`users` are the user's messages, oldest first; `results` came since the last one, `earlier` before it.

    `system` is what the model was told before them.
    """

    users: tuple[str, ...]
    turn: int
    results: tuple[ToolResult, ...]
    earlier: tuple[ToolResult, ...]
    tools: frozenset[str]
    system: str = ""

    @property
    def said(self) -> str:
        return self.users[-1] if self.users else ""

    @property
    def in_chinese(self) -> bool:
        return _CJK.search(self.said) is not None

    def find_result(self, tool: str) -> ToolResult | None:
        """The newest result of this tool since the user spoke."""
        return next((result for result in reversed(self.results) if result.tool == tool), None)

    def find_number(self, word: str) -> float | None:
        """The value of a word such as `n=200` or `d=0.02` in the user's message."""
        found = re.search(rf"(?:^|\s){re.escape(word)}=(\d+(?:\.\d+)?)(?=\s|$)", self.said)
        return float(found[1]) if found else None


def read_conversation(request: ChatRequest) -> Conversation:
    """What the request's messages say, with every tool result joined to its call."""
    messages = request.messages
    last_user = max((index for index, message in enumerate(messages) if message.role == "user"), default=-1)
    return Conversation(
        users=tuple(message.text for message in messages if message.role == "user"),
        turn=sum(message.role == "assistant" for message in messages[last_user + 1 :]),
        results=_results(messages[last_user + 1 :]),
        earlier=_results(messages[: last_user + 1]),
        tools=frozenset(tool.function.name for tool in request.tools or ()),
        system="\n".join(message.text for message in messages if message.role == "system"),
    )


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`, or None if it holds anything else."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _results(messages: list[Message]) -> tuple[ToolResult, ...]:
    calls: dict[str | None, Function] = {}  # by id; a model that repeats its ids means its newest call
    results: list[ToolResult] = []
    for message in messages:
        calls |= {call.id: call.function for call in message.tool_calls or ()}
        if message.role == "tool":
            call = calls.get(message.tool_call_id, Function(name="unknown"))
            results.append(ToolResult(call.name, parse_object(call.arguments) or {}, message.text))
    return tuple(results)

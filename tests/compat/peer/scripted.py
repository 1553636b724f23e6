"""A chat model that plays the last human message, as Moorage's own `scripted:calls` does, so one probe drives both.

`{"calls": [{"name", "args"} | [several at once]], "then": "text", "pause": 0.1}`; `"raise"` makes the model fail. Words
such as `n=200 d=0.02` instead ask for that many tokens with that many seconds between them.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class Scripted(BaseChatModel):
    """Stateless: its turn is the number of assistant messages since the last human one."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> "Scripted":
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        words, calls, _ = _next(messages)
        message = AIMessage(content="".join(words), tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        words, _, pause = _next(messages)
        await asyncio.sleep(pause * len(words))  # as long as the same answer takes when it is streamed
        return self._generate(messages)

    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        words, calls, pause = _next(messages)
        for word in words:
            await asyncio.sleep(pause)
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        for chunk in _call_chunks(calls):
            yield chunk
        usage = {"input_tokens": 10, "output_tokens": len(words), "total_tokens": 10 + len(words)}
        end = {"finish_reason": "tool_calls" if calls else "stop", "model_name": "scripted"}
        yield ChatGenerationChunk(message=AIMessageChunk("", response_metadata=end, usage_metadata=usage))


def _call_chunks(calls: list[ToolCall]) -> Iterator[ChatGenerationChunk]:
    for index, call in enumerate(calls):
        head = tool_call_chunk(name=call["name"], args="", id=call["id"], index=index)
        body = tool_call_chunk(args=json.dumps(call["args"]), index=index)
        for part in (head, body):
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[part]))


def _next(messages: list[BaseMessage]) -> tuple[list[str], list[ToolCall], float]:
    said, turn = _said(messages)
    script = _script(said)
    if "raise" in script:
        raise ValueError(script["raise"])
    steps = script.get("calls", [])
    if turn < len(steps):
        step = steps[turn]
        return [], [_call(one) for one in (step if isinstance(step, list) else [step])], 0
    return re.findall(r"\S+\s*", script.get("then", "Done.")), [], script.get("pause", 0)


def _said(messages: list[BaseMessage]) -> tuple[str, int]:
    turn = 0
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            return message.text, turn
        turn += isinstance(message, AIMessage)
    return "", turn


def _script(said: str) -> dict[str, Any]:
    try:
        script = json.loads(said)
    except ValueError:
        numbers = dict(re.findall(r"\b([nd])=([\d.]+)", said))
        return {"then": "tok " * int(numbers.get("n", 3)), "pause": float(numbers.get("d", 0))}
    return script if isinstance(script, dict) else {"then": str(script)}


def _call(item: dict[str, Any]) -> ToolCall:
    return ToolCall(name=item["name"], args=item["args"], id=f"call_{uuid.uuid4().hex}")

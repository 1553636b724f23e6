"""The guard around every model call: the run's budget, and calls whose arguments are not JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from moorage.agent.calls import MALFORMED_ARGUMENTS
from moorage.agent.context import RunContext
from moorage.events import encode, scrub_text
from moorage.ids import new_message_id

_SHOWN_CHARACTERS = 2000

# The model ran out of tokens. LangChain completes the JSON of a call that was cut in the middle, so it looks whole.
_CUT_SHORT = ("length", "max_tokens", "MAX_TOKENS")


class ModelGuard(AgentMiddleware[Any, RunContext]):
    """Counts each model call against the run's budget; no node of its own, so it costs no checkpoint."""

    async def awrap_model_call(
        self,
        request: ModelRequest[RunContext],
        handler: Callable[[ModelRequest[RunContext]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        context = cast("RunContext | None", request.runtime.context)
        if context is not None:
            context.take_step()
        response = await handler(request)
        response.result = [_answerable(message) for message in response.result]
        return response


def _answerable(message: BaseMessage) -> BaseMessage:
    """Make each call one that can be stored, shown to a human and run as shown; the others become malformed ones.

    Malformed calls are made real calls: the gate answers them, so the model learns of it and can retry. Left alone, a
    turn that has only such calls would end the run without a word.
    """
    if not isinstance(message, AIMessage) or not (message.tool_calls or message.invalid_tool_calls):
        return message
    calls = [_call(call["name"], orjson.loads(encode(call["args"])), call["id"]) for call in message.tool_calls]
    if calls and message.response_metadata.get("finish_reason") in _CUT_SHORT:
        calls[-1] = _malformed(calls[-1]["name"], encode(calls[-1]["args"]).decode(), calls[-1]["id"])
    calls += [_malformed(call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls]
    return message.model_copy(update={"tool_calls": _told_apart(calls), "invalid_tool_calls": []})


def _told_apart(calls: list[ToolCall]) -> list[ToolCall]:
    """Models repeat ids; within one message each call must be one of its own."""
    seen: set[str | None] = set()
    for index, call in enumerate(calls):
        if call["id"] in seen:
            call["id"] = f"{call['id']}#{index}"
        seen.add(call["id"])
    return calls


def _malformed(name: str | None, args: str | None, call_id: str | None) -> ToolCall:
    return _call(name, {MALFORMED_ARGUMENTS: scrub_text(args or "")[:_SHOWN_CHARACTERS]}, call_id)


def _call(name: str | None, args: dict[str, Any], call_id: str | None) -> ToolCall:
    name, call_id = scrub_text(name or "unknown"), scrub_text(call_id or new_message_id())
    return ToolCall(name=name, args=args, id=call_id, type="tool_call")

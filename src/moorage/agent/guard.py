"""The guard around every model call: the run's budget, and calls whose arguments are not JSON."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from moorage.agent.context import RunContext
from moorage.agent.gate import MALFORMED_ARGUMENTS
from moorage.ids import new_message_id

_SHOWN_CHARACTERS = 2000


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
    """Make calls with broken arguments real calls: the gate answers them, so the model learns of it and can retry.

    Left alone, a turn that has only such calls would end the run without a word.
    """
    if not isinstance(message, AIMessage) or not message.invalid_tool_calls:
        return message
    broken = [
        ToolCall(
            name=call["name"] or "unknown",
            args={MALFORMED_ARGUMENTS: (call["args"] or "")[:_SHOWN_CHARACTERS]},
            id=call["id"] or new_message_id(),
            type="tool_call",
        )
        for call in message.invalid_tool_calls
    ]
    return message.model_copy(update={"tool_calls": [*message.tool_calls, *broken], "invalid_tool_calls": []})

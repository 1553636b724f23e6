"""The in-process model `scripted:bench`: tokens without a provider, so that what is measured is the server.

Words in the last human message steer it: `n=200` tokens with `d=0.02` seconds between them, after `tools=2` turns that
each call `ls`. Without them: 200 tokens, no pause, no tools.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, override

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolCall, ToolCallChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool

_TOKEN = "tok "  # noqa: S105
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """What is left to do in this turn: `calls_tool` first, else `tokens` with `pause` seconds before each."""

    tokens: int = 200
    pause: float = 0.0
    calls_tool: bool = False


def plan_bench_turn(messages: Sequence[BaseMessage]) -> BenchPlan:
    """The plan in the last human message's words, less the tool turns already made since."""
    last = max((index for index, message in enumerate(messages) if isinstance(message, HumanMessage)), default=-1)
    words = messages[last].text.split() if last >= 0 else []
    options = dict(word.split("=", 1) for word in words if word.startswith(("n=", "d=", "tools=")))
    turns = sum(isinstance(message, AIMessage) for message in messages[last + 1 :])
    return BenchPlan(
        tokens=int(options.get("n", 200)),
        pause=float(options.get("d", 0)),
        calls_tool=turns < int(options.get("tools", 0)),
    )


class BenchModel(BaseChatModel):
    """A chat model for measuring; needs no key and no connection."""

    @property
    @override
    def _llm_type(self) -> str:
        return "scripted-bench"

    @override
    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> "BenchModel":
        return self

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        plan = plan_bench_turn(messages)
        message = AIMessage(
            content="" if plan.calls_tool else _TOKEN * plan.tokens,
            tool_calls=[_list_files()] if plan.calls_tool else [],
            usage_metadata=_usage(messages, plan),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        plan = plan_bench_turn(messages)
        usage = _usage(messages, plan)
        if plan.calls_tool:
            yield _last_chunk(tool_call=_list_files(), usage=usage)
            return
        for _ in range(plan.tokens - 1):
            await asyncio.sleep(plan.pause)
            yield ChatGenerationChunk(message=AIMessageChunk(content=_TOKEN))
        await asyncio.sleep(plan.pause)
        yield _last_chunk(content=_TOKEN if plan.tokens else "", usage=usage)


def _last_chunk(*, usage: UsageMetadata, content: str = "", tool_call: ToolCall | None = None) -> ChatGenerationChunk:
    # Marked as the last one, or LangChain adds an empty chunk of its own, an event more per message.
    message = AIMessageChunk(
        content=content,
        tool_call_chunks=[_chunk_of(tool_call)] if tool_call else [],
        usage_metadata=usage,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def _chunk_of(call: ToolCall) -> ToolCallChunk:
    return ToolCallChunk(
        name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=0, type="tool_call_chunk"
    )


def _list_files() -> ToolCall:
    return ToolCall(name="ls", args={"path": "/workspace"}, id=f"call_{uuid.uuid4().hex}", type="tool_call")


def _usage(messages: Sequence[BaseMessage], plan: BenchPlan) -> UsageMetadata:
    given = sum(len(message.text) for message in messages) // _CHARACTERS_PER_TOKEN
    made = 1 if plan.calls_tool else plan.tokens
    return UsageMetadata(input_tokens=given, output_tokens=made, total_tokens=given + made)

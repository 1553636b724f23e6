"""An agent as the product builds it, with a model that follows a script and a sandbox that only writes down."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from deepagents.backends import StateBackend
from deepagents.backends.protocol import ExecuteOffloadResult, ExecuteResponse, SandboxBackendProtocol
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from moorage.adapters.memory_journal import MemoryJournal
from moorage.agent.backend import tool_output_sink
from moorage.agent.context import RunContext
from moorage.agent.gate import Gate
from moorage.agent.graph import AgentParts, Agents
from moorage.agent.journal import CallKey
from moorage.agent.runner import AgentRunner
from moorage.agent.stream import Delta, PartReader
from moorage.approvals import Interrupt, InterruptStatus, RaisedInterrupt, digest_of
from moorage.assistants import Assistant, get_assistant
from moorage.claims import Claim
from moorage.events import RunEvent
from moorage.ids import RunId, ThreadId, UserId, new_message_id

type Turn = str | AIMessage | Exception | Callable[[], Any]
type Script = Mapping[str, Sequence[Turn]]


def call(name: str, call_id: str = "call_1", **args: Any) -> ToolCall:
    return ToolCall(name=name, args=args, id=call_id, type="tool_call")


def calls(*made: ToolCall, text: str = "") -> AIMessage:
    return AIMessage(text, tool_calls=list(made))


class ScriptedModel:
    """Answers the last human message by its script: a turn is a text, a message, an error to raise or a thing to await.

    It keeps what it was shown in `seen`, and the tools that it was offered last.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[list[BaseMessage]] = []
        self.offered: set[str] = set()

    async def turn(self, messages: list[BaseMessage]) -> AIMessage:
        self.seen.append(messages)
        asked = max(index for index, message in enumerate(messages) if isinstance(message, HumanMessage))
        turns = self.script.get(messages[asked].text, ["ok"])
        made = sum(isinstance(message, AIMessage) for message in messages[asked + 1 :])
        turn = turns[min(made, len(turns) - 1)]
        if isinstance(turn, Exception):
            raise turn
        if callable(turn):
            turn = await turn()
        return AIMessage(turn) if isinstance(turn, str) else turn


@dataclass
class PaperSandbox:
    """A command is only written down, and answered from `answers`; one in `failures` is not even started."""

    ran: list[str] = field(default_factory=list[str])
    answers: dict[str, ExecuteResponse] = field(default_factory=dict[str, ExecuteResponse])
    live: dict[str, list[tuple[str, str]]] = field(default_factory=dict[str, list[tuple[str, str]]])
    hold: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])
    failures: dict[str, Exception] = field(default_factory=dict[str, Exception])
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, command: str) -> ExecuteResponse:
        if command in self.failures:
            raise self.failures[command]
        self.ran.append(command)
        self.started.set()
        if command in self.hold:
            await self.hold[command].wait()
        sink = tool_output_sink.get()
        for stream, text in self.live.get(command, []):
            assert sink is not None
            sink(stream, text)  # pyright: ignore[reportArgumentType]
        return self.answers.get(command, ExecuteResponse(output=f"ran {command}", exit_code=0))


_current: ContextVar["FakeAgent"] = ContextVar("_current")


class _Chat(BaseChatModel):
    """The model of the agent that runs in this context, so that all tests can share one compiled graph."""

    @property
    def _llm_type(self) -> str:
        return "scripted-chat"

    def bind_tools(self, tools: Any, **kwargs: Any) -> "_Chat":
        _current.get().model.offered = {tool.name for tool in tools}
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=await _current.get().model.turn(messages))])

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(await _current.get().model.turn(messages)):
            yield ChatGenerationChunk(message=chunk)


class _Backend(StateBackend, SandboxBackendProtocol):
    """Files live in the graph's state; commands go to the sandbox of the agent that runs in this context."""

    @property
    def id(self) -> str:
        return "paper"

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:  # noqa: ASYNC109
        return await _current.get().sandbox.run(command)

    async def aexecute_with_offload(self, command: str, capture_path: str, **options: Any) -> ExecuteOffloadResult:
        return ExecuteOffloadResult(offloaded=False, response=await self.aexecute(command))


@cache
def agents(context_tokens: int = 100_000, *, allow_auto: bool = False) -> Agents:
    """The agents of all tests; each asks the model of whatever runs."""
    model = _Chat(profile={"max_input_tokens": context_tokens})
    gate = Gate(facts={"sandbox": "paper"})
    return Agents(
        AgentParts(_Backend(), gate, model=lambda _: model, default_model="fake:model", allow_auto=allow_auto)  # pyright: ignore[reportArgumentType]
    )


def _chunks(message: AIMessage) -> Iterator[AIMessageChunk]:
    for word in re.findall(r"\S+\s*|\s+", message.text):
        yield AIMessageChunk(word)
    parts = [
        tool_call_chunk(name=item["name"], args=_dumped(item["args"]), id=item["id"], index=index)
        for index, item in enumerate([*message.tool_calls, *message.invalid_tool_calls])
    ]
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    yield AIMessageChunk(
        "",
        tool_call_chunks=parts,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        usage_metadata=usage,
        chunk_position="last",
    )


def _dumped(args: Any) -> str:
    return args if isinstance(args, str) else json.dumps(args)


CLAIM = Claim(RunId("run"), ThreadId("t"), UserId("alice"), 1)


class FakeAgent:
    """One conversation with an agent as `build_agent` makes it, run as a worker runs it.

    Its model and its sandbox serve what runs in the context in which it was made, and its own `say` and `resume`.
    """

    def __init__(
        self,
        script: Script,
        *,
        context_tokens: int = 100_000,
        assistant: Assistant | None = None,
        allow_auto: bool = False,
    ) -> None:
        self.assistant = assistant or get_assistant("agent")
        self.model = ScriptedModel(script)
        self.sandbox = PaperSandbox()
        self.agents = agents(context_tokens, allow_auto=allow_auto)
        self.saver = InMemorySaver()
        self.graph = self.agents.get(self.assistant).copy(update={"checkpointer": self.saver})
        _current.set(self)
        self.journal = MemoryJournal(CLAIM.thread_id)
        self.context = RunContext(self.journal, max_steps=100)
        self.reader = PartReader(CLAIM.run_id, "agent", self.context, clock=lambda: 0.0, model="fake:model")

    async def say(self, text: str) -> list[Delta | RunEvent]:
        return await self._run({"message_id": new_message_id(), "content": text})

    async def answer(self, **decisions: dict[str, Any]) -> list[Delta | RunEvent]:
        """Give these decisions, by call id, to the interrupts that wait."""
        ids = {item.call_id: item.id for item in self.reader.interrupts.values()}
        return await self.resume({ids[call_id]: decision for call_id, decision in decisions.items()})

    async def resume(self, decisions: dict[str, Any]) -> list[Delta | RunEvent]:
        for key, asked in self.journal.questions.items():
            if decision := decisions.get(asked.raised.id):
                status = InterruptStatus.APPROVED
                self.journal.questions[key] = replace(asked, status=status, decision=decision)
        return await self._run({"resume": decisions})

    async def enter_again(self) -> list[Delta | RunEvent]:
        """What a worker does that takes the run over."""
        return await self._run({"resume": {}})

    async def _run(self, run_input: dict[str, Any]) -> list[Delta | RunEvent]:
        _current.set(self)
        runner = AgentRunner(self.agents, lambda *_, **__: self.saver)
        latest = await self.saver.aget_tuple({"configurable": {"thread_id": CLAIM.thread_id, "checkpoint_ns": ""}})
        base = latest.checkpoint["id"] if latest else None
        run = runner.start(
            CLAIM,
            self.assistant,
            run_input,
            self.context,
            on_saved=lambda _: None,
            fresh=False,
            base_checkpoint_id=base,
        )
        self.reader = run.reader
        async with asyncio.timeout(20):
            told = [event async for event in run.events()]
        self._remember(told, run.interrupts)
        return told[1:]

    def _remember(self, told: Sequence[Delta | RunEvent], interrupts: Sequence[RaisedInterrupt]) -> None:
        """As the stores do, keep what was told and what waits; a call that asks again asks a new question."""
        stored = {item.message.id for item in told if isinstance(item, RunEvent) and item.message}
        self.journal.told |= stored | {item["message_id"] for item in data(told, "tool_result")}
        now = datetime.now(UTC)
        for raised in interrupts:
            key = CallKey(raised.checkpoint_ns, raised.message_id, raised.position)
            digest = digest_of(CLAIM.thread_id, raised)
            asked = Interrupt(raised, CLAIM.thread_id, CLAIM.run_id, InterruptStatus.PENDING, digest, 1, now, now)
            self.journal.questions[key] = asked

    @property
    def asked(self) -> dict[str, dict[str, Any]]:
        """What waits for a human: the arguments by call id."""
        return {item.call_id: item.tool_input for item in self.reader.interrupts.values()}

    @property
    def told(self) -> dict[str, str]:
        """The tool results that the model was shown last, by call id."""
        return {message.tool_call_id: message.text for message in self.model.seen[-1] if message.type == "tool"}  # pyright: ignore[reportAttributeAccessIssue]


def data(events: Sequence[Delta | RunEvent], kind: str) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events if isinstance(event, RunEvent) and event.type == kind]


def kinds(events: Sequence[Delta | RunEvent]) -> list[str]:
    return [event.type.value if isinstance(event, RunEvent) else "delta" for event in events]

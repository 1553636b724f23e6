"""Runs an assistant's agent for one claimed run, and tells what happens as events."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.types import Command

from moorage.agent.context import RunContext
from moorage.agent.graph import Agents
from moorage.agent.stream import Delta, PartReader
from moorage.approvals import RaisedInterrupt
from moorage.assistants import get_assistant
from moorage.claims import Claim
from moorage.events import RunEvent, scrub_text

_SUPERSTEPS_PER_STEP = 8
_STREAM_MODES = ("messages", "updates", "custom")


class AgentRunner:
    """What executes runs: the cached agents, and a checkpoint saver opened for each run."""

    def __init__(self, agents: Agents, open_saver: Callable[[Claim], BaseCheckpointSaver[Any]]) -> None:
        self._agents = agents
        self._open_saver = open_saver

    def start(self, claim: Claim, assistant_id: str, run_input: dict[str, Any], context: RunContext) -> "AgentRun":
        """Ready the agent for this input: `{message_id, content}`, or `{resume: {interrupt_id: answer}}`."""
        assistant = get_assistant(assistant_id)
        model = self._agents.model_name(assistant)
        reader = PartReader(claim.run_id, assistant.name, context, clock=time.monotonic, model=model)
        graph = self._agents.get(assistant).copy(update={"checkpointer": self._open_saver(claim)})
        config: RunnableConfig = {
            "configurable": {"thread_id": claim.thread_id},
            "recursion_limit": context.max_steps * _SUPERSTEPS_PER_STEP,
        }
        stream = graph.astream(  # pyright: ignore[reportUnknownMemberType]
            _graph_input(run_input),
            config,
            context=context,
            stream_mode=list(_STREAM_MODES),
            subgraphs=True,
            durability="sync",
            version="v2",
        )
        return AgentRun(reader, stream)


class AgentRun:
    """One pass of the graph. After `events` is exhausted, `interrupts` holds what stopped to ask."""

    def __init__(self, reader: PartReader, stream: Any) -> None:
        self._reader = reader
        self._stream = stream

    async def events(self) -> AsyncGenerator[Delta | RunEvent]:
        yield self._reader.start()
        async with aclosing(self._stream) as parts:
            async for part in parts:
                for event in self._reader.read(part):
                    yield event

    @property
    def interrupts(self) -> list[RaisedInterrupt]:
        return list(self._reader.interrupts.values())


def _graph_input(run_input: dict[str, Any]) -> Any:
    if (resume := run_input.get("resume")) is not None:
        return Command(resume=resume)
    message = HumanMessage(scrub_text(run_input["content"]), id=run_input["message_id"])
    return {"messages": [message]}

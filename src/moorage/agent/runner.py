"""Runs an assistant's agent for one claimed run, and tells what happens as events."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, cast

from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from moorage.agent.context import RunContext
from moorage.agent.graph import Agents, CompiledAgent
from moorage.agent.recovery import reports_of, settle, standing_of
from moorage.agent.stream import Delta, PartReader
from moorage.approvals import RaisedInterrupt
from moorage.assistants import get_assistant
from moorage.claims import Claim
from moorage.events import RunEvent, scrub_text

_SUPERSTEPS_PER_STEP = 8
_STREAM_MODES = ("messages", "updates", "custom")

type OnSaved = Callable[[Collection[str]], None]


class OpenSaver(Protocol):
    """Opens the checkpoint saver of one run; in a `blank` thread there is nothing to read yet."""

    def __call__(self, claim: Claim, on_saved: OnSaved, *, blank: bool) -> BaseCheckpointSaver[Any]: ...


class AgentRunner:
    """What executes runs: the cached agents, and a checkpoint saver opened for each run."""

    def __init__(self, agents: Agents, open_saver: OpenSaver) -> None:
        self._agents = agents
        self._open_saver = open_saver

    def start(
        self,
        claim: Claim,
        assistant_id: str,
        run_input: dict[str, Any],
        context: RunContext,
        *,
        on_saved: OnSaved,
        attempt: int = 1,
        fresh: bool = True,
        blank: bool = False,
    ) -> "AgentRun":
        """Ready the agent for this input: `{message_id, content}`, or `{resume: ...}`, whose answers the journal holds.

        `on_saved` hears the ids of messages once they are in a checkpoint. A `fresh` run has a thread before it in
        which nothing is open, and no earlier attempt; in a `blank` one nothing was ever saved.
        """
        assistant = get_assistant(assistant_id)
        model = self._agents.model_name(assistant)
        reader = PartReader(claim.run_id, assistant.name, context, clock=time.monotonic, model=model)
        graph = self._agents.get(assistant).copy(
            update={"checkpointer": self._open_saver(claim, on_saved, blank=blank)}
        )
        config: RunnableConfig = {
            "configurable": {"thread_id": claim.thread_id},
            "recursion_limit": context.max_steps * _SUPERSTEPS_PER_STEP,
        }
        entry = _Entry(graph, config, run_input, context, fresh=fresh)
        return AgentRun(reader, entry, attempt=attempt)


class _Entry:
    """How a run enters its graph."""

    def __init__(
        self,
        graph: CompiledAgent,
        config: RunnableConfig,
        run_input: dict[str, Any],
        context: RunContext,
        *,
        fresh: bool,
    ) -> None:
        self._graph = graph
        self._config = config
        self._input = run_input
        self._context = context
        self._fresh = fresh

    async def open(self, reader: PartReader) -> tuple[Any, list[RunEvent]]:
        """What to feed the graph, None to enter it where it stands; and what readers were never told of."""
        if self._fresh:
            return {"messages": [self._message()]}, []
        journal = self._context.journal
        standing = standing_of(await self._graph.aget_state(self._config))
        goes_on = "resume" in self._input or standing.holds(self._input["message_id"])
        closing = [] if goes_on else await settle(standing, journal)
        entries = await journal.of_messages([message.id or "" for message in standing.turn])
        seen = {message.id or "": message for message in [*standing.turn, *closing]}
        told = await journal.told_of(list(seen))
        unseen = [message for message_id, message in seen.items() if message_id not in told]
        untold = [replace(item, waits_for=None) for item in reader.untold(unseen, reports_of(entries, journal))]
        if goes_on:
            return None, untold
        return {"messages": [*closing, self._message()]}, untold

    def parts(self, graph_input: Any, control: RunControl) -> AsyncIterator[dict[str, Any]]:
        stream = self._graph.astream(  # pyright: ignore[reportUnknownMemberType]
            graph_input,
            self._config,
            context=self._context,
            stream_mode=list(_STREAM_MODES),
            subgraphs=True,
            durability="sync",
            version="v2",
            control=control,
        )
        return cast("AsyncIterator[dict[str, Any]]", stream)

    def _message(self) -> HumanMessage:
        return HumanMessage(scrub_text(self._input["content"]), id=self._input["message_id"])


class AgentRun:
    """One pass of the graph. After `events` is exhausted, `interrupts` holds what stopped to ask."""

    def __init__(self, reader: PartReader, entry: _Entry, *, attempt: int) -> None:
        self.reader = reader
        self._entry = entry
        self._attempt = attempt
        self._control = RunControl()
        self.drained = False

    async def events(self) -> AsyncGenerator[Delta | RunEvent]:
        yield self.reader.start(attempt=self._attempt)
        graph_input, untold = await self._entry.open(self.reader)
        for event in untold:
            yield event
        try:
            async with aclosing(cast("Any", self._entry.parts(graph_input, self._control))) as parts:
                async for part in parts:
                    for event in self.reader.read(part):
                        yield event
        except GraphDrained:
            self.drained = True

    def drain(self) -> None:
        """Stop before the next step; `drained` tells whether there was one."""
        self._control.request_drain()

    @property
    def interrupts(self) -> list[RaisedInterrupt]:
        return list(self.reader.interrupts.values())

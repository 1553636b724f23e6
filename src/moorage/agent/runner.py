"""Runs an assistant's agent for one claimed run, and tells what happens as events."""

import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl

from moorage.agent.context import RunContext
from moorage.agent.entry import Entry, GraphInput, input_update
from moorage.agent.graph import Agents, CompiledAgent
from moorage.agent.recorder import Recorder, graph_event
from moorage.agent.stream import Delta, PartReader
from moorage.agent.wire_json import to_json
from moorage.approvals import RaisedInterrupt
from moorage.assistants import Assistant
from moorage.claims import Claim
from moorage.events import RunEvent

_SUPERSTEPS_PER_STEP = 8

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
        assistant: Assistant,
        run_input: Mapping[str, Any],
        context: RunContext,
        *,
        on_saved: OnSaved,
        attempt: int = 1,
        fresh: bool = True,
        blank: bool = False,
        base_checkpoint_id: str | None = None,
    ) -> "AgentRun":
        """Ready the agent for this input: `{message_id, content}`, or `{resume: ...}`, whose answers the journal holds.

        Either may have a `graph` with what `GraphInput` reads. `on_saved` hears the ids of messages once they are in a
        checkpoint. A `fresh` run has a thread before it in which nothing is open, and no earlier attempt; in a `blank`
        one nothing was ever saved.
        """
        asked = GraphInput.of(run_input)
        model = self._agents.model_name(assistant)
        reader = PartReader(claim.run_id, assistant.name, context, clock=time.monotonic, model=model)
        entry = Entry(
            self._open_graph(claim, assistant, on_saved, blank=blank),
            _config(claim, asked.recursion_limit or assistant.recursion_limit, context),
            asked,
            context,
            resumes="resume" in run_input,
            fresh=fresh,
            base_checkpoint_id=base_checkpoint_id,
        )
        return AgentRun(reader, Recorder(asked.record), entry, asked, attempt=attempt)

    async def update(
        self, claim: Claim, assistant: Assistant, run_input: Mapping[str, Any], context: RunContext, on_saved: OnSaved
    ) -> tuple[list[RunEvent], dict[str, Any]]:
        """Change the thread's state as if a node had: `{update: {values, as_node?, checkpoint_id?}}`.

        What is told is the new checkpoint; beside it comes what the state then holds but messages, in JSON. An update
        that an earlier attempt made is made again, on top: messages have ids, so that it changes nothing.
        """
        asked: dict[str, Any] = run_input["update"]
        graph = self._open_graph(claim, assistant, on_saved, blank=False)
        config = _config(claim, None, context)
        if asked.get("checkpoint_id"):
            place = {"checkpoint_ns": "", "checkpoint_id": asked["checkpoint_id"]}
            config["configurable"] = {**config.get("configurable", {}), **place}
        values = input_update(asked.get("values"))
        made = await graph.aupdate_state(config, values, as_node=asked.get("as_node"))
        place = made.get("configurable", {})
        stored = {"configurable": {key: place.get(key) for key in ("checkpoint_ns", "checkpoint_id")}}
        events = [
            graph_event("values", (), {"from": place.get("checkpoint_id")}),
            graph_event("checkpoints", (), {"config": stored}),
        ]
        now = cast("dict[str, Any]", (await graph.aget_state(_config(claim, None, context))).values)
        return events, {key: to_json(value) for key, value in now.items() if key != "messages"}

    def _open_graph(self, claim: Claim, assistant: Assistant, on_saved: OnSaved, *, blank: bool) -> CompiledAgent:
        saver = self._open_saver(claim, on_saved, blank=blank)
        return self._agents.get(assistant).copy(update={"checkpointer": saver})


def _config(claim: Claim, recursion_limit: int | None, context: RunContext) -> RunnableConfig:
    ours = context.max_steps * _SUPERSTEPS_PER_STEP
    return {
        "configurable": {"thread_id": claim.thread_id},
        "recursion_limit": min(ours, recursion_limit or ours),
    }


class AgentRun:
    """One pass of the graph. After `events` is exhausted, `interrupts` holds what stopped to ask.

    `paused` tells that it stopped before or after a node where the client wanted it to; `values` is what it wrote to
    the state beside messages.
    """

    def __init__(
        self, reader: PartReader, recorder: Recorder, entry: Entry, asked: GraphInput, *, attempt: int
    ) -> None:
        self.reader = reader
        self._recorder = recorder
        self._entry = entry
        self._asked = asked
        self._attempt = attempt
        self._control = RunControl()
        self.drained = False
        self.paused = False

    async def events(self) -> AsyncGenerator[Delta | RunEvent]:
        yield self.reader.start(attempt=self._attempt)
        opened = await self._entry.open(self.reader)
        for event in opened.untold:
            yield event
        self._recorder.begin(checkpoint_id=opened.starts_at, before=opened.before, fed=self._asked.messages)
        if opened.stops:
            self.paused = True
            for event in self._recorder.stands():
                yield event
            return
        try:
            async with aclosing(cast("Any", self._entry.parts(opened.graph_input, self._control))) as parts:
                async for part in parts:
                    for event in self.reader.read(part):
                        yield event
                    if self._asked.record:
                        for event in self._recorder.read(part):
                            yield event
        except GraphDrained:
            self.drained = True
        if self._asked.may_pause and not self.drained and not self.interrupts:
            self.paused = await self._entry.stands_before_a_node()

    def drain(self) -> None:
        """Stop before the next step; `drained` tells whether there was one."""
        self._control.request_drain()

    @property
    def values(self) -> dict[str, Any]:
        return self.reader.values

    @property
    def interrupts(self) -> list[RaisedInterrupt]:
        return list(self.reader.interrupts.values())

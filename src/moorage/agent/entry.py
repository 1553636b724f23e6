"""How a run enters its graph: with a message, with what a client of the wire asks beside one, or where it stands."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from langchain_core.messages import BaseMessage, HumanMessage, messages_from_dict
from langchain_core.runnables import RunnableConfig
from langgraph.constants import END
from langgraph.runtime import RunControl
from langgraph.types import Command, StateSnapshot

from moorage.agent.context import RunContext
from moorage.agent.graph import CompiledAgent
from moorage.agent.recovery import reports_of, settle, standing_of
from moorage.agent.stream import PartReader
from moorage.events import RunEvent, scrub_text

_STREAM_MODES = ("messages", "updates", "custom")


@dataclass(frozen=True, slots=True)
class GraphInput:
    """What a run feeds its graph.

    Without messages, values and command the graph goes on where it stands, or, with a `checkpoint_id`, from there.
    """

    messages: list[BaseMessage] = field(default_factory=list[BaseMessage])
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    update: Mapping[str, Any] | None = None
    goto: tuple[str, ...] = ()
    checkpoint_id: str | None = None
    interrupt_before: tuple[str, ...] = ()
    interrupt_after: tuple[str, ...] = ()
    record: tuple[str, ...] = ()
    recursion_limit: int | None = None

    @classmethod
    def of(cls, run_input: Mapping[str, Any]) -> "GraphInput":
        """From a run's stored input: `{message_id, content, graph?}` or `{resume, graph?}`."""
        asked: dict[str, Any] = run_input.get("graph") or {}
        messages: list[BaseMessage] = [_message(item) for item in asked.get("messages", ())]
        if not messages and run_input.get("message_id"):
            messages = [HumanMessage(scrub_text(run_input["content"]), id=run_input["message_id"])]
        return cls(
            messages=messages,
            values=asked.get("values", {}),
            update=asked.get("update"),
            goto=tuple(asked.get("goto", ())),
            checkpoint_id=asked.get("checkpoint_id"),
            interrupt_before=tuple(asked.get("interrupt_before", ())),
            interrupt_after=tuple(asked.get("interrupt_after", ())),
            record=tuple(asked.get("record", ())),
            recursion_limit=asked.get("recursion_limit"),
        )

    @property
    def feeds(self) -> bool:
        """Whether there is anything to feed."""
        return bool(self.messages or self.values or self.update or self.goto)

    @property
    def only_adds(self) -> bool:
        """Whether all it changes of the state is messages that come last, or in the place of others."""
        return not (self.values or self.update or self.goto) and all(item.type != "remove" for item in self.messages)

    @property
    def commands(self) -> bool:
        """Whether it says itself where the graph goes: what that stands before is dropped."""
        return bool(self.update or self.goto)

    @property
    def may_pause(self) -> bool:
        return bool(self.interrupt_before or self.interrupt_after)

    def fed(self, closing: list[BaseMessage]) -> Any:
        """The graph's input, after messages that give open calls their results."""
        if self.commands:
            update = {**_with_messages(self.update or {}), **self.values}
            own = cast("list[BaseMessage]", update.get("messages", []))
            return Command(update={**update, "messages": [*closing, *own, *self.messages]}, goto=list(self.goto))
        return {**self.values, "messages": [*closing, *self.messages]}


class Entry:
    """A graph, what it is fed, and what is known of the thread before."""

    def __init__(
        self,
        graph: CompiledAgent,
        config: RunnableConfig,
        graph_input: GraphInput,
        context: RunContext,
        *,
        resumes: bool,
        fresh: bool,
        base_checkpoint_id: str | None,
    ) -> None:
        """`base_checkpoint_id` is the thread's latest checkpoint when the run first started.

        A later one tells that an earlier attempt stored what it was to feed.
        """
        self._graph = graph
        self._config = config
        self._input = graph_input
        self._context = context
        self._resumes = resumes
        self._fresh = fresh and graph_input.checkpoint_id is None and graph_input.feeds and graph_input.only_adds
        self._base = base_checkpoint_id
        self._branch_off = False

    async def open(self, reader: PartReader) -> "Opened":
        """What to feed the graph, None to enter it where it stands; and what readers were never told of."""
        if self._fresh:
            return Opened(self._input.fed([]), starts_at=self._base)
        journal = self._context.journal
        snapshot = await self._graph.aget_state(self._config)
        standing = standing_of(snapshot)
        latest = _checkpoint_id(snapshot)
        goes_on = self._resumes or (latest != self._base and not self._only_cleared(snapshot))
        if not goes_on and self._input.checkpoint_id is not None:
            self._branch_off = True
            snapshot = await self._graph.aget_state(self._entry_config)
            standing = standing_of(snapshot)
        if goes_on or not self._input.feeds:
            graph_input, closing = None, []
        else:
            closing = await settle(standing, journal)
            graph_input = self._input.fed(closing)
            if self._input.commands and snapshot.next:
                snapshot = await self._cleared()
        entries = await journal.of_messages([message.id or "" for message in standing.turn])
        seen = {message.id or "": message for message in [*standing.turn, *closing]}
        told = await journal.told_of(list(seen))
        unseen = [message for message_id, message in seen.items() if message_id not in told]
        untold = [replace(item, waits_for=None) for item in reader.untold(unseen, reports_of(entries, journal))]
        before = {**cast("dict[str, Any]", snapshot.values), "messages": standing_of(snapshot).messages}
        stops = latest != self._base and await self._was_to_stop(snapshot)
        return Opened(graph_input, untold, _checkpoint_id(snapshot), before, stops)

    async def _cleared(self) -> StateSnapshot:
        """The state after what the graph stood before was dropped. LangGraph's commands would leave it where it is."""
        await self._graph.aupdate_state(self._entry_config, None, as_node=END)
        self._branch_off = False
        return await self._graph.aget_state(self._config)

    def _only_cleared(self, snapshot: StateSnapshot) -> bool:
        """Whether an earlier attempt came no further than to clear the way for its command."""
        return self._input.commands and (snapshot.metadata or {}).get("source") == "update"

    async def _was_to_stop(self, snapshot: StateSnapshot) -> bool:
        """Whether an earlier attempt came to where the client wants the run to stop: entered again, it would pass."""
        if not (self._input.may_pause and snapshot.next) or (snapshot.metadata or {}).get("source") != "loop":
            return False
        if _names(self._input.interrupt_before, snapshot.next):
            return True
        if not self._input.interrupt_after or snapshot.parent_config is None:
            return False
        return _names(self._input.interrupt_after, (await self._graph.aget_state(snapshot.parent_config)).next)

    @property
    def _entry_config(self) -> RunnableConfig:
        if not self._branch_off:
            return self._config
        place = {"checkpoint_ns": "", "checkpoint_id": self._input.checkpoint_id}
        return {**self._config, "configurable": {**self._config.get("configurable", {}), **place}}

    def parts(self, graph_input: Any, control: RunControl) -> AsyncIterator[dict[str, Any]]:
        stream = self._graph.astream(  # pyright: ignore[reportUnknownMemberType]
            graph_input,
            self._entry_config,
            context=self._context,
            stream_mode=cast("Any", [*_STREAM_MODES, *(mode for mode in self._input.record if mode != "updates")]),
            interrupt_before=_nodes(self._input.interrupt_before),
            interrupt_after=_nodes(self._input.interrupt_after),
            subgraphs=True,
            durability="sync",
            version="v2",
            control=control,
        )
        return cast("AsyncIterator[dict[str, Any]]", stream)

    async def stands_before_a_node(self) -> bool:
        """Whether the graph stopped although it has somewhere to go."""
        return bool((await self._graph.aget_state(self._config)).next)


@dataclass(frozen=True, slots=True)
class Opened:
    """The way in: what to feed, what readers were never told of, and the state it begins with, where that was read.

    With `stops` an earlier attempt came to where the run is to stop, and there is no way in.
    """

    graph_input: Any
    untold: list[RunEvent] = field(default_factory=list[RunEvent])
    starts_at: str | None = None
    before: Mapping[str, Any] | None = None
    stops: bool = False


def input_update(values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A state update as a client sent it, with messages as LangChain knows them."""
    return None if values is None else _with_messages(values)


def _with_messages(values: Mapping[str, Any]) -> dict[str, Any]:
    if "messages" not in values:
        return dict(values)
    return {**values, "messages": [_message(item) for item in values["messages"]]}


def _message(data: dict[str, Any]) -> BaseMessage:
    return messages_from_dict([{"type": data["type"], "data": data}])[0]


def _nodes(names: tuple[str, ...]) -> Any:
    return "*" if "*" in names else list(names)


def _names(wanted: tuple[str, ...], nodes: tuple[str, ...]) -> bool:
    visible = [node for node in nodes if not node.startswith("__")]
    return bool(visible) if "*" in wanted else not set(wanted).isdisjoint(visible)


def _checkpoint_id(snapshot: StateSnapshot) -> str | None:
    return snapshot.config.get("configurable", {}).get("checkpoint_id") if snapshot.config else None

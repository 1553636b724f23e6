"""Reading what a thread's graph holds: now, at a checkpoint, and how it came about. All values in the wire's JSON."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.constants import END
from langgraph.types import PregelTask, StateSnapshot

from moorage.agent.graph import Agents, CompiledAgent
from moorage.agent.wire_json import to_json
from moorage.assistants import Assistant
from moorage.errors import AppError, InvalidInput, InvalidPayload
from moorage.ids import ThreadId, UserId
from moorage.threads import Thread, UnknownCheckpoint

_PART = 20
_NO_NODES = (END, "__input__", "__copy__")  # what LangGraph's update_state takes for a node, too

type OpenReader = Callable[[UserId, ThreadId], BaseCheckpointSaver[Any]]
type LoadAssistant = Callable[[UserId, str], Awaitable[Assistant]]


class UnknownNode(InvalidInput):
    code = "unknown_node"

    def __init__(self) -> None:
        super().__init__("as_node: the thread's graph has no such node")


class UnknownValue(InvalidPayload):
    code = "unknown_value"

    def __init__(self, known: Collection[str]) -> None:
        super().__init__(f"values: the thread's graph keeps {', '.join(sorted(known))}, and nothing else")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a thread's history: a checkpoint, None for the latest, in a namespace, "" for the thread's own graph.

    `checkpoint_map` tells the checkpoints of the graphs around it by their namespaces.
    """

    checkpoint_id: str | None = None
    checkpoint_ns: str = ""
    checkpoint_map: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task of the step that comes next. `asks` tells that it stopped to ask, whatever became of that since.

    `inner` is where the state of the graph that it runs is found, `state` that state if it was asked for.
    """

    id: str
    name: str
    path: list[Any]
    error: str | None
    asks: bool
    inner: Place | None
    state: "ThreadState | None"
    result: Any


@dataclass(frozen=True, slots=True)
class ThreadState:
    """The state at a checkpoint, or that of a thread in which nothing was ever saved, without a place.

    `is_latest` tells that nothing was saved after it in its namespace.
    """

    values: dict[str, Any] = field(default_factory=dict[str, Any])
    next: list[str] = field(default_factory=list[str])
    tasks: list[TaskState] = field(default_factory=list[TaskState])
    metadata: dict[str, Any] | None = None
    created_at: str | None = None
    place: Place | None = None
    parent: Place | None = None
    is_latest: bool = False


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """States of the graph at `place`'s namespace, newest first; with its checkpoint, of that one alone.

    `before` is a checkpoint that all are older than; `metadata` is what theirs has to contain.
    """

    place: Place = field(default_factory=Place)
    before: str | None = None
    metadata: Mapping[str, Any] | None = None
    limit: int = 10


class States:
    """Reads the states of threads. The graph of a thread's assistant knows how: nothing of it is run."""

    def __init__(
        self, agents: Agents, open_reader: OpenReader, load_assistant: LoadAssistant, *, fallback: Assistant
    ) -> None:
        """`fallback` reads the threads of an assistant that is gone, or whose model cannot be had."""
        self._agents = agents
        self._open_reader = open_reader
        self._load_assistant = load_assistant
        self._fallback = fallback

    async def latest(self, thread: Thread, *, subgraphs: bool = False, ns: str = "") -> ThreadState:
        """Where the thread stands now, the results of finished tasks of an unfinished step included."""
        return await self._read(await self._graph(thread), thread, Place(checkpoint_ns=ns), subgraphs=subgraphs)

    async def at(self, thread: Thread, place: Place, *, subgraphs: bool = False) -> ThreadState:
        """The state as it was when this checkpoint was saved; raises UnknownCheckpoint."""
        graph = await self._graph(thread)
        state = await self._read(graph, thread, place, subgraphs=subgraphs)
        if state.metadata is None and place.checkpoint_id is not None:
            raise UnknownCheckpoint
        if place.checkpoint_id is None:
            return state
        newest = await self._read(graph, thread, Place(checkpoint_ns=place.checkpoint_ns), subgraphs=False)
        return replace(state, is_latest=newest.place is not None and newest.place.checkpoint_id == place.checkpoint_id)

    async def check_update(
        self, thread: Thread, values: Collection[str], *, as_node: str | None, checkpoint_id: str | None
    ) -> None:
        """Raise UnknownValue, UnknownNode or UnknownCheckpoint for an update of the state that could not be made.

        LangGraph itself forgets values that the graph does not keep, and begins at a checkpoint that is not there.
        """
        graph = await self._graph(thread)
        kept = frozenset(name for name in graph.stream_channels_list if not name.startswith("_"))
        if not kept.issuperset(values):
            raise UnknownValue(kept)
        if as_node is not None and as_node not in graph.nodes and as_node not in _NO_NODES:
            raise UnknownNode
        if checkpoint_id is not None:
            saver = cast("BaseCheckpointSaver[Any]", cast("Any", graph).checkpointer)
            if await saver.aget_tuple(_config(thread, Place(checkpoint_id))) is None:
                raise UnknownCheckpoint

    async def values(self, thread: Thread) -> dict[str, Any] | None:
        """What the graph holds now; None when nothing was ever saved."""
        state = await self.latest(thread)
        return None if state.place is None else state.values

    async def history(self, thread: Thread, query: HistoryQuery) -> AsyncGenerator[ThreadState]:
        """The states that `query` asks for, one at a time: all of them may not fit into memory."""
        graph = await self._graph(thread)
        newest = await self._read(graph, thread, Place(checkpoint_ns=query.place.checkpoint_ns), subgraphs=False)
        left, before = query.limit, query.before
        while left > 0:
            part = min(left, _PART)
            found = 0
            async with aclosing(_history(graph, thread, replace(query, before=before, limit=part))) as snapshots:
                async for snapshot in snapshots:
                    state = _state_of(snapshot)
                    found, before = found + 1, state.place and state.place.checkpoint_id
                    yield newest if newest.place == state.place else state
            left -= found
            if found < part:
                return

    async def _read(self, graph: CompiledAgent, thread: Thread, place: Place, *, subgraphs: bool) -> ThreadState:
        state = _state_of(await graph.aget_state(_config(thread, place), subgraphs=subgraphs))
        return replace(state, is_latest=place.checkpoint_id is None)

    async def _graph(self, thread: Thread) -> CompiledAgent:
        reader = self._open_reader(thread.owner_id, thread.thread_id)
        try:
            graph = self._agents.get(await self._load_assistant(thread.owner_id, thread.assistant_id))
        except AppError:  # all assistants' graphs keep the same things
            graph = self._agents.get(self._fallback)
        return graph.copy(update={"checkpointer": reader})


def _config(thread: Thread, place: Place) -> RunnableConfig:
    where = {"thread_id": thread.thread_id, "checkpoint_ns": place.checkpoint_ns}
    if place.checkpoint_id is not None:
        where["checkpoint_id"] = place.checkpoint_id
    return {"configurable": where}


async def _history(graph: CompiledAgent, thread: Thread, query: HistoryQuery) -> AsyncGenerator[StateSnapshot]:
    before: RunnableConfig | None = None
    if query.before is not None:
        before = {"configurable": {"thread_id": thread.thread_id, "checkpoint_id": query.before}}
    states: AsyncIterator[StateSnapshot] = graph.aget_state_history(
        _config(thread, query.place), filter=dict(query.metadata or {}), before=before, limit=query.limit
    )
    async for state in states:
        yield state


def _state_of(snapshot: StateSnapshot) -> ThreadState:
    if snapshot.metadata is None:
        return ThreadState()
    return ThreadState(
        values=to_json(snapshot.values),
        next=list(snapshot.next),
        tasks=[_task_of(task) for task in snapshot.tasks],
        metadata=to_json(dict(snapshot.metadata)),
        created_at=snapshot.created_at,
        place=_place_of(snapshot.config),
        parent=_place_of(snapshot.parent_config),
    )


def _task_of(task: PregelTask) -> TaskState:
    inner = cast("RunnableConfig | None", task.state) if isinstance(task.state, dict) else None
    return TaskState(
        id=task.id,
        name=task.name,
        path=to_json(cast("Any", task).path),
        error=str(task.error) if task.error is not None else None,
        asks=bool(task.interrupts),
        inner=_place_of(inner),
        state=_state_of(task.state) if isinstance(task.state, StateSnapshot) else None,
        result=to_json(task.result),
    )


def _place_of(config: RunnableConfig | None) -> Place | None:
    if config is None:
        return None
    where: dict[str, Any] = config.get("configurable", {})
    return Place(where.get("checkpoint_id"), where.get("checkpoint_ns", ""), where.get("checkpoint_map"))

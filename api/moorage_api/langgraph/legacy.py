"""A run's events as the frames of the legacy LangGraph SSE. Pure: the log goes in, bytes come out.

The frames are those of the official server 0.16.7, as captured, but for these: every frame has an id, `end` comes last,
all that waits for approval is one batched interrupt, and a tool call is one chunk, as the log has it whole.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Any

import orjson

from moorage.events import EventType, StoredEvent
from moorage.run_request import Record
from moorage_api.langgraph.batching import fold
from moorage_api.langgraph.legacy_callbacks import Callbacks
from moorage_api.langgraph.legacy_frames import START, FrameId, FrameWriter, frame_name
from moorage_api.langgraph.legacy_graph import GraphFrames
from moorage_api.langgraph.legacy_messages import MessageReader, MessageView
from moorage_api.langgraph.legacy_places import Places, ShownRun
from moorage_api.langgraph.legacy_views import Chunks, DerivedUpdates, Snapshots, ToolProgress
from moorage_api.langgraph.values import LoadState, StateFold, Values

type LoadFinal = Callable[[], Awaitable[Values]]
"""The state in which a run left its thread, for runs whose states were not recorded."""

_BEFORE_IT_RUNS = frozenset({EventType.MESSAGE_RECEIVED, EventType.DECISION})
_SHOW_OUTPUT = frozenset({"custom", "tools"})
_RUNS_ONLY = frozenset({"lifecycle"})
_ERRORS = {"step_limit": "GraphRecursionError"}


def error_body(problem: dict[str, Any]) -> dict[str, Any]:
    """A problem object as clients of the wire read it: `{"error", "message"}`."""
    code = str(problem.get("code", "internal_error"))
    return {"error": _ERRORS.get(code, code), "message": str(problem.get("detail", ""))}


class LegacyProjection:
    """One run for one client. It must be fed the run's events from the first one on, in order, and no gaps.

    Frames up to `after` are made and not sent: what came before them is what later ones are made of. Events of other
    runs are passed over. `ended` tells that the run's last event was read.
    """

    def __init__(
        self,
        run: ShownRun,
        modes: Collection[str],
        *,
        subgraphs: bool = False,
        load: LoadState,
        final: LoadFinal,
        after: FrameId = START,
        ends_stream: bool = True,
    ) -> None:
        """Without `ends_stream` the end of the run is told as a stream of a whole thread tells it."""
        self._run = run
        self._modes = frozenset(modes)
        self._subgraphs = subgraphs
        self._final = final
        self._ends_stream = ends_stream
        self._frames = FrameWriter(after)
        self._places = Places(run)
        self._fold = StateFold(load)
        self._callbacks = Callbacks(self._frames, run, self._places) if "events" in self._modes else None
        self._derived = DerivedUpdates(self._frames) if self._derives_updates() else None
        self._messages = MessageReader(self._views(), self._places, subgraphs=subgraphs)
        self._graph = GraphFrames(
            run, self._modes, subgraphs=subgraphs, frames=self._frames, places=self._places, fold=self._fold
        )
        self._announced = False
        self._asked = False
        self.ended = False

    async def frames(self, events: Sequence[StoredEvent]) -> bytes:
        """What these events are to the client: whole frames, or nothing."""
        for event in events:
            if event.run_id == self._run.run_id and not self.ended:
                self._frames.begin(event.seq)
                if not self._announced and event.type not in _BEFORE_IT_RUNS:
                    self._announce()
                self._messages.read(event)
                await self._read(event)
        return self._frames.take()

    def forgotten(self, values: Values) -> bytes:
        """What is left to say of a run whose events are not kept any more: it has ended, and led to these values."""
        if "values" in self._modes:
            self._frames.add(b"values", orjson.dumps(values), always=True)
        self._frames.add(b"end", b"null", always=True)
        return self._frames.take()

    def _derives_updates(self) -> bool:
        recorded = self._run.recorded
        return "updates" in self._modes and (recorded is None or Record.UPDATES not in recorded)

    def _views(self) -> list[MessageView]:
        views: list[MessageView] = []
        if "messages-tuple" in self._modes:
            views.append(Chunks(self._frames))
        elif "messages" in self._modes:
            views.append(Snapshots(self._frames))
        if "tools" in self._modes:
            views.append(ToolProgress(self._frames))
        return [*views, *(view for view in (self._derived, self._callbacks) if view is not None)]

    def _announce(self) -> None:
        self._announced = True
        self._frames.add_json(b"metadata", {"run_id": self._run.run_id, "attempt": self._places.attempt})
        if self._callbacks is not None:
            self._callbacks.run_started()

    async def _read(self, event: StoredEvent) -> None:
        match event.type:
            case EventType.GRAPH:
                await self._graph_said(orjson.loads(event.data), event.at)
            case EventType.AGENT_START:
                self._started(orjson.loads(event.data))
            case EventType.TOOL_OUTPUT:
                self._output(event.data)
            case EventType.INTERRUPT:
                await self._interrupted(orjson.loads(event.data)["interrupts"])
            case EventType.ERROR:
                self._frames.add_json(b"error", error_body(orjson.loads(event.data)))
            case EventType.RUN_END:
                await self._end(orjson.loads(event.data)["status"])
            case _:
                return

    def _started(self, data: dict[str, Any]) -> None:
        if (attempt := data.get("attempt", 1)) > 1 and "parent_call_id" not in data:
            self._places.attempt = attempt
            self._messages.forget_unfinished()
            self._announce()

    async def _graph_said(self, said: dict[str, Any], at: datetime | None) -> None:
        kind, ns, data = said["kind"], tuple(said["ns"]), said["data"]
        if kind == "call":
            self._places.call_entered(data["call_id"], ns)
            if (name := data.get("name")) is not None:
                self._messages.name_of(data["call_id"], name)
            return
        if kind == "updates" and self._derived is not None:
            self._derived.recorded = True
        await self._graph.read(kind, ns, data, at)

    def _output(self, data: bytes) -> None:
        if not self._modes & _SHOW_OUTPUT:
            return
        told: dict[str, Any] = orjson.loads(data)
        ns = self._places.of_parent(told.get("parent_call_id"))
        if ns and not self._subgraphs:
            return
        if "custom" in self._modes:
            self._frames.add_json(frame_name("custom", ns), {"type": "tool_output", **told})
        if "tools" in self._modes:
            call_id = told.pop("call_id")
            progress = {"event": "on_tool_event", "toolCallId": call_id, "name": self._messages.tool_of(call_id)}
            self._frames.add_json(frame_name("tools", ns), {**progress, "data": told})

    async def _interrupted(self, pending: list[dict[str, Any]]) -> None:
        self._asked = True
        batch = fold(pending)
        asked = {"__interrupt__": [batch] if batch else []}
        if "updates" in self._modes:
            self._frames.add_json(b"updates", asked)
        if "values" in self._modes:
            await self._values(asked)
        elif "updates" not in self._modes and self._modes != _RUNS_ONLY:
            self._frames.add_json(b"values", asked)

    async def _end(self, status: str) -> None:
        if status == "interrupted" and not self._asked and "updates" in self._modes:
            self._frames.add_json(b"updates", {"__interrupt__": []})  # it stopped before or after a node
        if "values" in self._modes and "values" not in self._graph.told and not self._asked:
            await self._values({})
        if self._callbacks is not None:
            self._callbacks.run_ended(await self._state())
        self.ended = True
        if self._ends_stream:
            self._frames.add(b"end", b"null", always=True)
        else:
            self._frames.add_json(b"metadata", {"status": "run_done", "run_id": self._run.run_id})

    async def _values(self, more: dict[str, Any]) -> None:
        if self._frames.sends_next:
            self._frames.add_json(b"values", {**await self._state(), **more})
        else:
            self._frames.skip()

    async def _state(self) -> Values:
        known = self._fold.values()
        return known if known is not None else await self._final()

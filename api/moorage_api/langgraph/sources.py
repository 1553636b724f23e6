"""Where the streams of a thread read from: its log, its states, and its runs as they are shown."""

from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass

from moorage.agent.states import Place
from moorage.assistants import wire_assistant_id
from moorage.errors import NotFound
from moorage.events import StoredEvent
from moorage.runs.run import Run
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.langgraph.legacy import LegacyProjection
from moorage_api.langgraph.legacy_frames import FrameId
from moorage_api.langgraph.legacy_places import ShownRun
from moorage_api.langgraph.modes import DEFAULT_MODES, records_for
from moorage_api.langgraph.values import Values
from moorage_api.sse import Recheck

HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Source:
    """A thread that is read, and whether its reader still may."""

    runtime: Runtime
    thread: Thread
    recheck: Recheck

    def follow(self, after: int) -> AsyncGenerator[list[StoredEvent]]:
        return self.runtime.event_log.follow(self.thread.thread_id, after=after, idle=HEARTBEAT_SECONDS)

    async def final(self) -> Values:
        """The thread's state as it is; nothing for a thread that is gone."""
        try:
            return await self.runtime.states.values(self.thread) or {}
        except NotFound:
            return {}

    async def load(self, checkpoint_id: str) -> Values:
        """The state at a checkpoint. One that is not kept any more is stood in for by what came of it."""
        try:
            return (await self.runtime.states.at(self.thread, Place(checkpoint_id))).values
        except NotFound:
            return await self.final()

    def projection(
        self, run: Run, modes: Collection[str], *, subgraphs: bool, after: FrameId, ends_stream: bool = True
    ) -> LegacyProjection:
        asked = run.kwargs
        shown = ShownRun(
            run_id=run.run_id,
            thread_id=self.thread.wire_id,
            assistant_id=wire_assistant_id(run.assistant_id),
            graph_id=str(self.thread.metadata.get("graph_id", "agent")),
            recorded=frozenset(records_for(modes_of(run))) if asked else None,
            metadata=run.metadata,
            input=asked.get("input"),
        )
        return LegacyProjection(
            shown,
            modes or modes_of(run),
            subgraphs=subgraphs or bool(asked.get("stream_subgraphs") or asked.get("subgraphs")),
            load=self.load,
            final=self.final,
            after=after,
            ends_stream=ends_stream,
        )


def modes_of(run: Run) -> tuple[str, ...]:
    """The stream modes that a run was created with; for one that did not come over this wire, the default."""
    asked = run.kwargs.get("stream_mode") or DEFAULT_MODES
    return (asked,) if isinstance(asked, str) else tuple(asked)

"""All runs of a thread in one stream of frames: a projection for each, in its own modes."""

from collections.abc import AsyncGenerator, Collection

from moorage.errors import NotFound
from moorage.events import StoredEvent
from moorage_api.langgraph.legacy import LegacyProjection
from moorage_api.langgraph.legacy_frames import ALL_OF_IT, START, FrameId
from moorage_api.langgraph.sources import Source

_PAGE = 1000


class ThreadReader:
    """A projection per run, made when the log first speaks of the run and fed what it said before."""

    def __init__(self, source: Source, modes: Collection[str], after: FrameId) -> None:
        self._source = source
        self._modes = ("lifecycle",) if "run_modes" not in modes else ()
        self._after = after
        self._shows = "run_modes" in modes or "lifecycle" in modes
        self._projections: dict[str, LegacyProjection | None] = {}

    def follow(self, after: FrameId) -> AsyncGenerator[list[StoredEvent]]:
        """From the event that `after` is of: it may have more frames."""
        seq, place = after
        return self._source.follow(seq if after == START or place == ALL_OF_IT else seq - 1)

    async def frames(self, batch: list[StoredEvent]) -> bytes:
        if not self._shows:
            return b""
        return b"".join([await self._frames(event) for event in batch])

    async def _frames(self, event: StoredEvent) -> bytes:
        if event.run_id not in self._projections:
            self._projections[event.run_id] = await self._begin(event)
        projection = self._projections[event.run_id]
        if projection is None:
            return b""
        chunk = await projection.frames([event])
        if projection.ended:
            self._projections[event.run_id] = None
        return chunk

    async def _begin(self, event: StoredEvent) -> LegacyProjection | None:
        """The run's projection, at `event`; None for a run that was forgotten."""
        runtime, thread = self._source.runtime, self._source.thread
        try:
            run = await runtime.runs.get(thread, event.run_id)
        except NotFound:
            return None
        projection = self._source.projection(run, self._modes, subgraphs=False, after=self._after, ends_stream=False)
        seq = run.first_seq - 1
        while seq < event.seq - 1:
            older = await runtime.event_log.read(thread.thread_id, after=seq, limit=_PAGE)
            await projection.frames([item for item in older if item.seq < event.seq])
            seq = older[-1].seq if older else event.seq
        return projection

"""The event log in Postgres: what one writer commits for all runs, many readers follow."""

from collections.abc import AsyncGenerator, Sequence

from moorage.adapters.postgres.event_readers import EventReaders
from moorage.adapters.postgres.event_rows import Placed, claim_for, insert_events, place
from moorage.adapters.postgres.event_writer import EventWriter
from moorage.adapters.postgres.notices import Notices
from moorage.adapters.postgres.patience import PATIENCE_SECONDS
from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim
from moorage.events import RunEvent, StoredEvent
from moorage.ids import ThreadId

__all__ = ["Placed", "PostgresEventLog", "claim_for", "insert_events", "place"]


class PostgresEventLog:
    """`moorage.runs.ports.EventLog` on Postgres. `write_forever` and `poll_forever` must run beside it."""

    def __init__(
        self, database: Database, notices: Notices | None = None, *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """Without `notices`, what other processes write is seen within a second.

        An append fails when Postgres is away for `patience` seconds.
        """
        self.readers = EventReaders(database)
        self._writer = EventWriter(database, publish=self.readers.publish, patience=patience)
        if notices is not None:
            notices.listen("events", self.readers.hear, own=False)

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        """Store `events` in order and make them visible; returns after the commit. Raises ClaimLost or Unavailable."""
        await self._writer.append(claim, events)

    async def write_forever(self) -> None:
        await self._writer.write_forever()

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Hand committed events to the readers in this process."""
        self.readers.publish(events)

    async def read(self, thread_id: ThreadId, *, after: int, limit: int = 1000) -> list[StoredEvent]:
        return await self.readers.read(thread_id, after=after, limit=limit)

    def follow(self, thread_id: ThreadId, *, after: int, idle: float) -> AsyncGenerator[list[StoredEvent]]:
        """Batches of events after a seq, as the port says; raises ReaderLagged or EventsForgotten."""
        return self.readers.follow(thread_id, after=after, idle=idle)

    def arrival(self, thread_id: ThreadId, *, idle: float) -> AsyncGenerator[bool]:
        """Whether a thread came to be, as the port says."""
        return self.readers.arrival(thread_id, idle=idle)

    def close_readers(self) -> None:
        """End every `follow`, and each new one at once: the server stops."""
        self.readers.close()

    async def poll_forever(self) -> None:
        await self.readers.poll_forever()

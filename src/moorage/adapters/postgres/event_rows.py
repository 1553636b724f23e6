"""How events, and the messages that they complete, become rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.notices import notify
from moorage.claims import Claim
from moorage.events import RunEvent, StoredEvent, encode, scrub_text
from moorage.ids import RunId, ThreadId, UserId

type Row = dict[str, Any]

_INSERT_EVENTS = """
INSERT INTO run_events (thread_id, owner_id, seq, run_id, generation, type, data)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::uuid[], %s::bigint[], %s::text[], %s::text[])
"""

_INSERT_MESSAGE = """
INSERT INTO messages
    (thread_id, owner_id, run_id, position, id, role, content, thinking, tool_calls, call_id, usage, duration_ms)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """Events that got their seq."""

    claim: Claim
    event: RunEvent
    seq: int

    def stored(self) -> StoredEvent:
        """As readers of this process get it; the table has the time of the transaction."""
        claim, event = self.claim, self.event
        return StoredEvent(claim.thread_id, self.seq, claim.run_id, event.type, event.data, datetime.now(UTC))


def place(claim: Claim, events: Iterable[RunEvent], *, before: int) -> list[Placed]:
    """Give `events` the seqs after `before`."""
    return [Placed(claim, event, before + offset) for offset, event in enumerate(events, start=1)]


def claim_for(thread_id: ThreadId, owner: UserId, run_id: RunId, generation: int = 0) -> Claim:
    """The claim under which the server itself writes, before any worker has one."""
    return Claim(run_id, thread_id, owner, generation)


async def insert_events(connection: AsyncConnection[Row], placed: Sequence[Placed]) -> None:
    """Insert events and the messages they complete, and tell the readers in other processes at the commit.

    The caller holds the threads' locks and advanced `last_seq`; after the commit it publishes to its own readers.
    """
    if not placed:
        return
    columns = zip(*map(_event_row, placed), strict=True)
    await connection.execute(_INSERT_EVENTS, [list(column) for column in columns])
    messages = [item for item in placed if item.event.message is not None]
    if messages:
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT_MESSAGE, [_message_row(item) for item in messages])
    await notify(connection, "events", " ".join(dict.fromkeys(item.claim.thread_id for item in placed)))


def _event_row(item: Placed) -> tuple[Any, ...]:
    return (
        item.claim.thread_id,
        item.claim.owner_id,
        item.seq,
        item.claim.run_id,
        item.claim.generation,
        item.event.type.value,
        item.event.data.decode(),
    )


def _message_row(item: Placed) -> tuple[Any, ...]:
    message = item.event.message
    assert message is not None  # noqa: S101 -- the caller filtered
    claim = item.claim
    return (
        claim.thread_id,
        claim.owner_id,
        claim.run_id,
        item.seq,
        scrub_text(message.id),
        message.role.value,
        scrub_text(message.content),
        message.thinking and scrub_text(message.thinking),
        Jsonb(message.tool_calls, dumps=encode) if message.tool_calls else None,
        message.call_id and scrub_text(message.call_id),
        Jsonb(message.usage, dumps=encode) if message.usage else None,
        message.duration_ms,
    )

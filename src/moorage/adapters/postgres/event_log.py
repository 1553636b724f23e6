"""The event log in Postgres: one group-commit writer per process for all runs, and readers that follow it.

`seq` is assigned under the lock of the thread's row, in the transaction that inserts the event, so commit order is seq
order and no reader skips one. Readers in this process get events straight from the commit; what they missed, for
whatever reason, they read from the table.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim, ClaimLost
from moorage.errors import AppError, Unavailable
from moorage.events import EventType, RunEvent, StoredEvent, encode, scrub_text
from moorage.ids import RunId, ThreadId, UserId, owner_of
from moorage.telemetry import get_logger

_BATCH = 1000
_FOLLOWER_EVENTS = 2000
_POLL_SECONDS = 1.0
_STOPPING = "The server is shutting down"

# What a commit can fail with. ValueError: text that psycopg cannot send.
_REFUSED = (AppError, psycopg.Error, ValueError)

log = get_logger(__name__)

type Row = dict[str, Any]

# Two statements: one that waits for a row lock still sees other tables, here the runs, as they were before the wait.
_LOCK = "SELECT FROM threads WHERE thread_id = ANY(%s) ORDER BY thread_id FOR UPDATE"

_COUNT = """
UPDATE threads t SET last_seq = t.last_seq + w.events, message_count = t.message_count + w.messages
FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::int[], %s::int[])
    AS w(thread_id, run_id, generation, events, messages)
JOIN runs r ON r.run_id = w.run_id AND r.generation = w.generation AND r.status = 'running'
WHERE t.thread_id = w.thread_id AND r.thread_id = w.thread_id
RETURNING w.run_id, w.generation, t.last_seq - w.events AS before
"""

_INSERT_EVENTS = """
INSERT INTO run_events (thread_id, owner_id, seq, run_id, generation, type, data)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::uuid[], %s::bigint[], %s::text[], %s::text[])
"""

_INSERT_MESSAGE = """
INSERT INTO messages
    (thread_id, owner_id, run_id, position, id, role, content, thinking, tool_calls, call_id, usage)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""

_READ = """
SELECT seq, run_id, type, data FROM run_events WHERE thread_id = %s AND seq > %s ORDER BY seq LIMIT %s
"""


@dataclass(slots=True)
class _Append:
    claim: Claim
    events: Sequence[RunEvent]
    done: asyncio.Future[None]


class _Follower:
    """What a reader has not taken yet. When it falls behind, events are dropped here: it reads the table instead."""

    def __init__(self) -> None:
        self.events: deque[StoredEvent] = deque(maxlen=_FOLLOWER_EVENTS)
        self.news = asyncio.Event()
        self.seen = 0


@dataclass(frozen=True, slots=True)
class Placed:
    """Events that got their seq."""

    claim: Claim
    event: RunEvent
    seq: int

    def stored(self) -> StoredEvent:
        return StoredEvent(self.claim.thread_id, self.seq, self.claim.run_id, self.event.type, self.event.data)


async def insert_events(connection: AsyncConnection[Row], placed: Sequence[Placed]) -> None:
    """Insert events and the messages they complete. The caller holds the threads' locks and advanced `last_seq`."""
    columns = list(
        zip(
            *(
                (
                    item.claim.thread_id,
                    item.claim.owner_id,
                    item.seq,
                    item.claim.run_id,
                    item.claim.generation,
                    item.event.type.value,
                    item.event.data.decode(),
                )
                for item in placed
            ),
            strict=True,
        )
    )
    await connection.execute(_INSERT_EVENTS, [list(column) for column in columns])
    messages = [item for item in placed if item.event.message is not None]
    if messages:
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT_MESSAGE, [_message_row(item) for item in messages])


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
    )


def place(claim: Claim, events: Iterable[RunEvent], *, before: int) -> list[Placed]:
    """Give `events` the seqs after `before`."""
    return [Placed(claim, event, before + offset) for offset, event in enumerate(events, start=1)]


class PostgresEventLog:
    """`moorage.runs.ports.EventLog` on Postgres. `write_forever` and `poll_forever` must run beside it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Append] = []
        self._work = asyncio.Event()
        self._followers: dict[ThreadId, set[_Follower]] = {}
        self._closed = False
        self._stopped = False

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        if self._stopped:
            raise Unavailable(_STOPPING)
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Append(claim, events, done))
        self._work.set()
        await done

    async def write_forever(self) -> None:
        """Commit what waits, all of it at once, for as long as the process lives. The next batch gathers meanwhile."""
        batch: list[_Append] = []
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                batch, self._waiting = self._waiting, []
                try:
                    await self._commit(batch)
                except _REFUSED:
                    await self._commit_one_by_one(batch)
        finally:  # nobody may wait for a writer that is gone
            self._stopped = True
            for item in [*batch, *self._waiting]:
                _fail(item, Unavailable(_STOPPING))

    async def _commit_one_by_one(self, batch: list[_Append]) -> None:
        """What one run wrote must not fail the others that happened to share its commit."""
        for item in batch:
            try:
                await self._commit([item])
            except AppError as error:
                _fail(item, error)
            except _REFUSED as error:
                log.error("event_log_write_failed", run_id=item.claim.run_id, error=type(error).__name__)
                _fail(item, Unavailable("The event could not be stored"))

    async def _commit(self, batch: list[_Append]) -> None:
        by_claim: dict[Claim, list[RunEvent]] = {}
        for item in batch:
            by_claim.setdefault(item.claim, []).extend(item.events)
        async with self._database.system_pipeline() as connection:
            before = await self._lock(connection, by_claim)
            placed: list[Placed] = []
            for claim, events in by_claim.items():
                if claim in before:
                    placed += place(claim, events, before=before[claim])
            if placed:
                await insert_events(connection, placed)
        self.publish([item.stored() for item in placed])
        for item in batch:
            if item.claim in before:
                _succeed(item)
            else:
                _fail(item, ClaimLost("This run is not this worker's any more"))

    async def _lock(self, connection: AsyncConnection[Row], by_claim: dict[Claim, list[RunEvent]]) -> dict[Claim, int]:
        """Lock the threads of the claims that still hold, and answer the seq after which each may write."""
        threads = [claim.thread_id for claim in by_claim]
        columns = [
            threads,
            [claim.run_id for claim in by_claim],
            [claim.generation for claim in by_claim],
            [len(events) for events in by_claim.values()],
            [sum(event.message is not None for event in events) for events in by_claim.values()],
        ]
        await connection.execute(_LOCK, [threads])
        cursor = await connection.execute(_COUNT, columns)
        held = {(str(row["run_id"]), row["generation"]): row["before"] for row in await cursor.fetchall()}
        pairs = {claim: (str(claim.run_id), claim.generation) for claim in by_claim}
        return {claim: held[pair] for claim, pair in pairs.items() if pair in held}

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Hand committed events to the readers in this process."""
        for event in events:
            for follower in self._followers.get(event.thread_id, ()):
                follower.events.append(event)
                follower.news.set()

    async def read(self, thread_id: ThreadId, *, after: int, limit: int = _BATCH) -> list[StoredEvent]:
        owner = owner_of(thread_id)
        assert owner is not None  # noqa: S101 -- the API refused anything else
        async with self._database.tenant_pipeline(owner) as connection:
            cursor = await connection.execute(_READ, [thread_id, after, limit])
            rows = await cursor.fetchall()
        return [
            StoredEvent(thread_id, row["seq"], RunId(str(row["run_id"])), EventType(row["type"]), row["data"].encode())
            for row in rows
        ]

    async def follow(self, thread_id: ThreadId, *, after: int, idle: float) -> AsyncGenerator[list[StoredEvent]]:
        follower = _Follower()
        follower.seen = after
        self._followers.setdefault(thread_id, set()).add(follower)
        try:
            while not self._closed:
                async for batch in self._catch_up(thread_id, follower):
                    yield batch
                while not self._closed and (batch := await _next_batch(follower, idle)) is not None:
                    yield batch
        finally:
            followers = self._followers[thread_id]
            followers.discard(follower)
            if not followers:
                del self._followers[thread_id]

    async def _catch_up(self, thread_id: ThreadId, follower: _Follower) -> AsyncGenerator[list[StoredEvent]]:
        while batch := await self.read(thread_id, after=follower.seen, limit=_BATCH):
            follower.seen = batch[-1].seq
            yield batch
            if len(batch) < _BATCH:
                return

    def close_readers(self) -> None:
        """End every `follow`, and each new one at once: the server stops."""
        self._closed = True
        for followers in self._followers.values():
            for follower in followers:
                follower.news.set()

    async def poll_forever(self) -> None:
        """Once a second, wake the readers of threads that moved on elsewhere: one query for all of them."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if not self._followers:
                continue
            try:
                await self._poll()
            except Unavailable as error:
                log.warning("event_log_poll_failed", detail=error.detail)

    async def _poll(self) -> None:
        async with self._database.system_transaction() as connection:
            cursor = await connection.execute(
                "SELECT thread_id, last_seq FROM threads WHERE thread_id = ANY(%s)", [list(self._followers)]
            )
            rows = await cursor.fetchall()
        for row in rows:
            for follower in self._followers.get(row["thread_id"], ()):
                if follower.seen < row["last_seq"]:
                    follower.news.set()


async def _next_batch(follower: _Follower, idle: float) -> list[StoredEvent] | None:
    """The next events in order; none after `idle` quiet seconds; None when some must be read from the table."""
    if not follower.events:
        try:
            async with asyncio.timeout(idle):
                await follower.news.wait()
        except TimeoutError:
            return []
    follower.news.clear()
    batch: list[StoredEvent] = []
    while follower.events:
        event = follower.events[0]
        if event.seq <= follower.seen:
            follower.events.popleft()
        elif event.seq == follower.seen + 1:
            batch.append(follower.events.popleft())
            follower.seen = event.seq
        else:
            break
    if follower.events:  # a gap: let the next call go to the table
        follower.events.clear()
        follower.news.set()
    return batch or None


def _succeed(item: _Append) -> None:
    if not item.done.done():
        item.done.set_result(None)


def _fail(item: _Append, error: AppError) -> None:
    if not item.done.done():
        item.done.set_exception(error)


def claim_for(thread_id: ThreadId, owner: UserId, run_id: RunId, generation: int = 0) -> Claim:
    """The claim under which the server itself writes, before any worker has one."""
    return Claim(run_id, thread_id, owner, generation)

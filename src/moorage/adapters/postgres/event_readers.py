"""Readers that follow threads: from the table until they are up to date, then straight from this process's commits.

What a reader gets is dense: it never sees a seq without the one before. Whenever it cannot be sure of that, because
another process wrote, or a commit was not told, it goes back to the table.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import Any

from moorage.adapters.postgres.pool import Database
from moorage.errors import Unavailable
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId, ThreadId, owner_of
from moorage.telemetry import get_logger
from moorage.threads import EventsForgotten, ReaderLagged

BUFFER_EVENTS = 10_000
BUFFER_BYTES = 8 * 1024 * 1024
_BATCH_EVENTS = 1000
_BATCH_BYTES = 512 * 1024
_RECENT_THREADS = 300
_RECENT_EVENTS = 20
_RECENT_BYTES = 8192
_POLL_SECONDS = 1.0
_PAUSE_SECONDS = 1.0

log = get_logger(__name__)

# `before` is how many bytes come before an event in its page: a page holds at least one event, however large it is.
_PAGE = """
SELECT t.first_seq, t.last_seq, e.seq, e.run_id, e.type, e.data, e.created_at FROM threads t LEFT JOIN LATERAL (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY seq) - octet_length(data) AS before FROM (
        SELECT seq, run_id, type, data, created_at FROM run_events
        WHERE thread_id = t.thread_id AND seq > %s ORDER BY seq LIMIT %s
    ) page
) e ON e.before < %s WHERE t.thread_id = %s ORDER BY e.seq
"""


@dataclass(frozen=True, slots=True)
class _Page:
    events: list[StoredEvent]
    first_seq: int
    last_seq: int


class _Reader:
    """What one reader has not taken yet, within bounds.

    It is `stale` while the table may hold what the buffer does not: then nothing is buffered.
    """

    def __init__(self, after: int) -> None:
        self.seen = after
        self.stale = True
        self.lagged = False
        self.news = asyncio.Event()
        self._told = False  # something newer than the page that is being read
        self._newest = after
        self._events: deque[StoredEvent] = deque()
        self._bytes = 0
        self._waiting = False

    @property
    def buffered_bytes(self) -> int:
        return self._bytes

    def offer(self, event: StoredEvent) -> None:
        """Take a committed event of this process, if it is the next one."""
        expected = self._events[-1].seq + 1 if self._events else self.seen + 1
        self._newest = max(self._newest, event.seq)
        if self.stale or self.lagged or event.seq < expected:
            return
        if event.seq > expected:
            self.go_back()
            return
        self._events.append(event)
        self._bytes += len(event.data)
        if len(self._events) > BUFFER_EVENTS or self._bytes > BUFFER_BYTES:
            self._overflow()
        self.news.set()

    def _overflow(self) -> None:
        """Whoever waits for events is only slower than one burst; who does not come for them has fallen behind."""
        self.lagged = not self._waiting
        self.go_back()

    def go_back(self, *, to_at_least: int = 0) -> None:
        """The table has something newer."""
        self._newest = max(self._newest, to_at_least)
        self.stale = self._told = True
        self._events.clear()
        self._bytes = 0
        self.news.set()

    def knows(self, seq: int) -> bool:
        return seq <= (self._events[-1].seq if self._events else self.seen)

    def start_reading(self) -> None:
        """A page is about to be read: what is told from now on may not be in it."""
        self._told = False

    def caught_up(self, page: _Page) -> None:
        """The page was read: from here on the buffer serves, unless there is more in the table."""
        self.seen = page.events[-1].seq if page.events else max(self.seen, page.last_seq)
        self._newest = max(self._newest, page.last_seq)
        self.stale = self._told or self.seen < self._newest

    async def next(self, idle: float) -> list[StoredEvent] | None:
        """The next events; [] after `idle` quiet seconds; None when there is something else to see to."""
        if not self._events and not await self._heard(idle):
            return []
        batch: list[StoredEvent] = []
        size = 0
        while self._events and len(batch) < _BATCH_EVENTS and size < _BATCH_BYTES:
            event = self._events.popleft()
            size += len(event.data)
            batch.append(event)
        self._bytes -= size
        self.seen = batch[-1].seq if batch else self.seen
        return batch or None

    async def _heard(self, at_most: float) -> bool:
        self._waiting = True
        try:
            return await _heard(self.news, at_most)
        finally:
            self._waiting = False


class EventReaders:
    """All readers of this process; `poll_forever` must run beside it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._readers: dict[ThreadId, set[_Reader]] = {}
        self._awaited: dict[ThreadId, set[asyncio.Event]] = {}
        self._recent: dict[ThreadId, list[StoredEvent]] = {}
        self._closed = False
        self._poll_now = asyncio.Event()

    @property
    def buffered_bytes(self) -> int:
        """What all readers together have not taken yet."""
        return sum(reader.buffered_bytes for readers in self._readers.values() for reader in readers)

    def publish(self, events: Iterable[StoredEvent]) -> None:
        """Hand committed events to the readers in this process."""
        for event in events:
            self._tell_awaiting(event.thread_id)
            readers = self._readers.get(event.thread_id)
            if readers is None:
                self._keep_for_the_first(event)
                continue
            for reader in readers:
                reader.offer(event)

    def hear(self, text: str) -> None:
        """Another process wrote to the threads named in `text`; "" is any."""
        if not text:
            self._recent.clear()
            self._poll_now.set()
        for thread_id in map(ThreadId, text.split()):
            self._recent.pop(thread_id, None)
            self._tell_awaiting(thread_id)
            for reader in self._readers.get(thread_id, ()):
                reader.go_back()

    async def read(self, thread_id: ThreadId, *, after: int, limit: int) -> list[StoredEvent]:
        page = await self._page(thread_id, after=after, limit=limit, size=2**62)
        return page.events if page else []

    async def follow(self, thread_id: ThreadId, *, after: int, idle: float) -> AsyncGenerator[list[StoredEvent]]:
        """See `moorage.runs.ports.EventLog`. Raises ReaderLagged or EventsForgotten when it cannot go on."""
        reader = self._new_reader(thread_id, after)
        try:
            while not self._closed:
                if reader.lagged:
                    raise ReaderLagged(reader.seen)
                batch = await (self._from_table(thread_id, reader) if reader.stale else reader.next(idle))
                if batch is not None:
                    yield batch
        finally:
            readers = self._readers[thread_id]
            readers.discard(reader)
            if not readers:
                del self._readers[thread_id]

    async def arrival(self, thread_id: ThreadId, *, idle: float) -> AsyncGenerator[bool]:
        """See `moorage.runs.ports.EventLog`. However many wait, they cost a part of one query a second."""
        news = asyncio.Event()
        self._awaited.setdefault(thread_id, set()).add(news)
        try:
            while not self._closed:
                heard = await _heard(news, idle)
                if not self._closed:
                    yield heard
        finally:
            awaiting = self._awaited[thread_id]
            awaiting.discard(news)
            if not awaiting:
                del self._awaited[thread_id]

    def _tell_awaiting(self, thread_id: ThreadId) -> None:
        for news in self._awaited.get(thread_id, ()):
            news.set()

    def _new_reader(self, thread_id: ThreadId, after: int) -> _Reader:
        """A reader of a run that just started here gets its first events without a look into the table."""
        reader = _Reader(after)
        recent = self._recent.pop(thread_id, [])
        if recent and recent[0].seq == after + 1:
            reader.stale = False
            for event in recent:
                reader.offer(event)
        self._readers.setdefault(thread_id, set()).add(reader)
        return reader

    def _keep_for_the_first(self, event: StoredEvent) -> None:
        kept = self._recent.setdefault(event.thread_id, [])
        kept.append(event)
        if len(kept) > _RECENT_EVENTS or sum(len(each.data) for each in kept) > _RECENT_BYTES:
            del self._recent[event.thread_id]
        elif len(self._recent) > _RECENT_THREADS:
            del self._recent[next(iter(self._recent))]

    async def _from_table(self, thread_id: ThreadId, reader: _Reader) -> list[StoredEvent] | None:
        reader.start_reading()
        try:
            page = await self._page(thread_id, after=reader.seen, limit=_BATCH_EVENTS, size=_BATCH_BYTES)
        except Unavailable as error:
            log.warning("event_log_read_failed", detail=error.detail)
            return await reader.next(_PAUSE_SECONDS)
        if page is None:  # the thread was removed
            raise EventsForgotten(reader.seen)
        if not page.first_seq - 1 <= reader.seen <= page.last_seq:
            raise EventsForgotten(page.last_seq)
        reader.caught_up(page)
        return page.events or None

    async def _page(self, thread_id: ThreadId, *, after: int, limit: int, size: int) -> _Page | None:
        """Events after a seq, with what the thread's bounds were in the same moment; None without such a thread."""
        owner = owner_of(thread_id)
        assert owner is not None  # noqa: S101 -- the API refused anything else
        rows = await self._database.tenant_rows(owner, _PAGE, [after, limit, size, thread_id])
        if not rows:
            return None
        events = [_stored(thread_id, row) for row in rows if row["seq"] is not None]
        return _Page(events, rows[0]["first_seq"], rows[0]["last_seq"])

    def close(self) -> None:
        """End every `follow`, and each new one at once: the server stops."""
        self._closed = True
        for thread_id in self._awaited:
            self._tell_awaiting(thread_id)
        for readers in self._readers.values():
            for reader in readers:
                reader.news.set()

    async def poll_forever(self) -> None:
        """Once a second, wake the readers of threads that moved on elsewhere: one query for all of them."""
        while True:
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._poll_now.wait()
            except TimeoutError:
                pass
            self._poll_now.clear()
            if not self._readers and not self._awaited:
                continue
            try:
                await self._poll()
            except Unavailable as error:
                log.warning("event_log_poll_failed", detail=error.detail)

    async def _poll(self) -> None:
        followed = list(self._readers)
        asked = [*followed, *self._awaited]
        async with self._database.system_transaction() as connection:
            cursor = await connection.execute(
                "SELECT thread_id, last_seq FROM threads WHERE thread_id = ANY(%s)", [asked]
            )
            last_seqs = {row["thread_id"]: row["last_seq"] for row in await cursor.fetchall()}
        for thread_id in last_seqs:
            self._tell_awaiting(thread_id)
        for thread_id in followed:
            last_seq = last_seqs.get(thread_id)  # None: the thread was removed, as its readers will find
            for reader in self._readers.get(thread_id, ()):
                if last_seq is None or not reader.knows(last_seq):
                    reader.go_back(to_at_least=last_seq or 0)


async def _heard(news: asyncio.Event, at_most: float) -> bool:
    try:
        async with asyncio.timeout(at_most):
            return await news.wait()
    except TimeoutError:
        return False
    finally:
        news.clear()


def _stored(thread_id: ThreadId, row: dict[str, Any]) -> StoredEvent:
    data = row["data"].encode()
    return StoredEvent(
        thread_id, row["seq"], RunId(str(row["run_id"])), EventType(row["type"]), data, row["created_at"]
    )

"""The run queue and the event log under test: the in-memory ones, and those on Postgres."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta

from moorage.adapters.memory import MemoryEventLog, MemoryRunQueue
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.claims import Claim
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.runs.ports import EventLog, MessageQueue
from moorage.runs.run import BusyPolicy, Started
from moorage.threads import NewThread

QUEUE_LIMIT = 3
LEASE = timedelta(seconds=30)
ALICE = UserId("alice")


class Ports(ABC):
    """A queue and its log, with what a test needs around them."""

    queue: MessageQueue
    log: EventLog

    @abstractmethod
    async def new_thread(self, thread_id: ThreadId | None = None) -> ThreadId: ...

    @abstractmethod
    async def close_thread(self, thread_id: ThreadId) -> None: ...

    @abstractmethod
    async def delete_thread(self, thread_id: ThreadId) -> None: ...

    async def submit(
        self,
        thread_id: ThreadId,
        content: str = "hello",
        *,
        policy: BusyPolicy = BusyPolicy.ENQUEUE,
        key: str | None = None,
    ) -> Started:
        return await self.queue.submit(ALICE, thread_id, content=content, policy=policy, idempotency_key=key)

    async def claim(self, limit: int = 10, lease: timedelta = LEASE) -> list[Claim]:
        return [run.claim for run in await self.queue.claim("worker", limit=limit, lease=lease)]

    async def running(self, thread_id: ThreadId | None = None, lease: timedelta = LEASE) -> Claim:
        """A claimed run, of a new thread if none is given."""
        await self.submit(thread_id or await self.new_thread())
        [claim] = await self.claim(lease=lease)
        return claim

    async def events(self, thread_id: ThreadId) -> list[tuple[int, str]]:
        return [(event.seq, event.type.value) for event in await self.log.read(thread_id, after=0, limit=1000)]


class MemoryPorts(Ports):
    def __init__(self) -> None:
        self.log = self._memory = MemoryEventLog()
        self.queue = MemoryRunQueue(self._memory, queue_limit=QUEUE_LIMIT)

    async def new_thread(self, thread_id: ThreadId | None = None) -> ThreadId:
        thread_id = thread_id or new_thread_id(ALICE)
        self._memory.add_thread(thread_id, ALICE)
        return thread_id

    async def close_thread(self, thread_id: ThreadId) -> None:
        self._memory.close_thread(thread_id)

    async def delete_thread(self, thread_id: ThreadId) -> None:
        self._memory.delete_thread(thread_id)


class PostgresPorts(Ports):
    def __init__(self, database: Database) -> None:
        self.log: PostgresEventLog = PostgresEventLog(database)
        life = timedelta(hours=1)
        self.queue = PostgresRunQueue(database, self.log, session_life=life, queue_limit=QUEUE_LIMIT, ttl=life)
        self._threads = PostgresThreadStore(database, session_life=life)

    async def new_thread(self, thread_id: ThreadId | None = None) -> ThreadId:
        thread_id = thread_id or new_thread_id(ALICE)
        await self._threads.create(ALICE, NewThread(thread_id), quota=0)
        return thread_id

    async def close_thread(self, thread_id: ThreadId) -> None:
        await self._threads.close(ALICE, thread_id)

    async def delete_thread(self, thread_id: ThreadId) -> None:
        await self._threads.delete(ALICE, thread_id)


@asynccontextmanager
async def open_ports(kind: str, database: Database) -> AsyncGenerator[Ports]:
    """The ports of this kind, `memory` or `postgres`, with what must run beside them; alice is in the database."""
    if kind == "memory":
        yield MemoryPorts()
        return
    found = PostgresPorts(database)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(found.log.write_forever()), group.create_task(found.log.poll_forever())]
        yield found
        for task in tasks:
            task.cancel()

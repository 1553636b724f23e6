"""What a user can do with runs: start one with a message, look at them, stop what runs, change a thread's state."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

import orjson

from moorage.claims import StopReason
from moorage.errors import AppError, Conflict, InvalidPayload, Unavailable
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs.ports import EventLog, RunQueue, RunRecords
from moorage.runs.run import BusyPolicy, Run, RunActive, RunNotFound, RunRequest, RunStatus, Started
from moorage.runs.worker import Worker
from moorage.threads import Thread

_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.05

_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}


class Runs:
    """Starts and stops the runs of threads, whichever worker executes them."""

    def __init__(self, queue: RunQueue, worker: Worker | None, records: RunRecords, log: EventLog) -> None:
        """`worker` is this process's, if it has one: it need not wait to be told."""
        self._queue = queue
        self._worker = worker
        self._records = records
        self._log = log

    async def start(
        self,
        thread: Thread,
        content: str | None,
        *,
        policy: BusyPolicy = BusyPolicy.ENQUEUE,
        idempotency_key: str | None = None,
        request: RunRequest | None = None,
    ) -> Started:
        """Store a message and start, or queue, the run that answers it. What it raises is in `RunQueue.submit`.

        Without `content` the `request` says what the graph is fed.
        """
        started = await self._queue.submit(
            thread.owner_id,
            thread.thread_id,
            content=content,
            policy=policy,
            idempotency_key=idempotency_key,
            request=request,
        )
        if started.stops:
            self._stop_here(started.stops, _STOPS[policy])
        return started

    async def get(self, thread: Thread, run_id: str) -> Run:
        """One of the thread's runs; raises RunNotFound."""
        return await self._found(thread.owner_id, run_id, thread.thread_id)

    async def get_anywhere(self, owner: UserId, run_id: str) -> Run:
        """A run of one of the user's threads; raises RunNotFound."""
        return await self._found(owner, run_id, None)

    async def _found(self, owner: UserId, run_id: str, thread_id: ThreadId | None) -> Run:
        run = await self._records.find(owner, run_id, thread_id=thread_id)
        if run is None:
            raise RunNotFound
        return run

    async def search(
        self, thread: Thread, *, statuses: Sequence[RunStatus] = (), limit: int = 10, offset: int = 0
    ) -> list[Run]:
        """The thread's runs, newest first."""
        return await self._records.search(
            thread.owner_id, thread.thread_id, statuses=statuses, limit=limit, offset=offset
        )

    async def active(
        self,
        owner: UserId,
        *,
        thread: Thread | None = None,
        run_ids: Sequence[str] | None = None,
        status: RunStatus | None = None,
    ) -> list[Run]:
        """A user's queued and running runs."""
        thread_id = thread.thread_id if thread else None
        return await self._records.active(owner, thread_id=thread_id, run_ids=run_ids, status=status)

    async def delete(self, run: Run, thread: Thread) -> None:
        """Forget a run that has ended; what it did stays. Raises RunActive."""
        if not await self._records.delete(thread.owner_id, thread.thread_id, run.run_id):
            raise RunActive

    async def stop_run(self, run: Run, reason: StopReason = StopReason.CANCELLED, *, wait: bool = True) -> None:
        """End this run and no other; with `wait` it has ended, within seconds, when this returns."""
        if not await self._queue.stop_run(run.thread_id, run.run_id, reason):
            return
        self._stop_here([run.run_id], reason)
        if wait:
            await self._wait_until_ended([run.run_id])

    async def update_state(
        self, thread: Thread, values: Mapping[str, Any] | None, *, as_node: str | None, checkpoint_id: str | None
    ) -> str:
        """Change the thread's state as if the node had; answers the new checkpoint's id.

        It is a run of its own, so that no other one is in the way and a crash loses nothing. Raises Conflict when the
        thread is busy, InvalidPayload when the graph refuses the update.
        """
        update = {"values": values, "as_node": as_node, "checkpoint_id": checkpoint_id}
        request = RunRequest(state_update=update)
        started = await self.start(thread, None, policy=BusyPolicy.REJECT, request=request)
        found: str | None = None
        async for event in self._events_of(thread, started):
            match event.type:
                case EventType.GRAPH:
                    place = orjson.loads(event.data)["data"].get("config")
                    found = place["configurable"]["checkpoint_id"] if place else found
                case EventType.ERROR:
                    raise _not_updated(orjson.loads(event.data))
                case _:
                    continue
        if found is None:
            raise Conflict("The update was stopped", code="state_not_updated")
        return found

    async def _events_of(self, thread: Thread, started: Started) -> AsyncGenerator[StoredEvent]:
        """What one run says, to its end."""
        batches = self._log.follow(thread.thread_id, after=started.first_seq - 1, idle=_STOP_SECONDS)
        async with aclosing(batches):
            async for batch in batches:
                for event in batch:
                    if event.run_id == started.run_id:
                        yield event
                        if event.type is EventType.RUN_END:
                            return

    async def stop_for_good(self, thread_id: ThreadId) -> None:
        """`stop`, for a thread that is closed or removed."""
        await self.stop(thread_id, reason=StopReason.DELETED)

    async def stop(self, thread_id: ThreadId, *, reason: StopReason = StopReason.CANCELLED) -> None:
        """End the thread's running run and its queued ones; returns when they have ended, within seconds."""
        running = await self._queue.request_stop(thread_id, reason)
        self._stop_here(running, reason)
        if running:
            await self._wait_until_ended(running)

    async def _wait_until_ended(self, run_ids: Sequence[RunId]) -> None:
        """Whichever worker has them: only the database knows. Gives up after some seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                while not await self._queue.have_ended(run_ids):  # noqa: ASYNC110 -- another process ends it
                    await asyncio.sleep(_LOOK_SECONDS)

    def hear_stop(self, notice: str) -> None:
        """Somebody asked for a stop, in words that name the run and the reason: `<run_id> <reason>`."""
        run_id, _, reason = notice.partition(" ")
        if run_id:
            self._stop_here([RunId(run_id)], StopReason(reason))

    def _stop_here(self, run_ids: Sequence[RunId], reason: StopReason) -> None:
        if self._worker is not None:
            for run_id in run_ids:
                self._worker.stop_run(run_id, reason)


def _not_updated(problem: Mapping[str, Any]) -> AppError:
    if problem["code"] == "invalid_update":
        return InvalidPayload(problem["detail"], code=problem["code"])
    return Unavailable(problem["detail"], code=problem["code"])

"""What a user can do with runs: start one with a message, and stop what runs."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from moorage.claims import StopReason
from moorage.ids import RunId, ThreadId
from moorage.runs.ports import RunQueue
from moorage.runs.run import BusyPolicy, Started
from moorage.runs.worker import Worker
from moorage.threads import Thread

_STOP_SECONDS = 5.0
_LOOK_SECONDS = 0.05

_STOPS = {BusyPolicy.INTERRUPT: StopReason.INTERRUPT, BusyPolicy.ROLLBACK: StopReason.ROLLBACK}


class Runs:
    """Starts and stops the runs of threads, whichever worker executes them."""

    def __init__(self, queue: RunQueue, worker: Worker | None) -> None:
        """`worker` is this process's, if it has one: it need not wait to be told."""
        self._queue = queue
        self._worker = worker

    async def start(
        self,
        thread: Thread,
        content: str,
        *,
        policy: BusyPolicy = BusyPolicy.ENQUEUE,
        idempotency_key: str | None = None,
    ) -> Started:
        """Store a message and start, or queue, the run that answers it. What it raises is in `RunQueue.submit`."""
        started = await self._queue.submit(
            thread.owner_id,
            thread.thread_id,
            content=content,
            policy=policy,
            idempotency_key=idempotency_key,
        )
        if started.stops:
            self._stop_here(started.stops, _STOPS[policy])
        return started

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

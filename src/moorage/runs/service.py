"""What a user can do with runs: start one with a message, and stop what runs."""

from moorage.claims import StopReason
from moorage.ids import ThreadId
from moorage.runs.ports import RunQueue
from moorage.runs.run import Started
from moorage.runs.worker import Worker
from moorage.threads import Thread

_STOP_SECONDS = 5.0


class Runs:
    """Starts and stops the runs of threads."""

    def __init__(self, queue: RunQueue, worker: Worker) -> None:
        self._queue = queue
        self._worker = worker

    async def start(
        self, thread: Thread, content: str, *, reject_when_busy: bool = False, idempotency_key: str | None = None
    ) -> Started:
        """Store a message and start, or queue, the run that answers it. What it raises is in `RunQueue.submit`."""
        return await self._queue.submit(
            thread.owner_id,
            thread.thread_id,
            content=content,
            reject_when_busy=reject_when_busy,
            idempotency_key=idempotency_key,
        )

    async def stop_for_good(self, thread_id: ThreadId) -> None:
        """`stop`, for a thread that is closed or removed."""
        await self.stop(thread_id, reason=StopReason.DELETED)

    async def stop(self, thread_id: ThreadId, *, reason: StopReason = StopReason.CANCELLED) -> None:
        """End the thread's running run and its queued ones; returns when they have ended, within seconds."""
        for run_id in await self._queue.request_stop(thread_id, reason):
            if self._worker.stop_run(run_id, reason):
                await self._worker.wait_for(run_id, at_most=_STOP_SECONDS)

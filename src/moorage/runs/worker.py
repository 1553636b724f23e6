"""The worker: claims runs as they come, executes each in a task of its own, and keeps their leases."""

import asyncio
from collections.abc import Callable
from datetime import timedelta

from moorage.claims import Claim, StopReason
from moorage.errors import AppError
from moorage.ids import RunId
from moorage.runs.executor import Execution, Executor
from moorage.runs.ports import RunQueue
from moorage.telemetry import get_logger

_POLL_SECONDS = 1.0
_PAUSE_AFTER_FAILURE = 1.0
_HEARTBEATS_PER_LEASE = 3
_LAST_WORDS_SECONDS = 3.0

log = get_logger(__name__)


class Worker:
    """Executes up to `concurrency` runs at a time."""

    def __init__(
        self,
        queue: RunQueue,
        executor: Executor,
        *,
        name: str,
        concurrency: int,
        lease: timedelta = timedelta(seconds=30),
    ) -> None:
        self._queue = queue
        self._executor = executor
        self._concurrency = concurrency
        self._lease = lease
        self._name = name
        self._executions: dict[Claim, tuple[Execution, asyncio.Task[None]]] = {}
        self._early_stops: dict[RunId, StopReason] = {}
        self._stopping = False

    @property
    def active(self) -> int:
        """How many runs it executes now."""
        return len(self._executions)

    async def work_forever(self) -> None:
        """Claim and execute until cancelled; then stop what runs and see it written."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_leases())
                while True:
                    await self._claim(group)
                    await self._queue.wait_for_work(at_most=_POLL_SECONDS)
        finally:
            log.info("worker_stopped", worker=self._name)

    async def stop(self, *, patience: float) -> None:
        """Claim no more, give what runs `patience` seconds to finish its step, and hand back what is not done."""
        self._stopping = True
        if not await self._ended_within(patience, lambda execution: execution.drain()):
            await self._ended_within(_LAST_WORDS_SECONDS, lambda execution: execution.stop(StopReason.SHUTDOWN))

    def stop_run(self, run_id: RunId, reason: StopReason) -> bool:
        """Stop a run that this worker executes, or is just about to; False when it does not (yet)."""
        found = self._executing(run_id)
        if not found:
            self._early_stops[run_id] = reason
        for execution in found:
            execution.stop(reason)
        return bool(found)

    def _executing(self, run_id: RunId) -> list[Execution]:
        return [execution for claim, (execution, _) in self._executions.items() if claim.run_id == run_id]

    async def _ended_within(self, seconds: float, ask: Callable[[Execution], None]) -> bool:
        for execution, _ in self._executions.values():
            ask(execution)
        tasks = [task for _, task in self._executions.values()]
        return not tasks or not (await asyncio.wait(tasks, timeout=seconds))[1]

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        free = self._concurrency - len(self._executions)
        if free <= 0 or self._stopping:
            return
        try:
            claimed = await self._queue.claim(self._name, limit=free, lease=self._lease)
        except AppError as error:
            log.warning("claim_failed", code=error.code, detail=error.detail)
            await asyncio.sleep(_PAUSE_AFTER_FAILURE)
            return
        for run in claimed:
            for older in self._executing(run.claim.run_id):  # the lease ran out without this worker's knowing
                older.stop(StopReason.DELETED)
            execution = Execution(run)
            if (reason := self._early_stops.pop(run.claim.run_id, run.stop_reason)) is not None:
                execution.stop(reason)
            if self._stopping:  # it was being claimed when the worker was told to stop
                execution.stop(StopReason.SHUTDOWN)
            task = group.create_task(self._execute(execution))
            self._executions[run.claim] = (execution, task)
            task.add_done_callback(lambda _, claim=run.claim: self._ended(claim))

    async def _execute(self, execution: Execution) -> None:
        try:
            await self._executor.execute(execution)
        except Exception:  # one of the three places: one run must not end the others
            log.exception("run_lost", run_id=execution.run.claim.run_id)

    def _ended(self, claim: Claim) -> None:
        del self._executions[claim]
        if len(self._executions) == self._concurrency - 1:  # it was full: what had to wait may start
            self._queue.wake()

    async def _keep_leases(self) -> None:
        between = pause = self._lease.total_seconds() / _HEARTBEATS_PER_LEASE
        while True:
            await asyncio.sleep(pause)
            pause = between
            claims = list(self._executions)
            try:
                if claims:
                    stops = await self._queue.heartbeat(claims, lease=self._lease)
                    for claim in claims:  # not its run: this worker may have claimed that again meanwhile
                        if (reason := stops.get(claim.run_id)) and (found := self._executions.get(claim)):
                            found[0].stop(reason)
                self._early_stops.clear()  # those of runs that other workers have
            except AppError as error:
                log.warning("heartbeat_failed", code=error.code, detail=error.detail)
                pause = min(between, _PAUSE_AFTER_FAILURE)  # before anybody finds that the leases ran out

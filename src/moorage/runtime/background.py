"""What runs beside the server: the worker, the log's writer, chores, and how they stop."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.retention import forget_events
from moorage.adapters.postgres.store import forget_expired_items
from moorage.adapters.postgres.webhook_deliveries import forget_deliveries
from moorage.runs.keeper import Chore, keep_up
from moorage.runs.ports import RunQueue
from moorage.runs.worker import Worker
from moorage.runtime.crons import cron_chore
from moorage.runtime.engine import Engine
from moorage.runtime.intake import Intake
from moorage.runtime.runtime import Runtime
from moorage.settings import Settings
from moorage.snapshots import Snapshots
from moorage.threads import Threads

_STOP_PATIENCE_SECONDS = 25.0
_REAPS_PER_LEASE = 3
_FORGET_SECONDS = 3600.0
_SWEEP_SECONDS = 60.0

type Beside = Callable[[], Coroutine[Any, Any, None]]


@asynccontextmanager
async def in_background(engine: Engine, runtime: Runtime, approvals: PostgresApprovalStore) -> AsyncGenerator[None]:
    """Run what must run beside the server."""
    chores = _chores(runtime.settings, runtime.database, engine.queue, approvals, runtime.threads, runtime.snapshots)
    beside: list[Beside] = [
        engine.event_log.poll_forever,
        partial(engine.sandboxes.keep_sweeping, engine.busy_threads.existing),
        engine.notices.run_forever,
        runtime.deliveries.deliver_forever,
        *(partial(keep_up, chore) for chore in (cron_chore(runtime.crons), *chores)),
    ]
    async with _background(engine.event_log.write_forever, engine.worker, runtime.intake, beside):
        yield


def _chores(
    settings: Settings,
    database: Database,
    queue: RunQueue,
    approvals: PostgresApprovalStore,
    threads: Threads,
    snapshots: Snapshots,
) -> list[Chore]:
    """What every process looks after, so that it is done while any of them lives."""
    often = settings.run_lease_seconds / _REAPS_PER_LEASE
    older = timedelta(days=settings.run_event_retention_days)
    return [
        Chore("recover_lost_runs", often, partial(queue.recover_lost, max_attempts=settings.run_max_attempts)),
        Chore("expire_approvals", often, approvals.expire),
        Chore("expire_threads", _SWEEP_SECONDS, threads.expire),
        Chore("forget_events", _FORGET_SECONDS, partial(forget_events, database, older_than=older)),
        Chore("forget_deliveries", _FORGET_SECONDS, partial(forget_deliveries, database)),
        Chore("forget_expired_items", _SWEEP_SECONDS, partial(forget_expired_items, database)),
        Chore("collect_snapshots", _FORGET_SECONDS, snapshots.collect),
    ]


@asynccontextmanager
async def _background(
    write: Beside, worker: Worker | None, intake: Intake, beside: Sequence[Beside]
) -> AsyncGenerator[None]:
    """When one of these dies, so does the server, and says why.

    The worker begins to stop when the intake closes, while requests are still being answered. The log's writer is the
    last to stop: what the worker ends with must still be stored.
    """
    async with asyncio.TaskGroup() as outer:
        writer = outer.create_task(write())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in beside]
            if worker is not None:
                tasks.append(group.create_task(worker.work_forever()))
            draining = group.create_task(_drain(worker, intake))
            try:
                yield
            finally:
                intake.close()
                await asyncio.wait([draining])
                for task in tasks:
                    task.cancel()
        writer.cancel()


async def _drain(worker: Worker | None, intake: Intake) -> None:
    await intake.wait_closed()
    if worker is not None:
        await worker.stop(patience=_STOP_PATIENCE_SECONDS)

"""Everything put together: stores, sandboxes, agents, runs, and what runs beside the server."""

import asyncio
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.assistants import PostgresAssistantStore
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.checkpoint_reader import ThreadReader
from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.copies import PostgresCopyStore
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.journal import open_journal
from moorage.adapters.postgres.notices import Notices
from moorage.adapters.postgres.pool import Database, open_database
from moorage.adapters.postgres.retention import forget_events
from moorage.adapters.postgres.rules import PostgresRuleBook
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.run_records import PostgresRunRecords
from moorage.adapters.postgres.store import PostgresItemTable, forget_expired_items
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.adapters.postgres.webhook_deliveries import forget_deliveries
from moorage.adapters.postgres.wire_threads import PostgresThreadLists
from moorage.agent.changes import change_inspector
from moorage.agent.graph import Agents
from moorage.agent.graph_views import GraphViews
from moorage.agent.runner import AgentRunner
from moorage.agent.sandbox_files import ThreadFiles
from moorage.agent.states import States
from moorage.approvals import Approvals
from moorage.assistants import Assistants, get_assistant
from moorage.copies import Copies
from moorage.crons import Crons
from moorage.deliveries import Deliveries
from moorage.identity import Identity
from moorage.rules import RuleBook
from moorage.runs.executor import Executor, LoadAssistant, RunLimits
from moorage.runs.keeper import Chore, keep_up
from moorage.runs.ports import EventLog, RunQueue
from moorage.runs.service import Runs
from moorage.runs.worker import Worker
from moorage.runtime.crons import cron_chore, make_crons
from moorage.runtime.database import installation_of, make_identity, open_postgres
from moorage.runtime.intake import Intake, ServerStopping, WorkerState
from moorage.runtime.models import assistant_policy, load_for_run, make_agents
from moorage.runtime.providers import open_sandboxes
from moorage.runtime.webhooks import make_deliveries
from moorage.sandboxes.service import Sandboxes
from moorage.settings import Settings
from moorage.store import Store
from moorage.thread_lists import ThreadLists
from moorage.threads import Threads

_BLOCKING_CALLS = 64
_STOP_PATIENCE_SECONDS = 25.0
_REAPS_PER_LEASE = 3
_FORGET_SECONDS = 3600.0
_SWEEP_SECONDS = 60.0

type Beside = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the HTTP layer and the command line work with."""

    settings: Settings
    identity: Identity
    threads: Threads
    thread_lists: ThreadLists
    states: States
    approvals: Approvals
    rules: RuleBook
    copies: Copies
    assistants: Assistants
    graph_views: GraphViews
    store: Store
    runs: Runs
    crons: Crons
    deliveries: Deliveries
    event_log: EventLog
    sandbox_kind: str
    sandbox_note: str | None
    model_name: str
    database: Database
    database_url: str
    executes: bool
    worker_name: str
    intake: Intake

    @property
    def draining(self) -> bool:
        """Whether this process was told to stop."""
        return not self.intake.is_open

    @property
    def worker_state(self) -> WorkerState:
        """What this process does for runs: execute them, finish what it executes, or nothing."""
        if not self.executes:
            return "none"
        return "draining" if self.draining else "ok"

    def stop_accepting(self) -> None:
        """Take no new work, end all event streams, and let what runs come to its end: the process is to stop."""
        self.intake.close()
        self.stop_readers()

    def check_accepting(self) -> None:
        """Raise ServerStopping after `stop_accepting`."""
        if self.draining:
            raise ServerStopping

    def stop_readers(self) -> None:
        """End all event streams."""
        self.event_log.close_readers()

    async def check_ready(self) -> None:
        """Raise Unavailable when the database does not answer."""
        await self.database.ping()


@asynccontextmanager
async def open_runtime(settings: Settings, *, work: bool = True) -> AsyncGenerator[Runtime]:
    """Start everything and stop it again. Raises Unavailable or another AppError that says what is missing.

    Without `work` this process executes no runs; the workers on its database do.
    """
    executor = ThreadPoolExecutor(_BLOCKING_CALLS, thread_name_prefix="blocking")
    asyncio.get_running_loop().set_default_executor(executor)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_postgres(settings))
        database = await stack.enter_async_context(open_database(url))
        runtime, background = await _assemble(settings, stack, database, url, work=work)
        async with background:
            yield runtime


async def _assemble(
    settings: Settings, stack: AsyncExitStack, database: Database, url: str, *, work: bool
) -> tuple[Runtime, AbstractAsyncContextManager[None]]:
    life = timedelta(hours=settings.session_life_hours)
    notices = Notices(url)
    event_log = PostgresEventLog(database, notices)
    queue = PostgresRunQueue(
        database,
        event_log,
        session_life=life,
        queue_limit=settings.run_queue_per_thread,
        ttl=timedelta(hours=settings.run_approval_ttl_hours),
        per_user=settings.run_concurrency_per_user,
        in_all=settings.run_concurrency_total,
    )
    thread_store = PostgresThreadStore(database, session_life=life)
    installation = await installation_of(settings, url)
    sandboxes = await open_sandboxes(settings, stack, thread_store, BusyThreads(database), installation=installation)
    agents, model_name = await make_agents(settings, stack, sandboxes)
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    assistants = Assistants(PostgresAssistantStore(database), assistant_policy(settings, agents))
    load = partial(load_for_run, assistants, agents)
    worker = _worker(settings, database, queue, event_log, agents, load, sandboxes, name=name) if work else None
    runs = Runs(queue, worker, PostgresRunRecords(database), event_log)
    files = ThreadFiles(sandboxes)
    approval_store = PostgresApprovalStore(database, event_log, on_decided=queue.wake, session_life=life)
    notices.listen("work", lambda _: queue.wake(), own=False)
    notices.listen("stop", runs.hear_stop, own=False)
    threads = Threads(
        thread_store,
        quota=settings.quota_active_sessions,
        stop_runs=runs.stop_for_good,
        remove_files=sandboxes.delete,
    )
    crons = make_crons(settings, database, event_log, assistants, runs, on_submitted=queue.wake)
    states = States(agents, partial(ThreadReader, database), load, fallback=get_assistant("deep"))
    deliveries = make_deliveries(settings, database, thread_store, states)
    intake = Intake()
    runtime = Runtime(
        settings=settings,
        identity=make_identity(settings, database),
        threads=threads,
        thread_lists=PostgresThreadLists(database, session_life=life),
        states=states,
        approvals=Approvals(approval_store, inspect=change_inspector(files.read), resolve=files.resolve),
        rules=PostgresRuleBook(database),
        copies=Copies(
            PostgresCopyStore(database, session_life=life),
            quota=settings.quota_active_sessions,
            copy_files=sandboxes.copy_files,
            remove_files=sandboxes.delete,
        ),
        assistants=assistants,
        graph_views=GraphViews(agents),
        store=Store(PostgresItemTable(database), quota=settings.store_max_items),
        runs=runs,
        crons=crons,
        deliveries=deliveries,
        event_log=event_log,
        sandbox_kind=sandboxes.provider.name,
        sandbox_note=sandboxes.provider.isolation_note,
        model_name=model_name,
        database=database,
        database_url=url,
        executes=work,
        worker_name=name,
        intake=intake,
    )
    beside: list[Beside] = [event_log.poll_forever, partial(sandboxes.keep_sweeping, thread_store.existing)]
    beside.append(notices.run_forever)
    beside.append(deliveries.deliver_forever)
    beside.append(partial(keep_up, cron_chore(crons)))
    beside += [partial(keep_up, chore) for chore in _chores(settings, database, queue, approval_store, threads)]
    return runtime, _background(event_log, worker, intake, beside)


def _worker(
    settings: Settings,
    database: Database,
    queue: RunQueue,
    event_log: EventLog,
    agents: Agents,
    load_assistant: LoadAssistant,
    sandboxes: Sandboxes,
    *,
    name: str,
) -> Worker:
    lease = timedelta(seconds=settings.run_lease_seconds)
    runner = AgentRunner(agents, partial(ThreadSaver, database))
    executor = Executor(
        runner,
        event_log,
        queue,
        RunLimits(settings.run_max_steps, settings.run_timeout_seconds, settings.run_token_budget),
        open_journal=partial(open_journal, database, lease=lease),
        load_assistant=load_assistant,
        kill_leftovers=sandboxes.kill_leftovers,
    )
    return Worker(queue, executor, name=name, concurrency=settings.run_concurrency, lease=lease)


def _chores(
    settings: Settings, database: Database, queue: RunQueue, approvals: PostgresApprovalStore, threads: Threads
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
    ]


@asynccontextmanager
async def _background(
    event_log: PostgresEventLog, worker: Worker | None, intake: Intake, beside: Sequence[Beside]
) -> AsyncGenerator[None]:
    """What must run beside the server. When one of these dies, so does the server, and says why.

    The worker begins to stop when the intake closes, while requests are still being answered. The log's writer is the
    last to stop: what the worker ends with must still be stored.
    """
    async with asyncio.TaskGroup() as outer:
        writer = outer.create_task(event_log.write_forever())
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

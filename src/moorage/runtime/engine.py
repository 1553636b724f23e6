"""The engine: the log, the queue, sandboxes and agents, and the worker that brings them together."""

import secrets
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from moorage.adapters.postgres.assistants import PostgresAssistantStore
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.journal import open_journal
from moorage.adapters.postgres.notices import Notices
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.run_records import PostgresRunRecords
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.agent.graph import Agents
from moorage.agent.runner import AgentRunner
from moorage.assistants import Assistants
from moorage.runs.executor import Executor, LoadAssistant, RunLimits
from moorage.runs.service import Runs
from moorage.runs.worker import Worker
from moorage.runtime.database import installation_of
from moorage.runtime.models import assistant_policy, load_for_run, make_agents
from moorage.runtime.providers import open_sandboxes
from moorage.runtime.snapshots import make_snapshots
from moorage.sandboxes.profiles import load_profiles
from moorage.sandboxes.service import Sandboxes
from moorage.settings import Settings
from moorage.snapshots import Snapshots


@dataclass(frozen=True, slots=True)
class Engine:
    """What executes runs and tells of them. `worker` is None in a process that leaves them to others."""

    settings: Settings
    database: Database
    notices: Notices
    event_log: PostgresEventLog
    queue: PostgresRunQueue
    thread_store: PostgresThreadStore
    sandboxes: Sandboxes
    snapshots: Snapshots
    busy_threads: BusyThreads
    agents: Agents
    model_name: str
    assistants: Assistants
    load_assistant: LoadAssistant
    worker_name: str
    worker: Worker | None
    runs: Runs


async def open_engine(settings: Settings, stack: AsyncExitStack, database: Database, url: str, *, work: bool) -> Engine:
    """Make it; what must be closed again is left to `stack`."""
    life = timedelta(hours=settings.session_life_hours)
    notices = Notices(url)
    event_log = PostgresEventLog(database, notices)
    queue = _queue(settings, database, event_log)
    thread_store = PostgresThreadStore(database, session_life=life)
    installation = await installation_of(settings, url)
    busy_threads, profiles = BusyThreads(database), load_profiles(settings)
    sandboxes = await open_sandboxes(settings, stack, busy_threads, profiles, installation=installation)
    agents, model_name = await make_agents(settings, stack, sandboxes, profiles)
    assistants = Assistants(PostgresAssistantStore(database), assistant_policy(settings, agents, profiles))
    load = partial(load_for_run, assistants, agents)
    snapshots = make_snapshots(settings, database, _snapshot_files(settings, stack), sandboxes, profiles, load)
    name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    worker = None
    if work:
        worker = _worker(settings, database, queue, event_log, agents, load, sandboxes, snapshots, name=name)
    runs = Runs(queue, worker, PostgresRunRecords(database), event_log)
    notices.listen("work", lambda _: queue.wake(), own=False)
    notices.listen("stop", runs.hear_stop, own=False)
    return Engine(
        settings=settings,
        database=database,
        notices=notices,
        event_log=event_log,
        queue=queue,
        thread_store=thread_store,
        sandboxes=sandboxes,
        snapshots=snapshots,
        busy_threads=busy_threads,
        agents=agents,
        model_name=model_name,
        assistants=assistants,
        load_assistant=load,
        worker_name=name,
        worker=worker,
        runs=runs,
    )


def _snapshot_files(settings: Settings, stack: AsyncExitStack) -> SnapshotFiles:
    files = SnapshotFiles(settings.data_dir / "snapshots")
    stack.callback(files.close)
    return files


def _queue(settings: Settings, database: Database, event_log: PostgresEventLog) -> PostgresRunQueue:
    return PostgresRunQueue(
        database,
        event_log,
        session_life=timedelta(hours=settings.session_life_hours),
        queue_limit=settings.run_queue_per_thread,
        ttl=timedelta(hours=settings.run_approval_ttl_hours),
        per_user=settings.run_concurrency_per_user,
        in_all=settings.run_concurrency_total,
    )


def _worker(
    settings: Settings,
    database: Database,
    queue: PostgresRunQueue,
    event_log: PostgresEventLog,
    agents: Agents,
    load_assistant: LoadAssistant,
    sandboxes: Sandboxes,
    snapshots: Snapshots,
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
        before_end=snapshots.after_run if settings.snapshot_each_run else None,
    )
    return Worker(queue, executor, name=name, concurrency=settings.run_concurrency, lease=lease)

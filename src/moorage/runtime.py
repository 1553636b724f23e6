"""Opens everything the server needs, in order, and closes it in reverse. The only place that picks adapters."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import DockerSandboxes
from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.migrate import is_up_to_date, migrate
from moorage.adapters.postgres.pool import Database, open_database
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.adapters.postgres.users import PostgresUserStore
from moorage.agent.backend import ThreadSandbox
from moorage.agent.gate import Gate
from moorage.agent.graph import AgentParts, Agents
from moorage.agent.models import SCRIPTED, ModelConfig, build_model, default_model_name
from moorage.agent.runner import AgentRunner
from moorage.approvals import Approvals
from moorage.assistants import get_assistant
from moorage.errors import Unavailable
from moorage.identity import Identity, TokenSigner
from moorage.runs.executor import Executor, RunLimits
from moorage.runs.ports import EventLog
from moorage.runs.service import Runs
from moorage.runs.worker import Worker
from moorage.sandboxes.port import SandboxLimits, SandboxProvider, SandboxUnavailable
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.workspace import Workspaces
from moorage.settings import Settings
from moorage.telemetry import get_logger
from moorage.testing import serve_scripted_model
from moorage.threads import Threads

_BLOCKING_CALLS = 64
_STOP_PATIENCE_SECONDS = 25.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the HTTP layer and the command line work with."""

    settings: Settings
    identity: Identity
    threads: Threads
    approvals: Approvals
    runs: Runs
    event_log: EventLog
    sandbox_kind: str
    sandbox_note: str | None
    model_name: str
    database: Database
    database_url: str

    def stop_readers(self) -> None:
        """End all event streams: the server is about to stop."""
        self.event_log.close_readers()

    async def check_ready(self) -> None:
        """Raise Unavailable when the database does not answer."""
        await self.database.ping()


@asynccontextmanager
async def open_runtime(settings: Settings) -> AsyncGenerator[Runtime]:
    """Start everything and stop it again. Raises Unavailable or another AppError that says what is missing."""
    executor = ThreadPoolExecutor(_BLOCKING_CALLS, thread_name_prefix="blocking")
    asyncio.get_running_loop().set_default_executor(executor)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(_postgres(settings))
        database = await stack.enter_async_context(open_database(url))
        runtime, background = await _assemble(settings, stack, database, url)
        async with background:
            yield runtime


@asynccontextmanager
async def open_identity(settings: Settings) -> AsyncGenerator[Identity]:
    """Only what the user commands need."""
    async with _postgres(settings) as url, open_database(url, min_size=1, max_size=4) as database:
        yield _identity(settings, database)


@asynccontextmanager
async def _postgres(settings: Settings) -> AsyncGenerator[str]:
    """The URL of a migrated database: the operator's, or that of the embedded server, started here."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        if not await asyncio.to_thread(is_up_to_date, url):
            raise Unavailable("The database is not up to date: run `moorage migrate`", code="not_migrated")
        yield url
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with open_embedded_postgres(settings.data_dir) as url:
        await asyncio.to_thread(migrate, url)
        yield url


async def _assemble(
    settings: Settings, stack: AsyncExitStack, database: Database, url: str
) -> tuple[Runtime, AbstractAsyncContextManager[None]]:
    life = timedelta(hours=settings.session_life_hours)
    event_log = PostgresEventLog(database)
    queue = PostgresRunQueue(
        database,
        event_log,
        session_life=life,
        queue_limit=settings.run_queue_per_thread,
        ttl=timedelta(hours=settings.run_approval_ttl_hours),
    )
    thread_store = PostgresThreadStore(database, session_life=life)
    sandboxes = await _sandboxes(settings, stack, thread_store)
    agents, model_name = await _agents(settings, stack, sandboxes)
    runner = AgentRunner(agents, lambda claim: ThreadSaver(database, claim))
    limits = RunLimits(settings.run_max_steps, settings.run_timeout_seconds, settings.run_token_budget)
    worker = Worker(queue, Executor(runner, event_log, queue, limits), concurrency=settings.run_concurrency)
    runs = Runs(queue, worker)
    threads = Threads(
        thread_store,
        quota=settings.quota_active_sessions,
        stop_runs=runs.stop_for_good,
        remove_files=sandboxes.delete,
    )
    runtime = Runtime(
        settings=settings,
        identity=_identity(settings, database),
        threads=threads,
        approvals=Approvals(PostgresApprovalStore(database, event_log, on_decided=queue.wake)),
        runs=runs,
        event_log=event_log,
        sandbox_kind=sandboxes.provider.name,
        sandbox_note=sandboxes.provider.isolation_note,
        model_name=model_name,
        database=database,
        database_url=url,
    )
    return runtime, _background(event_log, worker, sandboxes)


@asynccontextmanager
async def _background(event_log: PostgresEventLog, worker: Worker, sandboxes: Sandboxes) -> AsyncGenerator[None]:
    """What must run beside the server. When one of these dies, so does the server, and says why.

    The log's writer is the last to stop: what the worker ends with must still be stored.
    """
    async with asyncio.TaskGroup() as outer:
        writer = outer.create_task(event_log.write_forever())
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(event_log.poll_forever()),
                group.create_task(worker.work_forever()),
                group.create_task(sandboxes.keep_sweeping()),
            ]
            try:
                yield
            finally:
                await worker.stop(patience=_STOP_PATIENCE_SECONDS)
                for task in tasks:
                    task.cancel()
        writer.cancel()


def _identity(settings: Settings, database: Database) -> Identity:
    return Identity(
        PostgresUserStore(database),
        TokenSigner(_secret_key(settings), lifetime=timedelta(hours=settings.access_token_expire_hours)),
        registration_open=settings.registration_open,
        clock=lambda: datetime.now(UTC),
    )


def _secret_key(settings: Settings) -> str:
    """The configured key; on loopback, without one, a random one that is kept in the data folder."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    return _kept_random(settings.data_dir / "secret_key")


def _kept_random(path: Path) -> str:
    """What the file holds: made of 384 random bits the first time, readable by this user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


async def _sandboxes(settings: Settings, stack: AsyncExitStack, threads: PostgresThreadStore) -> Sandboxes:
    provider = await stack.enter_async_context(open_sandbox_provider(settings))
    limits = SandboxLimits(cpus=settings.sandbox_cpus, memory_mb=settings.sandbox_memory_mb, pids=settings.sandbox_pids)
    sandboxes = Sandboxes(
        provider, _workspaces(settings), limits=limits, idle_seconds=settings.sandbox_idle_minutes * 60
    )
    stack.push_async_callback(sandboxes.close)
    removed = await sandboxes.reconcile(threads.existing)
    log.info("sandboxes_ready", kind=provider.name, orphans_removed=removed)
    return sandboxes


def _workspaces(settings: Settings) -> Workspaces:
    return Workspaces(
        settings.workspace_root,
        settings.shared_dir,
        host_root=settings.sandbox_host_workspace_root,
        host_shared=settings.sandbox_host_shared_dir,
    )


@asynccontextmanager
async def open_sandbox_provider(settings: Settings) -> AsyncGenerator[SandboxProvider]:
    """Docker or bubblewrap, proven to work. `auto` takes Docker if an engine answers.

    Raises SandboxUnavailable, saying what to do.
    """
    docker = None if settings.sandbox == "bubblewrap" else await _docker(settings)
    provider = docker or await _bubblewrap(settings)
    try:
        yield provider
    finally:
        await provider.close()


async def _docker(settings: Settings) -> DockerSandboxes | None:
    """None when no engine answers and a weaker sandbox will do."""
    docker = DockerSandboxes(
        installation=hashlib.sha256(_kept_random(settings.data_dir / "installation").encode()).hexdigest()[:16],
        image=settings.docker_image,
        agent=_workspaces(settings).agent,
        workspace_dir=settings.container_workspace_dir,
        shared_dir=settings.container_shared_dir,
        runtime=settings.sandbox_runtime,
    )
    try:
        await docker.check()
    except SandboxUnavailable as error:
        await docker.close()
        may_be_weak = settings.is_loopback or settings.sandbox_allow_weak
        if error.code != "no_engine" or settings.sandbox == "docker" or not may_be_weak:
            raise
        log.warning("no_docker_engine", detail="falling back to bubblewrap", reason=error.detail)
        return None
    return docker


async def _bubblewrap(settings: Settings) -> BubblewrapSandboxes:
    weak = BubblewrapSandboxes(
        agent=_workspaces(settings).agent,
        workspace_dir=settings.container_workspace_dir,
        shared_dir=settings.container_shared_dir,
    )
    await weak.check()
    log.warning("weak_sandbox", kind=weak.name, note=weak.isolation_note)
    return weak


async def _agents(settings: Settings, stack: AsyncExitStack, sandboxes: Sandboxes) -> tuple[Agents, str]:
    name = default_model(settings)
    scripted = None
    if name.partition(":")[0] == SCRIPTED:
        scripted = await stack.enter_async_context(serve_scripted_model())
    config = model_config(settings, scripted_base_url=scripted)
    parts = AgentParts(
        backend=ThreadSandbox(sandboxes, default_time_limit=settings.sandbox_command_seconds),
        gate=Gate(facts={"sandbox": sandboxes.provider.name}),
        model=lambda model: build_model(model, config),
        default_model=name,
        workspace=settings.container_workspace_dir,
        shared=settings.container_shared_dir,
        command_seconds=settings.sandbox_command_seconds,
    )
    agents = Agents(parts)
    agents.get(get_assistant("agent"))  # a wrong model is told at start, not at the first message
    return agents, name


def default_model(settings: Settings) -> str:
    """The model of assistants that name none, as `provider:name`."""
    return default_model_name(settings.llm_model, has_zhipuai_key=settings.zhipuai_api_key is not None)


def model_config(settings: Settings, *, scripted_base_url: str | None) -> ModelConfig:
    """Where models come from."""
    return ModelConfig(
        api_key=settings.llm_api_key,
        base_url=settings.llm_base_url,
        zhipuai_api_key=settings.zhipuai_api_key,
        zhipuai_api_base=settings.zhipuai_api_base,
        scripted_base_url=scripted_base_url,
        context_tokens=settings.llm_context_tokens,
        timeout_seconds=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
    )

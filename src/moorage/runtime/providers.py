"""Which kind of sandbox there is, and the service over it."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import DockerSandboxes
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.errors import InvalidInput
from moorage.runtime.database import installation_of
from moorage.sandboxes.port import SandboxLimits, SandboxProvider, SandboxUnavailable
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.workspace import Workspaces
from moorage.settings import Settings
from moorage.telemetry import get_logger

log = get_logger(__name__)


async def open_sandboxes(
    settings: Settings,
    stack: AsyncExitStack,
    threads: PostgresThreadStore,
    busy_threads: BusyThreads,
    *,
    installation: str,
) -> Sandboxes:
    """The sandboxes of all threads, with those removed whose thread is gone."""
    provider = await stack.enter_async_context(open_sandbox_provider(settings, installation=installation))
    limits = SandboxLimits(cpus=settings.sandbox_cpus, memory_mb=settings.sandbox_memory_mb, pids=settings.sandbox_pids)
    sandboxes = Sandboxes(
        provider,
        _workspaces(settings),
        limits=limits,
        idle_seconds=settings.sandbox_idle_minutes * 60,
        busy=busy_threads.among,
    )
    stack.push_async_callback(sandboxes.close)
    removed = await sandboxes.reconcile(threads.existing)
    log.info("sandboxes_ready", kind=provider.name, orphans_removed=removed)
    return sandboxes


@asynccontextmanager
async def open_sandbox_provider(
    settings: Settings, *, installation: str | None = None
) -> AsyncGenerator[SandboxProvider]:
    """Docker or bubblewrap, proven to work. `auto` takes Docker if an engine answers.

    Without `installation`: that of the processes which share DATABASE_URL. Raises SandboxUnavailable, saying what to
    do.
    """
    if installation is None:
        if settings.database_url is None:
            raise InvalidInput("Which installation? Give its name, or set DATABASE_URL")
        installation = await installation_of(settings, settings.database_url.get_secret_value())
    docker = None if settings.sandbox == "bubblewrap" else await _docker(settings, installation)
    provider = docker or await _bubblewrap(settings, installation)
    try:
        yield provider
    finally:
        await provider.close()


def _workspaces(settings: Settings) -> Workspaces:
    return Workspaces(
        settings.workspace_root,
        settings.shared_dir,
        host_root=settings.sandbox_host_workspace_root,
        host_shared=settings.sandbox_host_shared_dir,
    )


async def _docker(settings: Settings, installation: str) -> DockerSandboxes | None:
    """None when no engine answers and a weaker sandbox will do."""
    docker = DockerSandboxes(
        installation=installation,
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


async def _bubblewrap(settings: Settings, installation: str) -> BubblewrapSandboxes:
    weak = BubblewrapSandboxes(
        installation=installation,
        agent=_workspaces(settings).agent,
        workspace_dir=settings.container_workspace_dir,
        shared_dir=settings.container_shared_dir,
    )
    await weak.check()
    log.warning("weak_sandbox", kind=weak.name, note=weak.isolation_note)
    return weak

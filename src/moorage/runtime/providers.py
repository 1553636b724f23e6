"""Which kind of sandbox there is, and the service over it."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from moorage.adapters.docker import open_channel
from moorage.adapters.folders import Folders
from moorage.adapters.folders.room import LOW_DISK
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.sandbox_kinds import make_bubblewrap, make_docker, make_folders, tell_shortcomings
from moorage.adapters.sandboxd import BrokerSandboxes
from moorage.errors import InvalidInput
from moorage.runtime.database import installation_of
from moorage.sandboxes.connecting import Connecting, WaysOut
from moorage.sandboxes.egress import resolver
from moorage.sandboxes.port import SandboxProvider, SandboxUnavailable, Shortcoming
from moorage.sandboxes.profiles import SandboxProfile, load_profiles
from moorage.sandboxes.service import Sandboxes
from moorage.settings import Settings
from moorage.telemetry import get_logger

_BROKER_SECONDS = 1.0
_RESOLVERS = 16  # names that sandboxes ask for at once

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SandboxKind:
    """What sandboxes there are, and what they lack. `storage` bounds workspaces; None when a broker sees to that."""

    provider: SandboxProvider
    shortcomings: Sequence[Shortcoming]
    storage: str | None


async def open_sandboxes(
    settings: Settings,
    stack: AsyncExitStack,
    threads: BusyThreads,
    profiles: Mapping[str, SandboxProfile],
    *,
    installation: str,
) -> Sandboxes:
    """The sandboxes of all threads, with those removed whose thread is gone."""
    kind = await stack.enter_async_context(open_sandbox_kind(settings, profiles, installation=installation))
    name_threads = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="egress-name")
    stack.callback(name_threads.shutdown, wait=False, cancel_futures=True)
    sandboxes = Sandboxes(
        kind.provider,
        Connecting(
            WaysOut.of(profiles, resolve=resolver(name_threads)),
            workspace=settings.container_workspace_dir,
            shared=settings.container_shared_dir,
        ),
        idle_seconds=settings.sandbox_idle_minutes * 60,
        wait_seconds=settings.sandbox_wait_seconds,
        work=threads,
    )
    stack.push_async_callback(sandboxes.close)
    removed = await sandboxes.reconcile(threads.existing)
    log.info("sandboxes_ready", kind=kind.provider.name, storage=kind.storage, orphans_removed=removed)
    return sandboxes


@asynccontextmanager
async def open_sandbox_kind(
    settings: Settings, profiles: Mapping[str, SandboxProfile] | None = None, *, installation: str
) -> AsyncGenerator[SandboxKind]:
    """The broker's sandboxes, Docker's or bubblewrap's, proven to work. `auto` takes Docker if an engine answers.

    Raises SandboxUnavailable, saying what to do; with SANDBOX_STRICT also when anything is lacking.
    """
    choice = _Choice(settings, profiles or load_profiles(settings), installation)
    async with choice.closing():
        shortcomings = await choice.prove()
        tell_shortcomings(shortcomings, strict=settings.sandbox_strict)
        yield SandboxKind(choice.provider, shortcomings, choice.storage)


@asynccontextmanager
async def open_sandbox_provider(
    settings: Settings, *, installation: str | None = None
) -> AsyncGenerator[SandboxProvider]:
    """The provider that a server with these settings would use, without trying a sandbox: for looking and clearing up.

    Without `installation`: that of the processes which share DATABASE_URL. Raises SandboxUnavailable.
    """
    if installation is None and settings.sandbox_broker is None:
        if settings.database_url is None:
            raise InvalidInput("Which installation? Give its name, or set DATABASE_URL")
        installation = await installation_of(settings, settings.database_url.get_secret_value())
    choice = _Choice(settings, load_profiles(settings), installation or "")
    async with choice.closing():
        await choice.find()
        yield choice.provider


async def disk_of_broker(path: Path) -> str:
    """`ok`, or why no new workspace is made there. Soon: who asks whether we are ready waits for no frozen broker."""
    try:
        async with asyncio.timeout(_BROKER_SECONDS):
            found = await BrokerSandboxes(path, open_channel=open_channel).shortcomings()
    except SandboxUnavailable as error:
        return error.detail
    except TimeoutError:
        return "The sandbox broker does not answer in time."
    return "; ".join(lack.detail for lack in found if lack.name == LOW_DISK) or "ok"


class _Choice:
    """Takes the first kind that may be had."""

    def __init__(self, settings: Settings, profiles: Mapping[str, SandboxProfile], installation: str) -> None:
        self._settings = settings
        self._profiles = profiles
        self._installation = installation
        self._folders: Folders | None = None
        if settings.sandbox_broker is not None:
            self.provider: SandboxProvider = BrokerSandboxes(settings.sandbox_broker, open_channel=open_channel)
            return
        self._folders = make_folders(settings)
        make = make_bubblewrap if settings.sandbox == "bubblewrap" else make_docker
        self.provider = make(settings, self._folders, profiles, installation=installation)

    @property
    def storage(self) -> str | None:
        return self._folders.storage if self._folders else None

    async def prove(self) -> list[Shortcoming]:
        """Run something in a sandbox; answers what it lacks."""
        try:
            found = await self.provider.check()
        except SandboxUnavailable as error:
            await self._fall_back(error)
            found = await self.provider.check()
        if self.provider.isolation_note:
            return [Shortcoming("isolation", self.provider.isolation_note), *found]
        return found

    async def find(self) -> None:
        """Only see whether it answers."""
        try:
            await self.provider.list()
        except SandboxUnavailable as error:
            await self._fall_back(error)

    async def _fall_back(self, error: SandboxUnavailable) -> None:
        """To weaker sandboxes, when no engine answers and they will do; else raise `error`."""
        settings = self._settings
        may_be_weak = settings.is_loopback or settings.sandbox_allow_weak
        if self._folders is None or error.code != "no_engine" or settings.sandbox != "auto" or not may_be_weak:
            raise error
        if self.provider.name == "bubblewrap":
            raise error
        await self.provider.close()
        log.warning("no_docker_engine", detail="falling back to bubblewrap", reason=error.detail)
        self.provider = make_bubblewrap(settings, self._folders, self._profiles, installation=self._installation)

    @asynccontextmanager
    async def closing(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.provider.close()
            if self._folders is not None:
                self._folders.registry.close()

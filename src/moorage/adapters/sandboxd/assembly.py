"""The broker, put together: the engine's sandboxes as the settings say, and nothing of a server."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from moorage.adapters.docker import DockerSandboxes
from moorage.adapters.folders.room import LOW_DISK
from moorage.adapters.sandbox_kinds import make_docker, make_folders, tell_shortcomings
from moorage.adapters.sandboxd.server import Broker, allowed_uids
from moorage.adapters.sandboxd.socket_file import listening
from moorage.errors import AppError, InvalidInput
from moorage.sandboxes.profiles import load_profiles
from moorage.settings import Settings
from moorage.telemetry import get_logger

_TIDY_SECONDS = 60.0

log = get_logger(__name__)


@asynccontextmanager
async def open_broker(settings: Settings, path: Path, *, group: int | None = None) -> AsyncGenerator[asyncio.Event]:
    """A broker that serves at `path` while the block runs; it stops when the event is set, or the block ends.

    Its sandboxes are tried first: raises SandboxUnavailable when they do not work here, or lack something and
    SANDBOX_STRICT is set.
    """
    profiles, folders = load_profiles(settings), make_folders(settings)
    provider = make_docker(settings, folders, profiles, installation=broker_installation(settings))
    try:
        shortcomings = await provider.check()
        tell_shortcomings(shortcomings, strict=settings.sandbox_strict)
        with listening(path, group=group) as listener:
            uids = allowed_uids(settings.sandbox_broker_uids)
            broker = Broker(
                provider,
                profiles=profiles,
                uids=uids,
                shortcomings=[lack for lack in shortcomings if lack.name != LOW_DISK],
                passing=folders.low_disks,
            )
            stop = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(broker.serve(listener, until=stop))
                tidying = tasks.create_task(_keep_tidy(provider))
                log.info("broker_started", socket=str(path), uids=sorted(uids), profiles=sorted(profiles))
                try:
                    yield stop
                finally:
                    tidying.cancel()
                    stop.set()
    finally:
        await provider.close()
        folders.registry.close()


async def _keep_tidy(provider: DockerSandboxes) -> None:
    """At once and each minute: what a broker or an engine that died left mounted is let go of."""
    while True:
        try:
            if released := await provider.release_unused():
                log.info("folders_released", count=released)
        except AppError as error:
            log.warning("folders_not_released", reason=error.detail)
        await asyncio.sleep(_TIDY_SECONDS)


def broker_installation(settings: Settings) -> str:
    """What a broker calls itself on the engine: there is one for each folder of workspaces, and it has no database.

    By the folder's name on the engine's machine, not by a number kept in it: a broker whose registry was moved away
    still knows its containers, and two on one engine that name one folder work on the same workspaces.
    """
    workspaces = settings.sandbox_host_workspace_root or str(settings.workspace_root.absolute())
    return hashlib.sha256(f"broker\n{workspaces}".encode()).hexdigest()[:16]


def broker_socket(settings: Settings) -> Path:
    """Where the broker listens. Raises InvalidInput when nobody said."""
    if settings.sandbox_broker is None:
        raise InvalidInput(
            "SANDBOX_BROKER is not set: the path of the broker's socket, such as /run/moorage/sandboxd.sock"
        )
    return settings.sandbox_broker

"""One hardened container per thread."""

import asyncio
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from moorage.adapters.docker.container import ContainerSettings
from moorage.adapters.docker.containers import Containers, Limits
from moorage.adapters.docker.engine import Engine
from moorage.adapters.docker.exec import ExecChannel, open_channel
from moorage.adapters.docker.locks import Locks
from moorage.adapters.docker.making import ContainerMaker
from moorage.adapters.docker.pool import BlockingPool
from moorage.adapters.docker.preflight import check_engine, lacks_of_container, lacks_of_engine, probe
from moorage.adapters.docker.warm import WarmPool
from moorage.adapters.folders import Folders
from moorage.errors import AppError
from moorage.ids import ThreadId, UserId, user_place
from moorage.sandboxes.port import Bounds, SandboxInfo, SandboxStats, Shortcoming
from moorage.sandboxes.profiles import DEFAULT_PROFILE, SandboxProfile
from moorage.telemetry import get_logger

_THREADS = 32

log = get_logger(__name__)

type Shortcomings = list[Shortcoming]  # within the class `list` is a method


class DockerSandboxes:
    """The SandboxProvider over a Docker engine.

    The installation in `settings` tells the containers of several servers on one engine apart: 1 to 32 of `[a-z0-9]`.
    The profiles' images must have been built or loaded before; they are never pulled here. `warm` containers under the
    profile `default` stand ready, beside those that `limits` count.
    """

    name: Literal["docker"] = "docker"
    isolation_note: str | None = None

    def __init__(
        self,
        settings: ContainerSettings,
        *,
        folders: Folders,
        profiles: Mapping[str, SandboxProfile],
        limits: Limits | None = None,
        warm: int = 0,
    ) -> None:
        self._settings = settings
        self._folders = folders
        self._profiles = dict(profiles)
        self._pool = BlockingPool(_THREADS, name="docker")
        self._engine = Engine(connections=_THREADS)
        self._maker = ContainerMaker(self._engine, settings)
        locks = Locks(_root_of(folders))
        default = self._profiles[DEFAULT_PROFILE]
        self._warm = WarmPool(self._maker, folders=folders, locks=locks, profile=default, size=warm)
        self._warm_size = warm
        self._refilling: asyncio.Task[None] | None = None
        self._containers = Containers(
            self._maker,
            folders=folders,
            locks=locks,
            profiles=self._profiles,
            limits=limits or Limits(),
            warm=self._warm,
        )

    async def check(self) -> Shortcomings:
        return await self._pool.run(self._check)

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = DEFAULT_PROFILE) -> None:
        await self._pool.run(lambda: self._containers.prepare_folder(thread_id, profile))

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        try:
            return await self._pool.run(lambda: self._containers.ensure(thread_id, profile, fencing_token))
        finally:
            self._refill_soon()

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> ExecChannel:
        return await open_channel(await self.open_stream(thread_id, fencing_token=fencing_token))

    async def open_stream(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> socket.socket:
        """As `open_helper`, but the connection itself, for whoever makes the channel (`open_channel`) elsewhere."""
        return await self._pool.run(
            lambda: self._containers.open_stream(thread_id, fencing_token), abandon=socket.socket.close
        )

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        await self._pool.run(lambda: self._containers.kill_all(thread_id, fencing_token))

    async def pause(self, thread_id: ThreadId) -> None:
        await self._pool.run(lambda: self._containers.pause(thread_id))

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        await self._pool.run(lambda: self._containers.remove(thread_id, files=files))

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        if thread_id is not None:
            return await self._pool.run(lambda: self._containers.find(thread_id, folders=folders))
        return await self._pool.run(lambda: self._containers.list(folders=folders))

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        return await self._pool.run(lambda: self._containers.stats(thread_id))

    async def release_unused(self) -> int:
        """Let go of the folders of containers that an engine lost, or somebody removed; answers how many."""
        return await self._pool.run(self._containers.release_unused)

    async def close(self) -> None:
        self._warm.stop()
        if self._refilling is not None:
            await asyncio.wait([self._refilling])
        await self._pool.run(self._warm.close)
        self._pool.close()
        self._engine.close()

    def _check(self) -> Shortcomings:
        runtime = self._settings.runtime
        info = self._engine.info()
        check_engine(info, runtime=runtime)
        for profile in self._profiles.values():
            self._maker.image_id(profile)
        said = probe(self._maker, self._profiles[DEFAULT_PROFILE])
        self._warm.bury()
        return [
            *lacks_of_engine(info, runtime=runtime),
            *lacks_of_container(said, info, runtime=runtime),
            *self._folders.shortcomings(),
        ]

    def _refill_soon(self) -> None:
        if self._warm_size and (self._refilling is None or self._refilling.done()):
            self._refilling = asyncio.create_task(self._refill())

    async def _refill(self) -> None:
        try:
            await self._pool.run(self._warm.bury)
            while await self._pool.run(self._warm.refill):
                pass
        except AppError as error:  # the next new thread's is made on the spot, and then we try again
            log.warning("warm_sandboxes_missing", reason=error.detail)


def _root_of(folders: Folders) -> Path:
    return folders.path(user_place(UserId("anybody"))).parents[1]

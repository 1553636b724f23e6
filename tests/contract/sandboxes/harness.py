"""Real sandboxes of both kinds, and how to watch what becomes of their processes."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from tests.uids import own_uids

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import ContainerSettings, DockerSandboxes
from moorage.adapters.folders import Folders, Registry
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.helper_sandbox import HelperSandbox, KillAll
from moorage.sandboxes.port import Bounds, Channel, Sandbox, SandboxProvider
from moorage.sandboxes.profiles import DEFAULT_PROFILE, SandboxProfile
from moorage.sandboxes.service import Sandboxes

IMAGE = "moorage-sandbox:dev"
UIDS = own_uids(0, 9_999)
type Kind = Literal["docker", "bubblewrap"]
type Storage = Literal["auto", "loop", "quota", "watch"]
SMALL = SandboxProfile(image=IMAGE, memory_mb=256, pids=256, file_mb=64, tmp_mb=64)
PROFILES = {
    DEFAULT_PROFILE: SMALL,
    "tight": replace(SMALL, name="tight", disk_mb=8, max_files=200),
}


@dataclass(slots=True)
class Harbour:
    """One provider with its service, and the folders on this machine."""

    provider: SandboxProvider
    sandboxes: Sandboxes
    folders: Folders
    folder: Path
    kind: Kind
    installation: str

    async def open(self, owner: str = "alice") -> Sandbox:
        return await self.sandboxes.acquire(self.new_thread(owner))

    async def direct(self, thread_id: ThreadId, *, profile: str = DEFAULT_PROFILE) -> HelperSandbox:
        """The thread's sandbox through a helper of its own, without the service, which would open another."""
        bounds = await self.provider.ensure(thread_id, profile=profile)
        channel = await self.provider.open_helper(thread_id)
        return await HelperSandbox.open(thread_id, channel, bounds, partial(self.provider.kill_all, thread_id))

    def new_thread(self, owner: str = "alice") -> ThreadId:
        return new_thread_id(UserId(owner))

    def path(self, thread_id: ThreadId) -> Path:
        return self.folders.path(thread_id)


def new_installation() -> str:
    """Of its own, so that nothing else on the engine is ours."""
    return f"test{uuid.uuid4().hex[:12]}"


def new_folders(folder: Path, *, storage: Storage = "auto") -> Folders:
    registry = Registry(folder / "workspaces" / ".registry.sqlite3", uids=UIDS)
    return Folders(folder / "workspaces", folder / "shared", registry=registry, storage=storage)


def new_provider(kind: Kind, folders: Folders, installation: str) -> SandboxProvider:
    if kind == "bubblewrap":
        return BubblewrapSandboxes(installation=installation, folders=folders, profiles=PROFILES)
    return DockerSandboxes(ContainerSettings(installation=installation), folders=folders, profiles=PROFILES)


async def connect(
    thread_id: ThreadId, channel: Channel, bounds: Bounds, *, profile: str | None, kill_all: KillAll
) -> HelperSandbox:
    del profile
    return await HelperSandbox.open(thread_id, channel, bounds, kill_all)


@asynccontextmanager
async def open_harbour(kind: Kind, folder: Path, *, storage: Storage = "auto") -> AsyncGenerator[Harbour]:
    folders, installation = new_folders(folder, storage=storage), new_installation()
    provider = new_provider(kind, folders, installation)
    sandboxes = Sandboxes(provider, connect)
    try:
        yield Harbour(provider, sandboxes, folders, folder, kind, installation)
    finally:
        await sandboxes.close()
        for info in await provider.list(folders=True):
            await provider.remove(info.thread_id, files=True)
        await provider.close()


async def eventually(condition: Callable[[], bool], *, within: float) -> bool:
    """Whether `condition` came true within so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def processes_with(marker: str) -> list[int]:
    """The processes of this machine, those in sandboxes too, that have `marker` in their command line."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if marker.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found

"""Real sandboxes of both kinds, and how to watch what becomes of their processes."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import DockerSandboxes
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.port import Sandbox, SandboxLimits, SandboxProvider, SandboxSpec
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.workspace import Workspaces

IMAGE = "moorage-sandbox:dev"
type Kind = Literal["docker", "bubblewrap"]
LIMITS = SandboxLimits(memory_mb=256, pids=128, file_mb=64, tmp_mb=64)


@dataclass(slots=True)
class Harbour:
    """One provider with its service, and the folders on this machine."""

    provider: SandboxProvider
    sandboxes: Sandboxes
    workspaces: Workspaces
    folder: Path
    kind: Kind
    installation: str

    async def open(self, owner: str = "alice") -> Sandbox:
        return await self.sandboxes.acquire(self.new_thread(owner))

    def new_thread(self, owner: str = "alice") -> ThreadId:
        return new_thread_id(UserId(owner))

    def spec(self, thread_id: ThreadId, owner: str = "alice") -> SandboxSpec:
        workspace, shared = self.workspaces.open_workspace(thread_id), self.workspaces.open_shared(UserId(owner))
        return SandboxSpec(thread_id, UserId(owner), workspace, shared, LIMITS)

    async def ref_of(self, thread_id: ThreadId) -> str:
        return next(info.ref for info in await self.provider.list() if info.thread_id == thread_id)


def new_installation() -> str:
    """Of its own, so that nothing else on the engine is ours."""
    return f"test{uuid.uuid4().hex[:12]}"


def new_provider(kind: Kind, workspaces: Workspaces, installation: str) -> SandboxProvider:
    if kind == "bubblewrap":
        return BubblewrapSandboxes(installation=installation, agent=workspaces.agent)
    return DockerSandboxes(installation=installation, image=IMAGE, agent=workspaces.agent)


@asynccontextmanager
async def open_harbour(kind: Kind, folder: Path) -> AsyncGenerator[Harbour]:
    workspaces, installation = Workspaces(folder / "workspaces", folder / "shared"), new_installation()
    provider = new_provider(kind, workspaces, installation)
    sandboxes = Sandboxes(provider, workspaces, limits=LIMITS)
    try:
        yield Harbour(provider, sandboxes, workspaces, folder, kind, installation)
    finally:
        for info in await provider.list():
            await provider.delete(info.ref)
        await sandboxes.close()
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

"""Containers of a real engine, through the provider itself, and how to look at them from outside."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import docker
import docker.errors
from tests.uids import own_uids

from moorage.adapters.docker import ContainerSettings, DockerSandboxes, Limits
from moorage.adapters.folders import Folders, Registry
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.port import CommandResult
from moorage.sandboxes.profiles import SandboxProfile

IMAGE = "moorage-sandbox:dev"
SMALL = SandboxProfile(image=IMAGE, memory_mb=256, pids=96, disk_mb=64, file_mb=32, tmp_mb=32, max_files=5000)
_INSTALLATIONS, _UIDS_EACH = 100, 1000
_UIDS = own_uids(100_000, 199_999)
PROFILES = {"default": SMALL, "other": replace(SMALL, name="other", memory_mb=300)}


@dataclass(slots=True)
class Dock:
    """One provider on the engine, with the folders of its server."""

    provider: DockerSandboxes
    folders: Folders
    installation: str
    root: Path
    open: list[HelperSandbox] = field(default_factory=list[HelperSandbox])

    def new_thread(self, owner: str = "alice") -> ThreadId:
        return new_thread_id(UserId(owner))

    async def sandbox(self, thread_id: ThreadId, *, profile: str | None = "default") -> HelperSandbox:
        """A helper in the thread's sandbox, as the service would open one."""
        bounds = await self.provider.ensure(thread_id, profile=profile)
        channel = await self.provider.open_helper(thread_id)
        kill_all = partial(self.provider.kill_all, thread_id)
        sandbox = await HelperSandbox.open(thread_id, channel, bounds, kill_all)
        self.open.append(sandbox)
        return sandbox

    async def run(self, thread_id: ThreadId, command: str, *, time_limit: float = 20) -> CommandResult:
        """One command in a helper of its own."""
        return await (await self.sandbox(thread_id, profile=None)).run(command, time_limit=time_limit)

    def container(self, thread_id: ThreadId) -> str:
        return f"moorage-{self.installation}-{thread_id}"

    def inspect(self, thread_id: ThreadId) -> dict[str, Any]:
        return on_engine(lambda engine: cast(dict[str, Any], engine.inspect_container(self.container(thread_id))))

    def containers(self) -> dict[str, dict[str, Any]]:
        """All of this installation, by what their names say after its own."""
        wanted = {"label": f"moorage.installation={self.installation}"}
        found = on_engine(lambda engine: cast(list[dict[str, Any]], engine.containers(all=True, filters=wanted)))
        return {one["Names"][0].removeprefix(f"/moorage-{self.installation}-"): one for one in found}


def on_engine[T](call: Callable[[docker.APIClient], T]) -> T:
    engine = docker.APIClient()
    try:
        return call(engine)
    finally:
        engine.close()


def runtimes() -> list[str]:
    """Those of the runtimes we promise things of that the engine has. Without an engine the tests of runc fail."""
    try:
        known = on_engine(lambda engine: cast(dict[str, Any], engine.info()))["Runtimes"]
    except docker.errors.DockerException:
        return ["runc"]
    return [name for name in ("runc", "runsc") if name in known]


def new_provider(
    root: Path,
    installation: str,
    *,
    profiles: Mapping[str, SandboxProfile] = PROFILES,
    limits: Limits | None = None,
    warm: int = 0,
    **settings: Any,
) -> tuple[DockerSandboxes, Folders]:
    first = int(installation.removeprefix("test")[:4], 16) % _INSTALLATIONS * _UIDS_EACH
    uids = _UIDS[first : first + _UIDS_EACH]  # tests find processes by them
    registry = Registry(root / "workspaces" / ".registry.sqlite3", uids=uids)
    folders = Folders(root / "workspaces", root / "shared", registry=registry, shared_disk_mb=64)
    made = ContainerSettings(installation, **settings)
    return DockerSandboxes(made, folders=folders, profiles=profiles, limits=limits, warm=warm), folders


@asynccontextmanager
async def open_dock(root: Path, *, installation: str | None = None, **options: Any) -> AsyncGenerator[Dock]:
    """A provider of an installation of its own; all that it made is removed at the end."""
    installation = installation or f"test{uuid4().hex[:12]}"
    provider, folders = new_provider(root, installation, **options)
    dock = Dock(provider, folders, installation, root)
    try:
        yield dock
    finally:
        for sandbox in dock.open:
            await sandbox.close()
        for info in await provider.list(folders=True):
            await provider.remove(info.thread_id, files=True)
        await provider.close()
        for owner in {path.name for path in (root / "shared").glob("[a-z]*")}:
            folders.delete_user(UserId(owner))
        folders.registry.close()

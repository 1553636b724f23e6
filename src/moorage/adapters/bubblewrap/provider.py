"""Namespaces instead of containers: nothing to install, nothing left behind."""

import asyncio
import secrets
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from moorage.adapters.bubblewrap.leftovers import find_sandboxes, kill_sandbox, measure_sandbox, runs
from moorage.adapters.bubblewrap.process import BwrapChannel, Cell, start
from moorage.adapters.folders import Folders, Place
from moorage.adapters.folders.asking import is_listed
from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId, UserId, new_thread_id, owner_of
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.orders import to_the_end
from moorage.sandboxes.port import (
    AgentIdentity,
    Bounds,
    SandboxGone,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
    Shortcoming,
)
from moorage.sandboxes.profiles import DEFAULT_PROFILE, SandboxProfile

_PROBE_SECONDS = 10.0
_PROBE = UserId("probe")
_MIB = 1024 * 1024
_OPEN_FILES = 4096
_ADDRESS_SPACE_FACTOR = 4  # programs reserve far more than they use


@dataclass(slots=True)
class _Sandbox:
    """What this process knows of one: there is nothing to it but its helpers, and the right to start one."""

    profile: str
    place: Place
    cell: Cell
    started_at: datetime
    channels: set[BwrapChannel] = field(default_factory=set[BwrapChannel])


class BubblewrapSandboxes:
    """The SandboxProvider over bubblewrap: a bwrap for each helper, all of a thread's under one name."""

    name: Literal["bubblewrap"] = "bubblewrap"
    isolation_note: str | None = (
        "The bubblewrap sandbox is for demos and single-user machines: commands share this machine's kernel, programs "
        "and memory, and only each process is bounded, not all of them together. Use SANDBOX=docker for anything else."
    )

    def __init__(
        self,
        *,
        folders: Folders,
        profiles: Mapping[str, SandboxProfile] | None = None,
        installation: str | None = None,
        workspace_dir: str = "/workspace",
        shared_dir: str = "/shared",
    ) -> None:
        """`installation` is what servers on this machine share that share their sandboxes; None: nobody else's."""
        self._prefix = f"moorage-{installation or secrets.token_hex(8)}-"
        self._folders = folders
        self._registry = folders.registry
        self._profiles = profiles or {DEFAULT_PROFILE: SandboxProfile()}
        self._targets = (workspace_dir, shared_dir)
        self._running: dict[ThreadId, _Sandbox] = {}

    async def check(self) -> list[Shortcoming]:
        with _open_probe_folder() as folder:
            agent = self._registry.everyone or AgentIdentity(self._registry.uids.start, self._registry.uids.start)
            probe = new_thread_id(_PROBE)
            cell = Cell(
                self._prefix + probe, folder, folder, agent, self._profile(DEFAULT_PROFILE).tmp_mb, self._targets
            )
            try:
                await _run_true(probe, cell)
            except AppError as error:
                raise SandboxUnavailable(_advice(error.detail)) from None
        return [
            Shortcoming("memory", "bubblewrap bounds the memory of each process, not of all in a sandbox together"),
            Shortcoming("processor", "bubblewrap does not bound how much of the processors a sandbox uses"),
            *await asyncio.to_thread(self._folders.shortcomings),
        ]

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = DEFAULT_PROFILE) -> None:
        wanted = self._profile(profile)
        await asyncio.to_thread(self._folders.prepare, thread_id, wanted)

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        await self._admit(thread_id, fencing_token)
        known = self._running.get(thread_id)
        wanted = self._profile(profile or (known.profile if known else DEFAULT_PROFILE))
        place = await asyncio.to_thread(self._folders.prepare, thread_id, wanted)
        await self._admit(thread_id, fencing_token)  # again: this process may have been frozen meanwhile
        known = self._running.get(thread_id)  # again: others may have been as quick
        if known is None or known.profile != wanted.name:
            workspace, shared = place.workspace.path.resolve(), place.shared.path.resolve()
            cell = Cell(self._prefix + thread_id, workspace, shared, place.agent, wanted.tmp_mb, self._targets)
            self._running[thread_id] = _Sandbox(wanted.name, place, cell, datetime.now(UTC))
            if known is not None:
                await self._kill(thread_id, known)
        return Bounds(_rlimits(wanted), place.bounds.disk_bytes, place.bounds.max_files)

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> BwrapChannel:
        await self._admit(thread_id, fencing_token)
        if (sandbox := self._running.get(thread_id)) is None:
            raise SandboxGone("The sandbox is not running.")
        channel = await start(sandbox.cell)
        try:
            await self._admit(thread_id, fencing_token)  # who took over may have killed all before this one was there
            held = await asyncio.to_thread(self._folders.holds, sandbox.place)
            if not held or self._running.get(thread_id) is not sandbox:
                raise SandboxGone("The sandbox was stopped, or its workspace unmounted, meanwhile.")
        except BaseException:
            await to_the_end(channel.close())
            raise
        sandbox.channels = {old for old in sandbox.channels if old.alive} | {channel}
        return channel

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        """Kills what other servers started too, even when they are frozen."""
        await self._admit(thread_id, fencing_token)
        await self._kill(thread_id)

    async def pause(self, thread_id: ThreadId) -> None:
        sandbox = self._running.pop(thread_id, None)
        await self._kill(thread_id, sandbox)
        await asyncio.to_thread(self._folders.release, thread_id)

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        await self.pause(thread_id)
        if files:
            await asyncio.to_thread(self._folders.delete, thread_id)

    async def _find(self, thread_id: ThreadId, *, folders: bool) -> list[SandboxInfo]:
        """What `list` says of this thread."""
        if known := self._running.get(thread_id):
            return [SandboxInfo(thread_id, running=True, profile=known.profile, started_at=known.started_at)]
        if await asyncio.to_thread(runs, self._prefix + thread_id):
            return [SandboxInfo(thread_id, running=True)]
        listed = await asyncio.to_thread(is_listed, self._folders, thread_id, files=folders)
        return [SandboxInfo(thread_id, running=False)] if listed else []

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        """Those made here, and those in which another server has a helper now."""
        if thread_id is not None:
            return await self._find(thread_id, folders=folders)
        found = {
            thread_id: SandboxInfo(thread_id, running=True, profile=sandbox.profile, started_at=sandbox.started_at)
            for thread_id, sandbox in self._running.items()
        }
        names = await asyncio.to_thread(find_sandboxes, self._prefix)
        for thread_id in (ThreadId(name) for name in names if owner_of(name) not in (None, _PROBE)):
            found.setdefault(thread_id, SandboxInfo(thread_id, running=True))
        idle = await asyncio.to_thread(self._folders.mounted)
        for thread_id in (*idle, *(await asyncio.to_thread(self._folders.threads) if folders else ())):
            found.setdefault(thread_id, SandboxInfo(thread_id, running=False))
        return list(found.values())

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        """Of the processes that run now; memory that they share is counted for each."""
        measured = await asyncio.to_thread(measure_sandbox, self._prefix + thread_id)
        disk = await asyncio.to_thread(self._folders.usage, thread_id)
        return SandboxStats(
            memory_bytes=measured.memory_bytes if measured else None,
            processes=measured.processes if measured else None,
            cpu_seconds=measured.cpu_seconds if measured else None,
            oom_kills=None,
            disk_bytes=disk[0] if disk else None,
            disk_limit_bytes=disk[1] if disk else None,
            log=tuple(await asyncio.to_thread(self._registry.log, thread_id)),
        )

    async def close(self) -> None:
        for sandbox in self._running.values():
            for channel in sandbox.channels:
                channel.kill()

    def _profile(self, name: str) -> SandboxProfile:
        if name not in self._profiles:
            raise InvalidInput("There is no such sandbox profile.", code="unknown_profile")
        return self._profiles[name]

    async def _admit(self, thread_id: ThreadId, token: int | None) -> None:
        await asyncio.to_thread(self._registry.admit, thread_id, token)

    async def _kill(self, thread_id: ThreadId, sandbox: _Sandbox | None = None) -> None:
        sandbox = sandbox or self._running.get(thread_id)
        await asyncio.to_thread(kill_sandbox, self._prefix + thread_id)  # first: it waits for what it sees alive
        for channel in sandbox.channels if sandbox else ():
            channel.kill()


async def _run_true(thread_id: ThreadId, cell: Cell) -> None:
    async def kill_nothing() -> None: ...

    workspace, shared = cell.targets
    sandbox = await HelperSandbox.open(
        thread_id, await start(cell), Bounds(), kill_nothing, workspace=workspace, shared=shared
    )
    try:
        result = await sandbox.run("true", time_limit=_PROBE_SECONDS)
    finally:
        await sandbox.close()
    if result.exit_code != 0:
        raise SandboxUnavailable(result.output[:300])


@contextmanager
def _open_probe_folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="moorage-probe-") as folder:
        Path(folder).chmod(0o711)  # the agent must be able to enter it
        yield Path(folder)


def _rlimits(profile: SandboxProfile) -> dict[str, int]:
    return {
        "NPROC": profile.pids,
        "AS": profile.memory_mb * _MIB * _ADDRESS_SPACE_FACTOR,
        "DATA": profile.memory_mb * _MIB,
        "FSIZE": profile.file_mb * _MIB,
        "CORE": 0,
        "NOFILE": _OPEN_FILES,
    }


def _advice(reason: str) -> str:
    return (
        f"bubblewrap cannot make a sandbox here ({reason}). It needs user namespaces: "
        "`sudo sysctl kernel.unprivileged_userns_clone=1` (Debian), "
        "`sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0` (Ubuntu 24.04 and later), "
        "`sudo sysctl user.max_user_namespaces=15000` (Red Hat); in a container they are usually forbidden. "
        "Or use SANDBOX=docker."
    )

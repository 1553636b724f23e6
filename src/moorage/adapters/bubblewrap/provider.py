"""Namespaces instead of containers: nothing to install, nothing left behind."""

import asyncio
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from moorage.adapters.bubblewrap.leftovers import find_sandboxes, kill_sandbox
from moorage.adapters.bubblewrap.process import BwrapLauncher, Folders
from moorage.errors import AppError
from moorage.ids import ThreadId
from moorage.sandboxes.port import (
    AgentIdentity,
    Sandbox,
    SandboxGone,
    SandboxInfo,
    SandboxLimits,
    SandboxSpec,
    SandboxUnavailable,
)
from moorage.sandboxes.supervised import SupervisedSandbox

_PROBE_SECONDS = 10.0
_MIB = 1024 * 1024
_OPEN_FILES = 4096
_ADDRESS_SPACE_FACTOR = 4  # programs reserve far more than they use


class BubblewrapSandboxes:
    """The SandboxProvider over bubblewrap. A sandbox is only a name for two folders; each command starts afresh."""

    name: Literal["bubblewrap"] = "bubblewrap"
    isolation_note: str | None = (
        "The bubblewrap sandbox is for demos and single-user machines: commands share this machine's kernel, programs "
        "and memory, and only each process is bounded, not all of them together. Use SANDBOX=docker for anything else."
    )

    def __init__(
        self,
        *,
        agent: AgentIdentity,
        installation: str | None = None,
        workspace_dir: str = "/workspace",
        shared_dir: str = "/shared",
    ) -> None:
        """`installation` is what servers on this machine share that share their sandboxes; None: nobody else's."""
        self._prefix = f"moorage-{installation or secrets.token_hex(8)}-"
        self._agent = agent
        self._targets = (workspace_dir, shared_dir)
        self._created: dict[str, tuple[SandboxSpec, BwrapLauncher]] = {}

    async def check(self) -> None:
        with _open_probe_folder() as folder:
            launcher = self._launcher("probe", folder, folder, SandboxLimits())
            try:
                result = await self._sandbox("probe", launcher, SandboxLimits()).run("true", time_limit=_PROBE_SECONDS)
            except AppError as error:
                raise SandboxUnavailable(_advice(error.detail)) from None
        if result.exit_code != 0:
            raise SandboxUnavailable(_advice(result.output[:300]))

    async def create(self, spec: SandboxSpec) -> str:
        ref = str(spec.thread_id)
        known = self._created.get(ref)
        if known is None or known[0] != spec:
            self._created[ref] = (spec, self._launcher(ref, spec.workspace.path, spec.shared.path, spec.limits))
        self._created[ref][1].paused = False
        return ref

    async def connect(self, ref: str) -> Sandbox:
        if ref not in self._created:
            raise SandboxGone("The sandbox is not there.")
        spec, launcher = self._created[ref]
        return self._sandbox(ref, launcher, spec.limits)

    async def pause(self, ref: str) -> None:
        """Kills what other servers started too, even when they are frozen."""
        if ref in self._created:
            launcher = self._created[ref][1]
            launcher.paused = True
            launcher.kill_all()
        await asyncio.to_thread(kill_sandbox, self._prefix + ref)

    async def delete(self, ref: str) -> None:
        await self.pause(ref)
        self._created.pop(ref, None)

    async def list(self) -> list[SandboxInfo]:
        """Those made here, and those in which another server runs a command now."""
        found = {
            ref: SandboxInfo(ref, spec.thread_id, running=not launcher.paused)
            for ref, (spec, launcher) in self._created.items()
        }
        for ref in await asyncio.to_thread(find_sandboxes, self._prefix):
            if ref not in found or not found[ref].running:
                found[ref] = SandboxInfo(ref, ThreadId(ref), running=True)
        return list(found.values())

    async def close(self) -> None:
        for _, launcher in self._created.values():
            launcher.kill_all()

    def _launcher(self, ref: str, workspace: Path, shared: Path, limits: SandboxLimits) -> BwrapLauncher:
        folders = Folders(workspace.resolve(), shared.resolve())
        return BwrapLauncher(self._prefix + ref, folders, agent=self._agent, limits=limits, targets=self._targets)

    def _sandbox(self, ref: str, launcher: BwrapLauncher, limits: SandboxLimits) -> SupervisedSandbox:
        return SupervisedSandbox(ref, launcher, workspace=self._targets[0], rlimits=_rlimits(limits))


@contextmanager
def _open_probe_folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="moorage-probe-") as folder:
        Path(folder).chmod(0o711)  # the agent must be able to enter it
        yield Path(folder)


def _rlimits(limits: SandboxLimits) -> dict[str, int]:
    return {
        "NPROC": limits.pids,
        "AS": limits.memory_mb * _MIB * _ADDRESS_SPACE_FACTOR,
        "DATA": limits.memory_mb * _MIB,
        "FSIZE": limits.file_mb * _MIB,
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

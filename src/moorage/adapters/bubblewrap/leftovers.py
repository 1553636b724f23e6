"""The sandboxes of this machine by the names of their processes: also those of servers that are frozen or were killed.

A sandbox's outer process is bwrap, which the agent inside can neither see nor rename, and whose death the kernel takes
for that of all processes inside. Its first argument, the name, is ours to choose.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorage.sandboxes.port import SandboxUnavailable

_END_SECONDS = 5.0
_POLL_SECONDS = 0.005

type Process = tuple[int, bytes]
"""A process's number and when it started: numbers are used again."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What all processes of a sandbox use now."""

    memory_bytes: int
    processes: int
    cpu_seconds: float


def find_sandboxes(prefix: str) -> set[str]:
    """The rest of each name that starts with `prefix`. Blocks for a look at each process of this machine."""
    names = (name for _, name in _outer_processes(prefix))
    return {name.removeprefix(prefix) for name in names}


def runs(name: str) -> bool:
    """Whether a sandbox of just this name has a process. Blocks as `find_sandboxes` does."""
    return any(found == name for _, found in _outer_processes(name))


def kill_sandbox(name: str) -> None:
    """Kill every process of the sandbox, and wait until they are dead. Blocks.

    Raises SandboxUnavailable when one does not die in time: what is done next may count on their death.
    """
    outer = {pid for pid, found in _outer_processes(name) if found == name}
    family = [process for pid in outer for process in _family(pid)]
    for pid in outer:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while any(map(_is_alive, family)):
        if time.monotonic() > deadline:
            raise SandboxUnavailable(f"Processes of the sandbox did not die within {_END_SECONDS:g} s", retry_after=5)
        time.sleep(_POLL_SECONDS)


def measure_sandbox(name: str) -> Measured | None:
    """None when it does not run. Blocks."""
    family = [process for pid, found in _outer_processes(name) if found == name for process in _family(pid)]
    if not family:
        return None
    pages = ticks = 0
    for pid, _ in family:
        with suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return Measured(pages * os.sysconf("SC_PAGE_SIZE"), len(family), ticks / os.sysconf("SC_CLK_TCK"))


def _outer_processes(prefix: str) -> Iterator[tuple[int, str]]:
    """What calls itself `prefix...`, or is a root server's step towards it (see descent.py)."""
    start, step = prefix.encode(), f'"argv": ["{prefix}'.encode()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        name, last = arguments[0], arguments[-2] if arguments[1:] else b""
        if name == sys.executable.encode() and step in last:
            name = start + last.partition(step)[2].partition(b'"')[0]
        pid = int(path.parent.name)
        if name.startswith(start) and _is_outermost(pid):
            yield pid, name.decode(errors="replace")


def _is_outermost(pid: int) -> bool:
    """Not bwrap's second process, which has the same name until it becomes the helper, and no agent's imitation."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    return False


def _family(root: int) -> list[Process]:
    """The process, its children and theirs."""
    children: dict[int, list[Process]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        if (found := _stat(int(path.parent.name))) is not None:
            _, parent, started = found
            children.setdefault(parent, []).append((int(path.parent.name), started))
    found = _stat(root)
    family = [(root, found[2])] if found else []
    for pid, _ in family:  # grows meanwhile
        family += children.get(pid, [])
    return family


def _is_alive(process: Process) -> bool:
    found = _stat(process[0])
    return found is not None and found[0] not in (b"Z", b"X") and found[2] == process[1]


def _stat(pid: int) -> tuple[bytes, int, bytes] | None:
    """State, parent and start time (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[1]), fields[19]

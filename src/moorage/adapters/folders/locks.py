"""One process at a time for a place: locks that the kernel forgets with their holder, kill -9 or not."""

import fcntl
import os
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path

from moorage.sandboxes.port import SandboxUnavailable
from moorage.telemetry import get_logger

_WAIT_SECONDS = 120.0  # longer than anything but the repair of a file system takes
_PAUSE_SECONDS = 0.02

log = get_logger(__name__)


class StillLocked(SandboxUnavailable):
    """Another process holds what is asked for, and does not let go: it may be frozen."""

    code = "workspace_locked"


@contextmanager
def locked(file: Path, name: str) -> Generator[None]:
    """Hold the lock `name` of `file`, waiting for it. Other threads and processes wait; names do not disturb another.

    A lock is one byte of the file, far behind its end, by the name's hash: nothing is made per name, or left behind.
    Raises StillLocked when it is not free within two minutes; the log tells who holds it.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        byte = int.from_bytes(blake2b(name.encode(), digest_size=7).digest())
        _wait_for(descriptor, byte, name)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, byte: int, name: str) -> None:
    """By trying: the kernel's own way of waiting has no limit."""
    # struct flock of Linux on 64 bits: type, whence, start, length, pid
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        except BlockingIOError:
            if time.monotonic() > deadline:
                break
        else:
            return
        time.sleep(_PAUSE_SECONDS)
    log.error("lock_not_free", lock=name, held_by=_holders(byte), waited_seconds=_WAIT_SECONDS)
    raise StillLocked(
        "Another process of this server holds the workspace and does not let go of it. It may be frozen: the operator "
        "finds it in the log (lock_not_free), and should let it go on or end it. Trying again is safe.",
        retry_after=30,
    )


def _holders(byte: int) -> list[str]:
    """The processes, as `pid name`, in which this byte of a file is locked, as far as we may look at them."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended, or is not ours to look at
            if any(_tells_of(info.read_text(), byte) for info in (process / "fdinfo").iterdir()):
                found.append(f"{process.name} {(process / 'comm').read_text().strip()}")
    return found


def _tells_of(descriptor: str, byte: int) -> bool:
    """proc_pid_fdinfo(5): `lock: 1: OFDLCK ADVISORY WRITE -1 08:01:131 7 7`, with the first and the last byte."""
    lines = (line.split() for line in descriptor.splitlines() if line.startswith("lock:"))
    return any(line[-2:] == [str(byte), str(byte)] for line in lines)

"""One process at a time for a place: locks that the kernel forgets with their holder, kill -9 or not."""

import fcntl
import os
import struct
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path


@contextmanager
def locked(file: Path, name: str) -> Generator[None]:
    """Hold the lock `name` of `file`, waiting for it. Other threads and processes wait; names do not disturb another.

    A lock is one byte of the file, far behind its end, by the name's hash: nothing is made per name, or left behind.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        byte = int.from_bytes(blake2b(name.encode(), digest_size=7).digest())
        # struct flock of Linux on 64 bits: type, whence, start, length, pid
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
        yield
    finally:
        os.close(descriptor)

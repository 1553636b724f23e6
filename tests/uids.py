"""The uids of agents in tests: each process's own, for the kernel counts what it bounds over all processes of a uid."""

import fcntl
import os
import tempfile
from functools import cache
from itertools import count
from pathlib import Path

_FIRST = 70_000_000  # above all that a server takes by itself
_PER_PROCESS = 200_000


def own_uids(first: int, last: int) -> range:
    """These numbers of the ones that only this process gives away while it lives; `last` is one of them.

    Of one run of the tests and of several at once on a machine: some look for processes by their uids, and kill them.
    """
    base = _FIRST + _block() * _PER_PROCESS
    return range(base + first, base + last + 1)


@cache
def _block() -> int:
    """The first number that no living process has: a lock tells, which ends with whoever holds it.

    What the process starts shares it, but for the workers that pytest-xdist starts.
    """
    name = f"MOORAGE_TESTS_UIDS_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    if name not in os.environ:
        os.environ[name] = str(next(number for number in count() if _take(number)))
    return int(os.environ[name])


def _take(number: int) -> bool:
    path = Path(tempfile.gettempdir(), f"moorage-tests-uids-{number}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    return True

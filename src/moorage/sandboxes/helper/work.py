"""Runs INSIDE a sandbox, in a worker, which the zygote forked: orders, one after the other.

Nothing of one order may reach the next. So a worker goes on only after an order that it carried out to the end, and
while it is as it was before: the same limits, no process, no descriptor and hardly any memory more. Else it ends, and
the zygote forks another for the next order.
"""

import json
import os
import resource
import select

from moorage.sandboxes.helper import storage
from moorage.sandboxes.helper.jobs import Job
from moorage.sandboxes.helper.wire import CHUNK, ERROR_CODES, HEADER, STAYS, Killed, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from socket import socket

_LINE = 256
_MOST_GROWTH = 256  # pages of memory that are shared with nobody
_LIMITS = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}


def carry_out_all(channel: "socket", job: Job) -> None:
    """Carry out the order, and those that come after it."""
    at_first = _State()
    while _carry_out(Link(channel, job.number), job, at_first):
        following = _next_job(channel)
        if following is None:
            return
        job = following


class _State:
    """What an order could change of its process, or another process of the same user from outside."""

    def __init__(self) -> None:
        self._limits = _limits()
        self._free = _lowest_free_descriptor()
        self._pages = _own_pages()

    def is_kept_by(self, job: Job) -> bool:
        """Whether the process is as it was, but for the limits that the order asked for."""
        wanted = {getattr(resource, f"RLIMIT_{name}"): (value, value) for name, value in job.limits.items()}
        return (
            _limits() == {**self._limits, **wanted}
            and _lowest_free_descriptor() == self._free
            and _own_pages() <= self._pages + _MOST_GROWTH
            and not _has_children()
        )


def _limits() -> "dict[int, tuple[int, int]]":
    return {limit: resource.getrlimit(limit) for limit in _LIMITS}


def _lowest_free_descriptor() -> int:
    descriptor = os.dup(0)
    os.close(descriptor)
    return descriptor


def _own_pages() -> int:
    descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _, resident, shared, *_ = os.read(descriptor, _LINE).split()
    finally:
        os.close(descriptor)
    return int(resident) - int(shared)


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _carry_out(link: Link, job: Job, at_first: _State) -> bool:
    """Wait for the word to go, do it, and report; whether this process stays for another order."""
    try:
        report, done = _attempt(link, job)
        stays = done and at_first.is_kept_by(job)
        link.say_last(STAYS if stays else b"x", json.dumps(report).encode())
    except Killed:
        return False
    return stays


def _attempt(link: Link, job: Job) -> "tuple[dict[str, object], bool]":
    """The report, and whether the order was carried out to its end."""
    order = job.order
    try:
        os.chdir(order["cwd"])
        if not job.prepares:
            link.wait_for_go()
        report = {"outcome": "exited", **(job.carry_out(link, order) or {})}
        return report, report["outcome"] == "exited" and report.get("clean") is not False
    except Killed:
        link.killed = False  # there may be somebody to hear that it is done
        return {"outcome": "killed"}, False
    except OSError as error:
        return failure(error), False
    except MemoryError:
        return {"outcome": "exited", "error": "no_memory"}, False
    except Exception as error:  # noqa: BLE001 -- this process's edge: nobody else could tell what went wrong in here
        detail = f"{type(error).__name__}: {error}"[:500]
        return {"outcome": "exited", "error": "helper_failed", "detail": detail}, False


def failure(error: OSError) -> "dict[str, object]":
    return {"outcome": "exited", "error": ERROR_CODES.get(error.errno or 0, "invalid_path")}


def _next_job(channel: "socket") -> "Job | None":
    """Wait for it; None when there is none to come. What comes before it is late, and was of the order before."""
    while True:
        select.select([channel], [], [])
        try:
            message = channel.recv(HEADER.size + CHUNK)
        except OSError:
            return None
        if not message:
            return None
        kind, number, _ = HEADER.unpack_from(message)
        if kind == b"l":
            storage.remember(json.loads(message[HEADER.size :]))
        elif kind == b"C":
            return Job(number, message[HEADER.size :])

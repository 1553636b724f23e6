"""Runs INSIDE a sandbox, in a worker, which the zygote forked: orders, one after the other.

Nothing of one order may reach the next. So a worker goes on only after an order that it carried out to the end, and
while it is as it was before: the same limits and pace, no process, no descriptor and hardly any memory more. Else it
ends, and the zygote forks another for the next order. It looks after an order, and again before the next: what the
agent runs meanwhile may change from outside what processes of the same user may change of one another.
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
_MOST_GROWTH = 256  # pages of memory that are of no file
_LIMITS = {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}


def carry_out_all(channel: "socket", job: Job) -> None:
    """Carry out the order, and those that come after it."""
    at_first = _State()
    while _carry_out(Link(channel, job.number), job, at_first):
        following = _next_job(channel)
        if following is None or not at_first.runs_as_ever(following):  # which is not begun: another worker gets it
            return
        job = following


class _State:
    """What an order could change of its process, or another process of the same user from outside."""

    def __init__(self) -> None:
        self._limits = _limits()
        self._pace = _pace()
        self._descriptors = _descriptors()
        self._pages = _own_pages()

    def runs_as_ever(self, job: Job) -> bool:
        """Whether the process is bounded as it was, but for the limits that the order asked for, and as fast."""
        wanted = {getattr(resource, f"RLIMIT_{name}"): (value, value) for name, value in job.limits.items()}
        return _limits() == {**self._limits, **wanted} and _pace() == self._pace

    def is_kept_by(self, job: Job) -> bool:
        """Whether it runs as ever, and holds nothing of the order."""
        return (
            self.runs_as_ever(job)
            and _descriptors() == self._descriptors
            and _own_pages() <= self._pages + _MOST_GROWTH
            and not _has_children()
        )


def _limits() -> "dict[int, tuple[int, int]]":
    return {limit: resource.getrlimit(limit) for limit in _LIMITS}


def _pace() -> "tuple[object, ...]":
    """How, when and where it may run."""
    return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getaffinity(0)


def _descriptors() -> "list[str]":
    return os.listdir("/proc/self/fd")


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
        report.setdefault("clean", not _has_children())
        stays = done and report["clean"] is True and at_first.is_kept_by(job)
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
        return report, report["outcome"] == "exited"
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

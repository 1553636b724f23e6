"""Runs INSIDE a sandbox, first and for as long as the server wants: forks workers for orders and carries their frames.

Neither this process nor its workers are dumpable, so what the agent starts, though it has the same uid, can
neither trace them nor reach their descriptors: it cannot forge a frame. It can kill and stop them. Until this process
has said so of itself, commands of another helper are kept from it by Landlock (`processes.see_nothing_outside`; Linux
5.19), by Yama or by gVisor. Where there is none of these, a command could take over a helper that is just starting:
then only the server's distrust of all frames protects.

What a worker leaves behind when it is killed becomes this process's, and is reported as not clean.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque

from moorage.sandboxes.helper import processes
from moorage.sandboxes.helper.jobs import Job
from moorage.sandboxes.helper.wire import CHUNK, HEADER, MAX_ORDERS
from moorage.sandboxes.helper.work import carry_out_all, failure
from moorage.sandboxes.helper.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    class Addressee(Protocol):
        """Who frames of one id are for."""

        def take(self, kind: bytes, payload: bytes) -> None: ...


_VERSION = 1
_UMASK = 0o007  # what the agent makes in the shared folder is its user's other threads' too
_BACKLOG = 1024 * 1024
_WRITES = 16
_IN = select.POLLIN | select.POLLHUP | select.POLLERR


class Gone(Exception):
    """The server went away."""


class Loop:
    """Calls whoever waits for a descriptor."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, Callable[[int], None]] = {}

    @property
    def highest(self) -> int:
        return max(self._watched)

    def watch(self, descriptor: int, events: int, call: "Callable[[int], None]") -> None:
        """Watch for other events when it was watched before."""
        self._poll.register(descriptor, events)
        self._watched[descriptor] = call

    def forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._watched[descriptor]

    def run_once(self, seconds: "float | None") -> None:
        for descriptor, events in self._poll.poll(None if seconds is None else max(0, seconds) * 1000):
            if call := self._watched.get(descriptor):
                call(events)


class Stream:
    """The frames from and to the server, over stdin and stdout."""

    def __init__(self, loop: Loop, take: "Callable[[bytes, int, bytes], None]") -> None:
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        self._loop = loop
        self._take = take
        self._received = bytearray()
        self._outgoing: deque[bytes | memoryview] = deque()
        self._backlog = 0
        self.on_room: Callable[[], None] = lambda: None
        loop.watch(0, _IN, self._read)

    @property
    def full(self) -> bool:
        """Whether the server is too slow: take nothing more from orders until `on_room`."""
        return self._backlog >= _BACKLOG

    def send(self, kind: bytes, number: int, payload: bytes = b"") -> None:
        self.relay(HEADER.pack(kind, number, len(payload)) + payload)

    def relay(self, frame: bytes) -> None:
        waiting = bool(self._outgoing)
        self._outgoing.append(frame)
        self._backlog += len(frame)
        if not waiting:
            self._write()
            if self._outgoing:
                self._loop.watch(1, select.POLLOUT, self._write_more)

    def _write_more(self, _: int) -> None:
        was_full = self.full
        self._write()
        if not self._outgoing:
            self._loop.forget(1)
        if was_full and not self.full:
            self.on_room()

    def _write(self) -> None:
        try:
            written = os.writev(1, [self._outgoing[place] for place in range(min(_WRITES, len(self._outgoing)))])
        except BlockingIOError:
            return
        except OSError:
            raise Gone from None
        self._backlog -= written
        while self._outgoing and written >= len(self._outgoing[0]):
            written -= len(self._outgoing.popleft())
        if written:
            self._outgoing[0] = memoryview(self._outgoing[0])[written:]

    def _read(self, _: int) -> None:
        try:
            data = os.read(0, CHUNK)  # what a pipe holds
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            raise Gone
        received = self._received
        received += data
        start = 0
        while len(received) - start >= HEADER.size:
            kind, number, size = HEADER.unpack_from(received, start)
            end = start + HEADER.size + size
            if len(received) < end:
                break
            payload = bytes(received[start + HEADER.size : end])
            start = end
            self._take(kind, number, payload)
        del received[:start]


class Zygote:
    """Orders by their ids. Modules may add addressees of their own, with ids that have the highest bit."""

    def __init__(self, killed_first: processes.KilledFirst) -> None:
        self._killed_first = killed_first
        self.loop = Loop()
        self.stream = Stream(self.loop, self._take)
        self.stream.on_room = self.hold_workers
        self.addressees: dict[int, Addressee] = {}
        self._resting: dict[str, Worker] = {}  # those that wait for an order, by their limits
        self._ended = processes.wake_up_at_the_end_of_children()
        self.loop.watch(self._ended, _IN, self._reap)

    def serve(self) -> "NoReturn":
        self.stream.send(b"h", 0, json.dumps({"version": _VERSION, "python": sys.version.split()[0]}).encode())
        try:
            while True:
                self.loop.run_once(self._kill_late())
        except Gone:  # workers notice, and end what they started; one that was stopped must wake up for that
            for worker in self._workers():
                processes.send_signal(worker.pid, signal.SIGCONT)
        os._exit(0)

    def report(self, number: int, report: "dict[str, object]") -> None:
        self.stream.send(b"x", number, json.dumps(report).encode())

    def hold_workers(self) -> None:
        """Listen to them or not, as there is room."""
        for worker in self._workers():
            worker.listen()

    def leave_to(self, kept: int) -> None:
        """In a forked process: let go of everything but the descriptor `kept`, which is the newest."""
        signal.set_wakeup_fd(-1)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in range(3):
            os.dup2(null, descriptor)
        os.closerange(3, kept)
        os.closerange(kept + 1, max(null, self.loop.highest) + 1)

    def keep(self, worker: Worker) -> None:
        """Of those that wait for an order, one is enough: more come to be when there is much to do at once."""
        if worker.modules == len(sys.modules) and str(worker.limits) not in self._resting:
            self._resting[str(worker.limits)] = worker
        else:
            worker.let_go()

    def miss(self, worker: Worker) -> None:
        """It ends, and has no order."""
        self._resting = {limits: resting for limits, resting in self._resting.items() if resting is not worker}

    def fork(self, job: Job, sent: "list[bytes]") -> None:
        """A new worker, for the order. `sent`: what came for it already."""
        try:
            self._fork(job, sent)
        except OSError as error:
            self.report(job.number, failure(error))

    def _workers(self) -> "list[Worker]":
        """Those that wait for an order too."""
        busy = [worker for worker in self.addressees.values() if isinstance(worker, Worker)]
        return [*busy, *self._resting.values()]

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == b"C":
            self._begin(number, payload)
        elif addressee := self.addressees.get(number):
            addressee.take(kind, payload)

    def _begin(self, number: int, text: bytes) -> None:
        modules = len(sys.modules)
        try:
            job = Job(number, text)
            if modules != len(sys.modules):
                processes.give_back_memory()  # that compiling took
            if job.in_zygote:
                self.report(number, job.in_zygote(self, job.order))
            elif len(self.addressees) >= MAX_ORDERS:
                self.report(number, {"outcome": "exited", "error": "no_processes"})
            else:
                self.stream.send(b"r", number)  # first: what then happens meanwhile costs no time
                self._give(job)
        except OSError as error:
            self.report(number, failure(error))
        except (ImportError, KeyError):
            self.report(number, {"outcome": "exited", "error": "unknown_order"})

    def _give(self, job: Job) -> None:
        worker = self._resting.pop(str(job.limits), None) if len(job.text) <= CHUNK else None
        if worker and worker.modules != len(sys.modules):
            worker.let_go()
            worker = None
        if worker and worker.begin(job):
            self.addressees[job.number] = worker
        else:
            self._fork(job, [])

    def _fork(self, job: Job, sent: "list[bytes]") -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with self._killed_first:
                pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            try:
                self.leave_to(theirs.fileno())
                carry_out_all(theirs, job)
            finally:
                os._exit(1)
        theirs.close()
        self.addressees[job.number] = Worker(self, pid, ours, job, sent)

    def _reap(self, _: int) -> None:
        os.read(self._ended, CHUNK)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return

    def _kill_late(self) -> "float | None":
        """Kill whoever should have ended by now; answers the seconds to the next such moment."""
        due = [worker for worker in self._workers() if worker.kill_by is not None]
        now = time.monotonic()
        for worker in due:
            if worker.kill_by is not None and worker.kill_by <= now:
                worker.kill()
        return min((worker.kill_by - now for worker in due if worker.kill_by is not None), default=None)


def main() -> "NoReturn":
    killed_first = processes.KilledFirst()
    processes.refuse_to_be_traced()
    processes.become_subreaper()
    os.umask(_UMASK)
    gc.disable()  # a collection in a child would copy what it shares with this process
    gc.freeze()
    Zygote(killed_first).serve()

"""Runs INSIDE a sandbox: a worker, seen from the zygote. It carries out one order after the other (see work.py)."""

import json
import select
import signal
import sys
import time
from collections import deque

from moorage.sandboxes.helper import processes, storage
from moorage.sandboxes.helper.wire import CHUNK, HEADER, STAYS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

    from moorage.sandboxes.helper.jobs import Job
    from moorage.sandboxes.helper.zygote import Zygote

REST_SECONDS = 10.0  # without an order: then its memory is worth more than the next order's fork
_KILL_SECONDS = 0.8


class Worker:
    """A process and, while it does not wait for one, its order.

    `limits` and `modules` say for which orders it will do: those that ask for the same limits, while the zygote has
    imported nothing that the process does not have.

    An order is begun at most once: another worker gets it only if this one is gone and has not read the word to go.
    """

    def __init__(self, zygote: "Zygote", pid: int, channel: "socket.socket", job: "Job", sent: "list[bytes]") -> None:
        """`job` is known to the process from birth; `sent` are frames of it that nobody has got yet."""
        self.pid = pid
        self.limits = job.limits
        self.modules = len(sys.modules)
        self._zygote = zygote
        self._channel = channel
        self._outgoing = deque(sent)  # bounded by the credit that the server has for the order
        self._take_on(job)
        channel.setblocking(False)
        self._push()
        self.listen()

    def listen(self) -> None:
        """Wait for what can be done now."""
        events = 0 if self._zygote.stream.full else select.POLLIN
        self._zygote.loop.watch(self._channel.fileno(), events | (select.POLLOUT if self._outgoing else 0), self._move)

    def begin(self, job: "Job") -> bool:
        """Give the order to one that waits for it; False when it is gone."""
        processes.send_signal(self.pid, signal.SIGCONT)  # what the agent runs may have stopped it
        try:
            for note in storage.notes():
                self._channel.send(_frame(b"l", 0, json.dumps(note).encode()))
            self._channel.send(_frame(b"C", job.number, job.text))
        except OSError:
            self.let_go()
            return False
        self._take_on(job)
        self.listen()
        return True

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame from the server."""
        if self._job is None:
            return
        if kind == b"K":
            self._told_to_end = True
            if not self._job.has_children:
                self.kill_by = time.monotonic() + _KILL_SECONDS
        waiting = bool(self._outgoing)
        self._outgoing.append(_frame(kind, self._job.number, payload))
        if not waiting:
            self._push()
            if self._outgoing:
                self.listen()

    def kill(self) -> None:
        """It should have ended by now, or waited for an order long enough."""
        self.kill_by = None
        if self._job is None:
            self._zygote.miss(self)
            self.let_go()
        else:
            processes.send_signal(self.pid, signal.SIGKILL)

    def let_go(self) -> None:
        """End it. It has no order."""
        processes.send_signal(self.pid, signal.SIGKILL)
        self._close()

    def _take_on(self, job: "Job") -> None:
        self._job: Job | None = job
        self.kill_by: float | None = None
        self._last_sent = b""
        self._begun = self._told_to_end = self._reported = False

    def _move(self, events: int) -> None:
        if events & select.POLLOUT:
            self._push()
            self.listen()
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
            self._relay()

    def _push(self) -> None:
        while self._outgoing:
            try:
                self._channel.send(self._outgoing[0])
            except BlockingIOError:
                return
            except ConnectionResetError:
                self._see_that_it_read_not_all()
                return
            except OSError:  # it is gone, as its end will tell; what it did not get, another may need
                return
            self._last_sent = self._outgoing.popleft()
            self._begun = self._begun or self._last_sent[:1] == b"G"

    def _see_that_it_read_not_all(self) -> None:
        """It is gone; and surely not the last word was read that it was sent."""
        if self._last_sent[:1] == b"G":
            self._begun = False
            self._outgoing.appendleft(self._last_sent)

    def _relay(self) -> None:
        while not self._zygote.stream.full:
            try:
                frame = self._channel.recv(HEADER.size + CHUNK)
            except BlockingIOError:
                return
            except ConnectionResetError:  # what it said is still to come
                self._see_that_it_read_not_all()
                continue
            if not frame:
                self._end()
                return
            kind = frame[:1]
            if kind == b"l":
                storage.remember(json.loads(frame[HEADER.size :]))
            elif kind == STAYS:
                self._rest(frame)
                return
            else:
                self._reported = self._reported or kind == b"x"
                self._zygote.stream.relay(frame)
        self._zygote.hold_workers()

    def _rest(self, report: bytes) -> None:
        """Its order is done, and it waits for another."""
        self._zygote.stream.relay(b"x" + report[len(STAYS) :])
        self._forget_job()
        self._outgoing.clear()
        self.kill_by = time.monotonic() + REST_SECONDS
        self.listen()
        self._zygote.keep(self)

    def _forget_job(self) -> "Job | None":
        job, self._job = self._job, None
        self.kill_by = None
        if job is not None:
            self._zygote.addressees.pop(job.number, None)
        return job

    def _end(self) -> None:
        self._close()
        job = self._forget_job()
        if job is None:
            self._zygote.miss(self)
        elif not (self._begun or self._told_to_end or self._reported):
            self._zygote.fork(job, list(self._outgoing))
        elif not self._reported:
            self._zygote.report(job.number, {"outcome": "killed", "clean": not job.has_children})

    def _close(self) -> None:
        self._zygote.loop.forget(self._channel.fileno())
        self._channel.close()


def _frame(kind: bytes, number: int, payload: bytes) -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload

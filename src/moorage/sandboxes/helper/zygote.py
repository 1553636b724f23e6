"""Runs INSIDE a sandbox, first and for as long as the server wants: forks a process per order and carries the frames.

Neither this process nor those of orders are dumpable, so what the agent starts, though it has the same uid, can
neither trace them nor reach their descriptors: it cannot forge a frame. It can kill and stop them. Until this process
has said so of itself, commands of another helper are kept from it by Landlock (`processes.see_nothing_outside`; Linux
5.19), by Yama or by gVisor. Where there is none of these, a command could take over a helper that is just starting:
then only the server's distrust of all frames protects.

What an order's process leaves behind when it is killed becomes this one's, and is reported as not clean.
"""

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from collections import deque

from moorage.sandboxes.helper import processes, storage
from moorage.sandboxes.helper.wire import CHUNK, ERROR_CODES, HEADER, MAX_ORDERS, Killed, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Protocol

    from moorage.sandboxes.helper.wire import Order

    class Addressee(Protocol):
        """Who frames of one id are for."""

        def take(self, kind: bytes, payload: bytes) -> None: ...


_VERSION = 1
_UMASK = 0o007  # what the agent makes in the shared folder is its user's other threads' too
_BACKLOG = 1024 * 1024
_WRITES = 16
_KILL_SECONDS = 0.8
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
            data = os.read(0, 4 * CHUNK)
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


class Worker:
    """One order's process, seen from here."""

    def __init__(self, zygote: "Zygote", number: int, pid: int, channel: socket.socket, *, has_children: bool) -> None:
        self.pid = pid
        self.kill_by: float | None = None
        self._zygote = zygote
        self._number = number
        self._channel = channel
        self._has_children = has_children
        self._outgoing: deque[bytes] = deque()  # bounded by the credit that the server has for the order
        self._reported = False
        channel.setblocking(False)
        self.listen()

    def listen(self) -> None:
        """Wait for what can be done now."""
        events = 0 if self._zygote.stream.full else select.POLLIN
        self._zygote.loop.watch(self._channel.fileno(), events | (select.POLLOUT if self._outgoing else 0), self._move)

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame from the server."""
        if kind == b"K" and not self._has_children:
            self.kill_by = time.monotonic() + _KILL_SECONDS
        waiting = bool(self._outgoing)
        self._outgoing.append(HEADER.pack(kind, self._number, len(payload)) + payload)
        if not waiting:
            self._push()
            if self._outgoing:
                self.listen()

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
            except OSError:
                self._outgoing.clear()
                return
            self._outgoing.popleft()

    def _relay(self) -> None:
        while not self._zygote.stream.full:
            try:
                frame = self._channel.recv(HEADER.size + CHUNK)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it ended without having read all, but what it said is still to come
                continue
            except OSError:
                frame = b""
            if not frame:
                self._end()
                return
            kind = frame[:1]
            if kind == b"l":
                storage.remember(json.loads(frame[HEADER.size :]))
                continue
            self._reported = self._reported or kind == b"x"
            self._zygote.stream.relay(frame)
        self._zygote.hold_workers()

    def _end(self) -> None:
        self._zygote.loop.forget(self._channel.fileno())
        self._zygote.addressees.pop(self._number, None)
        self._channel.close()
        if not self._reported:
            self._zygote.report(self._number, {"outcome": "killed", "clean": not self._has_children})


class Zygote:
    """Orders by their ids. Modules may add addressees of their own, with ids that have the highest bit."""

    def __init__(self, killed_first: processes.KilledFirst) -> None:
        self._killed_first = killed_first
        self.loop = Loop()
        self.stream = Stream(self.loop, self._take)
        self.stream.on_room = self.hold_workers
        self.addressees: dict[int, Addressee] = {}
        self._ended = processes.wake_up_at_the_end_of_children()
        self.loop.watch(self._ended, _IN, self._reap)

    def serve(self) -> "NoReturn":
        self.stream.send(b"h", 0, json.dumps({"version": _VERSION, "python": sys.version.split()[0]}).encode())
        try:
            while True:
                self.loop.run_once(self._kill_late())
        except Gone:  # orders notice, and end what they started; one that was stopped must wake up for that
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

    def _workers(self) -> "list[Worker]":
        return [worker for worker in self.addressees.values() if isinstance(worker, Worker)]

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        if kind == b"C":
            self._begin(number, json.loads(payload))
        elif addressee := self.addressees.get(number):
            addressee.take(kind, payload)

    def _begin(self, number: int, order: "dict[str, Any]") -> None:
        module, _, name = order["do"].partition(".")
        try:
            orders = importlib.import_module(f"moorage.sandboxes.helper.{module}")
            start = getattr(orders, "IN_ZYGOTE", {}).get(name)
            if start:
                return self.report(number, start(self, order))
            self._fork(number, orders.ORDERS[name], order, has_children=name in getattr(orders, "WITH_CHILDREN", ()))
        except OSError as error:
            self.report(number, _failure(error))
        except (ImportError, KeyError):
            self.report(number, {"outcome": "exited", "error": "unknown_order"})
        return None

    def _fork(self, number: int, function: "Order", order: "dict[str, Any]", *, has_children: bool) -> None:
        if len(self.addressees) >= MAX_ORDERS:
            return self.report(number, {"outcome": "exited", "error": "no_processes"})
        self.stream.send(b"r", number)  # before the fork: what then happens meanwhile costs no time
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
                carry_out(Link(theirs, number), function, order)
            finally:
                os._exit(1)
        theirs.close()
        self.addressees[number] = Worker(self, number, pid, ours, has_children=has_children)
        return None

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
                processes.send_signal(worker.pid, signal.SIGKILL)
                worker.kill_by = None
        return min((worker.kill_by - now for worker in due if worker.kill_by is not None), default=None)


def carry_out(link: Link, function: "Order", order: "dict[str, Any]") -> None:
    """In the order's own process: wait for the word to go, do it, and report."""
    try:
        report = _attempt(link, function, order)
        link.send(b"x", json.dumps(report).encode())
        link.flush()
    except Killed:
        return


def _attempt(link: Link, function: "Order", order: "dict[str, Any]") -> "dict[str, object]":
    try:
        link.wait_for_go()
        os.chdir(order["cwd"])
        return {"outcome": "exited", **(function(link, order) or {})}
    except Killed:
        link.killed = False  # there may be somebody to hear that it is done
        return {"outcome": "killed"}
    except OSError as error:
        return _failure(error)
    except MemoryError:
        return {"outcome": "exited", "error": "no_memory"}
    except Exception as error:  # noqa: BLE001 -- this process's edge: nobody else could tell what went wrong in here
        return {"outcome": "exited", "error": "helper_failed", "detail": f"{type(error).__name__}: {error}"[:500]}


def _failure(error: OSError) -> "dict[str, object]":
    return {"outcome": "exited", "error": ERROR_CODES.get(error.errno or 0, "invalid_path")}


def main() -> "NoReturn":
    killed_first = processes.KilledFirst()
    processes.refuse_to_be_traced()
    processes.become_subreaper()
    os.umask(_UMASK)
    gc.disable()  # a collection in a child would copy what it shares with this process
    gc.freeze()
    Zygote(killed_first).serve()

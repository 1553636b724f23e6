"""Runs INSIDE a sandbox: the order for a shell command, which leaves no process of it behind.

This process is a subreaper: daemons that the command starts become its children, so it finds and kills them all.
"""

import contextlib
import os
import resource
import select
import signal
import time

from moorage.sandboxes.helper import processes, storage
from moorage.sandboxes.helper.output import Output
from moorage.sandboxes.helper.wire import CHUNK, Killed, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KILL_SECONDS = 5.0
_NICE = 10
_DRAINS = 32


class Command:
    """One shell command in a session of its own, and all that it starts."""

    def __init__(self, order: "dict[str, Any]", rlimits: "dict[str, int]") -> None:
        self.exit_code: int | None = None
        self.bytes_out = 0
        self._stdin = bytearray()  # bounded by the credit for the order's input
        self._stdin_ended = not order["stdin"]
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        child_in, self._in = os.pipe()
        for name, value in rlimits.items():  # of this process, but for what it starts
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        self.pid = _start(order["command"], {**os.environ, **order.get("env", {})}, (child_in, child_out, child_err))
        for descriptor in (child_in, child_out, child_err):
            os.close(descriptor)
        self.streams = {out: b"o", err: b"e"}
        for descriptor in (out, err, self._in):
            os.set_blocking(descriptor, False)
        self.feed(b"", end=self._stdin_ended)

    @property
    def wants_to_write(self) -> "int | None":
        return self._in if self._in >= 0 and self._stdin else None

    def feed(self, data: bytes = b"", *, end: bool = False) -> int:
        """Queue `data` for the command's stdin, write what it takes now, and answer how much it took or never will."""
        self._stdin += data
        self._stdin_ended = self._stdin_ended or end
        if self._in < 0:
            return self._drop()
        taken = 0
        try:
            if self._stdin:
                taken = os.write(self._in, memoryview(self._stdin)[:CHUNK])
                del self._stdin[:taken]
        except BlockingIOError:
            return 0
        except OSError:
            self._stdin_ended = True
            taken = self._drop()
        if self._stdin_ended and not self._stdin:
            os.close(self._in)
            self._in = -1
        return taken

    def _drop(self) -> int:
        size = len(self._stdin)
        self._stdin.clear()
        return size

    def read(self, descriptor: int, most: int = CHUNK) -> bytes:
        """What the stream holds now; forgets the stream at its end."""
        try:
            data = os.read(descriptor, most)
        except BlockingIOError:
            return b""
        if not data:
            del self.streams[descriptor]
            os.close(descriptor)
        self.bytes_out += len(data)
        return data

    def reap(self) -> bool:
        """Collect ended processes; False when no descendant is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid:
                code = os.waitstatus_to_exitcode(status)
                self.exit_code = code if code >= 0 else 128 - code

    def kill(self, orphans: "Callable[[], set[int]]") -> bool:
        """Kill every descendant, and `orphans` that may be some; False when some would not die in time.

        They are stopped first, until no new one turns up, and killed only then: what forks faster than we kill
        (a fork bomb) runs into its limit on processes and stands still.
        """
        deadline = time.monotonic() + _KILL_SECONDS
        stopped: set[int] = set()
        while self.reap() or orphans():
            fresh = (processes.descendants(os.getpid()) | orphans()) - stopped
            for pid in fresh:
                processes.send_signal(pid, signal.SIGSTOP)
            stopped |= fresh
            if fresh:
                continue
            for pid in stopped:
                processes.send_signal(pid, signal.SIGKILL)
            stopped.clear()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True

    def close(self) -> None:
        """Let go of pipes that others, which are none of its processes, may hold open."""
        for descriptor in [*self.streams, self._in]:
            if descriptor >= 0:
                os.close(descriptor)


def _start(command: str, environment: "dict[str, str]", streams: "tuple[int, int, int]") -> int:
    """The command's shell, in a session of its own. Spawned, not forked: that is a third of the cost."""
    pid = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", command],
        environment,
        file_actions=[(os.POSIX_SPAWN_DUP2, stream, target) for target, stream in enumerate(streams)],
        setsid=True,
        setsigdef=[signal.SIGPIPE],
    )
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it may have ended, or be nicer already
        os.setpriority(os.PRIO_PGRP, pid, _NICE)
    return pid


def _none() -> "set[int]":
    return set()


def run(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    processes.see_nothing_outside()
    # Where orphans do not become ours, those of a command that runs at the same time are taken for ours too.
    orphans = _none if processes.become_subreaper() else processes.orphans
    ended = processes.wake_up_at_the_end_of_children()
    watcher = storage.Watcher(link, order)
    rlimits = {**order["rlimits"], **({"FSIZE": 0} if watcher.full else {})}
    oom_kills, refused_forks = processes.oom_kills(), processes.refused_forks()
    link.wait_for_go()
    command, output = Command(order, rlimits), Output(link, order["keep"])
    deadline = time.monotonic() + order["time_limit"]
    outcome = _attend(link, command, output, ended, deadline, order["output_limit"], watcher)
    clean = command.kill(orphans)
    _drain(command, output)
    output.finish()
    command.close()
    processes.sleep_through_the_end_of_children(ended)
    oom = outcome == "exited" and command.exit_code == 137 and processes.oom_kills() > oom_kills
    link.killed = False  # there may be somebody to hear that it is done
    return {
        "outcome": "out_of_memory" if oom else outcome,
        "exit_code": command.exit_code,
        "clean": clean,
        "no_processes": command.exit_code != 0 and processes.refused_forks() > refused_forks,
        "full": watcher.full,
        "skipped": output.skipped,
    }


def _attend(
    link: Link,
    command: Command,
    output: Output,
    ended: int,
    deadline: float,
    output_limit: int,
    watcher: storage.Watcher,
) -> str:
    """Carry bytes to and fro until the command's shell has ended, or may not go on."""
    while True:
        _feed(link, command)
        if link.killed:
            return "killed"
        command.reap()
        if command.exit_code is not None:
            return "exited"
        if command.bytes_out > output_limit:
            return "output_limit"
        if time.monotonic() >= deadline:
            return "timed_out"
        if watcher.look():
            return "disk_full"
        _carry_all(link, command, output, ended, min(deadline - time.monotonic(), watcher.seconds))


def _feed(link: Link, command: Command) -> None:
    """Give the command what the server sent."""
    while (frame := link.next()) is not None:
        kind, payload = frame
        link.eat(command.feed(payload, end=kind == b"E"))


def _carry_all(link: Link, command: Command, output: Output, ended: int, seconds: float) -> None:
    """Wait for anything to happen, and move what can be moved. The command waits when the server reads slowly."""
    reading = [link.fileno(), ended] + (list(command.streams) if output.most else [])
    writing = ([link.fileno()] if link.pending else []) + ([command.wants_to_write] if command.wants_to_write else [])
    readable, writable, _ = select.select(reading, writing, [], max(0.0, seconds))
    if ended in readable:
        os.read(ended, CHUNK)
    if link.fileno() in writable:
        link.push()
    if link.fileno() in readable:
        link.receive()
    for descriptor in [fd for fd in readable if fd in command.streams]:
        if output.most:
            _carry(command, output, descriptor)
    if command.wants_to_write in writable:
        link.eat(command.feed())


def _carry(command: Command, output: Output, descriptor: int) -> bool:
    kind = command.streams[descriptor]
    data = command.read(descriptor, output.most)
    if data:
        output.add(kind, data)
    return bool(data)


def _drain(command: Command, output: Output) -> None:
    """Take what the pipes still hold. Not until their end: a process elsewhere may have been given them."""
    try:
        for descriptor in list(command.streams):
            for _ in range(_DRAINS):
                output.wait_for_room()
                if not _carry(command, output, descriptor):
                    break
    except Killed:
        return


ORDERS = {"run": run}
WITH_CHILDREN = {"run"}
PREPARING = {"run"}

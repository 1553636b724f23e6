"""Runs INSIDE a sandbox, under its python3: carries out one order of the server, and leaves no process behind.

Its text comes over stdin (see supervised.py): it imports the standard library only, and runs on Python 3.9 and later.

Both directions are frames: one byte kind, four bytes length (big-endian), payload.
From the server: C order (JSON, first), I stdin bytes, E end of stdin, K kill. Losing the connection is a kill.
To the server:   r started, o stdout, e stderr, x report (JSON, last).

The process is not dumpable, so the command, though it has the same uid, can neither trace it nor reach its
descriptors: it cannot forge a frame, only choose its own exit code. It is a child subreaper: daemons that the command
starts become its children, so it finds and kills them all.
"""

import contextlib
import ctypes
import errno
import json
import os
import resource
import select
import signal
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes 4 of the 26 ms that this needs to start
    from typing import Any, NoReturn

HEADER = struct.Struct(">cI")
CHUNK = 65536
BACKLOG = 4 * CHUNK
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
KILL_SECONDS = 5.0
FLUSH_SECONDS = 30.0
ERROR_CODES = {
    errno.ENOENT: "file_not_found",
    errno.EISDIR: "is_directory",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.EAGAIN: "no_processes",
    errno.ENOMEM: "no_memory",
}


class Disconnected(Exception):
    """The server went away."""


class Link:
    """Frames over stdin and stdout; never blocks but in `wait` and `flush`."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._outgoing = bytearray()
        self.lost = False
        os.set_blocking(0, False)
        os.set_blocking(1, False)

    @property
    def full(self) -> bool:
        return len(self._outgoing) >= BACKLOG

    @property
    def pending(self) -> bool:
        return bool(self._outgoing)

    def receive(self) -> None:
        try:
            data = os.read(0, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received += data
        self.lost = self.lost or not data

    def next(self) -> "tuple[bytes, bytes] | None":
        """The next frame, if it has arrived whole."""
        if len(self._received) < HEADER.size:
            return None
        kind, size = HEADER.unpack_from(self._received)
        if len(self._received) < HEADER.size + size:
            return None
        payload = bytes(self._received[HEADER.size : HEADER.size + size])
        del self._received[: HEADER.size + size]
        return kind, payload

    def wait(self) -> "tuple[bytes, bytes]":
        while (frame := self.next()) is None:
            if self.lost:
                raise Disconnected
            select.select([0], [], [])
            self.receive()
        return frame

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self._outgoing += HEADER.pack(kind, len(payload)) + payload

    def push(self) -> None:
        try:
            written = os.write(1, memoryview(self._outgoing)[:CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self.lost = True
            self._outgoing.clear()
            return
        del self._outgoing[:written]

    def flush(self) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        while self._outgoing and (left := deadline - time.monotonic()) > 0:
            select.select([], [1], [], left)
            self.push()


class Command:
    """One shell command in a session of its own, and all that it starts."""

    def __init__(self, order: "dict[str, Any]") -> None:
        self.exit_code: int | None = None
        self.bytes_out = 0
        self._stdin = bytearray()
        self._stdin_ended = not order["stdin"]
        out, child_out = os.pipe()
        err, child_err = os.pipe()
        child_in, self._in = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(order["command"], order["rlimits"], child_in, child_out, child_err)
        for descriptor in (child_in, child_out, child_err):
            os.close(descriptor)
        self.streams = {out: b"o", err: b"e"}
        for descriptor in (out, err, self._in):
            os.set_blocking(descriptor, False)
        self.feed(b"", end=self._stdin_ended)

    @property
    def wants_to_write(self) -> "int | None":
        return self._in if self._in >= 0 and self._stdin else None

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Queue `data` for the command's stdin, and write what it takes now."""
        self._stdin += data
        self._stdin_ended = self._stdin_ended or end
        if self._in < 0:
            return
        try:
            if self._stdin:
                del self._stdin[: os.write(self._in, memoryview(self._stdin)[:CHUNK])]
        except BlockingIOError:
            return
        except OSError:
            self._stdin_ended = True
            self._stdin.clear()
        if self._stdin_ended and not self._stdin:
            os.close(self._in)
            self._in = -1

    def read(self, descriptor: int) -> bytes:
        """What the stream holds now; forgets the stream at its end."""
        try:
            data = os.read(descriptor, CHUNK)
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

    def kill(self) -> bool:
        """Kill every descendant; False when some would not die in time.

        They are stopped first, until no new one turns up, and killed only then: what forks faster than we kill
        (a fork bomb) runs into its limit on processes and stands still.
        """
        deadline = time.monotonic() + KILL_SECONDS
        stopped: set[int] = set()
        while self.reap():
            fresh = _descendants(os.getpid()) - stopped
            for pid in fresh:
                _signal(pid, signal.SIGSTOP)
            stopped |= fresh
            if fresh:
                continue
            for pid in stopped:
                _signal(pid, signal.SIGKILL)
            stopped.clear()
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        return True


def _become(command: str, rlimits: "dict[str, int]", stdin: int, stdout: int, stderr: int) -> "NoReturn":
    """In the child: turn into the command. Never returns."""
    try:
        os.setsid()
        os.nice(10)
        for name, value in rlimits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        for descriptor, target in ((stdin, 0), (stdout, 1), (stderr, 2)):
            os.dup2(descriptor, target)
            os.set_blocking(target, True)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot start the command: {error.strerror}\n".encode())
    finally:
        os._exit(126)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(root: int) -> "set[int]":
    """The living processes below `root`, daemons too."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        if state != b"Z":
            children.setdefault(int(parent), []).append(int(name))
    found: set[int] = set()
    front = [root]
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        found.update(front)
    return found


def _count(name: str, *paths: str) -> int:
    """How often the kernel has done `name` in this sandbox; `paths` are of cgroup v1 and v2, relative to their root."""
    for path in paths:
        try:
            with open(f"/sys/fs/cgroup/{path}") as file:
                fields = dict(line.split() for line in file)
        except (OSError, ValueError):
            continue
        return int(fields.get(name, "0"))
    return 0


def _oom_kills() -> int:
    return _count("oom_kill", "memory/memory.oom_control", "memory.events")


def _refused_forks() -> int:
    return _count("max", "pids/pids.events", "pids.events")


def run(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    wakeup, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, _wake_up)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    oom_kills, refused_forks = _oom_kills(), _refused_forks()
    deadline = time.monotonic() + order["time_limit"]
    link.send(b"r")
    link.flush()  # before it can do anything, such as kill this process: what was not said to have started runs again
    command = Command(order)
    outcome = _attend(link, command, wakeup, deadline, order["output_limit"])
    clean = command.kill()
    _drain(link, command)
    oom = outcome == "exited" and command.exit_code == 137 and _oom_kills() > oom_kills
    full = command.exit_code != 0 and _refused_forks() > refused_forks
    return {
        "outcome": "out_of_memory" if oom else outcome,
        "exit_code": command.exit_code,
        "clean": clean,
        "no_processes": full,
    }


def _wake_up(*_: object) -> None:
    """A signal handler must be there for the wake-up descriptor to be written to."""


def _attend(link: Link, command: Command, wakeup: int, deadline: float, output_limit: int) -> str:
    """Carry bytes to and fro until the command's shell has ended, or may not go on."""
    while True:
        if not _obey(link, command) or link.lost:
            return "killed"
        command.reap()
        if command.exit_code is not None:
            return "exited"
        if command.bytes_out > output_limit:
            return "output_limit"
        if time.monotonic() >= deadline:
            return "timed_out"
        _carry_all(link, command, wakeup, deadline)


def _carry_all(link: Link, command: Command, wakeup: int, deadline: float) -> None:
    """Wait for anything to happen, and move what can be moved. The command waits when the server reads slowly."""
    reading = [0, wakeup] + ([] if link.full else list(command.streams))
    writing = ([1] if link.pending else []) + ([command.wants_to_write] if command.wants_to_write else [])
    readable, writable, _ = select.select(reading, writing, [], max(0.0, deadline - time.monotonic()))
    if wakeup in readable:
        os.read(wakeup, CHUNK)
    if 0 in readable:
        link.receive()
    for descriptor in [fd for fd in readable if fd in command.streams]:
        _carry(link, command, descriptor)
    if 1 in writable:
        link.push()
    if command.wants_to_write in writable:
        command.feed(b"")


def _obey(link: Link, command: Command) -> bool:
    """Act on what the server sent; False when it says kill."""
    while (frame := link.next()) is not None:
        kind, payload = frame
        if kind == b"K":
            return False
        command.feed(payload, end=kind == b"E")
    return True


def _carry(link: Link, command: Command, descriptor: int) -> bool:
    kind = command.streams[descriptor]
    data = command.read(descriptor)
    if data:
        link.send(kind, data)
    return bool(data)


def _drain(link: Link, command: Command) -> None:
    """Send what the pipes still hold. Not until their end: a process elsewhere may have been given them."""
    for descriptor in list(command.streams):
        for _ in range(32):
            if not _carry(link, command, descriptor):
                break


def write(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    path = os.path.realpath(order["path"])
    mode = _writable_mode(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{os.path.dirname(path)}/.{os.urandom(8).hex()}.part"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        link.send(b"r")
        link.flush()
        _receive_into(link, descriptor)
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.rename(aside, path)
    except BaseException:
        os.unlink(aside)
        raise
    finally:
        os.close(descriptor)
    return {"outcome": "exited", "created": mode is None}


def _writable_mode(path: str) -> "int | None":
    """The mode of the file to be replaced, None when there is none; raises when it is no file we may write."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "read-only file")
    return stat.S_IMODE(status.st_mode)


def _receive_into(link: Link, descriptor: int) -> None:
    while (frame := link.wait())[0] == b"I":
        view = memoryview(frame[1])
        while view:
            view = view[os.write(descriptor, view) :]
    if frame[0] == b"K":
        raise Disconnected


def read(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    limit = order["limit"]
    descriptor = os.open(order["path"], os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    link.send(b"r")
    sent = 0
    while data := os.read(descriptor, min(CHUNK, limit + 1 - sent)):
        sent += len(data)
        if sent > limit:
            return {"outcome": "exited", "error": "file_too_large"}
        link.send(b"o", data)
        link.flush()
    return {"outcome": "exited"}


def main() -> None:
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) or prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    link = Link()
    try:
        order = json.loads(link.wait()[1])
        try:
            os.chdir(order["cwd"])
            report = {"run": run, "write": write, "read": read}[order["do"]](link, order)
        except OSError as error:
            report = {"outcome": "exited", "error": ERROR_CODES.get(error.errno or 0, "invalid_path")}
        except ValueError:
            report = {"outcome": "exited", "error": "invalid_path"}
    except Disconnected:
        return
    link.send(b"x", json.dumps(report).encode())
    link.flush()


if __name__ == "__main__":
    main()

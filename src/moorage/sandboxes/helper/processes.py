"""Runs INSIDE a sandbox. What the kernel knows of processes: whose they are, and how often it killed or refused one."""

import contextlib
import ctypes
import errno
import os
import signal
import struct

_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # the same numbers everywhere
_LANDLOCK_PATH_BENEATH = 1
_LANDLOCK_REFER = 1 << 13  # to rename into another folder: refused to all who are restricted at all, unless allowed
_KILLED_FIRST = b"500"  # of 1000, added to what the kernel goes by
_libc = ctypes.CDLL(None, use_errno=True)
_sees_nothing_outside = False


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def refuse_to_be_traced() -> None:
    """Processes of the same uid reach neither the memory nor the descriptors of this one and those it forks."""
    _prctl(_PR_SET_DUMPABLE, 0)


def give_back_memory() -> None:
    """What was used and is free again goes back to the system: each process that this one forks would have a copy."""
    with contextlib.suppress(AttributeError):  # not every C library has it
        _libc.malloc_trim(0)


class KilledFirst:
    """What is forked in here, and what that starts, goes first when the sandbox runs out of memory, before its forker.

    To be made before `refuse_to_be_traced`, which also forbids to open what this writes to.
    """

    def __init__(self) -> None:
        try:
            self._score = os.open("/proc/self/oom_score_adj", os.O_RDWR)
            self._own = os.read(self._score, 16)
        except OSError:  # not every kind of sandbox has it
            self._score = -1

    def __enter__(self) -> None:
        self._write(_KILLED_FIRST)

    def __exit__(self, *_: object) -> None:
        """In the forked process too, where it does nothing: what it writes to is its parent's."""
        self._write(self._own)

    def _write(self, score: bytes) -> None:
        if self._score >= 0:
            with contextlib.suppress(OSError):
                os.pwrite(self._score, score, 0)


def see_nothing_outside() -> None:
    """From now on this process and what it starts can trace nobody but one another: no helper that is just starting.

    By being restricted in nothing else (landlock(7)): all below `/` is allowed. Older kernels know no such thing. Once
    is enough for a process, and more than 16 times is refused. Raises OSError when there is no descriptor or memory for
    it.
    """
    global _sees_nothing_outside
    if _sees_nothing_outside:
        return
    ruleset = _libc.syscall(_LANDLOCK_CREATE, ctypes.byref(ctypes.c_uint64(_LANDLOCK_REFER)), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        if ctypes.get_errno() in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise OSError(ctypes.get_errno(), "landlock")
        return
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    rule = struct.pack("=Qi", _LANDLOCK_REFER, root)
    if _libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH_BENEATH, rule, 0) == 0:
        _sees_nothing_outside = _libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(root)
    os.close(ruleset)


def become_subreaper() -> bool:
    """From now on orphans below this process become its children; False where the kernel knows of no such thing."""
    try:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False  # gVisor, until 2023
    return True


def wake_up_at_the_end_of_children() -> int:
    """A descriptor that can be read when one of this process's children has ended."""
    ended, wakeup = os.pipe()
    os.set_blocking(ended, False)
    os.set_blocking(wakeup, False)
    signal.signal(signal.SIGCHLD, _ignore)  # for the descriptor to be written to, there must be a handler
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    return ended


def sleep_through_the_end_of_children(ended: int) -> None:
    """Take back the above."""
    os.close(signal.set_wakeup_fd(-1))
    os.close(ended)


def _ignore(*_: object) -> None: ...


def send_signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def descendants(root: int) -> "set[int]":
    """The living processes below `root`, daemons too."""
    return _below([root], _children())


def orphans() -> "set[int]":
    """The living processes of this one's user that the sandbox's first process has taken over, and those below them."""
    children = _children()
    found = {pid for pid in children.get(1, []) if _user_of(pid) == os.getuid()} - {os.getpid(), os.getppid()}
    return found | _below(list(found), children)


def _children() -> "dict[int, list[int]]":
    """Of each process, the living ones."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        state, parent, threads = fields[0], fields[1], fields[17]
        if state != b"Z" or int(threads) > 1:  # one whose first thread has ended is a zombie by name only
            children.setdefault(int(parent), []).append(int(name))
    return children


def _below(front: "list[int]", children: "dict[int, list[int]]") -> "set[int]":
    found: set[int] = set()
    while front:
        front = [child for parent in front for child in children.get(parent, [])]
        found.update(front)
    return found


def _user_of(pid: int) -> "int | None":
    try:
        with open(f"/proc/{pid}/status") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Uid:")), None)
    except OSError:
        return None


def oom_kills() -> int:
    """How often the kernel has killed a process of this sandbox for its memory; 0 when it does not say."""
    return _count("oom_kill", "memory/memory.oom_control", "memory.events")


def refused_forks() -> int:
    """How often the sandbox's limit on processes was hit; 0 when the kernel does not say."""
    return _count("max", "pids/pids.events", "pids.events")


def _count(name: str, *paths: str) -> int:
    """`paths` are of cgroup v1 and v2, relative to their root."""
    for path in paths:
        try:
            with open(f"/sys/fs/cgroup/{path}", "rb", buffering=0) as file:
                fields = dict(line.split() for line in file.read().splitlines())
        except (OSError, ValueError):
            continue
        return int(fields.get(name.encode(), b"0"))
    return 0

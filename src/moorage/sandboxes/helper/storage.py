"""Runs INSIDE a sandbox: how much the workspace holds, where nothing stronger than a look at it bounds that.

An order that may write says `bounds`: {"path", "disk_bytes", "max_files"}, either of which may be None. One worker
after the other looks; the zygote remembers what the last one saw.
"""

import json
import os
import stat
import time

from moorage.sandboxes.helper.wire import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SECONDS = 2.0
_PART = 0.1  # of the time may go into looking
_DEEPEST = 200  # each level holds a descriptor open; who goes deeper has more than is allowed
_BLOCK = 512
_STEP = 500  # entries, after which other work has its turn

_seen: "dict[str, tuple[float, int, int]]" = {}


def remember(note: "list[Any]") -> None:
    """In the zygote, what a worker told with `l`; in a worker, what another did."""
    path, until, size, files = note
    _seen[path] = until, size, files


def notes() -> "list[list[Any]]":
    """In the zygote: what a worker has to remember that lives on."""
    return [[path, *seen] for path, seen in _seen.items()]


class Usage:
    """A look at all below `path`, step by step: others run meanwhile. No link is followed."""

    def __init__(self, path: str) -> None:
        self.size = 0
        self.files = 0
        self._started = time.monotonic()
        self._stack: list[tuple[int, list[str]]] = []
        self._seen: set[int] = set()
        self._open(path, None)

    def step(self) -> bool:
        """Look at some more entries; False when there are none."""
        for _ in range(_STEP):
            while self._stack and not self._stack[-1][1]:
                os.close(self._stack.pop()[0])
            if not self._stack:
                return False
            folder, names = self._stack[-1]
            self._count(folder, names.pop())
        return True

    def finish(self) -> None:
        while self.step():
            pass

    @property
    def seconds(self) -> float:
        """How long to rest after it."""
        return max(_SECONDS, (time.monotonic() - self._started) / _PART)

    def _count(self, folder: int, name: str) -> None:
        try:
            status = os.lstat(name, dir_fd=folder)
        except OSError:  # gone meanwhile
            return
        self.files += 1
        if stat.S_ISDIR(status.st_mode):
            self.size += status.st_blocks * _BLOCK
            self._open(name, folder, status.st_mode)
        elif status.st_nlink == 1 or status.st_ino not in self._seen:
            self.size += status.st_blocks * _BLOCK
            if status.st_nlink > 1:
                self._seen.add(status.st_ino)

    def _open(self, name: str, folder: "int | None", mode: int = 0o700) -> None:
        if len(self._stack) >= _DEEPEST:
            self.size = self.files = 1 << 62
            return
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if mode & 0o500 != 0o500:  # nothing may hide in a folder that even its owner cannot list
                os.chmod(name, stat.S_IMODE(mode) | 0o500, dir_fd=folder)
            descriptor = os.open(name, flags, dir_fd=folder)
        except OSError:
            return
        try:
            self._stack.append((descriptor, os.listdir(descriptor)))
        except OSError:
            os.close(descriptor)


class Watcher:
    """Looks at the workspace while an order goes on: every 2 s, or as seldom as keeps looking cheap."""

    def __init__(self, link: Link, order: "dict[str, Any]") -> None:
        bounds: dict[str, Any] = order.get("bounds") or {}
        self._link = link
        self._path: str = bounds.get("path", "")
        self._most_bytes: int | None = bounds.get("disk_bytes")
        self._most_files: int | None = bounds.get("max_files")
        self._watching = self._most_bytes is not None or self._most_files is not None
        self._looking: Usage | None = None
        self._next = float("inf")
        self.size = self.files = 0
        self.full = False  # it was before the order began: then nothing may be written, but things may be deleted
        if self._watching:
            self._first()
            self.full = self._over()

    @property
    def seconds(self) -> float:
        """Until `look` wants to be called."""
        return 0.0 if self._looking else self._next - time.monotonic()

    @property
    def room(self) -> "int | None":
        """How many bytes may be added; None: as many as the file system takes."""
        if self.full:
            return 0
        return None if self._most_bytes is None else max(0, self._most_bytes - self.size)

    def look(self) -> bool:
        """Look, if it is time to; True when the workspace outgrew its bounds under this order."""
        if self._looking is None:
            if time.monotonic() < self._next:
                return False
            self._looking = Usage(self._path)
        if self._looking.step():
            return False
        looked, self._looking = self._looking, None
        before = self.size, self.files
        self._take(looked)
        grown = self.size > before[0] or self.files > before[1]
        return self._over() and (grown or not self.full)

    def _first(self) -> None:
        """What was seen not long ago will do, unless it was too much: that may have been deleted since."""
        until, self.size, self.files = _seen.get(self._path, (0.0, 0, 0))
        if until < time.monotonic() or self._over():
            usage = Usage(self._path)
            usage.finish()
            self._take(usage)
        else:
            self._next = until

    def _take(self, usage: Usage) -> None:
        self.size, self.files = usage.size, usage.files
        self._next = time.monotonic() + usage.seconds
        self._link.send(b"l", json.dumps([self._path, self._next, self.size, self.files]).encode())

    def _over(self) -> bool:
        return (self._most_bytes is not None and self.size > self._most_bytes) or (
            self._most_files is not None and self.files > self._most_files
        )

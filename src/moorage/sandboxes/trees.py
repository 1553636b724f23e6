"""A workspace as a whole: what a sandbox's helper tells of it, believed only as far as it can do no harm."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

import orjson

from moorage.errors import Conflict

DEEPEST = 256
LONGEST_PATH = 4096
_LONGEST_LINE = 64 * 1024  # a byte of a path may take six in JSON, and a link has two
_LONGEST_NAME = 255
_MOST_NAMES = 32 * 1024 * 1024  # bytes of all paths and links: a snapshot's are in memory together
_ELSEWHERE = frozenset({b"", b".", b".."})
_MODES = 0o1777
_LARGEST = 2**63

type Piece = bytes | int
"""A part of a file: bytes, or the number of zero bytes that stand in a hole."""

type ReadContent = Callable[[TreeEntry], AsyncIterator[Piece]]


class TreeRefused(Conflict):
    """The files cannot be kept, or made, as they are. `code` says why.

    `workspace_too_large`, `too_many_files`, `too_deep`, `workspace_changed`, or `bad_tree` for what no helper of ours
    says: its sandbox has got hold of it.
    """

    code = "bad_tree"


@dataclass(frozen=True, slots=True)
class TreeBounds:
    """How much of a workspace is listened to. `max_bytes` counts files by their length, holes included."""

    max_files: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file, folder or link. `path` is relative to the workspace, its parts joined by `/`, any bytes but NUL.

    A file that still has its `size`, `ctime_ns` and `inode` was not changed. `mode` has neither setuid nor setgid.
    """

    path: bytes
    type: Literal["file", "dir", "link"]
    mode: int = 0
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0
    inode: int = 0
    target: bytes = b""

    @property
    def identity(self) -> tuple[int, int, int]:
        return (self.size, self.ctime_ns, self.inode)


@dataclass(frozen=True, slots=True)
class Listing:
    """All that is in a workspace, folders before what they hold, but for `left_out` pipes, sockets and the like."""

    entries: list[TreeEntry]
    left_out: int


class Verdict(IntEnum):
    """What became of a file that was asked for."""

    WHOLE = 0
    YOUNG = 1  # whole, but a change right afterwards may not show
    CHANGED = 2
    UNREADABLE = 3


class FetchedFile(Protocol):
    """A file as it is handed over: its pieces come once, to the end, and then there is a verdict on them."""

    @property
    def entry(self) -> TreeEntry: ...

    @property
    def pieces(self) -> AsyncIterator[Piece]: ...

    @property
    def verdict(self) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Planted:
    """How many files were written, and how many entries removed."""

    written: int
    removed: int


class Trees(Protocol):
    """The workspace of one thread. Every call raises TreeRefused, PathError (`no_space`) or SandboxUnavailable."""

    async def list(self, bounds: TreeBounds) -> Listing: ...

    def fetch(self, wanted: Sequence[TreeEntry]) -> AbstractAsyncContextManager[AsyncIterator[FetchedFile]]:
        """The contents of these files, in this order."""
        ...

    async def plant(
        self, entries: Sequence[TreeEntry], *, keep: Collection[bytes], read: ReadContent, bounds: TreeBounds
    ) -> Planted:
        """Make the workspace these entries and nothing else.

        Files whose path is in `keep` are there already, as the entry says, or nothing is changed and this raises
        TreeRefused (`workspace_changed`). All others are written anew with what `read` gives. When it breaks off, part
        of it is done: it may be repeated.
        """
        ...


class ListingReader:
    """Takes a listing as it comes in, in constant time for what goes beyond its bounds."""

    def __init__(self, bounds: TreeBounds) -> None:
        self._bounds = bounds
        self._rest = b""
        self._entries: list[TreeEntry] = []
        self._paths: set[bytes] = set()
        self._folders: set[bytes] = {b""}
        self._bytes = 0
        self._names = 0
        self._left_out: int | None = None

    def feed(self, data: bytes) -> None:
        """The next bytes; raises TreeRefused as soon as something is wrong with them."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > _LONGEST_LINE:
            raise _lied("a line without end")

    def finish(self) -> Listing:
        if self._left_out is None or self._rest:
            raise _lied("no end")
        return Listing(self._entries, self._left_out)

    def _take(self, line: bytes) -> None:
        if self._left_out is not None:
            raise _lied("more after the end")
        match read_line(line):
            case ["end", int(left_out)] if 0 <= left_out < _LARGEST:
                self._left_out = left_out
            case [str(kind), *values]:
                self._add(_entry(kind, values))
            case _:
                raise _lied("no entry")

    def _add(self, entry: TreeEntry) -> None:
        parent = entry.path.rpartition(b"/")[0]
        if entry.path in self._paths or parent not in self._folders:
            raise _lied("paths that cannot be")
        self._paths.add(entry.path)
        if entry.type == "dir":
            self._folders.add(entry.path)
        self._bytes += entry.size
        self._names += len(entry.path) + len(entry.target)
        if len(self._paths) > self._bounds.max_files:
            raise TreeRefused(f"There are more than {self._bounds.max_files} files", code="too_many_files")
        if self._names > _MOST_NAMES:
            raise TreeRefused("The names of the files and folders are too long in all", code="too_many_files")
        if self._bytes > self._bounds.max_bytes:
            megabytes = self._bounds.max_bytes // (1024 * 1024)
            raise TreeRefused(f"The files are longer than {megabytes} MiB in all", code="workspace_too_large")
        self._entries.append(entry)


def line_of(entry: TreeEntry) -> list[Any]:
    """An entry as `read_line` and `_entry` know it, and the helper."""
    path = _text(entry.path)
    match entry.type:
        case "dir":
            return ["d", path, entry.mode, entry.mtime_ns]
        case "link":
            return ["l", path, _text(entry.target)]
        case "file":
            return ["f", path, entry.mode, entry.size, entry.mtime_ns, entry.ctime_ns, entry.inode]


def entry_of(line: Sequence[Any]) -> TreeEntry:
    """The entry that a line tells of; raises TreeRefused when it is none."""
    return _entry(str(line[0]) if line else "", line[1:])


def read_line(line: bytes) -> Any:
    """A line's JSON; raises TreeRefused when it is none."""
    if len(line) > _LONGEST_LINE:
        raise _lied("a line too long")
    with suppress(orjson.JSONDecodeError):  # as of names that are not UTF-8
        return orjson.loads(line)
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise _lied("no JSON") from None


def _entry(kind: str, values: Sequence[Any]) -> TreeEntry:
    match kind, values:
        case "d", [str(path), int(mode), int(mtime)]:
            entry = TreeEntry(_path(path), "dir", mode=mode, mtime_ns=mtime)
        case "f", [str(path), int(mode), int(size), int(mtime), int(ctime), int(inode)]:
            entry = TreeEntry(_path(path), "file", mode, size, mtime, ctime, inode)
        case "l", [str(path), str(target)]:
            entry = TreeEntry(_path(path), "link", target=_target(target))
        case _:
            raise _lied("no entry")
    small = 0 <= entry.size < _LARGEST and 0 <= entry.inode < _LARGEST and 0 <= entry.mode <= _MODES
    if not (small and -_LARGEST <= entry.mtime_ns < _LARGEST and -_LARGEST <= entry.ctime_ns < _LARGEST):
        raise _lied("numbers that cannot be")
    return entry


def _path(text: str) -> bytes:
    path = _bytes(text)
    parts = path.split(b"/")
    if len(path) > LONGEST_PATH or len(parts) > DEEPEST:
        raise _lied("a path too long")
    if not _ELSEWHERE.isdisjoint(parts) or b"\0" in path or max(map(len, parts)) > _LONGEST_NAME:
        raise _lied("a path that leads elsewhere")
    return path


def _target(text: str) -> bytes:
    target = _bytes(text)
    if not 0 < len(target) < LONGEST_PATH or b"\0" in target:
        raise _lied("a link that cannot be")
    return target


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _lied("no name") from None


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _lied(what: str) -> TreeRefused:
    return TreeRefused(f"The sandbox tells of files that cannot be: {what}")

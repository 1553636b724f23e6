"""Runs INSIDE a sandbox: a workspace as a whole, told and handed over. `planting.py` makes one again as it was.

It imports the standard library only, and runs on Python 3.9 and later. Whatever runs in the sandbox may change what is
looked at here at any moment: each step goes through a descriptor of the folder it is in, no link is ever followed, and
what was listed is known again by its inode and the time of its last change.

`trees.list` answers lines of JSON, folders before what is in them, names in the order of their bytes (as text by UTF-8
with surrogateescape): `["d", path, mode, mtime_ns]`, `["f", path, mode, size, mtime_ns, ctime_ns, inode]`,
`["l", path, target]`, at the end `["end", left_out]` with the number of pipes, sockets and devices.

`trees.fetch` takes lines `[path, size, ctime_ns, inode]` and answers for each, in order, records: one byte kind, eight
bytes number. `d`, so many bytes follow; `h`, so many zeros that are not there; `e`, the end: 0 whole and at rest, 1
whole, but so young that its next change may not show, 2 changed meanwhile or gone, 3 not to be read.
"""

import contextlib
import errno
import json
import os
import stat
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from moorage.sandboxes.helper.wire import Link

    Write = Callable[[bytes], None]
    Found = tuple[int, str, bytes, os.stat_result]

RECORD = struct.Struct(">cQ")
BLOCK = 65536
DEEPEST = 256
LONGEST_PATH = 4096
ASIDE = ".moorage-planting-"
REST_NS = 20_000_000  # twice the longest tick of a kernel's clock: a change after that has another time
REST_SECONDS = 0.05
WHOLE, YOUNG, CHANGED, UNREADABLE = range(4)


class Refused(Exception):
    """The order cannot be carried out; `code` is what the server is told."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Folder:
    """An open folder. One whose owner may not look into it is opened up while we are in it."""

    def __init__(self, name: str, dir_fd: "int | None" = None, *, writable: bool = False) -> None:
        self._mode: int | None = None
        needed = 0o700 if writable else 0o500
        self.fd = open_up(name, dir_fd, needed)
        mode = stat.S_IMODE(os.fstat(self.fd).st_mode)
        if mode & needed != needed:
            try:
                os.fchmod(self.fd, mode | needed)
            except OSError:
                os.close(self.fd)
                raise
            self._mode = mode

    def names(self, room: int) -> "list[str]":
        """Its entries, the first by name last; raises Refused when there are more than `room`."""
        names: list[str] = []
        with os.scandir(self.fd) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > room:
                    raise Refused("too_many_files")
        names.sort(key=os.fsencode, reverse=True)
        return names

    def keep_open(self) -> None:
        """Its mode will be set by somebody else."""
        self._mode = None

    def close(self) -> None:
        if self._mode is not None:
            with contextlib.suppress(OSError):
                os.fchmod(self.fd, self._mode)
        os.close(self.fd)


class Trail:
    """The way from the root to a folder, each folder on it open: going on to a neighbour costs little."""

    def __init__(self, root: str, *, writable: bool = False) -> None:
        self._writable = writable
        self._parts: list[bytes] = []
        self._folders = [Folder(root, writable=writable)]

    def __enter__(self) -> "Trail":
        return self

    def __exit__(self, *_: object) -> None:
        while self._folders:
            self._folders.pop().close()

    @property
    def root(self) -> int:
        return self._folders[0].fd

    def go(self, parts: "list[bytes]") -> int:
        """A descriptor of the folder at `parts`; raises OSError when it is no folder."""
        same = 0
        for known, part in zip(self._parts, parts):  # noqa: B905 -- Python 3.9
            if known != part:
                break
            same += 1
        while len(self._parts) > same:
            self._parts.pop()
            self._folders.pop().close()
        for part in parts[same:]:
            folder = Folder(os.fsdecode(part), self._folders[-1].fd, writable=self._writable)
            if self._writable:
                folder.keep_open()
            self._folders.append(folder)
            self._parts.append(part)
        return self._folders[-1].fd

    def to(self, path: bytes) -> "tuple[int, str]":
        """The folder that `path` is in, and its name there."""
        *parents, name = path.split(b"/")
        return self.go(parents), os.fsdecode(name)


def tree(root: str, limit: int, write: "Write") -> None:
    """Tell what is in the folder `root`; raises Refused over `limit` entries, or when it is too deep."""
    left_out = 0
    walk = Walk(root, limit)
    for folder, name, path, status in walk:
        if path.startswith(ASIDE.encode()):
            continue
        text = _text(path)
        mode = stat.S_IMODE(status.st_mode) & 0o1777
        if stat.S_ISDIR(status.st_mode):
            try:
                walk.enter(Folder(name, folder), path)
            except OSError:
                left_out += 1
                continue
            line = ["d", text, mode, status.st_mtime_ns]
        elif stat.S_ISLNK(status.st_mode):
            with contextlib.suppress(OSError):
                write(line_of(["l", text, _text(os.fsencode(os.readlink(name, dir_fd=folder)))]))
            continue
        elif stat.S_ISREG(status.st_mode):
            line = ["f", text, mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        else:
            left_out += 1
            continue
        write(line_of(line))
    write(line_of(["end", left_out]))


class Walk:
    """Entries below a folder, by name; the folders among them are entered when whoever walks says so.

    Each is given with a descriptor of its folder, its name, its path and what it is.
    """

    def __init__(self, root: str, limit: int) -> None:
        self._left = limit
        self._stack: list[tuple[Folder, bytes, list[str]]] = []
        self.enter(Folder(root), b"")

    def enter(self, folder: Folder, path: bytes) -> None:
        try:
            if len(self._stack) >= DEEPEST:
                raise Refused("too_deep")
            names = folder.names(self._left)
        except BaseException:
            folder.close()
            raise
        self._left -= len(names)
        self._stack.append((folder, path + b"/" if path else b"", names))

    def __iter__(self) -> "Iterator[Found]":
        try:
            while self._stack:
                folder, prefix, names = self._stack[-1]
                if not names:
                    self._stack.pop()[0].close()
                    continue
                name = names.pop()
                path = prefix + os.fsencode(name)
                if len(path) > LONGEST_PATH:
                    raise Refused("too_deep")
                with contextlib.suppress(FileNotFoundError):  # gone since it was listed
                    yield folder.fd, name, path, os.lstat(name, dir_fd=folder.fd)
        finally:
            while self._stack:
                self._stack.pop()[0].close()


def fetch(root: str, wanted: "Iterable[list[Any]]", write: "Write") -> None:
    """Hand over the contents of these files of `root`, as they were when they were listed."""
    with Trail(root) as trail:
        for text, size, ctime_ns, inode in wanted:
            try:
                folder, name = trail.to(path_of(text))
                verdict = _send_file(folder, name, (size, ctime_ns, inode), write)
            except OSError as error:
                gone = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
                verdict = CHANGED if gone else UNREADABLE
            write(RECORD.pack(b"e", verdict))


def _send_file(folder: int, name: str, known: "tuple[int, int, int]", write: "Write") -> int:
    status = os.lstat(name, dir_fd=folder)
    if not stat.S_ISREG(status.st_mode) or identity_of(status) != known:
        return CHANGED
    descriptor = open_up(name, folder, 0o400)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return CHANGED
        if stat.S_IMODE(status.st_mode) & 0o400 == 0:  # opening it up has changed the time, and the name may be another
            known = identity_of(os.fstat(descriptor))
        rests = _comes_to_rest(known[1])
        sent = identity_of(os.fstat(descriptor)) == known and _send_content(descriptor, known[0], write)
        if not sent or identity_of(os.fstat(descriptor)) != known:
            return CHANGED
        return WHOLE if rests else YOUNG
    finally:
        os.close(descriptor)


def _comes_to_rest(ctime_ns: int) -> bool:
    """Wait until a change of the file would show in its time; False when the clock makes no sense."""
    deadline = time.monotonic() + REST_SECONDS
    while not 0 <= ctime_ns < time.time_ns() - REST_NS:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def _send_content(descriptor: int, size: int, write: "Write") -> bool:
    """The first `size` bytes; False when there are fewer. Holes are told, not sent."""
    at = 0
    while at < size:
        start = min(_next_data(descriptor, at, size), size)
        if start > at:
            write(RECORD.pack(b"h", start - at))
        at, end = start, min(_next_hole(descriptor, start, size), size)
        while at < end:
            data = os.pread(descriptor, min(BLOCK, end - at), at)
            if not data:
                return False
            write(RECORD.pack(b"d", len(data)) + data)
            at += len(data)
    return True


def _next_data(descriptor: int, at: int, size: int) -> int:
    try:
        return os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else at


def _next_hole(descriptor: int, at: int, size: int) -> int:
    try:
        return os.lseek(descriptor, at, os.SEEK_HOLE)
    except OSError:
        return size


def open_up(name: str, dir_fd: "int | None", needed: int) -> int:
    """A descriptor to read from, by its owner even of what its mode forbids to read; the mode is as before."""
    kind = os.O_DIRECTORY if needed & 0o100 else os.O_NONBLOCK
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | kind
    with contextlib.suppress(PermissionError):
        return os.open(name, flags, dir_fd=dir_fd)
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        status = os.fstat(place)
        if stat.S_ISLNK(status.st_mode):
            raise OSError(errno.ELOOP, "is a link")
        again = f"/proc/self/fd/{place}"
        os.chmod(again, stat.S_IMODE(status.st_mode) | needed)
        try:
            return os.open(again, flags & ~os.O_NOFOLLOW)
        finally:
            os.chmod(again, stat.S_IMODE(status.st_mode))
    finally:
        os.close(place)


def identity_of(status: os.stat_result) -> "tuple[int, int, int]":
    return status.st_size, status.st_ctime_ns, status.st_ino


def line_of(values: "Sequence[object]") -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def path_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# Orders ------------------------------------------------------------------------------------------------------------


class Output:
    """Small pieces go out together."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        self._waiting += data
        if len(self._waiting) >= BLOCK:
            self.flush()

    def flush(self) -> None:
        self._link.write(bytes(self._waiting))
        self._waiting.clear()


class Input:
    """The input as a file that ends where the server ended it."""

    def __init__(self, link: "Link") -> None:
        self._link = link
        self._received = bytearray()

    def read(self, size: int) -> bytes:
        """So many bytes; raises Refused when there are fewer."""
        while len(self._received) < size:
            if not self._more():
                raise Refused("bad_order")
        data = bytes(self._received[:size])
        del self._received[:size]
        return data

    def lines(self) -> "Iterator[list[Any]]":
        more = True
        while more:
            more = self._more()
            *lines, rest = bytes(self._received).split(b"\n")
            self._received[:] = rest
            yield from map(json.loads, lines)

    def _more(self) -> bool:
        data = self._link.read()
        self._received += data or b""
        return data is not None


def _list_order(link: "Link", order: "dict[str, Any]") -> "dict[str, object]":
    return carry_out(link, lambda output: tree(order["cwd"], order["max_files"], output.write))


def _fetch_order(link: "Link", order: "dict[str, Any]") -> "dict[str, object]":
    return carry_out(link, lambda output: fetch(order["cwd"], Input(link).lines(), output.write))


def carry_out(link: "Link", do: "Callable[[Output], None]") -> "dict[str, object]":
    output = Output(link)
    try:
        do(output)
        output.flush()
    except Refused as refused:
        return {"outcome": "exited", "error": refused.code}
    return {"outcome": "exited"}


ORDERS = {"list": _list_order, "fetch": _fetch_order}

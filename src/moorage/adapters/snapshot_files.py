"""The contents of snapshots on a disk: one file each, named by its SHA-256, and each user's in a folder of their own.

    {root}/{user}/objects/ab/cdef...   contents; never changed, but for being removed
    {root}/{user}/incoming/            contents on their way; whatever is left here belongs to nobody
    {root}/{user}/lock                 shared by whoever adds or reads, exclusive for collecting

A file gets its name after it is on the disk, and a row that refers to it comes after that: a crash at any moment leaves
at most what nothing refers to.
"""

import asyncio
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from moorage.errors import Unavailable
from moorage.ids import UserId, is_user_id
from moorage.sandboxes.trees import Piece
from moorage.snapshots import Digest, SnapshotDamaged, Stored, digests_in

_THREADS = 4
_BLOCK = 1024 * 1024
_UNSETTLED_FILES = 512
_UNSETTLED_BYTES = 64 * 1024 * 1024
_USAGE_SECONDS = 600.0
_LOCK_SECONDS = 30.0
_LOCK_PAUSE_SECONDS = 0.05
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ZEROS = bytes(_BLOCK)


class SnapshotFiles:
    """`moorage.snapshots.ObjectStore` in a folder. Processes that share it must share its locks, too."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._disk = ThreadPoolExecutor(_THREADS, thread_name_prefix="snapshots")
        self._usage: dict[UserId, tuple[float, int]] = {}

    def close(self) -> None:
        self._disk.shutdown(wait=False, cancel_futures=True)

    @asynccontextmanager
    async def open(self, owner: UserId) -> AsyncGenerator["OpenObjects"]:
        folder = self._folder(owner)
        with _Lock(folder) as lock:
            deadline = time.monotonic() + _LOCK_SECONDS
            while not await self._do(lambda: lock.take(fcntl.LOCK_SH)):  # who waits in a thread keeps it from others
                if time.monotonic() > deadline:
                    raise Unavailable("Snapshots of this user are being cleared up", code="snapshots_unavailable")
                await asyncio.sleep(_LOCK_PAUSE_SECONDS)
            objects = OpenObjects(folder, self._do, on_added=partial(self._count, owner))
            try:
                yield objects
            finally:
                await objects.forget_unsettled()

    async def used_bytes(self, owner: UserId, *, counted_now: bool = False) -> int:
        """As it was some minutes ago, with what this process has added since; or as each file says now."""
        counted_at, used = self._usage.get(owner, (0.0, 0))
        if counted_now or not counted_at or time.monotonic() - counted_at > _USAGE_SECONDS:
            used = await self._do(lambda: sum(size for _, size in _objects(self._folder(owner))))
            self._usage[owner] = (time.monotonic(), used)
        return used

    async def owners(self) -> list[UserId]:
        names = await self._do(lambda: os.listdir(self._root) if self._root.is_dir() else [])
        return sorted(UserId(name) for name in names if is_user_id(name))

    async def collect(self, owner: UserId, manifests: Callable[[], Awaitable[set[Digest]]]) -> int:
        folder = self._folder(owner)
        with _Lock(folder) as lock:
            if not await self._do(lambda: lock.take(fcntl.LOCK_EX)):
                return 0
            wanted = await manifests()  # under the lock: whoever wrote one has inserted its row before letting go
            removed = await self._do(lambda: _collect(folder, wanted))
        self._usage.pop(owner, None)
        return removed

    def _folder(self, owner: UserId) -> Path:
        if not is_user_id(owner):
            raise ValueError("no user id")
        return self._root / owner

    def _count(self, owner: UserId, added: int) -> None:
        if owner in self._usage:
            counted_at, used = self._usage[owner]
            self._usage[owner] = (counted_at, used + added)

    async def _do[T](self, call: Callable[[], T]) -> T:
        """Call it in a thread. Who is cancelled waits for its end, too: it uses what is closed then."""

        def checked() -> T:
            with _told():
                return call()

        future = asyncio.get_running_loop().run_in_executor(self._disk, checked)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


class Do(Protocol):
    """Calls what blocks on the disk."""

    async def __call__[T](self, call: Callable[[], T]) -> T: ...


class OpenObjects:
    """`moorage.snapshots.UserObjects`."""

    def __init__(self, folder: Path, do: Do, *, on_added: Callable[[int], None]) -> None:
        self._folder = folder
        self._do = do
        self._on_added = on_added
        self._unsettled: dict[Digest, Path] = {}
        self._unsettled_bytes = 0
        self.added = 0

    async def add(self, pieces: AsyncIterator[Piece]) -> Stored:
        arriving = _Arriving(self._folder / "incoming")
        try:
            waiting: list[Piece] = []
            weight = 0
            async for piece in pieces:
                waiting.append(piece)
                weight += piece if isinstance(piece, int) else len(piece)
                if weight >= _BLOCK:
                    block, waiting, weight = waiting, [], 0
                    await self._do(partial(arriving.write, block))
            block = waiting
            stored = await self._do(lambda: self._take(arriving, block))
        finally:
            arriving.close()
        self.added += stored.added
        self._on_added(stored.added)
        if len(self._unsettled) >= _UNSETTLED_FILES or self._unsettled_bytes >= _UNSETTLED_BYTES:
            await self.settle()
        return stored

    async def settle(self) -> None:
        arrived, self._unsettled = self._unsettled, {}
        self._unsettled_bytes = 0
        if arrived:
            await self._do(lambda: _settle(self._folder, arrived))

    async def forget_unsettled(self) -> None:
        """Remove what broke off before it was settled."""
        arrived, self._unsettled = self._unsettled, {}
        if arrived:
            await self._do(lambda: _remove(arrived.values()))

    async def missing(self, digests: Collection[Digest]) -> set[Digest]:
        return await self._do(lambda: {digest for digest in digests if not _path(self._folder, digest).is_file()})

    async def read(self, digest: Digest) -> AsyncGenerator[Piece]:
        reading = await self._do(lambda: _Reading(_path(self._folder, digest)))
        try:
            while (piece := await self._do(reading.next)) is not None:
                yield piece
        finally:
            reading.close()
        if reading.digest != digest:
            raise SnapshotDamaged

    def _take(self, arriving: "_Arriving", rest: list[Piece]) -> Stored:
        """Write the rest, unless there is the same already."""
        digest = arriving.digest_with(rest)
        if digest in self._unsettled or _path(self._folder, digest).is_file():
            return Stored(digest, arriving.size, 0)
        arriving.write(rest, hashed=True)
        self._unsettled[digest] = arriving.keep()
        self._unsettled_bytes += arriving.written
        return Stored(digest, arriving.size, arriving.written)


class _Arriving:
    """Contents on their way into a file, which is made when the first of them is written."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / secrets.token_hex(16)
        self._descriptor = -1
        self._hash = hashlib.sha256()
        self._at = 0
        self.size = 0
        self.written = 0

    def write(self, pieces: list[Piece], *, hashed: bool = False) -> None:
        if not hashed:
            self._add(pieces)
        if self._descriptor < 0:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        for piece in pieces:
            if isinstance(piece, int):
                self._at += piece
                continue
            view = memoryview(piece)
            while view:
                done = os.pwrite(self._descriptor, view, self._at)
                view, self._at = view[done:], self._at + done
            self.written += len(piece)

    def digest_with(self, rest: list[Piece]) -> Digest:
        self._add(rest)
        return self._hash.hexdigest()

    def keep(self) -> Path:
        """The file, whole, which is now somebody else's to rename or remove."""
        os.ftruncate(self._descriptor, self.size)
        os.close(self._descriptor)
        self._descriptor = -1
        return self._path

    def close(self) -> None:
        """Forget it, unless it was kept."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._path.unlink()

    def _add(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if isinstance(piece, int):
                for start in range(0, piece, _BLOCK):
                    self._hash.update(memoryview(_ZEROS)[: min(_BLOCK, piece - start)])
                self.size += piece
            else:
                self._hash.update(piece)
                self.size += len(piece)


class _Reading:
    """Contents on their way out."""

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise SnapshotDamaged from None
        self._size = os.fstat(self._descriptor).st_size
        self._at = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> Digest:
        return self._hash.hexdigest()

    def next(self) -> Piece | None:
        if self._at >= self._size:
            return None
        start = min(_next_data(self._descriptor, self._at), self._size)
        if start > self._at:
            hole, self._at = start - self._at, start
            for begin in range(0, hole, _BLOCK):
                self._hash.update(memoryview(_ZEROS)[: min(_BLOCK, hole - begin)])
            return hole
        end = min(os.lseek(self._descriptor, start, os.SEEK_HOLE), self._size, start + _BLOCK)
        data = os.pread(self._descriptor, end - start, start)
        if not data:
            raise SnapshotDamaged
        self._at += len(data)
        self._hash.update(data)
        return data

    def close(self) -> None:
        os.close(self._descriptor)


def _next_data(descriptor: int, offset: int) -> int:
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(descriptor).st_size


class _Lock:
    """A user's lock, held from when it is taken until the end of the block, by whichever end of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1

    def __enter__(self) -> "_Lock":
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def take(self, how: int) -> bool:
        """False when somebody else has it."""
        if self._descriptor < 0:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _path(folder: Path, digest: Digest) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise SnapshotDamaged
    return folder / "objects" / digest[:2] / digest[2:]


def _settle(folder: Path, arrived: dict[Digest, Path]) -> None:
    """Names come when the contents are on the disk; then these are made to last, too."""
    _sync(folder)
    for digest, path in arrived.items():
        target = _path(folder, digest)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(target)
    _sync(folder)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Write out all of the file system: for many small files that is far faster than one by one."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if library.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)


def _objects(folder: Path) -> Iterator[tuple[Path, int]]:
    """Each object's file, and what it takes up."""
    for inner in _entries(folder / "objects"):
        for entry in _entries(Path(inner.path)):
            with suppress(FileNotFoundError):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_blocks * 512


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _collect(folder: Path, manifests: set[Digest]) -> int:
    wanted = set(manifests)
    for digest in manifests:
        with suppress(FileNotFoundError):  # such a snapshot is damaged; the others are not to suffer
            wanted |= digests_in(_path(folder, digest).read_bytes())
    for entry in _entries(folder / "incoming"):
        os.unlink(entry.path)
    removed = 0
    for path, _ in _objects(folder):
        if path.parent.name + path.name not in wanted:
            path.unlink()
            removed += 1
    return removed


@contextmanager
def _told() -> Generator[None]:
    """What a disk cannot do, as callers know it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise Unavailable("The server's disk for snapshots is full", code="disk_full") from error
        raise Unavailable(f"Snapshots cannot be stored: {error.strerror}", code="snapshots_unavailable") from error

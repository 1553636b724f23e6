"""Workspaces in plain folders, told and made by the very code that runs in sandboxes, in this process."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from io import BytesIO
from pathlib import Path

from moorage.ids import ThreadId
from moorage.sandboxes.helper import planting, trees
from moorage.sandboxes.helper.trees import RECORD, Refused
from moorage.sandboxes.trees import (
    FetchedFile,
    Listing,
    ListingReader,
    Piece,
    Planted,
    ReadContent,
    TreeBounds,
    TreeEntry,
    TreeRefused,
    Verdict,
    line_of,
)


async def nothing() -> None: ...


class FolderPlaces:
    """`moorage.snapshots.Places` over folders. `asked` counts orders; `meanwhile` happens before each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.fetched: list[bytes] = []
        self.awake: set[ThreadId] = set()
        self.profiles: list[str | None] = []
        self.meanwhile: Callable[[], Awaitable[None]] = nothing

    def path(self, thread_id: ThreadId) -> Path:
        return self.root / thread_id

    def make(self, thread_id: ThreadId) -> Path:
        self.path(thread_id).mkdir(parents=True, exist_ok=True)
        return self.path(thread_id)

    async def has_files(self, thread_id: ThreadId) -> bool:
        return self.path(thread_id).is_dir()

    def is_awake(self, thread_id: ThreadId) -> bool:
        return thread_id in self.awake

    async def trees(self, thread_id: ThreadId, *, profile: str | None = None) -> "FolderTrees":
        self.profiles.append(profile)
        return FolderTrees(self.make(thread_id), self)

    async def release(self, thread_id: ThreadId) -> None:
        self.asked.append("release")

    async def delete(self, thread_id: ThreadId) -> None:
        await asyncio.to_thread(shutil.rmtree, self.path(thread_id), ignore_errors=True)


class FolderTrees:
    """`moorage.sandboxes.trees.Trees` of a folder."""

    def __init__(self, path: Path, places: FolderPlaces) -> None:
        self._path = str(path)
        self._places = places

    async def list(self, bounds: TreeBounds) -> Listing:
        await self._ask("list")
        reader = ListingReader(bounds)
        with refusing():
            trees.tree(self._path, bounds.max_files, reader.feed)
        return reader.finish()

    @asynccontextmanager
    async def fetch(self, wanted: Sequence[TreeEntry]) -> AsyncGenerator[AsyncIterator[FetchedFile]]:
        await self._ask("fetch")
        self._places.fetched += [entry.path for entry in wanted]
        yield self._files(wanted)

    async def _files(self, wanted: Sequence[TreeEntry]) -> AsyncGenerator[FetchedFile]:
        for entry in wanted:
            out = BytesIO()
            name = [os.fsdecode(entry.path), *entry.identity]
            trees.fetch(self._path, [name], lambda data, out=out: out.write(data) and None)
            yield SentFile(entry, out.getvalue())

    async def plant(
        self, entries: Sequence[TreeEntry], *, keep: Collection[bytes], read: ReadContent, bounds: TreeBounds
    ) -> Planted:
        await self._ask("plant")
        sent = BytesIO()
        for entry in entries:
            line = line_of(entry)
            if entry.type == "file":
                line[5:] = [[entry.ctime_ns, entry.inode] if entry.path in keep else None]
            text = json.dumps(line).encode()
            sent.write(RECORD.pack(b"m", len(text)) + text)
        sent.write(RECORD.pack(b"g", 0))
        for number, entry in enumerate(entries):
            if entry.type == "file" and entry.path not in keep:
                sent.write(RECORD.pack(b"f", number))
                async for piece in read(entry):
                    sent.write(RECORD.pack(b"h", piece) if isinstance(piece, int) else _data(piece))
                sent.write(RECORD.pack(b"e", 0))
        sent.write(RECORD.pack(b"z", 0))
        sent.seek(0)
        out = BytesIO()
        with refusing():
            planting.plant(self._path, sent.read, lambda data: out.write(data) and None, max_bytes=bounds.max_bytes)
        _, written, removed = json.loads(out.getvalue())
        return Planted(written, removed)

    async def _ask(self, what: str) -> None:
        self._places.asked.append(what)
        await self._places.meanwhile()


class SentFile:
    """`moorage.sandboxes.trees.FetchedFile` of what the helper wrote."""

    def __init__(self, entry: TreeEntry, data: bytes) -> None:
        self.entry = entry
        self.verdict = Verdict.CHANGED
        self.pieces = self._read(data)

    async def _read(self, data: bytes) -> AsyncGenerator[Piece]:
        while True:
            kind, number = RECORD.unpack_from(data)
            data = data[RECORD.size :]
            if kind == b"e":
                self.verdict = Verdict(number)
                return
            if kind == b"h":
                yield number
            else:
                yield data[:number]
                data = data[number:]


@contextmanager
def refusing() -> Generator[None]:
    """What the helper refuses, as the server says it."""
    try:
        yield
    except Refused as error:
        raise TreeRefused(error.code, code="workspace_changed" if error.code == "changed" else error.code) from None


def _data(piece: bytes) -> bytes:
    return RECORD.pack(b"d", len(piece)) + piece

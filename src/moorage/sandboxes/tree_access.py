"""A workspace as a whole, through a sandbox's helper: see `helper/trees.py` and `helper/planting.py`."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from contextlib import aclosing, asynccontextmanager

from moorage.sandboxes.connection import HelperConnection
from moorage.sandboxes.helper.trees import RECORD
from moorage.sandboxes.orders import OpenOrder
from moorage.sandboxes.port import FILE_SECONDS, Bounds, Outcome, PathError, SandboxDied, SandboxUnavailable
from moorage.sandboxes.reports import Report
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
    read_line,
)

_LIST_SECONDS = 120.0
_PLANT_SECONDS = 1800.0
_BLOCK = 64 * 1024
_SMALLEST_BLOCK = 512
_CRUMBS = 100  # of a file that was cut while it was read
_MOST_ANSWER_BYTES = 1024
_REFUSALS = {
    "too_many_files": "There are more files than a snapshot may have",
    "too_deep": "Folders are too deep, or their names too long, for a snapshot",
    "changed": "Files that were to stay were changed meanwhile",
}
_CODES = {"changed": "workspace_changed"}


class HelperTrees:
    """`moorage.sandboxes.trees.Trees` of one thread."""

    def __init__(self, connection: HelperConnection, *, workspace: str, bounds: Bounds) -> None:
        """`workspace`: where that is inside."""
        self._connection = connection
        self._workspace = workspace
        self._bounds = bounds

    async def list(self, bounds: TreeBounds) -> Listing:
        reader = ListingReader(bounds)
        order = {"do": "trees.list", "cwd": self._workspace, "max_files": bounds.max_files}
        report = await self._connection.order(
            order, on_data=lambda _, data: reader.feed(data), time_limit=_LIST_SECONDS
        )
        _raise_for(report)
        return reader.finish()

    @asynccontextmanager
    async def fetch(self, wanted: Sequence[TreeEntry]) -> AsyncGenerator[AsyncIterator[FetchedFile]]:
        order = {"do": "trees.fetch", "cwd": self._workspace}
        async with (
            aclosing(_names_of(wanted)) as payload,
            self._connection.stream(order, payload=payload) as talk,
            aclosing(_files(_Records(talk), wanted)) as files,
        ):
            yield files

    async def plant(
        self, entries: Sequence[TreeEntry], *, keep: Collection[bytes], read: ReadContent, bounds: TreeBounds
    ) -> Planted:
        room = bounds.max_bytes if self._bounds.disk_bytes is None else min(bounds.max_bytes, self._bounds.disk_bytes)
        order = {"do": "planting.plant", "cwd": self._workspace, "max_bytes": room}
        answer = bytearray()

        def add(_kind: bytes, data: bytes) -> None:
            answer.extend(data)
            if len(answer) > _MOST_ANSWER_BYTES:
                raise TreeRefused("The sandbox says too much about its files")

        async with aclosing(_records(entries, keep, read)) as payload:
            report = await self._connection.order(order, payload=payload, on_data=add, time_limit=_PLANT_SECONDS)
        _raise_for(report)
        match read_line(bytes(answer)):
            case ["end", int(written), int(removed)] if written >= 0 and removed >= 0:
                return Planted(written, removed)
            case _:
                raise TreeRefused("The sandbox does not say what became of its files")


# Fetching ------------------------------------------------------------------------------------------------------------


async def _names_of(wanted: Sequence[TreeEntry]) -> AsyncGenerator[bytes]:
    block = bytearray()
    for entry in wanted:
        path = entry.path.decode("utf-8", "surrogateescape")
        block += json.dumps([path, *entry.identity]).encode() + b"\n"
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


class _Records:
    """What an order writes, record by record. Raises what its report says, or SandboxUnavailable."""

    def __init__(self, talk: OpenOrder) -> None:
        self._talk = talk
        self._ready = bytearray()

    async def next(self) -> tuple[bytes, int]:
        while len(self._ready) < RECORD.size:
            self._ready += await self._piece()
        kind, number = RECORD.unpack_from(self._ready)
        del self._ready[: RECORD.size]
        return kind, number

    async def data(self, size: int) -> AsyncGenerator[bytes]:
        while size:
            if not self._ready:
                self._ready += await self._piece()
            found = bytes(self._ready[:size])
            del self._ready[:size]
            size -= len(found)
            yield found

    async def _piece(self) -> bytes:
        try:
            async with asyncio.timeout(FILE_SECONDS):
                async for kind, data in self._talk:
                    if kind != b"o":  # in turn with the other, each byte would be a piece of its own
                        raise TreeRefused("The sandbox complains in the middle of its files")
                    return data
        except TimeoutError:
            raise SandboxUnavailable("The sandbox does not answer.") from None
        _raise_for(self._talk.result)
        raise TreeRefused("The sandbox stops in the middle of its files")


class _File:
    """`moorage.sandboxes.trees.FetchedFile`: believed as long as it is not longer than it was said to be."""

    def __init__(self, entry: TreeEntry, records: _Records) -> None:
        self.entry = entry
        self.pieces = self._pieces(records)
        self._verdict: Verdict | None = None

    @property
    def verdict(self) -> Verdict:
        if self._verdict is None:
            raise RuntimeError("the pieces come first")
        return self._verdict

    async def _pieces(self, records: _Records) -> AsyncGenerator[Piece]:
        left = self.entry.size
        crumbs = _CRUMBS
        while True:
            kind, number = await records.next()
            if kind == b"e":
                self._verdict = _verdict(number)
                if left and self._verdict in (Verdict.WHOLE, Verdict.YOUNG):
                    raise TreeRefused("The sandbox hands over less of a file than there is")
                return
            left -= number
            if left < 0 or not number or kind not in (b"d", b"h"):
                raise TreeRefused("The sandbox hands over more of a file than there is")
            crumbs -= number < _SMALLEST_BLOCK
            if crumbs < 0:
                raise TreeRefused("The sandbox hands over a file in pieces that no file system has")
            if kind == b"h":
                yield number
                continue
            async for data in records.data(number):
                yield data


def _verdict(number: int) -> Verdict:
    try:
        return Verdict(number)
    except ValueError:
        raise TreeRefused("The sandbox does not say what became of a file") from None


async def _files(records: _Records, wanted: Sequence[TreeEntry]) -> AsyncGenerator[FetchedFile]:
    for entry in wanted:
        file = _File(entry, records)
        async with aclosing(file.pieces):
            yield file


# Planting ------------------------------------------------------------------------------------------------------------


async def _records(entries: Sequence[TreeEntry], keep: Collection[bytes], read: ReadContent) -> AsyncGenerator[bytes]:
    block = bytearray()
    for entry in entries:
        line = line_of(entry)
        if entry.type == "file":
            line[5:] = [[entry.ctime_ns, entry.inode] if entry.path in keep else None]
        text = json.dumps(line).encode()
        block += RECORD.pack(b"m", len(text)) + text
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    block += RECORD.pack(b"g", 0)
    for number, entry in enumerate(entries):
        if entry.type != "file" or entry.path in keep:
            continue
        block += RECORD.pack(b"f", number)
        async for piece in read(entry):
            block += RECORD.pack(b"h", piece) if isinstance(piece, int) else RECORD.pack(b"d", len(piece)) + piece
            if len(block) >= _BLOCK:
                yield bytes(block)
                block.clear()
        block += RECORD.pack(b"e", 0)
    yield bytes(block + RECORD.pack(b"z", 0))


def _raise_for(report: Report) -> None:
    if report.error == "no_space":
        raise PathError("There is no room for these files.", code="no_space")
    if report.error in _REFUSALS:
        raise TreeRefused(_REFUSALS[report.error], code=_CODES.get(report.error, report.error))
    if report.error:
        raise SandboxUnavailable(f"The sandbox cannot do this: {report.error}.")
    if report.outcome is Outcome.TIMED_OUT:
        raise SandboxUnavailable("It took too long, and was ended.")
    if report.outcome is not Outcome.EXITED:
        raise SandboxDied("The sandbox died meanwhile.")

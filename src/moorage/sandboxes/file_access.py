"""Files for people, through a sandbox's helper. What it answers is not believed further than it can do harm."""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import orjson

from moorage.sandboxes.connection import HelperConnection
from moorage.sandboxes.files import (
    EntryType,
    FileEntry,
    FolderPage,
    KeptDocuments,
    LeftOut,
    OpenFile,
    Root,
    Usage,
)
from moorage.sandboxes.orders import OpenOrder
from moorage.sandboxes.paths import Parts, parse_path, shown_name, shown_path
from moorage.sandboxes.port import FILE_SECONDS, Bounds, Outcome, PathError, SandboxDied, SandboxUnavailable
from moorage.sandboxes.reports import Report

OUTPUTS = "outputs"
MAX_ZIP_FILES = 20_000
MAX_ZIP_BYTES = 4 * 1024**3
MAX_KEPT_FILES = 100
MAX_KEPT_BYTES = 100 * 1024**2
HIDDEN = (".agent",)  # what the agent's own tools put aside in a workspace

_WRITE_SECONDS = 900.0
_LONG_SECONDS = 300.0
_MOST_ANSWER_BYTES = 1024 * 1024
_ZIP_OVERHEAD = 2048  # per file, its name twice
_LARGEST = 2**63
_DEEPEST = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = 253_402_300_799  # the end of the year 9999
_HEAD = struct.Struct(">I")
_TYPES: tuple[EntryType, ...] = ("file", "dir", "link", "other")
_ERRORS = {
    "file_not_found": "There is no such file or folder.",
    "is_directory": "This is a folder, not a file.",
    "not_a_directory": "A part of the path is not a folder.",
    "not_empty": "The folder is not empty.",
    "file_exists": "There is something at this path already.",
    "permission_denied": "The sandbox's user may not do this here.",
    "invalid_path": "This cannot be done with what is at this path.",
    "file_too_large": "The file is larger than allowed.",
    "no_space": "There is no room for it: delete something first.",
}

type Json = dict[str, Any]


class HelperFiles:
    """`moorage.sandboxes.files.FileAccess` of one thread."""

    def __init__(self, connection: HelperConnection, *, workspace: str, shared: str, bounds: Bounds) -> None:
        """`workspace` and `shared`: where the roots are inside."""
        self._connection = connection
        self._roots = {Root.WORKSPACE: workspace, Root.SHARED: shared}
        self._bounds = bounds

    async def list_folder(self, root: Root, path: str, *, after: str | None = None, limit: int = 100) -> FolderPage:
        parts = parse_path(path)
        last = parse_path(after)[-1].decode("latin-1") if after else ""
        match await self._ask("list", root, parts, after=last, limit=limit):
            case {"items": items, "next_after": str() | None as more}:
                entries = [_entry(parts, item) for item in _list(items, most=limit)]
                return FolderPage(entries, shown_name(_name(more)) if more else None)
            case _:
                raise _nonsense()

    async def stat(self, root: Root, path: str) -> FileEntry:
        parts = parse_path(path)
        return _entry_at(parts, await self._ask("stat", root, parts))

    @asynccontextmanager
    async def open(
        self, root: Root, path: str, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[OpenFile]:
        parts = parse_path(path)
        order = self._order("file_orders.read", root, parts, start=start, length=length)
        async with self._connection.stream(order) as talk:
            output = _Output(talk)
            [size] = _HEAD.unpack(await output.exactly(_HEAD.size))
            if size > _MOST_ANSWER_BYTES:
                raise _nonsense()
            entry = _entry_at(parts, _parse(await output.exactly(size)))
            there = max(0, entry.size - start)
            yield OpenFile(entry, output.rest(there if length is None else min(length, there)))

    async def write(
        self, root: Root, path: str, chunks: AsyncIterator[bytes], *, limit: int, overwrite: bool = True
    ) -> tuple[FileEntry, bool]:
        parts = parse_path(path)
        order = self._order("file_orders.write", root, parts, limit=limit, overwrite=overwrite)
        match await self._answer(order, payload=_counted(chunks, limit), seconds=_WRITE_SECONDS):
            case {"entry": entry, "created": bool(created)}:
                return _entry_at(parts, entry), created
            case _:
                raise _nonsense()

    async def make_folder(self, root: Root, path: str) -> FileEntry:
        parts = parse_path(path)
        return _entry_at(parts, await self._ask("make_folder", root, parts))

    async def move(self, root: Root, source: str, target: str, *, overwrite: bool = False) -> FileEntry:
        parts = parse_path(target)
        answer = await self._ask("move", root, parse_path(source), target=_text(parts), overwrite=overwrite)
        return _entry_at(parts, answer)

    async def delete(self, root: Root, path: str) -> None:
        await self._carry_out(self._order("file_orders.delete", root, parse_path(path)), seconds=_LONG_SECONDS)

    async def usage(self, root: Root) -> Usage:
        counted = self._bounds.disk_bytes is not None or self._bounds.max_files is not None
        order = self._order("file_orders.usage", root, (), counted=counted)
        match await self._answer(order, seconds=_LONG_SECONDS):
            case [int(size), int(files), int() | None as most_bytes, int() | None as most_files]:
                if counted and root is Root.WORKSPACE:
                    most_bytes, most_files = self._bounds.disk_bytes, self._bounds.max_files
                return Usage(size, files, most_bytes, most_files)
            case _:
                raise _nonsense()

    @asynccontextmanager
    async def zip(self, root: Root, path: str) -> AsyncGenerator[AsyncIterator[bytes]]:
        order = self._order("archives.zip", root, parse_path(path), max_files=MAX_ZIP_FILES, max_bytes=MAX_ZIP_BYTES)
        async with self._connection.stream(order) as talk:
            output = _Output(talk)
            await output.at_least(1)
            yield output.up_to(MAX_ZIP_BYTES + MAX_ZIP_FILES * _ZIP_OVERHEAD)

    async def keep_documents(self, suffixes: tuple[str, ...], stamp: str) -> KeptDocuments:
        order = self._order("archives.keep_documents", Root.WORKSPACE, ())
        order |= {"target_root": self._roots[Root.SHARED], "target": [OUTPUTS], "stamp": stamp}
        order |= {"suffixes": suffixes, "limit": MAX_KEPT_BYTES, "max_files": MAX_KEPT_FILES}
        match await self._answer(order, seconds=_LONG_SECONDS):
            case {"kept": kept, "left_out": left_out}:
                folder = (OUTPUTS.encode(),)
                return KeptDocuments(
                    [_entry(folder, item) for item in _list(kept, most=MAX_KEPT_FILES)],
                    [_left_out(item) for item in _list(left_out, most=MAX_KEPT_FILES)],
                )
            case _:
                raise _nonsense()

    # Orders ----------------------------------------------------------------------------------------------------------

    def _order(self, do: str, root: Root, parts: Parts, **more: Any) -> Json:
        order: Json = {"do": do, "cwd": "/", "root": self._roots[root], "path": _text(parts), "hidden": [], **more}
        if root is Root.WORKSPACE:
            bounds = {"disk_bytes": self._bounds.disk_bytes, "max_files": self._bounds.max_files}
            order |= {"hidden": HIDDEN, "bounds": {"path": self._roots[root], **bounds}}
        return order

    async def _ask(self, do: str, root: Root, parts: Parts, **more: Any) -> Any:
        return await self._answer(self._order(f"file_orders.{do}", root, parts, **more))

    async def _answer(
        self, order: Json, *, payload: AsyncIterator[bytes] | None = None, seconds: float = FILE_SECONDS
    ) -> Any:
        return _parse(await self._carry_out(order, payload=payload, seconds=seconds))

    async def _carry_out(self, order: Json, *, payload: AsyncIterator[bytes] | None = None, seconds: float) -> bytes:
        found = bytearray()

        def add(_kind: bytes, data: bytes) -> None:
            found.extend(data)
            if len(found) > _MOST_ANSWER_BYTES:
                raise _nonsense()

        _raise_for(await self._connection.order(order, payload=payload, on_data=add, time_limit=seconds))
        return bytes(found)


class _Output:
    """What an order writes, as it comes. Raises what its report says, and SandboxUnavailable when nothing comes."""

    def __init__(self, talk: OpenOrder) -> None:
        self._talk = talk
        self._ready = bytearray()

    async def at_least(self, size: int) -> None:
        while len(self._ready) < size:
            self._ready += await self._next()

    async def exactly(self, size: int) -> bytes:
        await self.at_least(size)
        return self._take(size)

    async def rest(self, size: int) -> AsyncGenerator[bytes]:
        """So many bytes; raises SandboxDied when there are fewer, as of a file that was cut meanwhile."""
        while size > 0:
            await self.at_least(1)
            found = self._take(size)
            self._ready.clear()
            size -= len(found)
            yield found

    async def up_to(self, most: int) -> AsyncGenerator[bytes]:
        """All there is; raises SandboxUnavailable when that is more than so many bytes."""
        while True:
            most -= len(self._ready)
            if most < 0:
                raise _nonsense()
            if self._ready:
                yield self._take(len(self._ready))
            piece = await self._piece()
            if piece is None:
                _raise_for(self._talk.result)
                return
            self._ready += piece

    def _take(self, size: int) -> bytes:
        found = bytes(self._ready[:size])
        del self._ready[:size]
        return found

    async def _next(self) -> bytes:
        piece = await self._piece()
        if piece is None:
            _raise_for(self._talk.result)
            raise SandboxDied("The file ended before its end: it was cut while it was read.")
        return piece

    async def _piece(self) -> bytes | None:
        try:
            async with asyncio.timeout(FILE_SECONDS):
                async for kind, data in self._talk:
                    if kind != b"o":  # in turn with the other, each byte would be a piece of its own
                        raise _nonsense()
                    return data
        except TimeoutError:
            raise SandboxUnavailable("The sandbox does not answer.") from None
        return None


async def _counted(chunks: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise path_error("file_too_large")
        yield chunk


def _raise_for(report: Report) -> None:
    if report.error in _ERRORS:
        raise path_error(report.error)
    if report.error:
        raise SandboxUnavailable(f"The sandbox is out of resources: {report.error}.")
    if report.outcome is Outcome.TIMED_OUT:
        raise SandboxUnavailable("The file operation took too long, and was ended.")
    if report.outcome is not Outcome.EXITED:
        raise SandboxDied("The sandbox died during the file operation.")


def path_error(code: str) -> PathError:
    return PathError(_ERRORS[code], code=code)


def _nonsense() -> SandboxUnavailable:
    return SandboxUnavailable("The sandbox's helper does not make sense: something in the sandbox got hold of it.")


# Answers -----------------------------------------------------------------------------------------------------------


def _parse(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        raise _nonsense() from None


def _list(value: object, *, most: int) -> list[Any]:
    if not isinstance(value, list) or len(cast("list[Any]", value)) > most:
        raise _nonsense()
    return cast("list[Any]", value)


def _text(parts: Sequence[bytes]) -> list[str]:
    return [name.decode("latin-1") for name in parts]


def _name(text: str) -> bytes:
    try:
        name = text.encode("latin-1")
    except UnicodeEncodeError:
        raise _nonsense() from None
    if not 0 < len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise _nonsense()
    return name


def _entry(folder: Parts, item: Any) -> FileEntry:
    name = _list(item, most=4)[:1]
    if not name or not isinstance(name[0], str):
        raise _nonsense()
    return _entry_at((*folder, _name(name[0])), item)


def _entry_at(parts: Parts, item: Any) -> FileEntry:
    """The entry of which the path is known already."""
    match item:
        case [str(), str(kind), int(size), int(time_ns)] if kind in _TYPES and 0 <= size < _LARGEST:
            seconds = min(max(time_ns // 1000 / 1_000_000, 0), _LATEST)
            name = shown_name(parts[-1]) if parts else ""
            return FileEntry(shown_path(parts), name, kind, size, _EPOCH + timedelta(seconds=seconds))
        case _:
            raise _nonsense()


def _left_out(item: Any) -> LeftOut:
    match item:
        case [names, str(code)]:
            path = tuple(_name(str(name)) for name in _list(names, most=_DEEPEST))
            return LeftOut(shown_path(path), code if code in _ERRORS or code == "too_many_files" else "unknown")
        case _:
            raise _nonsense()

"""Files on their way to a browser that must not take them for pages: whole, in part, or as an archive."""

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Send

from moorage.errors import AppError
from moorage.files import RootFiles
from moorage.sandboxes.files import FileEntry
from moorage.telemetry import get_logger
from moorage_api.transfers import Transfer

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_PROBLEM: dict[str, Any] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_SAFE = {"Content-Security-Policy": "sandbox; default-src 'none'", "Cache-Control": "private, no-store"}

CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", "content": _BINARY},
    206: {"description": "The part that `Range` asks for", "content": _BINARY},
    416: {"description": "The file has no such part", "content": _PROBLEM},
}
ARCHIVE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A zip archive", "content": {"application/zip": _BINARY["application/octet-stream"]}}
}
WRITTEN: dict[int | str, dict[str, Any]] = {
    507: {"description": "There is no room left", "content": _PROBLEM},
}

log = get_logger(__name__)


class Download(StreamingResponse):
    """Ends without its end when the file does, or its reader's log-in: the server then cuts the connection."""

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except AppError as error:
            log.warning("download_cut", code=error.code)


async def download(
    files: RootFiles, path: str, transfer: Transfer, *, wanted: str | None, only_if: str | None
) -> Response:
    """The file, or the part that `Range` asks for unless it is `only_if` the file is still as it was.

    That needs a strong tag, which no file has (RFC 9110, 13.1.5). A file that changes between the two looks at it is
    sent whole. More than one part: likewise (RFC 9110, 14.2).
    """
    if wanted is not None and only_if is None:
        entry = await files.stat(path)
        part = _part(wanted, entry)
        if part is not None:
            start, length = part
            opened = await transfer.stack.enter_async_context(files.open(path, start=start, length=length))
            if part == _part(wanted, opened.entry):
                content_range = f"bytes {start}-{start + length - 1}/{opened.entry.size}"
                headers = {**headers_of(opened.entry, length), "Content-Range": content_range}
                return Download(transfer.watched(opened.chunks), 206, headers, "application/octet-stream")
    opened = await transfer.stack.enter_async_context(files.open(path))
    headers = headers_of(opened.entry, opened.entry.size)
    return Download(transfer.watched(opened.chunks), 200, headers, "application/octet-stream")


def archive(name: str, pieces: AsyncIterator[bytes]) -> Response:
    return Download(pieces, 200, {**_SAFE, "Content-Disposition": _attachment(name)}, "application/zip")


def headers_of(entry: FileEntry, length: int) -> dict[str, str]:
    return {
        **_SAFE,
        "Content-Disposition": _attachment(entry.name),
        "Content-Length": str(length),
        "Accept-Ranges": "bytes",
        "ETag": _tag(entry),
    }


def _tag(entry: FileEntry) -> str:
    """Weak: programs in the sandbox can set a file's time."""
    return f'W/"{entry.size:x}-{int(entry.modified_at.timestamp() * 1_000_000):x}"'


def _attachment(name: str) -> str:
    """RFC 6266, with the name twice: as it is for all that know RFC 8187, and in plain letters for the rest."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _part(wanted: str, entry: FileEntry) -> tuple[int, int] | None:
    """Start and length of the one range that is asked for, None for all that is to be ignored.

    Raises a 416 when the file has no byte of it.
    """
    asked = _RANGE.fullmatch(wanted.strip())
    if asked is None or entry.type != "file" or asked.groups() == ("", ""):
        return None
    first, last, size = asked[1], asked[2], entry.size
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= end:
        raise HTTPException(416, "The file has no such part", {"Content-Range": f"bytes */{size}"})
    return start, end - start

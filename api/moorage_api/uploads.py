"""Files on their way in: taken piece by piece as they come, counted, never whole in memory."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from fastapi import Request
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from moorage.errors import InvalidInput, InvalidPayload
from moorage.files import MAX_FILE_BYTES
from moorage.sandboxes.port import PathError

_OVERHEAD = 64 * 1024  # what a form may have around the file
_LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """A file of a form: the name that its sender has for it, without folders, and its bytes as they come."""

    name: str
    chunks: AsyncIterator[bytes]


def raw_body(request: Request) -> AsyncIterator[bytes]:
    """The bytes of a body that is the file; raises InvalidInput when it says that it is a part of one."""
    if "content-range" in request.headers:  # RFC 9110, 14.5: or the part would become the file
        raise InvalidInput("A file is written whole: send no Content-Range", code="partial_upload")
    _refuse_large(request, MAX_FILE_BYTES)
    return _pieces(request)


async def form_file(request: Request) -> Upload:
    """The one part `file` of a multipart form; raises InvalidPayload when there is another or none.

    What is wrong after it, taking the chunks raises: whoever writes them must not be content before their end.
    """
    _refuse_large(request, MAX_FILE_BYTES + _OVERHEAD)
    events = _Form(_boundary(request)).events(_counted(_pieces(request), MAX_FILE_BYTES + _OVERHEAD))
    async for event in events:
        if isinstance(event, _Part):
            return Upload(_file_name(event), _contents(events))
    raise _not_the_form()


async def _contents(events: "AsyncIterator[_Part | bytes]") -> AsyncGenerator[bytes]:
    async for event in events:
        if isinstance(event, _Part):
            raise _not_the_form()
        yield event


@dataclass(frozen=True, slots=True)
class _Part:
    """A part begins."""

    disposition: bytes


class _Form:
    """multipart/form-data (RFC 7578) as it comes."""

    def __init__(self, boundary: bytes) -> None:
        self._found: list[_Part | bytes] = []
        self._name, self._value, self._disposition = b"", b"", b""
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_data": self._data,
                "on_header_begin": self._header_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._part,
                "on_end": self._end,
            },
        )

    async def events(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[_Part | bytes]:
        """Each part's beginning and its bytes; raises InvalidPayload when the form is broken or not whole."""
        try:
            async for piece in pieces:
                self._parser.write(piece)
                found, self._found = self._found, []
                for event in found:
                    yield event
        except MultipartParseError:
            raise _not_the_form() from None
        if not self._ended:
            raise _not_the_form()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _header_begin(self) -> None:
        self._name = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value

    def _part(self) -> None:
        self._found.append(_Part(self._disposition))
        self._disposition = b""

    def _end(self) -> None:
        self._ended = True


def _file_name(part: _Part) -> str:
    kind, options = parse_options_header(part.disposition)
    name = options.get(b"filename", b"")
    if kind != b"form-data" or options.get(b"name") != b"file" or not name or len(name) > _LONGEST_NAME:
        raise _not_the_form()
    try:
        return re.split(r"[/\\]", name.decode())[-1]
    except UnicodeDecodeError:
        raise _not_the_form() from None


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:  # RFC 2046, 5.1.1
        raise _not_the_form()
    return boundary


async def _pieces(request: Request) -> AsyncGenerator[bytes]:
    async for piece in request.stream():
        if piece:
            yield piece


async def _counted(pieces: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > limit:
            raise _too_large()
        yield piece


def _refuse_large(request: Request, limit: int) -> None:
    """Before the first byte, when the sender says so; those who say nothing, or lie, are counted."""
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise _too_large()


def _too_large() -> PathError:
    return PathError(f"A file may have {MAX_FILE_BYTES} bytes", code="file_too_large")


def _not_the_form() -> InvalidPayload:
    return InvalidPayload("The body must be multipart/form-data with one part, the file, named `file`", code="bad_form")

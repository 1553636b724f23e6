"""Lines and descriptors over a non-blocking unix socket."""

import asyncio
import socket
from array import array
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 64 * 1024

type Register = Callable[[int, Callable[[], None]], object]


class LineTooLong(Exception):
    """More than may be said in one line."""


async def send(connection: socket.socket, data: bytes, *, descriptor: int | None = None) -> None:
    """All of `data`; the first byte carries the descriptor. Raises OSError when the other side is gone."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))] if descriptor is not None else []
    rest = memoryview(data)
    while rest:
        try:
            sent = connection.sendmsg([rest], rights)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            await _ready(connection, loop.add_writer, loop.remove_writer)
        else:
            rest, rights = rest[sent:], []


async def receive_line(connection: socket.socket, *, limit: int) -> bytes:
    """The next line, without its end, and nothing after it; b"" when the other side went before it ended.

    Descriptors that come along are dropped by the kernel. Raises LineTooLong.
    """
    return await _lines(lambda: connection.recv(_CHUNK), connection, limit=limit)


async def receive_line_and_descriptor(connection: socket.socket, *, limit: int) -> tuple[bytes, socket.socket | None]:
    """The same, with the stream socket that came along."""
    found: list[int] = []

    def read() -> bytes:
        data, descriptors, _, _ = socket.recv_fds(connection, _CHUNK, 1, socket.MSG_CMSG_CLOEXEC)
        found.extend(descriptors)
        return data

    try:
        line = await _lines(read, connection, limit=limit)
        stream = socket.socket(fileno=found[0]) if found else None
    except BaseException:
        _close(found)
        raise
    _close(found[1:])
    return line, stream


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            socket.close(descriptor)


async def _lines(read: Callable[[], bytes], connection: socket.socket, *, limit: int) -> bytes:
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            data = read()
        except BlockingIOError:
            await _ready(connection, loop.add_reader, loop.remove_reader)
            continue
        if not data:
            return b""
        line, end, _ = data.partition(b"\n")
        parts.append(line)
        size += len(line)
        if size > limit:
            raise LineTooLong
        if end:
            return b"".join(parts)


async def _ready(connection: socket.socket, register: Register, forget: Callable[[int], object]) -> None:
    ready = asyncio.get_running_loop().create_future()
    descriptor = connection.fileno()
    register(descriptor, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        forget(descriptor)

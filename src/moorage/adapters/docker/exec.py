"""A helper's stream in a container: one `docker exec`, whose connection to the engine the event loop reads."""

import asyncio
import socket
import struct

_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_CHUNK = 64 * 1024
_COMPLAINT_BYTES = 2000


class ExecChannel:
    """The engine's multiplexed stream, taken apart: stdout is the helper's, stderr its complaints."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = 0
        self._left = 0
        self._complaint = b""

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return

    async def receive(self) -> bytes:
        while True:
            try:
                while self._left == 0:
                    self._stream, self._left = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                data = await self._reader.read(min(self._left, _CHUNK))
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            self._left -= len(data)
            if self._stream == _STDOUT or not data:
                return data
            self._complaint = (self._complaint + data)[-_COMPLAINT_BYTES:]

    async def close(self) -> str:
        """Ends the helper's stdin too, which makes it kill its commands. What it has not taken is not waited for."""
        self._writer.transport.abort()
        return self._complaint.decode(errors="replace").strip()


async def open_channel(connection: socket.socket) -> ExecChannel:
    """The channel over an engine's connection, which it owns from now on."""
    connection.setblocking(False)
    connect = asyncio.open_unix_connection if connection.family == socket.AF_UNIX else asyncio.open_connection
    try:
        reader, writer = await connect(sock=connection, limit=4 * _CHUNK)
    except BaseException:
        connection.close()
        raise
    return ExecChannel(reader, writer)

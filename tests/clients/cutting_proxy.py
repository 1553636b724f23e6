"""A proxy that hangs up on everybody when told to: how clients meet a network that breaks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class CuttingProxy:
    """`url` leads to the server behind it."""

    def __init__(self, upstream: str) -> None:
        found = urlsplit(upstream)
        self._upstream = (found.hostname, found.port)
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.accepted = 0

    def cut(self) -> None:
        """Break every connection that is open, in the middle of whatever it carries."""
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        behind_reader, behind_writer = await asyncio.open_connection(*self._upstream)
        pair = {writer, behind_writer}
        self._writers |= pair
        try:
            await asyncio.gather(_copy(reader, behind_writer), _copy(behind_reader, writer))
        finally:
            self._writers -= pair
            for one in pair:
                one.transport.abort()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.transport.abort()


@asynccontextmanager
async def open_cutting_proxy(upstream: str) -> AsyncGenerator[CuttingProxy]:
    proxy = CuttingProxy(upstream)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        await server.wait_closed()

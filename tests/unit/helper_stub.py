"""A helper that says what a test wants it to say."""

import asyncio
import json

from moorage.sandboxes.connection import HelperConnection, OnConnection
from moorage.sandboxes.helper.wire import HEADER

HELLO = HEADER.pack(b"h", 0, 13) + b'{"version":1}'


def frame(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def report(number: int, **fields: object) -> bytes:
    return frame(b"x", number, json.dumps({"outcome": "exited", **fields}).encode())


class StubHelper:
    """A channel: `heard` is what the server sent. It answers each order with `r`, and a kill with a clean report.

    While it `takes` nothing, who sends it something waits.
    """

    def __init__(self, *, obeys: bool = True, accepts: bool = True) -> None:
        self.heard: list[tuple[bytes, int, bytes]] = []
        self.closed = False
        self.complaint = ""
        self.takes = True
        self._obeys = obeys
        self._accepts = accepts
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._news = asyncio.Event()

    async def open(self, *, on_connection: OnConnection | None = None) -> HelperConnection:
        self.say(HELLO)
        return await HelperConnection.open(self, on_connection=on_connection)

    def say(self, data: bytes) -> None:
        self._said.put_nowait(data)

    def hang_up(self) -> None:
        self.say(b"")

    async def hears(self, kind: bytes, *, number: int = 1) -> bytes:
        """Wait for a frame from the server; its payload."""
        while True:
            for heard_kind, heard_number, payload in self.heard:
                if (heard_kind, heard_number) == (kind, number):
                    return payload
            self._news.clear()
            await self._news.wait()

    async def hears_input(self, size: int) -> None:
        """Wait for so many bytes of input, or more."""
        while self.input_size < size:
            self._news.clear()
            await self._news.wait()

    @property
    def input_size(self) -> int:
        return sum(len(payload) for kind, _, payload in self.heard if kind == b"I")

    def kinds(self, number: int) -> bytes:
        return b"".join(kind for kind, heard, _ in self.heard if heard == number)

    async def send(self, data: bytes) -> None:
        kind, number, _ = HEADER.unpack_from(data)
        self.heard.append((kind, number, data[HEADER.size :]))
        self._news.set()
        if not self.takes:
            await asyncio.Event().wait()
        if kind == b"C" and self._accepts:
            self.say(frame(b"r", number))
        if kind == b"K" and self._obeys:
            self.say(report(number, outcome="killed"))

    async def receive(self) -> bytes:
        return b"" if self.closed else await self._said.get()

    async def close(self) -> str:
        self.closed = True
        return self.complaint

"""The stream to one helper: many orders at once, and nothing that comes back can harm the server.

`helper/wire.py` says how the frames look. Whatever no helper of ours would send ends the connection; so does a helper
that does not answer. Its open orders then end as lost, or, those it was not yet told to begin, with SandboxGone.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from moorage.sandboxes.helper.wire import CHUNK, FROM_INSIDE, HEADER, MAX_ORDER, MOST_CONNECTIONS
from moorage.sandboxes.orders import OpenOrder, Payload, check_in_time, to_the_end
from moorage.sandboxes.output import TextStream
from moorage.sandboxes.paths import without_paths
from moorage.sandboxes.port import Channel, SandboxGone
from moorage.sandboxes.reports import Report
from moorage.telemetry import get_logger

_VERSION = 1
_TELLING = (b"o", b"e", b"x")
_HELLO_SECONDS = 10.0
_START_SECONDS = 10.0
_KILL_SECONDS = 1.2
_LATE_SECONDS = 5.0  # after which the helper, which keeps the time itself, is not waited for any more
_COMPLAINT = 500
_LARGE = 16 * 1024
_AT_ONCE = 500  # frames
_MOST_NOISE = 10_000  # frames that carry nothing, beside those that answer what was sent
_NOISE_EACH = 1000  # of a connection from inside, whose program may write on while it is being ended

log = get_logger(__name__)

type OnData = Callable[[bytes, bytes], None]
"""Called with `o` or `e`, and bytes."""

type OnUnclean = Callable[[], Awaitable[None]]

type OnConnection = Callable[[OpenOrder], Coroutine[Any, Any, None]]
"""Serves a connection that a program inside opened; when it is done, the connection is closed."""


class HelperConnection:
    """Give orders with `order` or `stream`; both may be used by any number of tasks at once."""

    def __init__(self, channel: Channel, *, on_connection: OnConnection | None = None) -> None:
        """Over a helper that was just started. Use `open`, which waits until it is ready."""
        self._channel = channel
        self._on_connection = on_connection
        self._open: dict[int, OpenOrder] = {}
        self._last_number = 0
        self._received = bytearray()
        self._ready = asyncio.Event()
        self._patience = _MOST_NOISE
        self._greeted = False
        self._left = False
        self._serving: set[asyncio.Task[None]] = set()
        self._hanging_up = asyncio.Lock()
        self.lost = False
        self.complaint = ""
        self._loop = asyncio.get_running_loop()
        self._reader = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, channel: Channel, *, on_connection: OnConnection | None = None) -> "HelperConnection":
        """The connection to a helper that says hello; raises SandboxGone, and closes the channel, when it does not."""
        connection = cls(channel, on_connection=on_connection)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_HELLO_SECONDS):
                    await connection._ready.wait()
        except BaseException:
            await to_the_end(connection.close())
            raise
        if not connection._greeted:
            await connection.close()
            log.error("helper_not_started", said=connection.complaint)
            raise connection._gone("does not start")
        return connection

    async def order(
        self,
        order: Mapping[str, Any],
        *,
        payload: Payload | None = None,
        on_data: OnData | None = None,
        time_limit: float | None,
    ) -> Report:
        """Give the order and wait for its report; `on_data` is called with output as it comes.

        Nothing of the order goes on when this returns or raises, unless the report is not clean. Raises SandboxGone
        when it was surely not begun, and what `payload` and `on_data` raise.
        """
        async with self.stream(order, payload=payload, time_limit=time_limit) as talk:
            async for kind, data in talk:
                if on_data:
                    on_data(kind, data)
        return talk.result

    @asynccontextmanager
    async def stream(
        self,
        order: Mapping[str, Any],
        *,
        payload: Payload | None = None,
        time_limit: float | None = None,
        on_unclean: OnUnclean | None = None,
    ) -> AsyncGenerator[OpenOrder]:
        """An order whose output is taken as slowly as its reader likes; at the end of the block it is over.

        After the block, `result` says what became of it. `on_unclean` is called when processes of it may be left.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("a connection belongs to the event loop that opened it")
        text = json.dumps(order).encode()
        if len(text) > MAX_ORDER:
            raise ValueError("order too large")
        if self.lost:
            raise self._gone("is gone")
        check_in_time()
        self._last_number += 1
        talk = self._open[self._last_number] = OpenOrder(self._last_number, self._send)
        try:
            if not await talk.begin(text, start_seconds=_START_SECONDS):
                self._give_up("it did not answer")
                raise SandboxGone("The sandbox's helper does not answer.")
            talk.set_time_limit(None if time_limit is None else time_limit + _LATE_SECONDS)
            if payload is not None:
                talk.feed(payload)
            yield talk
        finally:
            await to_the_end(self._end(talk, on_unclean))

    async def close(self) -> None:
        """End the helper, and with it every order."""
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await to_the_end(self._leave())  # a reader that never began has not

    async def _end(self, talk: OpenOrder, on_unclean: OnUnclean | None) -> None:
        try:
            if not await talk.kill(seconds=_KILL_SECONDS):
                self._give_up("it did not obey")
        finally:
            self._open.pop(talk.number, None)
        if on_unclean and not talk.clean:
            await on_unclean()
        if talk.report and talk.report.error == "helper_failed":
            log.error("helper_failed", detail=str(talk.report.data.get("detail"))[:_COMPLAINT])

    async def _send(self, kind: bytes, number: int, payload: bytes) -> None:
        self._patience += 1
        await self._channel.send(HEADER.pack(kind, number, len(payload)) + payload)

    def _give_up(self, reason: str) -> None:
        if not self.lost:
            self.complaint = self.complaint or f"The server gave up on it: {reason}."
            self._lose()
            self._reader.cancel()

    # Reading ---------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        try:
            while data := await self._channel.receive():
                self._received += data
                while self._take_some() or len(data) > _LARGE:  # more may be there already: others have their turn
                    data = b""
                    await asyncio.sleep(0)
        except ValueError as error:
            log.warning("helper_distrusted", reason=str(error)[:_COMPLAINT])
        finally:
            self._lose()
            await to_the_end(self._leave())

    async def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        unread = "" if self._greeted else self._received[:_COMPLAINT].decode(errors="replace").strip()
        self.complaint = self.complaint or unread
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)
        said = (await self._channel.close())[-_COMPLAINT:] or self.complaint
        self.complaint = TextStream().feed(said.encode(errors="replace"), final=True)
        self._ready.set()

    def _gone(self, what: str) -> SandboxGone:
        return SandboxGone(f"The sandbox's helper {what}. {without_paths(self.complaint)}".strip())

    def _lose(self) -> None:
        self.lost = True
        for talk in self._open.values():
            talk.lose()

    def _take_some(self) -> bool:
        """Take frames that are there, not too many; whether there may be more."""
        received, start, taken = self._received, 0, 0
        while taken < _AT_ONCE and len(received) - start >= HEADER.size:
            kind, number, size = HEADER.unpack_from(received, start)
            if size > CHUNK:
                raise ValueError("a frame too large")
            end = start + HEADER.size + size
            if len(received) < end:
                break
            self._take(kind, number, bytes(received[start + HEADER.size : end]))
            start, taken = end, taken + 1
        del received[:start]
        return taken == _AT_ONCE

    def _take(self, kind: bytes, number: int, payload: bytes) -> None:
        if not self._greeted:
            self._greet(kind, payload)
            return
        if kind == b"n":
            self._connect(number)
            return
        talk = self._open.get(number)
        if talk is None or kind not in _TELLING or not payload:
            self._patience -= 1
            if self._patience < 0:
                raise ValueError("too much that means nothing")
        if talk is not None:  # else one that is not waited for any more
            talk.take(kind, payload)

    def _greet(self, kind: bytes, payload: bytes) -> None:
        match orjson.loads(payload) if kind == b"h" else None:
            case {"version": version} if version == _VERSION:
                self._greeted = True
                self._ready.set()
            case _:
                raise ValueError("no hello")

    # Connections from inside -----------------------------------------------------------------------------------------

    def _connect(self, number: int) -> None:
        if self._on_connection is None or not number & FROM_INSIDE or number in self._open:
            raise ValueError("a connection that nobody wants")
        if sum(1 for other in self._open if other & FROM_INSIDE) >= MOST_CONNECTIONS:
            raise ValueError("too many connections")
        self._patience += _NOISE_EACH
        talk = self._open[number] = OpenOrder(number, self._send)
        task = asyncio.create_task(self._serve(talk, self._on_connection))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, talk: OpenOrder, on_connection: OnConnection) -> None:
        try:
            await on_connection(talk)
        finally:
            async with self._hanging_up:  # one by one: else any number could wait for a helper that takes nothing
                self._open.pop(talk.number, None)
                if not talk.ended:
                    await self._send(b"K", talk.number, b"")

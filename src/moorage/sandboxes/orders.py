"""One order, or one connection that a program inside opened, as the server sees it: frames both ways, on credit."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

from moorage.sandboxes.helper.wire import CHUNK, CREDIT, CREDIT_BYTES
from moorage.sandboxes.port import Outcome, SandboxGone, StartedTooLate, start_by
from moorage.sandboxes.reports import Report

_MOST_PIECES = 65_536
_AT_ONCE = 1000  # pieces; more than come at once, so that they do not pile up
_OUTPUT = (b"o", b"e")

type Send = Callable[[bytes, int, bytes], Awaitable[None]]
type Payload = bytes | AsyncIterable[bytes]


class OpenOrder:
    """`report` is there once the helper has said the last word; `lost`: it never will.

    `started`: the word to go was given. Without it nothing was done. `late`: the time was up.
    """

    def __init__(self, number: int, send: Send) -> None:
        self.number = number
        self.report: Report | None = None
        self.lost = False
        self.started = False
        self.late = False
        self._send = send
        self._deadline: float | None = None
        self._received = False
        self._pieces: deque[tuple[bytes, bytearray]] = deque()
        self._allowed = CREDIT
        self._due = 0
        self._room = CREDIT
        self._news = asyncio.Event()
        self._has_room = asyncio.Event()
        self._discarding = False
        self._at_once = 0
        self._feeding: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        return self.report is not None or self.lost

    @property
    def clean(self) -> bool:
        """Whether nothing that the order started is left."""
        return not self.started or (self.report is not None and self.report.clean)

    @property
    def result(self) -> Report:
        """The report, whatever became of the helper."""
        report = self.report or Report(Outcome.LOST, clean=False)
        return Report(Outcome.TIMED_OUT, clean=report.clean) if self.late else report

    # What the reader of the connection calls -------------------------------------------------------------------------

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame from the helper. Raises ValueError for one that no helper of ours sends."""
        if self.report is not None:
            raise ValueError("a frame after the report")
        if kind in _OUTPUT:
            self._take_output(kind, payload)
            return
        if kind == b"x":
            self.report = Report.parse(payload)
        elif kind == b"r":
            self._received = True
        elif kind == b"w" and len(payload) == CREDIT_BYTES.size:
            self._room = min(CREDIT, self._room + CREDIT_BYTES.unpack(payload)[0])
        else:
            raise ValueError("a frame of no known kind")
        self._news.set()
        self._has_room.set()

    def lose(self) -> None:
        """The helper is gone."""
        self.lost = True
        self._news.set()
        self._has_room.set()

    def _take_output(self, kind: bytes, payload: bytes) -> None:
        self._allowed -= len(payload)
        if self._allowed < 0 or len(self._pieces) > _MOST_PIECES:
            raise ValueError("more output than was allowed")
        if self._discarding:
            return
        if self._pieces and self._pieces[-1][0] == kind and len(self._pieces[-1][1]) + len(payload) <= CHUNK:
            self._pieces[-1][1].extend(payload)
        else:
            self._pieces.append((kind, bytearray(payload)))
        self._news.set()

    # What the order's owner calls ------------------------------------------------------------------------------------

    async def begin(self, order: bytes, *, start_seconds: float) -> bool:
        """Give the order, and the word to go when it has come to the helper; False when the helper does not answer.

        Raises SandboxGone when it is lost before that, or StartedTooLate: nothing was done.
        """
        try:
            async with asyncio.timeout(start_seconds):
                await self._send(b"C", self.number, order)
                while not (self._received or self.ended):
                    await self._wait(self._news)
        except TimeoutError:
            return False
        if self.report is not None and self.report.outcome is not Outcome.LOST:
            return True
        if self.ended:
            raise SandboxGone("The sandbox was gone before the command could start.")
        check_in_time()  # the last moment: a process that was frozen has now heard of it
        self.started = True
        with suppress(TimeoutError):  # then it is on its way, to a helper that takes nothing now: time limits see to it
            async with asyncio.timeout(start_seconds):
                await self._send(b"G", self.number, b"")
        return True

    def set_time_limit(self, seconds: float | None) -> None:
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def feed(self, payload: Payload) -> None:
        """Send `payload` as the order's input meanwhile. What goes wrong with it, reading the output raises."""
        self._feeding = asyncio.create_task(self._feed(payload))
        self._feeding.add_done_callback(lambda _: self._news.set())

    def __aiter__(self) -> "OpenOrder":
        """The output as it comes: (`o` or `e`, bytes). Ends with the report, the time limit or the helper.

        The helper sends 256 KiB more than was taken from here, and then waits.
        """
        return self

    async def __anext__(self) -> tuple[bytes, bytes]:
        if (self._due >= CREDIT // 4 or self._at_once >= _AT_ONCE) and not await self._in_time(self._allow_more()):
            self.late = True
            raise StopAsyncIteration
        while not self._pieces:
            if self._feeding and self._feeding.done() and not self._feeding.cancelled():
                self._feeding.result()
            if self.ended or self.late:
                raise StopAsyncIteration
            self.late = not await self._in_time(self._wait(self._news))
        kind, piece = self._pieces.popleft()
        self._due += len(piece)
        self._at_once += 1
        return kind, bytes(piece)

    async def send(self, data: bytes) -> None:
        """Send input, as fast as it is taken; what nobody takes any more is dropped."""
        view = memoryview(data)
        while view and not self.ended:
            size = min(len(view), CHUNK, self._room)
            if size == 0:
                await self._wait(self._has_room)
                continue
            self._room -= size
            await self._send(b"I", self.number, bytes(view[:size]))
            view = view[size:]

    async def finish(self) -> None:
        """There is no more input."""
        await self._send(b"E", self.number, b"")

    async def kill(self, *, seconds: float) -> bool:
        """End it if it goes on, and wait so long for the report; False when none came."""
        self._discarding = True
        self._pieces.clear()
        if self._feeding:
            self._feeding.cancel()
            await asyncio.wait([self._feeding])
        if self.ended:
            return True
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._send(b"K", self.number, b"")
                while not self.ended:
                    await self._wait(self._news)
        return self.ended

    async def _feed(self, payload: Payload) -> None:
        if isinstance(payload, bytes):
            await self.send(payload)
        else:
            async for chunk in payload:
                await self.send(chunk)
                if self.ended:
                    return
        await self.finish()

    async def _allow_more(self) -> None:
        self._at_once = 0
        if self._due >= CREDIT // 4 and not self.ended:
            due, self._due = self._due, 0
            self._allowed += due
            await self._send(b"W", self.number, CREDIT_BYTES.pack(due))
        await asyncio.sleep(0)  # others have their turn

    async def _in_time(self, work: Awaitable[None]) -> bool:
        """A helper that takes nothing any more holds up whoever sends, too."""
        if self._deadline is None:
            await work
            return True
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                await work
        except TimeoutError:
            return False
        return True

    @staticmethod
    async def _wait(event: asyncio.Event) -> None:
        await event.wait()
        event.clear()


def check_in_time() -> None:
    """Raises StartedTooLate when `start_by` has passed."""
    if (latest := start_by.get()) is not None and time.monotonic() > latest:
        raise StartedTooLate("The command was not started in time.")


async def to_the_end[T](work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when the caller is cancelled meanwhile, and only then let the caller go."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        task.exception()  # seen, though nobody waits for it any more
        raise cancelled
    return task.result()

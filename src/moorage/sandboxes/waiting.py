"""Waiting for what comes back by itself: an engine that restarts, a sandbox that another thread gives up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field

from moorage.ids import UserId
from moorage.sandboxes.port import USER_FULL, SandboxesFull, SandboxUnavailable

_ENGINE_SECONDS = 15.0
_ENGINE_PAUSE_SECONDS = 0.25
_ROUND_SECONDS = 0.5


async def patiently[T](action: Callable[[], Awaitable[T]]) -> T:
    """Do it, again and again for 15 s while the engine does not answer: it may be restarting. Nothing ran then."""
    deadline = time.monotonic() + _ENGINE_SECONDS
    while True:
        try:
            return await action()
        except SandboxUnavailable as error:
            if error.code != "no_engine" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_ENGINE_PAUSE_SECONDS)


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting[T]:
    """`context`: in whose name the attempt is made, whoever makes it."""

    owner: UserId | None
    attempt: Callable[[], Awaitable[T]]
    deadline: float
    done: asyncio.Future[T]
    context: Context = field(default_factory=copy_context)


class Line:
    """Those who wait until they may start a sandbox. First come, first served, but nobody waits for another's limit."""

    def __init__(self, *, wait_seconds: float) -> None:
        self._wait_seconds = wait_seconds
        self._waiting: list[_Waiting[object]] = []
        self._moved = asyncio.Event()
        self._usher: asyncio.Task[None] | None = None

    async def take[T](self, owner: UserId | None, attempt: Callable[[], Awaitable[T]], *, past: bool = False) -> T:
        """What `attempt` answers, once it is not SandboxesFull; raises that when it is so for too long.

        `past` the others that wait, for what needs no room.
        """
        if past or not self._waiting:
            try:
                return await attempt()
            except SandboxesFull:
                if not self._wait_seconds:
                    raise
        waiting = _Waiting(owner, attempt, time.monotonic() + self._wait_seconds, asyncio.Future[T]())
        self._waiting.append(waiting)  # pyright: ignore[reportArgumentType] -- answered with what its own attempt gives
        if self._usher is None or self._usher.done():
            self._usher = asyncio.create_task(self._ush())
        try:
            return await waiting.done
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiting)  # pyright: ignore[reportArgumentType]

    def move(self) -> None:
        """Say that there is room."""
        self._moved.set()

    async def close(self) -> None:
        """Nobody is served any more; who waits is told that there is no room."""
        if self._usher is not None:
            self._usher.cancel()
            await asyncio.wait([self._usher])

    async def _ush(self) -> None:
        try:
            while self._waiting:
                self._moved.clear()
                await self._serve()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND_SECONDS):
                        await self._moved.wait()
        finally:
            for waiting in self._waiting:
                _fail(waiting, SandboxesFull("The server is stopping."))

    async def _serve(self) -> None:
        """One round: everybody in line whose limit is not known to be reached."""
        full: SandboxesFull | None = None
        full_users: dict[UserId | None, SandboxesFull] = {}
        for waiting in tuple(self._waiting):
            refused = full or full_users.get(waiting.owner)
            if waiting.done.done():  # cancelled
                continue
            if refused is None:
                refused = await _attempt(waiting)
                if refused is None:
                    continue
                if refused.code == USER_FULL:
                    full_users[waiting.owner] = refused
                else:
                    full = refused
            if time.monotonic() >= waiting.deadline:
                _fail(waiting, refused)


async def _attempt(waiting: _Waiting[object]) -> SandboxesFull | None:
    """Serve the one who waits, whatever comes of it, unless there is no room. Who leaves is not served to the end."""
    attempt = asyncio.create_task(_awaited(waiting.attempt), context=waiting.context)
    try:
        await asyncio.wait([attempt, waiting.done], return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not attempt.done():
            attempt.cancel()
            await asyncio.wait([attempt])
    if attempt.cancelled():
        waiting.done.cancel()
    elif isinstance(error := attempt.exception(), SandboxesFull):
        return error
    elif error is not None:
        _fail(waiting, error)
    elif not waiting.done.done():
        waiting.done.set_result(attempt.result())
    return None


async def _awaited[T](attempt: Callable[[], Awaitable[T]]) -> T:
    return await attempt()


def _fail(waiting: _Waiting[object], error: BaseException) -> None:
    if not waiting.done.done():
        waiting.done.set_exception(error)

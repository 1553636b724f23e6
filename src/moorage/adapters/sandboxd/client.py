"""Sandboxes that a broker makes: the port once more, on the other side of its socket."""

import asyncio
import errno
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from moorage.adapters.sandboxd.protocol import (
    GREETING_SECONDS,
    MAX_ANSWER,
    MAX_REQUEST,
    SEND_SECONDS,
    Greeting,
    Request,
    Verb,
    read_answer,
)
from moorage.adapters.sandboxd.wire import LineTooLong, receive_line, receive_line_and_descriptor, send
from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.port import (
    Bounds,
    Channel,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
    Shortcoming,
)

_REQUESTS = 64
_BUSY_PAUSE_SECONDS = 0.01
_MARGIN_SECONDS = 2 * SEND_SECONDS
_RETRY_AFTER = 5

type OpenChannel = Callable[[socket.socket], Awaitable[Channel]]


class BrokerSandboxes:
    """The SandboxProvider of a process that has no engine, but the right to use the broker at `path`.

    One connection a request, so a broker that was restarted is found again by itself; while it is away, every call
    raises SandboxUnavailable with code `no_engine`, like an engine that restarts. Helpers are reached by the streams
    that the broker hands over (`open_channel` makes a Channel of one), so they outlive it.
    """

    name: Literal["docker"] = "docker"

    def __init__(self, path: Path, *, open_channel: OpenChannel) -> None:
        self._path = path
        self._open_channel = open_channel
        self._room = asyncio.Semaphore(_REQUESTS)
        self._note: str | None = None

    @property
    def isolation_note(self) -> str | None:
        """As the broker said at the last check."""
        return self._note

    async def check(self) -> list[Shortcoming]:
        """What the broker lacks, and whether the engine answers now."""
        lacks = await self.shortcomings()
        await self.list()
        return lacks

    async def shortcomings(self) -> list[Shortcoming]:
        """What the broker found when it started and tried a sandbox, and how its disks are now."""
        try:
            async with self._room, asyncio.timeout(GREETING_SECONDS), self._connected() as (_, greeting):
                self._note = greeting.isolation_note
        except TimeoutError:
            raise _away("does not answer in time") from None
        return list(greeting.shortcomings)

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = "default") -> None:
        await self._ask(Request(Verb.PREPARE_FOLDER, _known(thread_id), profile=profile))

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        request = Request(Verb.ENSURE, _known(thread_id), profile=profile, fencing_token=fencing_token)
        bounds: Bounds = await self._ask(request)
        return bounds

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> Channel:
        request = Request(Verb.OPEN_HELPER, _known(thread_id), fencing_token=fencing_token)
        _, stream = await self._ask_for_both(request)
        if stream is None:
            raise SandboxUnavailable("The broker handed over no stream.", code="no_broker")
        return await self._open_channel(stream)

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        await self._ask(Request(Verb.KILL_ALL, _known(thread_id), fencing_token=fencing_token))

    async def pause(self, thread_id: ThreadId) -> None:
        await self._ask(Request(Verb.PAUSE, _known(thread_id)))

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        await self._ask(Request(Verb.REMOVE, _known(thread_id), files=files))

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        only = None if thread_id is None else _known(thread_id)
        found: list[SandboxInfo] = await self._ask(Request(Verb.LIST, folders=folders, only=only))
        return found

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        stats: SandboxStats = await self._ask(Request(Verb.STATS, _known(thread_id)))
        return stats

    async def close(self) -> None:
        """There is nothing to let go of: each request had a connection of its own."""

    async def _ask(self, request: Request) -> Any:
        result, stream = await self._ask_for_both(request)
        if stream is not None:
            stream.close()
        return result

    async def _ask_for_both(self, request: Request) -> tuple[Any, socket.socket | None]:
        line, stream = await self._exchange(request)
        try:
            if not line:
                raise _away("hung up without an answer")
            return read_answer(request.verb, line), stream
        except AppError:
            if stream is not None:
                stream.close()
            raise

    async def _exchange(self, request: Request) -> tuple[bytes, socket.socket | None]:
        try:
            async with (
                self._room,
                asyncio.timeout(request.verb.seconds + _MARGIN_SECONDS),
                self._connected() as (at, _),
            ):
                await send(at, request.line())
                return await receive_line_and_descriptor(at, limit=MAX_ANSWER)
        except TimeoutError:
            raise _away("does not answer in time") from None
        except (OSError, LineTooLong):
            raise _away("broke off") from None

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[tuple[socket.socket, Greeting]]:
        """A fresh connection on which the broker has said what it is."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            try:
                await self._connect(connection)
                line = await receive_line(connection, limit=MAX_REQUEST)
            except OSError as error:
                raise self._unreachable(error) from None
            except LineTooLong:
                raise SandboxUnavailable("What answers at SANDBOX_BROKER is not a broker.", code="no_broker") from None
            if not line:
                raise _away(
                    f"hung up: it is busy, or does not list this process's uid {os.geteuid()} in SANDBOX_BROKER_UIDS"
                )
            yield connection, Greeting.parse(line)

    async def _connect(self, connection: socket.socket) -> None:
        while True:
            try:
                connection.connect(str(self._path))
            except BlockingIOError:  # its queue is full
                await asyncio.sleep(_BUSY_PAUSE_SECONDS)
            else:
                return

    def _unreachable(self, error: OSError) -> SandboxUnavailable:
        if error.errno in (errno.EACCES, errno.EPERM):
            detail = f"This process (uid {os.geteuid()}) has no right to use the broker's socket, SANDBOX_BROKER."
            return SandboxUnavailable(detail, code="no_broker")
        return _away("does not answer at the socket SANDBOX_BROKER (is `moorage sandboxd` running?)")


def _away(what: str) -> SandboxUnavailable:
    return SandboxUnavailable(f"The sandbox broker {what}.", code="no_engine", retry_after=_RETRY_AFTER)


def _known(thread_id: ThreadId) -> ThreadId:
    if owner_of(thread_id) is None:
        raise InvalidInput("This is not a thread id.")
    return thread_id

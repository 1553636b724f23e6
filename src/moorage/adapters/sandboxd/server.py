"""The broker: whoever may reach it can have sandboxes made, used and removed, and nothing else."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from moorage.adapters.sandboxd.protocol import (
    GREETING_SECONDS,
    MAX_REQUEST,
    SEND_SECONDS,
    VERSION,
    Greeting,
    Request,
    Verb,
    error_line,
    result_line,
)
from moorage.adapters.sandboxd.wire import LineTooLong, receive_line, send
from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId
from moorage.sandboxes.port import SandboxProvider, SandboxUnavailable, Shortcoming
from moorage.telemetry import get_logger

_CREDENTIALS = struct.Struct("3i")
_ACCEPT_PAUSE_SECONDS = 0.1  # no descriptors left: some will be closed

log = get_logger(__name__)


class BrokeredProvider(SandboxProvider, Protocol):
    """A provider whose helpers' streams can be handed to another process."""

    async def open_stream(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> socket.socket:
        """As `open_helper`, but the connection itself; whoever gets it makes the channel."""
        ...


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """What clients may take of the broker."""

    connections: int = 256
    requests: int = 32
    line_seconds: float = GREETING_SECONDS  # from the greeting to the end of the request
    send_seconds: float = SEND_SECONDS
    drain_seconds: float = 20.0


_LIMITS = BrokerLimits()


class Broker:
    """Serves `provider` to the peers with these uids.

    All that is ever taken from one is in `Request`: ids of the right form, names of defined profiles, a fencing token
    and two flags. Paths, uids and what a container is made of are the provider's own. When there is no room, whoever
    has been silent for longest is dropped: who asks at once is always heard.

    `shortcomings` were found at the start; `passing` are looked for whenever somebody comes, by a blocking call.
    """

    def __init__(
        self,
        provider: BrokeredProvider,
        *,
        profiles: Collection[str],
        uids: Collection[int],
        shortcomings: Sequence[Shortcoming] = (),
        passing: Callable[[], Sequence[Shortcoming]] = tuple,
        limits: BrokerLimits = _LIMITS,
    ) -> None:
        self._provider = provider
        self._profiles = frozenset(profiles)
        self._uids = frozenset(uids)
        self._limits = limits
        self._shortcomings = tuple(shortcomings)
        self._passing = passing
        self._room = asyncio.Semaphore(limits.requests)
        self._silent: dict[socket.socket, asyncio.Task[None]] = {}
        self._asking: set[asyncio.Task[None]] = set()

    async def serve(self, listener: socket.socket, *, until: asyncio.Event) -> None:
        """Answer until the event is set, then finish what was asked for, at most 20 s."""
        accepting = asyncio.create_task(self._accept(listener))
        stopping = asyncio.create_task(until.wait())
        try:
            await asyncio.wait({accepting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if accepting.done():
                accepting.result()  # how it failed
        finally:
            stopping.cancel()
            accepting.cancel()
            await self._finish()

    async def _finish(self) -> None:
        for task in self._silent.values():
            task.cancel()
        if self._asking:
            log.info("broker_drains", requests=len(self._asking))
            await asyncio.wait(self._asking, timeout=self._limits.drain_seconds)
        rest = {*self._asking, *self._silent.values()}
        for task in rest:
            task.cancel()
        if rest:
            await asyncio.wait(rest)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("broker_cannot_accept", reason=error.strerror)
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            connection.setblocking(False)
            if self._is_allowed(connection) and self._makes_room():
                task = asyncio.create_task(self._serve_one(connection))
                self._silent[connection] = task
                task.add_done_callback(lambda done, connection=connection: self._ended(done, connection))
            else:
                connection.close()

    def _is_allowed(self, connection: socket.socket) -> bool:
        """By who connected, as the kernel noted it then."""
        known = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(known)
        if uid not in self._uids:
            log.warning("broker_refused_peer", uid=uid, gid=gid, pid=pid)
            return False
        return True

    def _makes_room(self) -> bool:
        if len(self._silent) + len(self._asking) < self._limits.connections:
            return True
        if not self._silent:
            log.warning("broker_is_full", connections=self._limits.connections)
            return False
        oldest = next(iter(self._silent))
        self._silent.pop(oldest).cancel()
        return True

    def _ended(self, task: asyncio.Task[None], connection: socket.socket) -> None:
        """Also after a fault of ours: the client sees an end without an answer, and the broker lives on."""
        connection.close()
        self._silent.pop(connection, None)
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("broker_request_failed", exc_info=error)

    async def _serve_one(self, connection: socket.socket) -> None:
        try:
            async with asyncio.timeout(self._limits.line_seconds):
                await send(connection, await self._greeting())
                line = await receive_line(connection, limit=MAX_REQUEST)
        except LineTooLong:
            await self._send(connection, error_line(InvalidInput("A request is at most 64 KiB long.")))
            return
        except (OSError, TimeoutError):
            return
        if not line:
            return  # it only wanted the greeting
        self._asking.add(self._silent.pop(connection))
        await self._answer(connection, line)

    async def _greeting(self) -> bytes:
        lacks = (*self._shortcomings, *await asyncio.to_thread(self._passing))
        return Greeting(VERSION, "docker", self._provider.isolation_note, lacks).line()

    async def _answer(self, connection: socket.socket, line: bytes) -> None:
        began, verb, stream = time.monotonic(), None, None
        try:
            request = Request.parse(line)
            verb = request.verb
            async with asyncio.timeout(verb.seconds), self._room:
                result = await self._do(request)
            stream = result if isinstance(result, socket.socket) else None
            answer = result_line(verb, None if stream else result)
        except TimeoutError:
            log.warning("broker_too_slow", verb=verb)
            answer = error_line(
                SandboxUnavailable("The broker could not do that in time.", code="no_engine", retry_after=5)
            )
        except AppError as error:
            log.info("broker_answers_error", verb=verb, code=error.code)
            answer = error_line(error)
        else:
            log.debug("broker_answers", verb=verb, seconds=round(time.monotonic() - began, 4))
        try:
            await self._send(connection, answer, stream)
        finally:
            if stream is not None:
                stream.close()  # this process's own end of it: the client has, or has not, one

    async def _send(self, connection: socket.socket, data: bytes, stream: socket.socket | None = None) -> None:
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await send(connection, data, descriptor=stream.fileno() if stream else None)
        except (OSError, TimeoutError):
            log.info("broker_lost_client")

    async def _do(self, request: Request) -> object:
        provider, thread_id, token = self._provider, request.thread_id, request.fencing_token
        match request.verb:
            case Verb.PREPARE_FOLDER:
                return await provider.prepare_folder(thread_id, profile=self._profile(request) or "")
            case Verb.ENSURE:
                return await provider.ensure(thread_id, profile=self._profile(request), fencing_token=token)
            case Verb.OPEN_HELPER:
                return await provider.open_stream(thread_id, fencing_token=token)
            case Verb.KILL_ALL:
                return await provider.kill_all(thread_id, fencing_token=token)
            case Verb.PAUSE:
                return await provider.pause(thread_id)
            case Verb.REMOVE:
                return await provider.remove(thread_id, files=request.files)
            case Verb.LIST:
                return await provider.list(folders=request.folders, thread_id=request.only)
            case Verb.STATS:
                return await provider.stats(thread_id)

    def _profile(self, request: Request) -> str | None:
        """The name of a profile that there is; none only where one may be missing."""
        name = request.profile
        if name is None and request.verb is Verb.ENSURE:
            return None
        if name not in self._profiles:
            raise InvalidInput("The broker's operator has defined no such profile.", code="unknown_profile")
        return name


def allowed_uids(others: Collection[int]) -> frozenset[int]:
    """This process's own and `others`. Root is one like any other: it has to be named, or run the broker."""
    return frozenset({os.geteuid(), *others})

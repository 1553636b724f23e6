"""The way out of a sandbox whose profile has an allow-list: an http proxy that the helper's connections lead to.

A program in the sandbox talks to a port of its own loopback, where the helper listens; each of its connections comes
here as frames. Names are resolved here, once, and only an address that was checked is connected to.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial

from moorage.addresses import is_public, is_translated, parse_address
from moorage.ids import UserId
from moorage.sandboxes.connection import HelperConnection
from moorage.sandboxes.egress_room import EgressFull, EgressRoom
from moorage.sandboxes.egress_rules import AllowedTargets, Target
from moorage.sandboxes.helper.wire import CHUNK, ENDED, PROXY_PORT
from moorage.sandboxes.orders import OpenOrder
from moorage.sandboxes.proxy_request import BadRequest, ProxyRequest, parse_head, split_head
from moorage.telemetry import get_logger

_LISTEN_SECONDS = 10.0
_HEAD_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
_FIRST_SECONDS = 2.5  # for one address, when there is another
_IDLE_SECONDS = 120.0
_TOTAL_SECONDS = 900.0  # no command runs for longer
_CLOSE_SECONDS = 10.0
_MOST_TRIED = 4

log = get_logger(__name__)

type Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a name, as texts; raises OSError."""

type Connect = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""A connection to an address, never to a name; raises OSError."""


class Refused(Exception):
    """The program gets this status and reason for an answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def proxy_environment() -> dict[str, str]:
    """What tells a command's programs of the proxy."""
    proxy, direct = f"http://127.0.0.1:{PROXY_PORT}", "localhost,127.0.0.1,::1"
    names = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": direct}
    return names | {name.lower(): value for name, value in names.items()}


async def offer_proxy(connection: HelperConnection) -> bool:
    """Have the helper listen for programs; False when it cannot, because one of them has taken the port."""
    report = await connection.order({"do": "egress.listen", "port": PROXY_PORT, "cwd": "/"}, time_limit=_LISTEN_SECONDS)
    if report.error:
        log.warning("egress_not_offered", reason=report.error)
    return report.error is None


def resolver(executor: Executor) -> Resolve:
    """Asks the system's resolver in threads of `executor`: names that nobody answers for must not hold up others."""

    async def resolve(host: str, port: int) -> list[str]:
        look_up = partial(socket.getaddrinfo, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(executor, look_up, host, port)
        except UnicodeError as error:
            raise OSError(str(error)) from None
        return list(dict.fromkeys(str(item[4][0]) for item in found))

    return resolve


async def open_address(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(address, port)


class EgressProxy:
    """Serves the connections of one sandbox: `on_connection` of its HelperConnection."""

    def __init__(
        self,
        allowed: AllowedTargets,
        *,
        resolve: Resolve,
        connect: Connect = open_address,
        room: EgressRoom | None = None,
        user: UserId | None = None,
        sandbox: str = "",
    ) -> None:
        """`room` is what all sandboxes share, and `user` whose this one is; `sandbox` names it in the log."""
        self._allowed = allowed
        self._resolve = resolve
        self._connect = connect
        self._room = room or EgressRoom()
        self._user = user
        self._log = log.bind(sandbox=sandbox)

    async def __call__(self, program: OpenOrder) -> None:
        """Answers the program's request, or carries bytes between it and its target until one of them has enough."""
        target: Target | None = None
        try:
            request, rest = await self._request(program)
            target = request.target
            if not self._allowed.permits(target):
                raise Refused(403, f"{target} is not on the list of what this sandbox may reach")
            with self._room.one_for(self._user):
                await self._serve(program, request, rest, *await self._reach(target))
        except Refused as refusal:
            await self._refuse(program, target, refusal)
        except EgressFull as full:
            await self._refuse(program, target, Refused(503, str(full)))
        except _ProgramLeft:
            return

    async def _refuse(self, program: OpenOrder, target: Target | None, refusal: Refused) -> None:
        self._log.warning("egress_refused", target=str(target), status=refusal.status, reason=refusal.reason)
        await _answer(program, refusal)

    async def _serve(
        self,
        program: OpenOrder,
        request: ProxyRequest,
        rest: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        try:
            await self._carry(program, request, rest, reader, writer)
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()  # a target that takes nothing any more would be waited for without end

    async def _request(self, program: OpenOrder) -> tuple[ProxyRequest, bytes]:
        received = bytearray()
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                async for kind, data in program:
                    if kind == ENDED:
                        raise _ProgramLeft
                    received += data
                    if (parts := split_head(bytes(received))) is not None:
                        return parse_head(parts[0]), parts[1]
        except BadRequest as error:
            raise Refused(400, f"Bad request: {error}") from None
        except TimeoutError:
            raise Refused(408, "The request did not come in time") from None
        raise _ProgramLeft

    async def _reach(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await self._connect_to(await self._addresses(target), target)
        except TimeoutError:
            raise Refused(504, f"{target} does not answer") from None
        except OSError as error:
            raise Refused(502, f"{target} cannot be reached: {type(error).__name__}") from None

    async def _addresses(self, target: Target) -> list[str]:
        """All of them must be public: a name that also leads elsewhere is not trusted at all."""
        found = await self._resolve(target.host, target.port)
        if not found:
            raise Refused(502, f"{target} has no address")
        for text in found:
            address = parse_address(text)
            if "%" in text or is_translated(address) or not is_public(address):
                raise Refused(403, f"{target} does not lead out to the internet")
        return found[:_MOST_TRIED]

    async def _connect_to(
        self, addresses: list[str], target: Target
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for address in addresses[:-1]:
            with suppress(OSError):
                async with asyncio.timeout(_FIRST_SECONDS):
                    return await self._connect(address, target.port)
        return await self._connect(addresses[-1], target.port)

    async def _carry(
        self,
        program: OpenOrder,
        request: ProxyRequest,
        rest: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        if request.tunnel:
            await program.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        relay = _Relay(program, reader, writer, body=request.body)
        end = "closed"
        try:
            await relay.run(request.forward, rest)
        except* TimeoutError:
            end = "too_slow"
        except* OSError:
            end = "broken"
        self._log.info("egress_ended", target=str(request.target), end=end, sent=relay.sent, received=relay.received)


class _ProgramLeft(Exception):
    pass


class _Relay:
    """Bytes both ways, no faster than they are taken. `sent` and `received` count them as the target sees it."""

    def __init__(
        self, program: OpenOrder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, body: int | None
    ) -> None:
        self.sent = 0
        self.received = 0
        self._program = program
        self._reader = reader
        self._writer = writer
        self._body = body  # bytes that may still be sent, None for any number
        self._idle = asyncio.timeout(_IDLE_SECONDS)

    async def run(self, forward: bytes, rest: bytes) -> None:
        """Until the target ends, or the program is gone; raises a group of OSErrors or TimeoutError."""
        async with asyncio.timeout(_TOTAL_SECONDS), self._idle, asyncio.TaskGroup() as group:
            download = group.create_task(self._download())
            upload = group.create_task(self._upload(forward, rest, download))
            download.add_done_callback(lambda _: upload.cancel())

    async def _download(self) -> None:
        while data := await self._reader.read(CHUNK):
            self.received += len(data)
            self._go_on()
            await self._program.send(data)
        await self._program.finish()

    async def _upload(self, forward: bytes, rest: bytes, download: asyncio.Task[None]) -> None:
        self._writer.write(forward)
        await self._send(rest)
        async for kind, data in self._program:
            if kind != ENDED:
                await self._send(data)
            elif data:  # gone for good
                break
            elif self._writer.can_write_eof():
                self._body = 0
                self._writer.write_eof()
        download.cancel()

    async def _send(self, data: bytes) -> None:
        if self._body is not None:
            data = data[: self._body]
            self._body -= len(data)
        if data:
            self._writer.write(data)
            await self._writer.drain()
        self.sent += len(data)
        self._go_on()

    def _go_on(self) -> None:
        if not self._idle.expired():
            self._idle.reschedule(asyncio.get_running_loop().time() + _IDLE_SECONDS)


async def _answer(program: OpenOrder, refusal: Refused) -> None:
    """Many clients show the first line only, so the reason is there too."""
    body = f"{refusal.reason}\n".encode()
    head = (
        f"HTTP/1.1 {refusal.status} {refusal.reason}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    await program.send(head.encode() + body)
    await program.finish()

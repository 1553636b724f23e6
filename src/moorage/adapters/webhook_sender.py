"""POSTs to addresses that tenants chose: to public ones, resolved once, without redirects or proxies."""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import httpcore
import httpx

from moorage.addresses import parse_address
from moorage.deliveries import NotDelivered
from moorage.webhooks import AllowList, WebhookRefused, check_webhook

_CONNECT_SECONDS = 5.0
_TOTAL_SECONDS = 20.0
_MOST_READ = 64 * 1024
_RESOLVERS = 32  # as many as deliveries at once
_GONE = 410


_FAILURES = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
    OSError,  # TLS's too
    ValueError,
)


class WebhookSender:
    """`moorage.deliveries.Sender` over HTTP/1.1. Each request resolves the name, and connects to what it checked."""

    def __init__(self, allowed: AllowList, *, seconds: float = _TOTAL_SECONDS) -> None:
        """`allowed` is what may be reached beside public addresses; all together may take `seconds`."""
        self._seconds = seconds
        self._backend = _CheckedBackend(allowed)
        self._ssl = httpx.create_ssl_context(trust_env=False)

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                status = await self._post(_parse(url), body, headers)
        except TimeoutError:
            raise NotDelivered(f"No answer within {self._seconds:.0f} seconds") from None
        except _FAILURES as error:
            raise NotDelivered(f"No connection: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise NotDelivered(f"It answered {status}", for_good=status == _GONE)

    async def _post(self, url: httpx.URL, body: bytes, headers: Mapping[str, str]) -> int:
        """The answer's status. The rest of it is read a little, and of no interest."""
        named = {"Content-Type": "application/json", "User-Agent": "moorage", "Accept": "*/*", **headers}
        sent = [(b"Host", url.netloc), *((name.encode(), value.encode()) for name, value in named.items())]
        target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
        timeouts = {"connect": _CONNECT_SECONDS, "read": self._seconds, "write": self._seconds}
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._ssl, network_backend=self._backend) as pool,
            pool.stream("POST", target, headers=sent, content=body, extensions={"timeout": timeouts}) as reply,
        ):
            read = 0
            async for part in reply.aiter_stream():
                read += len(part)
                if read > _MOST_READ:
                    break
            return reply.status


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name once, refuses it unless every address is allowed, and connects to one of those very addresses.

    TLS is still done with the name: httpcore gives it to `start_tls` of the stream.
    """

    def __init__(self, allowed: AllowList) -> None:
        self._allowed = allowed
        # Not the loop's own few threads: names whose servers never answer would keep all else that needs one waiting.
        self._resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="webhook-name")
        self._plain = cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolve(host, port)
        failure: Exception | None = None
        for address in addresses:
            try:
                return await self._plain.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"{host} has no address")

    async def _resolve(self, host: str, port: int) -> list[str]:
        loop, look_up = asyncio.get_running_loop(), partial(socket.getaddrinfo, type=socket.SOCK_STREAM)
        try:
            found = await loop.run_in_executor(self._resolvers, look_up, host.strip("[]"), port)
        except (OSError, UnicodeError):
            raise NotDelivered("Its host's name cannot be resolved") from None
        addresses = list(dict.fromkeys(str(item[4][0]) for item in found))
        for address in addresses:
            if not self._allowed.permits(host, parse_address(address)):
                raise NotDelivered("Its host is not out in the internet, nor on the operator's list", for_good=True)
        return addresses


def _parse(url: str) -> httpx.URL:
    """By the parser that the address was checked with."""
    try:
        return httpx.URL(check_webhook(url))
    except WebhookRefused as error:
        raise NotDelivered(error.detail, for_good=True) from None

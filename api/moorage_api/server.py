"""Runs the application under uvicorn, and ends it well: readers are told, runs come to their end, the rest closes."""

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

import uvicorn
from sse_starlette.sse import AppStatus

from moorage.errors import Unavailable
from moorage.runtime import Runtime
from moorage_api.app import create_app
from moorage_api.body_guard import MAX_BYTES

_OPEN_REQUESTS_SECONDS = 5
_BACKLOG = 2048

UVICORN: Mapping[str, Any] = {
    "loop": "none",
    "http": "httptools",
    "lifespan": "off",
    "access_log": False,
    "log_config": None,
    "log_level": "warning",  # below that it logs the addresses of WebSockets, whole, with the tickets in them
    "server_header": False,
    "ws_max_size": MAX_BYTES,
    "ws_per_message_deflate": False,  # a kilobyte would become a megabyte before anybody could refuse it
}
"""What does not depend on where the application runs."""


class _Server(uvicorn.Server):
    """uvicorn waits for open streams; so they must be ended, and work refused, the moment it is asked to stop."""

    def __init__(self, config: uvicorn.Config, *, on_signal: Callable[[], None], on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._loop = asyncio.get_running_loop()
        self._on_signal = on_signal
        self._on_stop = on_stop
        self._asked = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 -- uvicorn's signature
        """Not uvicorn's own: it raises the signal again after serving, before the runtime could close.

        Called amid any step of the loop: a reader that is just about to wait for news would not hear of the end then.
        """
        if not self._asked:
            self._asked = True
            self._on_signal()
        self._loop.call_soon_threadsafe(self._stop, sig)

    def _stop(self, sig: int) -> None:
        if not self.should_exit:
            self._on_stop()
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, taken before the runtime opens; port 0 picks a free one. Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable(f"Cannot listen on {host}:{port}: {error.strerror}. Set PORT to a free one") from error
    return listener


async def serve(
    runtime: Runtime, listener: socket.socket, *, on_ready: Callable[[], None], on_stop: Callable[[], None]
) -> None:
    """Serve until SIGTERM or SIGINT, which calls `on_stop` once; returns when the last answer is out.

    `on_stop` is called in the signal's handler, whatever the loop is at, even if it hangs.
    """
    AppStatus.disable_automatic_graceful_drain()
    config = uvicorn.Config(
        create_app(runtime),
        **UVICORN,
        timeout_graceful_shutdown=_OPEN_REQUESTS_SECONDS,
        timeout_keep_alive=75,
        backlog=_BACKLOG,
    )

    server = _Server(config, on_signal=on_stop, on_stop=runtime.stop_accepting)
    on_ready()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    await server.serve(sockets=[listener])

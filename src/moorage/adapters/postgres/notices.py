"""Short words between the processes of one installation, over Postgres' LISTEN and NOTIFY.

A notice saves waiting and carries no truth: it is lost whenever nobody listens, so whoever acts on one also polls.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection

from moorage.telemetry import get_logger

_CHANNEL = "moorage"
_PAYLOAD_BYTES = 7999  # Postgres refuses 8000 and more
_THIS_PROCESS = secrets.token_hex(6)
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

log = get_logger(__name__)

type Callback = Callable[[str], None]


async def notify(connection: AsyncConnection[Any], kind: str, text: str = "", *, process: str = _THIS_PROCESS) -> None:
    """Tell all processes, when the caller's transaction commits. A text too long becomes "": something happened, poll.

    Postgres sends the same notice once per transaction, however often it is asked to.
    """
    payload = f"{process} {kind} {text}"
    if len(payload.encode("utf-8", "replace")) > _PAYLOAD_BYTES:
        payload = f"{process} {kind} "
    await connection.execute("SELECT pg_notify(%s, %s)", [_CHANNEL, payload])


class Notices:
    """The one listening connection of a process; `run_forever` must run beside it."""

    def __init__(self, url: str, *, process: str = _THIS_PROCESS) -> None:
        """`process` is whose notices are this process's own."""
        self._url = url
        self._process = process
        self._callbacks: dict[str, list[Callback]] = {}
        self._own: dict[str, list[Callback]] = {}
        self.listening = asyncio.Event()

    def listen(self, kind: str, callback: Callback, *, own: bool = True) -> None:
        """Call `callback` with the text of each notice of this kind, and with "" when some may have been missed.

        With `own=False` what this process sent itself is left out. The callback must not block or raise.
        """
        self._callbacks.setdefault(kind, []).append(callback)
        if own:
            self._own.setdefault(kind, []).append(callback)

    async def run_forever(self) -> None:
        """Listen; connect again whenever the connection breaks, for as long as the process lives."""
        pause = _FIRST_PAUSE
        while True:
            try:
                async with self._connected() as connection:
                    pause = _FIRST_PAUSE
                    await self._hear(connection)
            except (psycopg.Error, OSError) as error:
                log.warning("notices_lost", error=type(error).__name__, again_in=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[AsyncConnection[Any]]:
        connection = await AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=5,
            application_name="moorage notices",
            # It only ever waits: without these a peer that vanished would never be noticed.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )
        async with connection:
            await connection.execute(f"LISTEN {_CHANNEL}")
            self.listening.set()
            try:
                yield connection
            finally:
                self.listening.clear()

    async def _hear(self, connection: AsyncConnection[Any]) -> None:
        for callbacks in self._callbacks.values():
            for callback in callbacks:
                callback("")
        async for notice in connection.notifies():
            process, _, rest = notice.payload.partition(" ")
            kind, _, text = rest.partition(" ")
            for callback in (self._own if process == self._process else self._callbacks).get(kind, ()):
                callback(text)

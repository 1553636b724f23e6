"""Whether this process takes new work: until it is told to stop."""

import asyncio
from typing import Literal

from moorage.errors import Unavailable

_RETRY_SECONDS = 5

type WorkerState = Literal["ok", "none", "draining"]


class ServerStopping(Unavailable):
    """This process is about to exit; another one, or its successor, takes the work."""

    code = "server_stopping"

    def __init__(self) -> None:
        super().__init__("The server is stopping: try again in a moment", retry_after=_RETRY_SECONDS)


class Intake:
    """Open until `close`, which cannot be taken back."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return not self._closed.is_set()

    def close(self) -> None:
        self._closed.set()

    async def wait_closed(self) -> None:
        await self._closed.wait()

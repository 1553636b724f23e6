"""Waiting for a condition, with a deadline: the only place where these tests pass time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.03


async def eventually[T](probe: Callable[[], Awaitable[T]], *, seconds: float, what: str) -> T:
    """The first truthy answer of `probe`; fails after `seconds`, naming `what` was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := await probe():
            return answer
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        await asyncio.sleep(POLL_SECONDS)

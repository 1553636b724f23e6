"""Waiting for a Postgres that is away: for the work of runs, which must not fail of it. Requests are told at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from moorage.errors import Unavailable
from moorage.telemetry import get_logger

PATIENCE_SECONDS = 120.0
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 1.0

log = get_logger(__name__)


async def patiently[T](action: Callable[[], Awaitable[T]], *, seconds: float = PATIENCE_SECONDS) -> T:
    """What `action` answers, tried again while it raises Unavailable, for at most `seconds`.

    The commit of a try that failed may have arrived all the same, so `action` must be safe to repeat.
    """
    started, pause = time.monotonic(), _FIRST_PAUSE
    while True:
        try:
            answer = await action()
        except Unavailable as error:
            if time.monotonic() - started + pause > seconds:
                raise
            if pause == _FIRST_PAUSE:
                log.warning("waiting_for_postgres", detail=error.detail)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return answer

"""The keeper: what must be looked after in every process, whether it executes runs or not."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moorage.errors import AppError
from moorage.telemetry import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do every `seconds`; `do` answers how much there was to do."""

    name: str
    seconds: float
    do: Callable[[], Awaitable[int]]


async def keep_up(chore: Chore) -> None:
    """Do a chore until cancelled. A failure is logged, and the next time may go better."""
    while True:
        await asyncio.sleep(chore.seconds)
        try:
            done = await chore.do()
        except AppError as error:
            log.warning("chore_failed", chore=chore.name, code=error.code, detail=error.detail)
        else:
            if done:
                log.info("chore_done", chore=chore.name, count=done)

"""What a running server can tell of itself: the checks of `moorage doctor` that need no second server."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from moorage.errors import AppError
from moorage.runtime.checks import (
    MODEL_FIX,
    SHORTCOMINGS_FIX,
    WEAK_FIX,
    Finding,
    Status,
    check_disk,
    check_model,
    check_revision,
    check_secrets,
)
from moorage.sandboxes.port import SandboxProvider
from moorage.settings import Settings

_CHECK_SECONDS = 5.0
_FRESH_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found, and when."""

    findings: Sequence[Finding]
    at: datetime


class ServerChecks:
    """Runs the checks at most once at a time and every 10 s, however often it is asked; each has 5 s."""

    def __init__(
        self,
        settings: Settings,
        provider: SandboxProvider,
        *,
        database_url: str,
        clock: Callable[[], float] = time.monotonic,
        seconds: float = _CHECK_SECONDS,
    ) -> None:
        self._settings = settings
        self._provider = provider
        self._database_url = database_url
        self._clock = clock
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._last: tuple[float, Checked] | None = None

    async def run(self) -> Checked:
        """All of them together, or what they found lately."""
        async with self._turn:
            if self._last is None or self._clock() - self._last[0] >= _FRESH_SECONDS:
                findings = await self._all()
                self._last = self._clock(), Checked(findings, datetime.now(UTC))
            return self._last[1]

    async def _all(self) -> list[Finding]:
        settings = self._settings
        database = "DATABASE_URL" if settings.database_url else "the embedded Postgres"
        checks: list[tuple[str, Awaitable[Finding], str | None]] = [
            ("secrets", check_secrets(settings), "see that the server's user may read its own files"),
            ("database", check_revision(self._database_url, database), "see that Postgres runs"),
            ("sandbox", self._sandbox(), None),  # its errors say what to do
            ("model", check_model(settings, call=False), MODEL_FIX),
            ("disk", check_disk(settings), "correct DATA_DIR and WORKSPACE_ROOT"),
        ]
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._in_time(name, check, fix)) for name, check, fix in checks]
        return [task.result() for task in asked]

    async def _in_time(self, name: str, check: Awaitable[Finding], fix: str | None) -> Finding:
        try:
            async with asyncio.timeout(self._seconds):
                return await check
        except TimeoutError:
            return Finding(name, Status.FAIL, f"no answer within {self._seconds:g} s", fix)
        except AppError as error:
            return Finding(name, Status.FAIL, error.detail, fix)
        except OSError as error:
            return Finding(name, Status.FAIL, f"{error.filename}: {error.strerror}", fix)

    async def _sandbox(self) -> Finding:
        """Run a command in a sandbox made for it."""
        began, provider = time.monotonic(), self._provider
        lacks = [f"{lack.name}: {lack.detail}" for lack in await provider.check()]
        detail = f"{provider.name}: ran `true` in {time.monotonic() - began:.1f} s"
        if self._settings.sandbox_broker is not None:
            detail = f"{provider.name}, by the broker: the engine answers"
        if provider.isolation_note is not None:
            lacks.insert(0, f"isolation: {provider.isolation_note}")
        if not lacks:
            return Finding("sandbox", Status.OK, detail)
        fix = SHORTCOMINGS_FIX if provider.isolation_note is None else WEAK_FIX
        return Finding("sandbox", Status.WARN, "; ".join([detail, *lacks]), fix)

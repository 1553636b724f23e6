"""The handle on the model's process, and what it was asked."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tests.faults.waiting import eventually

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Call:
    """One model call. `marks` are the user messages that it was shown, `results` the tool results."""

    mark: str
    marks: list[str]
    results: list[str]
    held: bool
    began: float
    ended: float | None
    complete: bool


class Model:
    """`mark` names the last user message of a call."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @property
    def base_url(self) -> str:
        return f"{str(self._client.base_url).rstrip('/')}/v1"

    async def calls(self, mark: str | None = None) -> list[Call]:
        found = [Call(**item) for item in (await self._client.get("/calls")).json()]
        return [call for call in found if mark in (None, call.mark)]

    async def until_asked(self, mark: str, *, times: int = 1, seconds: float = 20) -> None:
        """Return when so many calls for this message have begun."""

        async def asked() -> bool:
            return len(await self.calls(mark)) >= times

        await eventually(asked, seconds=seconds, what=f"model call {times} for {mark}")

    async def release(self, mark: str) -> None:
        """Answer the calls that this message holds, now and later."""
        await self._client.post("/release", params={"mark": mark})


@asynccontextmanager
async def open_model() -> AsyncGenerator[Model]:
    with _started() as url:
        fresh = httpx.Limits(max_keepalive_connections=0)  # a kept connection may be closed just as it is used
        async with httpx.AsyncClient(base_url=url, timeout=10, limits=fresh) as client:
            yield Model(client)


@contextmanager
def _started() -> Generator[str]:
    command = [sys.executable, "-m", "tests.faults.model_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=_ROOT, start_new_session=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        assert url, "the model's process did not start"
        try:
            yield url
        finally:
            process.stdin.close()  # which ends it

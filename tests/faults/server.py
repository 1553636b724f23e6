"""Servers and workers as real processes, killed, frozen and started again at the same port."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx
from tests.faults.waiting import eventually

from moorage.settings import Settings

_READY_SECONDS = 60.0
_STOP_SECONDS = 40.0
_STARTED = {"worker": "worker_started", "sandboxd": "broker_started"}
_OURS = ("AUTH_", "LLM_", "QUOTA_", "RUN_", "SANDBOX_", "SESSION_", "ZHIPUAI_")


class Server:
    """`python -m moorage <arguments>`; `url` stays the same over restarts."""

    def __init__(self, name: str, arguments: tuple[str, ...], folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.arguments = arguments
        self.settings = dict(settings)
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def serves(self) -> bool:
        return self.arguments[0] == "serve"

    def launch(self) -> None:
        """Start it, without waiting."""
        self.reap()
        with self.log.open("ab") as log:
            log.write(f"=== {' '.join(self.arguments)}\n".encode())
            self._process = subprocess.Popen(
                [sys.executable, "-u", "-m", "moorage", *self.arguments],
                cwd=self._folder,
                env=_environment() | self.settings | {"PORT": str(self.port), "PYTHONFAULTHANDLER": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def start(self) -> None:
        """Start it, and wait until it can work."""
        self.launch()
        await self.until_ready()

    async def until_ready(self) -> None:
        await eventually(self.is_ready, seconds=_READY_SECONDS, what=f"{self.name} is ready")

    async def is_ready(self) -> bool:
        assert self.alive, f"{self.name} ended with {self._process and self._process.returncode}:\n{self.tail()}"
        if not self.serves:
            return _STARTED[self.arguments[0]] in self._last_log()
        return await self.status_of("/readyz") == 200

    async def status_of(self, path: str, *, seconds: float = 10) -> int:
        """The status of a GET; 0 when nobody answers in time."""
        try:
            async with httpx.AsyncClient(timeout=seconds) as client:
                return (await client.get(f"{self.url}{path}")).status_code
        except httpx.TransportError:
            return 0

    def kill(self) -> None:
        """kill -9, of this process only."""
        self._signal(signal.SIGKILL)
        self.reap()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self) -> None:
        """Ask it to stop, as an operator would, without waiting."""
        self._signal(signal.SIGTERM)

    async def until_ended(self, *, seconds: float = _STOP_SECONDS) -> int:
        """Its exit code."""

        async def ended() -> bool:
            return not self.alive

        await eventually(ended, seconds=seconds, what=f"{self.name} ends")
        assert self._process is not None
        return self._process.returncode

    def reap(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def dump(self) -> None:
        """End it, with what each of its threads was doing in its log: for one that does not answer."""
        self.thaw()
        self._signal(signal.SIGABRT)
        if self._process is not None:
            self._process.wait()

    def tail(self, lines: int = 60) -> str:
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def _last_log(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace").rpartition("\n=== ")[2]

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            os.kill(self.pid, number)


def _environment() -> dict[str, str]:
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    return {key: value for key, value in os.environ.items() if key not in known and not key.startswith(_OURS)}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]

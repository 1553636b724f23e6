"""A server of our own in a child process: on a free port, in folders of its own, stopped when we are done with it."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from moorage.cli.api_client import ApiClient, ApiProblem, Unreachable
from moorage.errors import Unavailable
from moorage.settings import Settings

_ANNOUNCED = re.compile(r"Moorage is running at (http://\S+)")
_POLL_SECONDS = 0.05
_STOP_SECONDS = 35.0
_TAIL_LINES = 25
_OURS = ("AUTH_", "LLM_", "QUOTA_", "RUN_", "SANDBOX_", "SESSION_", "ZHIPUAI_")
_PASSED_ON = ("DOCKER_IMAGE", "SANDBOX", "SANDBOX_RUNTIME", "SANDBOX_ALLOW_WEAK")


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A child that serves. `folder` holds `data`, `workspaces`, `shared_files` and `server.log`."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def workspaces(self) -> Path:
        return self.folder / "workspaces"

    def log_tail(self) -> str:
        lines = _read(self.folder / "server.log").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def wait_ready(self, *, seconds: float, progress: Callable[[float], None]) -> str:
        """The URL, once the server can work. `progress` hears each second how long it has been."""
        began = told = time.monotonic()
        while (waited := time.monotonic() - began) < seconds:
            if self.process.poll() is not None:
                raise Unavailable(f"The server ended at once with exit code {self.process.returncode}")
            if (url := self._find_url()) is not None and _is_ready(url):
                return url
            if time.monotonic() - told > 1:
                told = time.monotonic()
                progress(waited)
            time.sleep(_POLL_SECONDS)
        raise Unavailable(f"The server is not ready after {seconds:.0f} s")

    def stop(self) -> int:
        """Ask it to stop as an operator would, wait, and answer its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Unavailable(f"The server did not stop within {_STOP_SECONDS:.0f} s and was killed") from None

    def _find_url(self) -> str | None:
        found = _ANNOUNCED.search(_read(self.folder / "server.log"))
        return found[1] if found else None


@contextmanager
def open_server(model: str, *, keep: bool) -> Generator[ServerProcess]:
    """Start a server with `model` in a temporary folder, which is removed at the end unless `keep`.

    Of the environment's and `.env`'s settings only those that choose the sandbox reach it.
    """
    with tempfile.TemporaryDirectory(prefix="moorage-demo-", ignore_cleanup_errors=True, delete=not keep) as name:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, Postgres and the sandbox run as other users, who must get through
        server = ServerProcess(_start(folder, model), folder)
        try:
            yield server
        finally:
            with suppress(Unavailable):
                server.stop()


def _start(folder: Path, model: str) -> subprocess.Popen[bytes]:
    settings = {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(folder / "data"),
        "WORKSPACE_ROOT": str(folder / "workspaces"),
        "SHARED_DIR": str(folder / "shared_files"),
        "LLM_MODEL": model,
    }
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "moorage", "serve"],
            cwd=folder,  # no `.env` there
            env=_environment(os.environ) | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment(process: Mapping[str, str]) -> dict[str, str]:
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    kept = {key: value for key, value in process.items() if key not in known and not key.startswith(_OURS)}
    merged = {**dotenv_values(".env"), **process}
    return kept | {key: value for key in _PASSED_ON if (value := merged.get(key))}


def _is_ready(url: str) -> bool:
    try:
        with ApiClient(url) as client:
            client.ready()
    except (ApiProblem, Unreachable):
        return False
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

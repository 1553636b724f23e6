"""A server of its own for what is measured over HTTP."""

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_START_SECONDS = 120.0


@contextmanager
def serving(folder: Path, port: int, **settings: str) -> Generator[int]:
    """Answers its process id, once it is ready. All its files are in `folder`; `settings` are as in the environment."""
    folder.chmod(0o711)
    places = {"DATA_DIR": "data", "WORKSPACE_ROOT": "workspaces", "SHARED_DIR": "shared"}
    environment = {
        **os.environ,
        **{name: str(folder / place) for name, place in places.items()},
        "LOG_LEVEL": "WARNING",
        "PORT": str(port),
        **settings,
    }
    command = [sys.executable, "-m", "moorage", "serve"]
    server = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    try:
        _wait_until_ready(port)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.2)
    raise SystemExit("the server did not start")

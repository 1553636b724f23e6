"""A Docker engine of one's own beside any other: it may be stopped and killed, and nobody else notices."""

import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.chaos.folders import remove_with_mounts
from tests.faults.world import processes_with

_START_SECONDS = 60
_STOP_SECONDS = 60
_POLL_SECONDS = 0.2
_ALONE = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
_APART = ("unshare", "--net")  # an engine without a bridge deletes the machine's docker0, which is the other engine's


class OwnEngine:
    """Needs root and dockerd. Sandboxes have no network, so it makes none and leaves the machine's alone."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        folder = self._folder
        folder.mkdir(exist_ok=True)
        places = ("--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "pid")
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_APART, "dockerd", "--host", self.url, *places, *_ALONE],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while self._docker("version").returncode:
            assert self._process.poll() is None, f"dockerd ended:\n{(folder / 'log').read_text()[-3000:]}"
            assert time.monotonic() < deadline, "dockerd does not answer"
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """As the machine's operator does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_STOP_SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    def kill(self) -> None:
        """kill -9 of the engine and of the containerd that it had started; containers run on until the next start."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._kill_containerd()
        self.start()

    def take_image(self, name: str) -> None:
        """From the engine that the plain `docker` command reaches."""
        with subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "--host", self.url, "load"], stdin=saving.stdout, check=True, capture_output=True)
        assert saving.returncode == 0, f"there is no image {name}"

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            found = self._docker("ps", "-aq").stdout.split()
            self._docker("rm", "--force", *found)
            self.stop()
        for pid in processes_with(str(self._folder)):  # shims of containers whose start the engine's end cut short
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _kill_containerd(self) -> None:
        file = self._folder / "exec" / "containerd" / "containerd.pid"
        with suppress(OSError, ValueError):
            pid = int(file.read_text())
            if str(self._folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
                while str(self._folder).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                    time.sleep(_POLL_SECONDS)
        for left in (file, self._folder / "pid"):
            left.unlink(missing_ok=True)

    def _docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "--host", self.url, *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)


@contextmanager
def open_engine(folder: Path, *, image: str) -> Generator[OwnEngine]:
    """One that has this image; whoever asks for the engine in this process and its children gets it meanwhile."""
    engine = OwnEngine(folder)
    before = os.environ.get("DOCKER_HOST")
    try:
        engine.start()
        engine.take_image(image)
        os.environ["DOCKER_HOST"] = engine.url
        yield engine
    finally:
        os.environ.pop("DOCKER_HOST", None)
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        engine.end()
        remove_with_mounts(folder)

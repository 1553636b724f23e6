"""A Postgres that tests may stop, kill, freeze and start again at the same address."""

import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from moorage.adapters.embedded_cluster import Cluster, locate_cluster, make_cluster

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_min_messages": "warning",
}


class Postgres:
    """One cluster and its postmaster, a child of this process. All methods block, for moments."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._frozen: list[int] = []

    @property
    def log(self) -> Path:
        return self._cluster.log

    @property
    def data(self) -> Path:
        return self._cluster.data

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        """Without arguments: the superuser's, who sees every row."""
        return make_conninfo(self._cluster.url(user=user, database=database))

    def start(self) -> None:
        """Start it and wait until it answers. Orphans of a killed one hold its memory for a moment."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._try_start(deadline):
            assert time.monotonic() < deadline, f"Postgres does not start:\n{self.log.read_text()[-2000:]}"
            time.sleep(_POLL_SECONDS)

    def ensure(self) -> None:
        """Whatever was done to it: it runs afterwards."""
        self.thaw()
        if self._postmaster is None or self._postmaster.poll() is not None:
            self.start()

    def stop_fast(self) -> None:
        """Open transactions roll back, connections are told."""
        self._stop(signal.SIGINT)

    def stop_immediate(self) -> None:
        """No shutdown checkpoint: it recovers from its log at the next start."""
        self._stop(signal.SIGQUIT)

    def kill(self) -> None:
        """kill -9 of the postmaster and of all its processes."""
        for pid in self._family():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._wait()

    def freeze(self) -> None:
        """It keeps its connections and answers nothing."""
        self._frozen = self._family()
        for pid in self._frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        frozen, self._frozen = self._frozen, []
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _try_start(self, deadline: float) -> bool:
        settings = _SETTINGS | {"unix_socket_directories": f'"{self._cluster.socket_dir}"'}
        arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._postmaster = subprocess.Popen(
                [self._cluster.binaries / "postgres", "-D", self._cluster.data, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                **self._cluster.spawn_options(),
            )
        while time.monotonic() < deadline:
            if self._postmaster.poll() is not None:
                return False
            with suppress(psycopg.OperationalError), psycopg.connect(self.url(), connect_timeout=5):
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _family(self) -> list[int]:
        """The postmaster and its children, which are in sessions of their own."""
        if self._postmaster is None or self._postmaster.poll() is not None:
            return []
        children = Path(f"/proc/{self._postmaster.pid}/task/{self._postmaster.pid}/children").read_text().split()
        return [self._postmaster.pid, *map(int, children)]

    def _stop(self, number: signal.Signals) -> None:
        if self._postmaster is not None and self._postmaster.poll() is None:
            self.thaw()
            self._postmaster.send_signal(number)
            self._wait()

    def _wait(self) -> None:
        if self._postmaster is not None:
            self._postmaster.wait(_STOP_SECONDS)


@contextmanager
def open_postgres(folder: Path) -> Generator[Postgres]:
    """A fresh, running cluster in `folder`, which any user may enter."""
    cluster = locate_cluster(folder)
    make_cluster(cluster)
    postgres = Postgres(cluster)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.kill()
        _remove_socket_folder(cluster)


def _remove_socket_folder(cluster: Cluster) -> None:
    """It may stand in /tmp, when the folder's own path is too long for a socket."""
    for file in cluster.socket_dir.iterdir():
        file.unlink()
    cluster.socket_dir.rmdir()

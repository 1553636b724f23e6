"""A Postgres of our own: started with the server, kept running, stopped with it.

One process at a time owns a data folder, by a lock that the kernel drops when it dies. A Postgres that outlived its
owner is stopped and started anew, so that the one we watch is always our child.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import psycopg
import structlog
from psycopg import AsyncConnection, sql

from moorage.adapters.embedded_cluster import Cluster, EmbeddedPostgresError, locate_cluster, make_cluster

_DATABASE = "moorage"
_START_SECONDS = 60.0
_FAST_STOP_SECONDS = 20.0
_IMMEDIATE_STOP_SECONDS = 5.0
_WATCH_SECONDS = 0.1
_POLL_SECONDS = 0.02
_RETRY_SECONDS = 0.3
_ORPHANS = "shared memory block"
_REASON_BYTES = 2000
_LOG_BYTES = 16 * 1024 * 1024

_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "jit": "off",
    "log_min_messages": "warning",
}

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_embedded_postgres(data_dir: Path) -> AsyncGenerator[str]:
    """Run a Postgres whose files are in `data_dir`, and yield its URL, which stays valid across restarts of it.

    The URL's user owns the database `moorage` and may create roles, but is no superuser. Raises EmbeddedPostgresError
    when another process uses the folder or Postgres does not start.
    """
    cluster = await asyncio.to_thread(locate_cluster, data_dir)
    with _sole_owner(cluster):
        await _to_its_end(_stop_leftover, cluster)
        await _to_its_end(make_cluster, cluster)
        _rotate_log(cluster)
        server = _Server(cluster)
        try:
            await server.start()
            await _ensure_database(cluster)
            watcher = asyncio.create_task(server.keep_running(), name="embedded-postgres")
            try:
                yield cluster.url(user=_DATABASE, database=_DATABASE)
            finally:
                server.stop_watching()
                await watcher
        finally:
            await server.stop()


def find_running_embedded_postgres(data_dir: Path) -> str | None:
    """The URL of the Postgres that another process runs for `data_dir`, if one does. Blocks.

    It is for a command beside a running server: the same operating system user gets in by the socket.
    """
    if not data_dir.exists():
        return None
    cluster = locate_cluster(data_dir)
    running = _find_postmaster(cluster) is not None
    return cluster.url(user=_DATABASE, database=_DATABASE) if running else None


class _Server:
    """The postmaster as our child."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Start Postgres and wait until it answers; raises EmbeddedPostgresError when it exits instead."""
        began = time.monotonic()
        while not self._stopping.is_set() and not await self._try_start(began + _START_SECONDS):
            await self._pause(_RETRY_SECONDS)
        milliseconds = round((time.monotonic() - began) * 1000)
        _log.info("embedded_postgres_started", pid=self._process and self._process.pid, milliseconds=milliseconds)

    async def _try_start(self, deadline: float) -> bool:
        """False when the children of a killed Postgres still hold its memory, which they let go of in a moment."""
        offset = self._cluster.log.stat().st_size if self._cluster.log.exists() else 0
        # On the loop, for the milliseconds of a fork: a cancellation in between would lose sight of the child.
        self._process = _spawn(self._cluster)
        while not self._stopping.is_set() and not await _answers(self._cluster):
            late = time.monotonic() > deadline
            if self._process.poll() is not None:
                reason = _log_after(self._cluster, offset)
                if _ORPHANS in reason and not late:
                    return False
                raise EmbeddedPostgresError(f"Postgres does not start: {reason}")
            if late:
                raise EmbeddedPostgresError(f"Postgres does not answer after {_START_SECONDS:.0f} s")
            await self._pause(_POLL_SECONDS)
        return True

    async def keep_running(self) -> None:
        """Start Postgres again whenever it dies, until `stop_watching`."""
        while not await self._pause(_WATCH_SECONDS):
            if self._process is None or self._process.poll() is None:
                continue
            _log.error("embedded_postgres_died", status=self._process.returncode)
            try:
                await self.start()
            except (EmbeddedPostgresError, OSError) as error:
                _log.warning("embedded_postgres_restart_failed", error=str(error))
                await self._pause(_RETRY_SECONDS)

    def stop_watching(self) -> None:
        """Let `keep_running` return soon; to be preferred to cancelling it in the middle of a start."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> bool:
        """Wait, but not beyond `stop_watching`; answers whether that was called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def stop(self) -> None:
        """A fast shutdown: open transactions roll back, nothing committed is lost."""
        self._stopping.set()
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGINT)  # before anything that a second cancellation could skip
            await asyncio.to_thread(_wait_stopped, process)


async def _to_its_end(work: Callable[[Cluster], None], cluster: Cluster) -> None:
    """Run blocking work in a thread and, when cancelled, wait for it before the folder's lock is let go."""
    task = asyncio.create_task(asyncio.to_thread(work, cluster))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _spawn(cluster: Cluster) -> subprocess.Popen[bytes]:
    for lock_file in (cluster.data / "postmaster.pid", cluster.socket_lock):
        _disown(lock_file, cluster.uid)
    settings = _SETTINGS | {"unix_socket_directories": '"' + str(cluster.socket_dir).replace('"', '""') + '"'}
    arguments = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
    with open(cluster.log, "ab", opener=lambda path, flags: os.open(path, flags | os.O_NOFOLLOW, 0o600)) as log:
        return subprocess.Popen(  # noqa: S603
            [cluster.binaries / "postgres", "-D", cluster.data, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            **cluster.spawn_options(),
        )


def _disown(lock_file: Path, uid: int | None) -> None:
    """Let Postgres pass a lock file of a dead one, whose number another process or a zombie may have by now.

    It skips a file that names its parent, us, and still checks the shared memory that the file names: removing the
    file would let it start beside children of the dead one that still write.
    """
    try:
        _, _, rest = lock_file.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        return
    replacement = lock_file.with_name(f"{lock_file.name}.new")
    replacement.unlink(missing_ok=True)
    replacement.write_text(f"{os.getpid()}\n{rest}", encoding="utf-8")
    replacement.chmod(0o600)
    if uid is not None:
        os.chown(replacement, uid, uid)
    replacement.replace(lock_file)


def _wait_stopped(process: subprocess.Popen[bytes]) -> None:
    """Wait for a fast shutdown that was asked for; lose patience in two steps. Committed data survive both."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_FAST_STOP_SECONDS)
        return
    process.send_signal(signal.SIGQUIT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_IMMEDIATE_STOP_SECONDS)
        return
    process.kill()
    process.wait()


@contextmanager
def _sole_owner(cluster: Cluster) -> Generator[None]:
    """Hold the folder's lock. The lock file stays: removing it would let two processes lock two files."""
    descriptor = os.open(cluster.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise EmbeddedPostgresError(
                f"Another Moorage (process {holder}) uses the data folder {cluster.root.parent}: "
                "stop it, or give this one another DATA_DIR"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _stop_leftover(cluster: Cluster) -> None:
    """Stop the Postgres of an owner that died."""
    pid = _find_postmaster(cluster)
    if pid is None:
        return
    _log.info("embedded_postgres_adopted", pid=pid)
    for patience, number in ((_FAST_STOP_SECONDS, signal.SIGINT), (_IMMEDIATE_STOP_SECONDS, signal.SIGQUIT)):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
        if _gone_within(patience, pid, cluster):
            return
    raise EmbeddedPostgresError(f"The Postgres of an earlier server (process {pid}) does not stop")


def _find_postmaster(cluster: Cluster) -> int | None:
    try:
        pid = int((cluster.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None
    return pid if _serves(pid, cluster) else None


def _gone_within(seconds: float, pid: int, cluster: Cluster) -> bool:
    deadline = time.monotonic() + seconds
    while _serves(pid, cluster):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _serves(pid: int, cluster: Cluster) -> bool:
    """Whether `pid` is a postmaster on this cluster's files: pids are reused, in containers soon."""
    try:
        if Path("/proc/self").exists():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        else:
            command = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False).stdout  # noqa: S603, S607
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"postgres" in command and os.fsencode(cluster.data) in command


async def _answers(cluster: Cluster) -> bool:
    try:
        url = cluster.url(user="postgres", database="postgres")
        async with await AsyncConnection.connect(url, connect_timeout=5) as connection:
            await connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def _ensure_database(cluster: Cluster) -> None:
    url = cluster.url(user="postgres", database="postgres")
    name = sql.Identifier(_DATABASE)
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        roles = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [_DATABASE])
        if await roles.fetchone() is None:
            await connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(name))
        databases = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [_DATABASE])
        if await databases.fetchone() is None:
            await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))


def _rotate_log(cluster: Cluster) -> None:
    if cluster.log.exists() and cluster.log.stat().st_size > _LOG_BYTES:
        cluster.log.replace(cluster.log.with_suffix(".old"))


def _log_after(cluster: Cluster, offset: int) -> str:
    with cluster.log.open("rb") as log:
        log.seek(offset)
        return log.read(_REASON_BYTES).decode(errors="replace").strip()

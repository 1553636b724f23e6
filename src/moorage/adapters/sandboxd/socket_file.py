"""The broker's socket in the file system: never there with more rights than it should have, and only one at a time."""

import fcntl
import os
import socket
import stat
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from moorage.errors import InvalidInput, Unavailable

_FOLDER_MODE = 0o750
_SOCKET_MODE = 0o660
_BACKLOG = 256
_MAX_PATH = 100  # of the 108 bytes that the kernel has, less what the temporary name adds


class BrokerRuns(Unavailable):
    """Another broker answers at this socket."""

    code = "broker_runs"


@contextmanager
def listening(path: Path, *, group: int | None = None) -> Generator[socket.socket]:
    """A listening socket at `path`, mode 0660 and of `group` (default: this process's), removed at the end.

    Its folder is made when missing, mode 0750, of the same group; one that others may write to is refused. What a
    broker that died left there is replaced. Raises BrokerRuns, or InvalidInput when the path cannot be used.
    """
    path = path.absolute()
    if len(os.fsencode(path)) > _MAX_PATH:
        raise InvalidInput(f"SANDBOX_BROKER: a socket's path is at most {_MAX_PATH} bytes long.")
    with ExitStack() as stack:
        try:
            _make_folder(path.parent, group)
            stack.enter_context(_alone(path))
            _refuse_if_in_use(path)
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            stack.callback(_remove, path, _bind(listener, path, group))
        except OSError as error:
            raise InvalidInput(f"SANDBOX_BROKER: {error.filename or path}: {error.strerror}.") from None
        yield listener


def _make_folder(folder: Path, group: int | None) -> None:
    if not folder.exists():
        folder.mkdir(mode=_FOLDER_MODE, parents=True)
        folder.chmod(_FOLDER_MODE)  # whatever the umask took
        if group is not None:
            os.chown(folder, -1, group)
    status = folder.stat()
    foreign = status.st_uid not in (0, os.geteuid())
    if foreign or (status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX):
        raise InvalidInput(f"SANDBOX_BROKER: others may replace what is in {folder}: give it to root, mode 0750.")


@contextmanager
def _alone(path: Path) -> Generator[None]:
    """Two brokers that start at once would each find nobody there."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    lock = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BrokerRuns(f"A broker runs at {path} already.") from None
        yield
    finally:
        os.close(lock)


def _refuse_if_in_use(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise InvalidInput(f"SANDBOX_BROKER: {path} is there, and is no socket.")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # somebody listens, and is busy
    raise BrokerRuns(f"Something answers at {path} already.")


def _bind(listener: socket.socket, path: Path, group: int | None) -> tuple[int, int]:
    """Under another name first: with its final one, the socket appears ready, with its rights. Answers which it is."""
    hidden = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        hidden.unlink()
    before = os.umask(0o177)
    try:
        listener.bind(str(hidden))
    finally:
        os.umask(before)
    try:
        if group is not None:
            os.chown(hidden, -1, group, follow_symlinks=False)
        hidden.chmod(_SOCKET_MODE)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        status = hidden.stat()
        hidden.rename(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    return status.st_dev, status.st_ino


def _remove(path: Path, mark: tuple[int, int]) -> None:
    """Ours only: somebody may have put another in its place."""
    with suppress(FileNotFoundError):
        status = path.lstat()
        if (status.st_dev, status.st_ino) == mark:
            path.unlink()

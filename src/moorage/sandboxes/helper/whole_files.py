"""Runs INSIDE a sandbox: orders for whole files, by absolute paths that mean what they mean to the agent's programs."""

import contextlib
import errno
import os
import stat

from moorage.sandboxes.helper import storage
from moorage.sandboxes.helper.wire import CHUNK, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def write(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    """Write the input aside, then rename it to `path`."""
    try:
        path = os.path.realpath(order["path"])
    except ValueError:
        raise OSError(errno.EINVAL, "no path") from None
    mode = _writable_mode(path)
    watcher = storage.Watcher(link, order)
    if watcher.full:
        raise OSError(errno.ENOSPC, "the workspace is full")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = f"{os.path.dirname(path)}/.{os.urandom(8).hex()}.part"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _receive_into(link, descriptor, watcher.room)
        if mode is not None:
            os.fchmod(descriptor, mode)
        os.rename(aside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)
        raise
    finally:
        os.close(descriptor)
    return {"outcome": "exited", "created": mode is None}


def _writable_mode(path: str) -> "int | None":
    """The mode of the file to be replaced, None when there is none; raises when it is no file we may write."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "read-only file")
    return stat.S_IMODE(status.st_mode)


def _receive_into(link: Link, descriptor: int, room: "int | None") -> None:
    written = 0
    while (data := link.read()) is not None:
        written += len(data)
        if room is not None and written > room:
            raise OSError(errno.ENOSPC, "no room")
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]


def read(link: Link, order: "dict[str, Any]") -> "dict[str, object]":
    """The bytes of `path`, `limit` at most."""
    try:
        descriptor = os.open(order["path"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:
        raise OSError(errno.EINVAL, "no path") from None
    try:
        return _send(link, descriptor, order["limit"])
    finally:
        os.close(descriptor)


def _send(link: Link, descriptor: int, limit: int) -> "dict[str, object]":
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file")
    sent = 0
    while data := os.read(descriptor, min(CHUNK, limit + 1 - sent)):
        sent += len(data)
        if sent > limit:
            return {"outcome": "exited", "error": "file_too_large"}
        link.write(data)
    return {"outcome": "exited"}


ORDERS = {"write": write, "read": read}

"""Removing a folder with all it holds, whatever that is: unreadable, endlessly deep, millions of entries, links."""

import fcntl
import os
import secrets
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

_AT_ONCE = 1000
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_UNCHANGEABLE = 0x10 | 0x20  # FS_IMMUTABLE_FL, FS_APPEND_FL


def remove_tree(path: Path) -> None:
    """Empty the folder from the top, then remove it. No link is followed; nobody may write in it meanwhile.

    What is deeper is moved up first, so no depth needs a long path or a stack. What a first call did not finish, a
    second does.
    """
    top = _open_folder(path)
    try:
        while names := _some_names(top):
            for name in names:
                _remove_entry(top, name)
    finally:
        os.close(top)
    path.rmdir()


def _remove_entry(top: int, name: str) -> None:
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        _insist(lambda: os.unlink(name, dir_fd=top), top, name)
        return
    folder = _open_folder(name, dir_fd=top)
    try:
        while children := _some_names(folder):
            for child in children:
                if stat.S_ISDIR(os.lstat(child, dir_fd=folder).st_mode):
                    _hoist(folder, child, top)
                else:
                    _insist(lambda child=child: os.unlink(child, dir_fd=folder), folder, child)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _hoist(folder: int, child: str, top: int) -> None:
    os.close(_open_folder(child, dir_fd=folder))  # moving a folder needs the right to write in it
    os.rename(child, f".removing-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)


def _some_names(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in islice(entries, _AT_ONCE)]


def _open_folder(path: Path | str, *, dir_fd: int | None = None) -> int:
    """A descriptor of a folder that we may now read and change; never follows a link."""
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        with suppress(PermissionError):  # unchangeable: opening it shows
            os.chmod(f"/proc/self/fd/{place}", 0o700)
        folder = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(place)
    _make_changeable(folder)
    return folder


def _insist(remove: Callable[[], None], folder: int, name: str) -> None:
    """Remove a file, even an immutable one, as far as we may."""
    try:
        remove()
    except PermissionError:
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            _make_changeable(file)
        finally:
            os.close(file)
        remove()


def _make_changeable(descriptor: int) -> None:
    with suppress(OSError):  # file systems without flags have none that hinder
        (flags,) = struct.unpack("L", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("L"))))
        if flags & _UNCHANGEABLE:
            fcntl.ioctl(descriptor, _SET_FLAGS, struct.pack("L", flags & ~_UNCHANGEABLE))

"""A folder under a project quota of the file system it is in: ext4 or xfs, mounted with `prjquota`. See quotactl(2).

The project's number is the folder's uid (or gid): the registry gives no number twice.
"""

import ctypes
import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

from moorage.adapters.folders.images import Size

_GET_ATTRIBUTES, _SET_ATTRIBUTES = 0x801C581F, 0x401C5820  # FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR
_ATTRIBUTES = struct.Struct("5I8x")  # struct fsxattr: flags, extent size, extents, project, copy-on-write extent size
_INHERIT = 0x200
_GET_QUOTA, _SET_QUOTA, _OF_PROJECTS = 0x800007, 0x800008, 2
_QUOTA = struct.Struct("8QI4x")  # struct if_dqblk
_LIMITS = 5  # bytes and inodes
_UNIT = 1024
_MIB = 1024 * 1024
_SYSCALL = 443  # quotactl_fd, the same number everywhere

_libc = ctypes.CDLL(None, use_errno=True)


def limit(folder: Path, project: int, size: Size) -> bool:
    """Bound what the folder may hold; answers False for one that has files which are not counted. Raises OSError."""
    if _project(folder) != project:
        with os.scandir(folder) as entries:
            if next(entries, None) is not None:
                return False
        _join(folder, project)
    _set_limits(folder, project, size.disk_mb * _MIB // _UNIT, size.max_files)
    return True


def unlimit(folder: Path, project: int) -> None:
    """The project's folder is gone; `folder` is any other of the same file system."""
    _set_limits(folder, project, 0, 0)


def quota_usage(folder: Path) -> tuple[int, int] | None:
    """Bytes in use, and how many there may be; None for a folder under no quota."""
    try:
        most, _, used, *_ = _QUOTA.unpack(_control(folder, _GET_QUOTA, _project(folder), bytes(_QUOTA.size)))
    except OSError:
        return None
    return (used, most * _UNIT) if most else None


def try_quotas(folder: Path, project: int) -> str | None:
    """Why folders cannot be under a quota here; None when one held back a program that was not root."""
    folder.mkdir(exist_ok=True)
    try:
        limit(folder, project, Size(disk_mb=1, max_files=100))
        with (folder / "file").open("wb") as file:
            os.fchown(file.fileno(), project, project)
            # Root is not held back.
            writing = ["head", "-c", str(2 * _MIB), "/dev/zero"]
            done = subprocess.run(writing, stdout=file, stderr=subprocess.DEVNULL, user=project, check=False)  # noqa: S603
        unlimit(folder, project)
    except OSError as error:
        return f"the file system has no project quotas ({error.strerror})"
    return None if done.returncode else "the file system counts what projects use but does not bound it"


def _project(folder: Path) -> int:
    return _attributes(folder)[3]


def _join(folder: Path, project: int) -> None:
    flags, extent, extents, _, copied = _attributes(folder)
    _ioctl(folder, _SET_ATTRIBUTES, _ATTRIBUTES.pack(flags | _INHERIT, extent, extents, project, copied))


def _attributes(folder: Path) -> tuple[int, int, int, int, int]:
    return _ATTRIBUTES.unpack(_ioctl(folder, _GET_ATTRIBUTES, bytes(_ATTRIBUTES.size)))


def _ioctl(folder: Path, request: int, argument: bytes) -> bytes:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return fcntl.ioctl(opened, request, argument)
    finally:
        os.close(opened)


def _set_limits(folder: Path, project: int, units: int, files: int) -> None:
    _control(folder, _SET_QUOTA, project, _QUOTA.pack(units, units, 0, files, files, 0, 0, 0, _LIMITS))


def _control(folder: Path, command: int, project: int, argument: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(argument, len(argument))
    code = ctypes.c_uint(command << 8 | _OF_PROJECTS)
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = _libc.syscall(_SYSCALL, ctypes.c_uint(opened), code, ctypes.c_uint(project), buffer)
        if result != 0 and ctypes.get_errno() == errno.ENOSYS:  # before Linux 5.14
            number = os.fstat(opened).st_dev
            device = f"/dev/block/{os.major(number)}:{os.minor(number)}"
            result = _libc.quotactl(code, device.encode(), ctypes.c_int(project), buffer)
    finally:
        os.close(opened)
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer.raw

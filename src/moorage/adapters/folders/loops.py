"""Loop devices: a file used as a disk. See loop(4).

One file must never be two disks at once: two file systems would write over each other. A disk that is still in use
somewhere, such as in a container that is going away, is found and used again. Each goes away with its last user.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_MAJOR = 7
_SET_FD, _CLEAR_FD, _SET_STATUS, _GET_STATUS, _CONFIGURE = 0x4C00, 0x4C01, 0x4C04, 0x4C05, 0x4C0A
_GET_FREE = 0x4C82
_AUTOCLEAR = 4
_INFO = struct.Struct("=QQQQQIIII64s64s32s2Q")  # struct loop_info64
_CONFIG = struct.Struct(f"=II{_INFO.size}s64x")  # struct loop_config
_TRIES = 64


@contextmanager
def attached(image: Path, *, is_new: bool) -> Generator[str]:
    """The path of the device that `image` is, for as long as this lasts and anything has it mounted. Raises OSError.

    One that `is_new` was never used: there is no need to look for it.
    """
    file = os.open(image, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        device = None if is_new else _find(os.fstat(file))
        if device is None:
            device = _attach(file)
    finally:
        os.close(file)
    try:
        yield f"/dev/loop{os.minor(os.fstat(device).st_rdev)}"
    finally:
        os.close(device)


def is_attached(image: Path) -> bool:
    """Whether something still uses the image as a disk."""
    device = _find(image.stat())
    if device is None:
        return False
    os.close(device)
    return True


def shows(folder: Path, image: Path) -> bool:
    """Whether what is mounted at `folder` is `image`."""
    number = folder.lstat().st_dev
    if os.major(number) != _MAJOR:
        return False
    device = _open(os.minor(number))
    if device is None:
        return False
    try:
        return _is_of(device, image.stat())
    finally:
        os.close(device)


def _find(image: os.stat_result) -> int | None:
    """The open device of the image, if it is one."""
    for name in os.listdir("/sys/block"):
        if name.startswith("loop") and os.path.exists(f"/sys/block/{name}/loop"):
            device = _open(int(name.removeprefix("loop")))
            if device is not None:
                if _is_of(device, image):
                    return device
                os.close(device)
    return None


def _attach(file: int) -> int:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = _open(fcntl.ioctl(control, _GET_FREE))
            if device is None:
                continue
            try:
                _configure(device, file)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # else somebody took it first
                    raise
            else:
                return device
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "No loop device can be had")


def _configure(device: int, file: int) -> None:
    """Make the device the file's. It clears itself when nobody has it open or mounted, so none is left by a kill."""
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, _AUTOCLEAR, b"", b"", b"", 0, 0)
    try:
        fcntl.ioctl(device, _CONFIGURE, _CONFIG.pack(file, 0, info))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):  # before Linux 5.8
            raise
        fcntl.ioctl(device, _SET_FD, file)
        try:
            fcntl.ioctl(device, _SET_STATUS, info)
        except OSError:
            fcntl.ioctl(device, _CLEAR_FD)
            raise


def _is_of(device: int, image: os.stat_result) -> bool:
    try:
        found = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS, bytes(_INFO.size)))
    except OSError:  # none is attached any more
        return False
    return (found[0], found[1]) == (image.st_dev, image.st_ino)


def _open(number: int) -> int | None:
    path = f"/dev/loop{number}"
    with suppress(FileNotFoundError, OSError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    if os.path.exists(f"/sys/block/loop{number}") and not os.path.exists(path):  # a container's /dev is as old as it is
        with suppress(OSError):
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(_MAJOR, number))
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return None

"""Mounting and unmounting by system calls, and whether the container engine sees it."""

import ctypes
import errno
import os
import re
from pathlib import Path

_NOSUID, _NODEV, _NOATIME, _BIND = 2, 4, 1024, 4096
_DETACH, _NOFOLLOW = 2, 8
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, the same on every machine

_ESCAPED = re.compile(r"\\([0-7]{3})")

_libc = ctypes.CDLL(None, use_errno=True)


def mount_ext4(device: str, folder: Path) -> None:
    """Show the file system on `device` at `folder`: nothing in it is a device or gives rights. Raises OSError."""
    # A file system that cannot trust itself any more takes no more writes. `noinit_itable`: the template is complete.
    _mount(device, folder, "ext4", _NOSUID | _NODEV | _NOATIME, "errors=remount-ro,noinit_itable")


def bind(source: Path, folder: Path) -> None:
    """Show what is mounted at `source` at `folder` too."""
    _mount(str(source), folder, None, _BIND, None)


def unmount(folder: Path) -> None:
    """Take away all that is mounted at `folder`, at once, even if somebody is in it. Nothing there is no error."""
    while is_mount(folder):
        for flags in (_NOFOLLOW, _NOFOLLOW | _DETACH):
            if _libc.umount2(os.fsencode(folder), flags) == 0:
                break
            number = ctypes.get_errno()
            if number == errno.EINVAL:  # another was faster
                return
            if number != errno.EBUSY:
                raise OSError(number, os.strerror(number), str(folder))


def sync(descriptor: int) -> None:
    """Write out the file system that the descriptor is in."""
    if _libc.syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "syncfs")


def is_mount(folder: Path) -> bool:
    """Whether another file system begins at `folder`. Costs two looks."""
    try:
        return os.lstat(folder).st_dev != os.lstat(folder.parent).st_dev
    except FileNotFoundError:
        return False


def mounts_below(root: Path) -> list[Path]:
    """Where file systems begin below `root`, as this process sees it."""
    return [place for fields in _mounts("self").values() if (place := _place(fields)).is_relative_to(root)]


def hidden_from_the_engine(root: Path, *, in_a_container: bool) -> str | None:
    """Why an engine outside would not see what is mounted below `root` here; None when it would.

    Mounts stay in the mount namespace they are made in, unless the mount they are in is shared with others.
    """
    if not in_a_container and _in_the_machine_s_namespace():
        return None
    propagation = [field.partition(":")[0] for field in _propagation(root)]
    if "shared" in propagation and "master" not in propagation:
        return None
    return f"what is mounted below {root} here is not seen outside of this container: mount that folder as `rshared`"


def _in_the_machine_s_namespace() -> bool:
    """Whether this process has the mounts of the machine's first process, whom it must see to say so."""
    try:
        sees_all = os.stat("/proc/self/ns/pid").st_ino == _FIRST_PID_NAMESPACE
        # No two mounts have the same number, in whichever namespaces.
        return sees_all and any(mount in _mounts("self") for mount in _mounts("1"))
    except OSError:
        return False


def _propagation(path: Path) -> list[str]:
    """The optional fields of the mount that `path` is in."""
    best: tuple[int, list[str]] = (-1, [])
    for fields in _mounts("self").values():
        place = _place(fields)
        if path.resolve().is_relative_to(place) and len(str(place)) >= best[0]:  # of two at one place the later counts
            best = (len(str(place)), fields[6 : fields.index("-", 6)])
    return best[1]


def _place(fields: list[str]) -> Path:
    """Where a mount is. Blanks and the like are written as `\\040`, all else as it is."""
    return Path(_ESCAPED.sub(lambda found: chr(int(found[1], 8)), fields[4]))


def _mounts(process: str) -> dict[str, list[str]]:
    """The lines of a process's proc_pid_mountinfo(5), by the mounts' numbers."""
    text = Path(f"/proc/{process}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    lines = [line.split(" ") for line in text.splitlines()]
    return {fields[0]: fields for fields in lines}


def _mount(source: str, folder: Path, kind: str | None, flags: int, options: str | None) -> None:
    given = [None if text is None else os.fsencode(text) for text in (source, str(folder), kind)]
    if _libc.mount(*given, ctypes.c_ulong(flags), None if options is None else options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(folder))

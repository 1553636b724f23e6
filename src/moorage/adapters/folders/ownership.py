"""Whom a folder belongs to, on the disk."""

import errno
import os
import stat
import struct
import subprocess
from pathlib import Path

from moorage.errors import InvalidInput

_DEFAULT_ACL = "system.posix_acl_default"
# acl(5): for owner and group all, for others nothing. What is made below is the group's, whatever its maker's umask.
_GROUP_MAY_ALL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, rights, 0xFFFFFFFF) for tag, rights in ((1, 7), (4, 7), (32, 0))
)


def make_folder(path: Path) -> None:
    """Raises InvalidInput when something else has its name."""
    path.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise InvalidInput("The workspace's place is taken by something that is not a folder.")


def make_passage(path: Path) -> None:
    """A folder that everybody may pass through to what they know the name of: the engine, agents under bubblewrap."""
    if not path.is_dir():
        path.mkdir(mode=0o711, parents=True, exist_ok=True)
        path.chmod(0o711)  # whatever the umask


def own(folder: Path, *, uid: int | None, gid: int, mode: int) -> bool:
    """Give the folder, and all in it if it was another's, to the user and group; `uid` None: to the group alone.

    Answers whether it was another's.
    """
    status = folder.lstat()
    theirs = status.st_gid == gid and uid in (None, status.st_uid)
    if not theirs and os.geteuid() == 0:
        with os.scandir(folder) as entries:
            is_empty = next(entries, None) is None
        if is_empty:
            os.chown(folder, -1 if uid is None else uid, gid, follow_symlinks=False)
        else:
            _own_all(folder, uid, gid)
    if stat.S_IMODE(folder.lstat().st_mode) != mode:
        folder.chmod(mode)
    return not theirs


def let_the_group_write(folder: Path) -> bool:
    """Whatever is made in the folder may be changed by its group. False: the file system knows no such lists."""
    try:
        if _acl(folder) != _GROUP_MAY_ALL:
            os.setxattr(folder, _DEFAULT_ACL, _GROUP_MAY_ALL, follow_symlinks=False)
    except OSError:
        return False
    return True


def _acl(folder: Path) -> bytes | None:
    return os.getxattr(folder, _DEFAULT_ACL) if _DEFAULT_ACL in os.listxattr(folder) else None


def _own_all(folder: Path, uid: int | None, gid: int) -> None:
    """`chown` follows no link, goes as deep as there is, and takes the folder itself last: cut short, it is redone."""
    whose = f":{gid}" if uid is None else f"{uid}:{gid}"
    command = ["chown", "-R", "-P", "-h", "--", whose, str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise OSError(errno.EPERM, "chown failed", said)


def who_may_own(folder: Path, uid: int) -> str | None:
    """Why files cannot be given to other users here; None when they can. `folder` is made and tried."""
    if os.geteuid() != 0:
        return "the server does not run as root"
    try:
        folder.mkdir(exist_ok=True)
        os.chown(folder, uid, uid)
    except OSError as error:
        return f"files cannot be given to other users ({error.strerror})"
    return None if folder.lstat().st_uid == uid else "the file system keeps no owners"

"""A folder with a file system of its own: a sparse ext4 image, mounted by a loop device. More it cannot hold.

Unmounted, the folder is root's alone: whoever should miss the mount gets no permission, and loses no file.
"""

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from moorage.adapters.folders import loops, mounts
from moorage.adapters.folders.layout import image_of
from moorage.errors import InvalidInput
from moorage.sandboxes.port import SandboxUnavailable

MKFS = "mkfs.ext4"
_MIB = 1024 * 1024
_BLOCK = 4096
_INODE = 256
_FSCK_SECONDS = 600
_TRIM = 0xC0185879  # FITRIM
_SUPERBLOCK = 1024
_MAGIC = 0xEF53
_HAS_ERRORS = 2


@dataclass(frozen=True, slots=True)
class Size:
    """What a folder may hold."""

    disk_mb: int
    max_files: int

    @property
    def journal_mb(self) -> int:
        return max(4, min(16, self.disk_mb // 32))

    @property
    def image_bytes(self) -> int:
        """How large an image for so much is. What ext4 keeps for itself comes on top; it costs nothing until used."""
        content = self.disk_mb * _MIB
        kept = min(content // 50, 16 * _MIB) + self.max_files * _INODE + self.journal_mb * _MIB
        return -(-(content + content // 64 + kept + 2 * _MIB) // _MIB) * _MIB


def prepare_image(folder: Path, *, uid: int, gid: int, size: Size) -> None:
    """Mount the folder's file system, made when missing and grown when `size` has.

    Raises OSError, or SandboxUnavailable when it is broken and still in use.
    """
    image = image_of(folder)
    is_new = not image.exists()
    if is_new:
        _make(image, uid=uid, gid=gid, size=size)
    _make_mount_point(folder)
    if mounts.is_mount(folder) and not (loops.shows(folder, image) and _is_sound(folder)):
        mounts.unmount(folder)
    if not mounts.is_mount(folder):
        _mount(folder, image, size, is_new=is_new)
    if not _is_sound(folder):
        raise SandboxUnavailable(
            "The file system of a workspace had errors and takes no writes until its sandbox has stopped",
            code="workspace_read_only",
        )


def release_image(folder: Path) -> None:
    """Unmount it. What the files that were removed took is the machine's again."""
    if mounts.is_mount(folder):
        _trim(folder)
        mounts.unmount(folder)


def remove_image(folder: Path) -> None:
    """Remove the file system; the empty folder stays. Safe to repeat."""
    mounts.unmount(folder)
    image = image_of(folder)
    for path in (image, _unfinished(image)):
        path.unlink(missing_ok=True)


def image_usage(folder: Path) -> tuple[int, int]:
    """Bytes in use, and how many there may be; mounted or not."""
    if mounts.is_mount(folder):
        status = os.statvfs(folder)
        used = (status.f_blocks - status.f_bfree) * status.f_frsize
        return used, used + status.f_bavail * status.f_frsize
    blocks, free, overhead = _counts(image_of(folder))
    return max(0, blocks - free - overhead) * _BLOCK, max(0, blocks - overhead) * _BLOCK


def try_images(folder: Path) -> str | None:
    """Why folders cannot have file systems of their own here; None when one could be made, mounted and written in."""
    if shutil.which(MKFS) is None:
        return f"{MKFS} is not installed (package e2fsprogs)"
    try:
        prepare_image(folder, uid=0, gid=0, size=Size(16, 100))
        (folder / "file").write_bytes(b"written")
    except (OSError, SandboxUnavailable) as error:
        return f"an image could not be mounted ({error})"
    return None


def _make(image: Path, *, uid: int, gid: int, size: Size) -> None:
    image.parent.mkdir(mode=0o700, exist_ok=True)
    new = _unfinished(image)
    new.unlink(missing_ok=True)
    file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.truncate(file, size.image_bytes)
        options = f"lazy_itable_init=0,lazy_journal_init=1,root_owner={uid}:{gid}"
        _run(
            MKFS, "-q", "-F", "-m", "0", "-b", str(_BLOCK), "-I", str(_INODE), "-N", str(size.max_files + 16),
            "-J", f"size={size.journal_mb}", "-E", options, str(new),
        )  # fmt: skip
        os.fchown(file, uid, gid)  # so that the file alone tells whose it is
        os.fsync(file)
    except BaseException:
        new.unlink(missing_ok=True)  # it may be what fills the disk
        raise
    finally:
        os.close(file)
    new.rename(image)


def _make_mount_point(folder: Path) -> None:
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not mounts.is_mount(folder):
        if folder.is_symlink() or not folder.is_dir():
            raise InvalidInput("The workspace's place is taken by something that is not a folder.")
        os.chown(folder, 0, 0)
        folder.chmod(0o700)


def _mount(folder: Path, image: Path, size: Size, *, is_new: bool) -> None:
    if not is_new and (_counts_errors(image) or _is_small(image, size)) and not loops.is_attached(image):
        _run("e2fsck", "-f", "-y", str(image), good=3)
        if _is_small(image, size):
            _run("resize2fs", str(image), str(size.image_bytes // _BLOCK))
    with loops.attached(image, is_new=is_new) as device:
        mounts.mount_ext4(device, folder)
    lost = folder / "lost+found"
    if lost.is_dir() and not lost.is_symlink() and lost.stat().st_uid == 0:
        with suppress(OSError):  # it holds what a repair found
            lost.rmdir()


def _is_small(image: Path, size: Size) -> bool:
    """A little less than what is wanted is enough: ext4 leaves out a last part that is not worth it."""
    has = _counts(image)[0] * _BLOCK
    return has + has // 16 < size.image_bytes


def _trim(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # below, there is a file system without holes
            mounts.sync(opened)  # what is not committed yet is not free yet
            fcntl.ioctl(opened, _TRIM, bytearray(struct.pack("QQQ", 0, 2**64 - 1, 0)))
    finally:
        os.close(opened)


def _is_sound(folder: Path) -> bool:
    """Whether what is mounted takes writes: after an error it does not, which newer kernels tell here only."""
    status = os.stat(folder)
    errors = Path(f"/sys/fs/ext4/loop{os.minor(status.st_dev)}/errors_count")
    with suppress(FileNotFoundError):
        if errors.read_text(encoding="ascii").strip() != "0":
            return False
    return not os.statvfs(folder).f_flag & os.ST_RDONLY


def _counts_errors(image: Path) -> bool:
    magic, state = struct.unpack_from("<HH", _superblock(image), 0x38)
    return magic != _MAGIC or bool(state & _HAS_ERRORS)


def _counts(image: Path) -> tuple[int, int, int]:
    """Blocks, free blocks and those the file system takes itself."""
    block = _superblock(image)
    blocks, _, free = struct.unpack_from("<III", block, 0x04)
    (overhead,) = struct.unpack_from("<I", block, 0x248)
    return blocks, free, overhead


def _superblock(image: Path) -> bytes:
    with image.open("rb") as file:
        file.seek(_SUPERBLOCK)
        return file.read(1024).ljust(1024, b"\0")


def _unfinished(image: Path) -> Path:
    return image.with_name(f"{image.name}.new")


def _run(program: str, *arguments: str, good: int = 0) -> None:
    """Run it; an exit code above `good` raises OSError, which has what it said in the place of a file's name."""
    try:
        done = subprocess.run([program, *arguments], capture_output=True, timeout=_FSCK_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{program} took too long") from None
    if done.returncode > good or done.returncode < 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-300:]
        raise OSError(errno.EIO, f"{program} failed", said)

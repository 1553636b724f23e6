"""Runs INSIDE a sandbox, as the agent. Entries of folders, and trees of them, among programs that change them.

Programs of the agent may do so at any time. So each name is opened below the descriptor of its folder, never through a
link, and what was opened is looked at again before it is used. Whoever wins a race can lead us only to what the agent
may read and write anyway.
"""

import contextlib
import ctypes
import errno
import os
import stat

from moorage.sandboxes.helper.wire import CHUNK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    Names = list[bytes]

DEEPEST = 256  # as deep as trees are looked through; deleting has no bound
OPEN_FOLDERS = 48
TRIES = 100
PART = 1000  # folders that are known by name at once
RENAME_NOREPLACE = 1
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC  # for names that are no link
REGULAR = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Refused(Exception):
    """The order cannot be carried out; its text is the code that says why."""


def open_folder(root: str, names: "Names", *, made: "Names | None" = None) -> int:
    """A descriptor of the folder at `names` below `root`. With `made`, those that are missing are made, and added."""
    place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            if made is not None:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, dir_fd=place)
                    made.append(name)
            inner = find_folder(place, name)
            os.close(place)
            place = inner
        return os.open(".", DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


def find_folder(parent: int, name: bytes) -> int:
    """A descriptor that leads to the folder, whatever it allows.

    Not with O_DIRECTORY: beside that, gVisor does not heed O_NOFOLLOW.
    """
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        os.close(place)
        raise NotADirectoryError(errno.ENOTDIR, "not a folder")
    return place


@contextlib.contextmanager
def folder(root: str, names: "Names", *, made: "Names | None" = None) -> "Generator[int]":
    descriptor = open_folder(root, names, made=made)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def look(parent: int, name: bytes) -> os.stat_result:
    return os.stat(name, dir_fd=parent, follow_symlinks=False)


def entry(name: bytes, status: os.stat_result) -> "list[object]":
    """[name, type, size, time of the last change in ns]"""
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), "other")
    return [name.decode("latin-1"), kind, status.st_size if kind == "file" else 0, status.st_mtime_ns]


def require_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Refused("is_directory")
    if not stat.S_ISREG(status.st_mode):
        raise Refused("invalid_path")


def open_file(parent: int, name: bytes) -> "tuple[int, os.stat_result]":
    """A regular file, open for reading. What is not one is not opened; what has become another is left alone."""
    require_file(look(parent, name))
    descriptor = os.open(name, REGULAR, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        require_file(status)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status


def contents(descriptor: int, start: int, length: int) -> "Iterator[bytes]":
    end = min(start + length, 2**63 - 1)
    while start < end:
        data = os.pread(descriptor, min(CHUNK, end - start), start)
        if not data:
            return
        start += len(data)
        yield data


class Aside:
    """A new file in a folder, without a name of its own until it is published; nothing is left of one that is not."""

    def __init__(self, parent: int) -> None:
        self._parent = parent
        self._name = b".%s.part" % os.urandom(8).hex().encode()
        self._named = False
        self.descriptor = self._open()

    def _open(self) -> int:
        try:
            return os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=self._parent)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
                raise
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._name, flags, 0o666, dir_fd=self._parent)
        self._named = True
        return descriptor

    def publish(self, name: bytes, *, overwrite: bool) -> bool:
        """Put it in its place at once; answers whether there was nothing."""
        if not self._named:
            os.link(f"/proc/self/fd/{self.descriptor}", self._name, dst_dir_fd=self._parent, follow_symlinks=True)
            self._named = True
        try:
            rename_to_new(self._parent, self._name, self._parent, name)
            created = True
        except FileExistsError:
            if not overwrite:
                raise
            os.rename(self._name, name, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            created = False
        self._named = False
        return created

    def __enter__(self) -> "Aside":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)
        if self._named:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._parent)


def rename_to_new(from_folder: int, source: bytes, to_folder: int, target: bytes) -> None:
    """Rename, unless the target is there: then FileExistsError."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(from_folder, source, to_folder, target, RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number))
    _rename_without_flags(from_folder, source, to_folder, target)


def _rename_without_flags(from_folder: int, source: bytes, to_folder: int, target: bytes) -> None:
    """Take the target's place with something that `rename` may replace, or a second name."""
    if stat.S_ISDIR(look(from_folder, source).st_mode):
        os.mkdir(target, dir_fd=to_folder)
        try:
            os.rename(source, target, src_dir_fd=from_folder, dst_dir_fd=to_folder)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(target, dir_fd=to_folder)
            raise
    else:
        os.link(source, target, src_dir_fd=from_folder, dst_dir_fd=to_folder, follow_symlinks=False)
        os.unlink(source, dir_fd=from_folder)


# Deleting ----------------------------------------------------------------------------------------------------------


def delete_tree(parent: int, name: bytes) -> None:
    """Delete a folder with all it holds, however deep that is, and whatever its folders allow.

    What lies deeper than so many open folders is moved up to just below the top, where it is found later.
    """
    top = open_to_empty(parent, name)
    path: list[tuple[int, bytes, Names]] = [(top, name, [])]
    tries = 0
    try:
        while path:
            descriptor, name, todo = path[-1]
            if todo:
                inner = todo.pop()
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    if len(path) < OPEN_FOLDERS:
                        path.append((open_to_empty(descriptor, inner), inner, []))
                    else:
                        os.close(open_to_empty(descriptor, inner))
                        os.rename(inner, os.urandom(12).hex(), src_dir_fd=descriptor, dst_dir_fd=top)
                        tries = 0
                continue
            todo.extend(remove_files(descriptor))
            if not todo and not removed(path[-2][0] if len(path) > 1 else parent, name):
                tries += 1  # somebody adds to it meanwhile, or what lay deep is here now
                if tries > TRIES:
                    raise Refused("not_empty")
            elif not todo:
                os.close(path.pop()[0])
    finally:
        for descriptor, _, _ in path:
            os.close(descriptor)


def remove_files(descriptor: int) -> "Names":
    """Remove what is no folder, and what is an empty one; answers some of the folders that are neither."""
    left: Names = []
    with os.scandir(descriptor) as found:
        for item in found:
            name = os.fsencode(item.name)
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
                if not item.is_dir(follow_symlinks=False):
                    os.unlink(name, dir_fd=descriptor)
                elif not removed(descriptor, name):
                    left.append(name)
            if len(left) == PART:
                break
    return left


def removed(parent: int, name: bytes) -> bool:
    """Remove a folder, if it is empty; whoever else removed it has done so too."""
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def open_to_empty(parent: int, name: bytes) -> int:
    """Open a folder, and give ourselves the right to empty it if it is ours."""
    place = find_folder(parent, name)
    try:
        if os.fstat(place).st_mode & 0o700 != 0o700:
            with contextlib.suppress(OSError):
                os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(".", DIRECTORY, dir_fd=place)
    finally:
        os.close(place)


# Whole trees -------------------------------------------------------------------------------------------------------


def walk(root: str, names: "Names", hidden: "set[bytes]") -> "Iterator[tuple[int, Names, bytes, os.stat_result]]":
    """All below a folder, folder by folder: an open folder, its path, a name in it and what that is.

    What cannot be looked into is left out, and what lies deeper than DEEPEST.
    """
    pending = [names]
    while pending:
        path = pending.pop()
        try:
            descriptor = open_folder(root, path)
        except OSError:
            if path == names:
                raise
            continue
        try:
            with os.scandir(descriptor) as found:
                for item in found:
                    name = os.fsencode(item.name)
                    if path == names and name in hidden:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        status = look(descriptor, name)
                        if stat.S_ISDIR(status.st_mode) and len(path) < DEEPEST:
                            pending.append([*path, name])
                        yield descriptor, path, name, status
        finally:
            os.close(descriptor)

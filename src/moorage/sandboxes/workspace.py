"""Where files live: WORKSPACE_ROOT/{user}/{thread}/, and SHARED_DIR/{user}/ for all threads of a user."""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from moorage.errors import Conflict, InvalidInput, Unavailable
from moorage.ids import ThreadId, UserId, is_user_id, owner_of
from moorage.sandboxes.port import AgentIdentity, Folder

_DEFAULT_AGENT = AgentIdentity(uid=1000, gid=1000)
_USER_FOLDER_MODE = 0o700
_FOLDER_MODE = 0o700
_DEEPEST_COPY = 100  # each level holds two descriptors open


class WorkspaceNotCopied(Conflict):
    """The files cannot be copied as they are: too deep a tree, not readable by the server, or changing too fast."""

    code = "workspace_not_copied"


def agent_identity() -> AgentIdentity:
    """Who commands run as: the server's own user, or 1000:1000 when that is root."""
    if os.geteuid() == 0:
        return _DEFAULT_AGENT
    return AgentIdentity(uid=os.geteuid(), gid=os.getegid())


class Workspaces:
    """Makes, finds and removes the folders. All calls block on the disk: keep them off the event loop.

    `host_root` and `host_shared` are the two roots as the container engine's machine names them, when that is not as
    this process does: the server runs in a container, or the engine on Windows.
    """

    def __init__(
        self,
        root: Path,
        shared_root: Path,
        *,
        host_root: str | None = None,
        host_shared: str | None = None,
        agent: AgentIdentity | None = None,
    ) -> None:
        self._root = root.absolute()
        self._shared_root = shared_root.absolute()
        self._host_root = host_root
        self._host_shared = host_shared
        self.agent = agent or agent_identity()

    def path(self, thread_id: ThreadId) -> Path:
        """Where the thread's files are, or will be; raises InvalidInput for what is no thread id."""
        return self._root / _owner(thread_id) / thread_id

    def shared_path(self, owner: UserId) -> Path:
        if not is_user_id(owner):
            raise InvalidInput("This is not a user id.")
        return self._shared_root / owner

    def open_workspace(self, thread_id: ThreadId) -> Folder:
        """The thread's folder, made when missing: the agent may write in it, no other user of this machine read it."""
        path = self.path(thread_id)
        _make_traversable(self._root)
        path.parent.mkdir(mode=_USER_FOLDER_MODE, exist_ok=True)
        self._make(path)
        return Folder(path, host_view(path, root=self._root, host_root=self._host_root))

    def open_shared(self, owner: UserId) -> Folder:
        """The user's shared folder, made when missing."""
        path = self.shared_path(owner)
        _make_traversable(self._shared_root)
        self._make(path)
        return Folder(path, host_view(path, root=self._shared_root, host_root=self._host_shared))

    def delete(self, thread_id: ThreadId) -> None:
        """Remove the thread's files, whatever they are: unreadable, endlessly deep, links (never followed)."""
        path = self.path(thread_id)
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            _remove_tree(path)

    def copy(self, source: ThreadId, target: ThreadId) -> None:
        """Make the target's folder with all files of the source's, when that has any; the target has no folder yet.

        Nothing is shared and no link is followed, whatever the agent does meanwhile. Modes, owners, times and holes
        are kept; pipes, sockets and devices are left out. Raises WorkspaceNotCopied or Unavailable, leaving nothing.
        """
        old, new = self.path(source), self.path(target)
        if not old.is_dir() or old.is_symlink():
            return
        new.parent.mkdir(mode=_USER_FOLDER_MODE, exist_ok=True)
        new.mkdir(mode=_FOLDER_MODE)
        try:
            _copy_folder(_open_to_read(old), _open_to_read(new), depth=0)
        except OSError as error:
            self.delete(target)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable("The disk is full", code="disk_full") from error
            raise WorkspaceNotCopied(f"Files of this session could not be copied: {error.strerror}") from error
        except BaseException:
            self.delete(target)
            raise

    def _make(self, path: Path) -> None:
        path.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise InvalidInput("The workspace's place is taken by something that is not a folder.")
        if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (self.agent.uid, self.agent.gid):
            os.chown(path, self.agent.uid, self.agent.gid, follow_symlinks=False)


def host_view(path: Path, *, root: Path, host_root: str | None) -> str:
    """`path`, which is below `root`, as the container engine's machine names it.

    `host_root` is that machine's name for `root`: `/srv/ws`, `C:\\moorage\\ws`, `C:/moorage/ws` or `/c/moorage/ws`.
    """
    if not host_root:
        return str(path)
    parts = path.relative_to(root).parts
    host: PurePath = PureWindowsPath(host_root) if _is_windows(host_root) else PurePosixPath(host_root)
    return str(host.joinpath(*parts))


def _is_windows(path: str) -> bool:
    return bool(PureWindowsPath(path).drive)


def _owner(thread_id: ThreadId) -> UserId:
    owner = owner_of(thread_id)
    if owner is None:
        raise InvalidInput("This is not a thread id.")
    return owner


def _make_traversable(root: Path) -> None:
    if not root.is_dir():
        root.mkdir(mode=0o711, parents=True, exist_ok=True)


def _remove_tree(path: Path) -> None:
    """Empty the folder from the top: what is deeper is moved up first, so no depth needs a long path or a stack."""
    top = _open_folder(path)
    try:
        while names := os.listdir(top):
            for name in names:
                _remove_entry(top, name)
    finally:
        os.close(top)
    path.rmdir()


def _remove_entry(top: int, name: str) -> None:
    if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
        os.unlink(name, dir_fd=top)
        return
    folder = _open_folder(name, dir_fd=top)
    try:
        for child in os.listdir(folder):
            if stat.S_ISDIR(os.lstat(child, dir_fd=folder).st_mode):
                _hoist(folder, child, top)
            else:
                os.unlink(child, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=top)


def _hoist(folder: int, child: str, top: int) -> None:
    os.close(_open_folder(child, dir_fd=folder))  # moving a folder needs the right to write in it
    os.rename(child, f".removing-{secrets.token_hex(8)}", src_dir_fd=folder, dst_dir_fd=top)


def _open_folder(path: Path | str, *, dir_fd: int | None = None) -> int:
    """A descriptor of a folder that we may now read and change; never follows a link."""
    place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
    try:
        os.chmod(f"/proc/self/fd/{place}", 0o700)
        return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY)
    finally:
        os.close(place)


def _open_to_read(path: Path | str, *, dir_fd: int | None = None) -> int:
    """A descriptor of a folder as it is; never follows a link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)


def _copy_folder(old: int, new: int, *, depth: int) -> None:
    """Fill the folder `new` with what is in `old`; closes both. By descriptors only: names may change under us."""
    try:
        if depth > _DEEPEST_COPY:
            raise WorkspaceNotCopied(f"Folders of this session are more than {_DEEPEST_COPY} levels deep")
        for name in os.listdir(old):
            with suppress(FileNotFoundError):  # gone since it was listed
                _copy_entry(old, new, name, depth)
        _copy_attributes(os.fstat(old), new)
    finally:
        os.close(old)
        os.close(new)


def _copy_entry(old: int, new: int, name: str, depth: int) -> None:
    status = os.lstat(name, dir_fd=old)
    if stat.S_ISDIR(status.st_mode):
        inner = _open_to_read(name, dir_fd=old)
        try:
            os.mkdir(name, _FOLDER_MODE, dir_fd=new)
            outer = _open_to_read(name, dir_fd=new)
        except BaseException:
            os.close(inner)
            raise
        _copy_folder(inner, outer, depth=depth + 1)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=old), name, dir_fd=new)
        if os.geteuid() == 0:
            os.chown(name, status.st_uid, status.st_gid, dir_fd=new, follow_symlinks=False)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(old, new, name)


def _copy_file(old: int, new: int, name: str) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=old)
    try:
        status = os.fstat(source)
        if not stat.S_ISREG(status.st_mode):  # another one took the name
            return
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=new)
        try:
            _copy_content(source, target, status.st_size)
            _copy_attributes(status, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _copy_content(source: int, target: int, size: int) -> None:
    """The first `size` bytes; holes stay holes, so that a file of nothing costs nothing."""
    os.ftruncate(target, size)
    end = 0
    while (start := _next_data(source, end)) is not None and start < size:
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        os.lseek(target, start, os.SEEK_SET)
        while start < end and (sent := os.sendfile(target, source, start, end - start)):
            start += sent


def _next_data(source: int, offset: int) -> int | None:
    try:
        return os.lseek(source, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def _copy_attributes(status: os.stat_result, target: int) -> None:
    if os.geteuid() == 0:  # before the mode: a change of owner clears bits of it
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

"""Where files live: WORKSPACE_ROOT/{user}/{thread}/, and SHARED_DIR/{user}/ for all threads of a user."""

import os
import stat
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Literal

from moorage.adapters.folders.layout import checked_user, is_spare, places_on_disk, thread_owner
from moorage.adapters.folders.locks import locked
from moorage.adapters.folders.registry import Registry
from moorage.adapters.folders.removal import remove_tree
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import AgentIdentity, Bounds, Folder, Shortcoming
from moorage.sandboxes.profiles import SandboxProfile

type StorageKind = Literal["loop", "quota", "watch"]

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Folders that are ready, and who works in them. `name` is the thread's id, or that of a spare place."""

    name: str
    workspace: Folder
    shared: Folder
    agent: AgentIdentity
    bounds: Bounds


class Folders:
    """Makes, finds and removes the folders. All calls block on the disk: keep them off the event loop.

    `host_root` and `host_shared` are the two roots as the container engine's machine names them, when that is not as
    this process does: the server runs in a container, or the engine on Windows.
    """

    def __init__(
        self,
        root: Path,
        shared_root: Path,
        *,
        registry: Registry,
        storage: Literal["auto", "loop", "quota", "watch"] = "auto",
        host_root: str | None = None,
        host_shared: str | None = None,
        shared_disk_mb: int = 1024,
    ) -> None:
        self.registry = registry
        self._root = root.absolute()
        self._shared_root = shared_root.absolute()
        self._host_root = host_root
        self._host_shared = host_shared
        self._shared_disk_mb = shared_disk_mb
        self._wanted = storage
        if os.geteuid() != 0:
            registry.everyone = AgentIdentity(os.geteuid(), os.getegid())

    @property
    def storage(self) -> StorageKind:
        """How new workspaces are bounded, found out by trying."""
        return "watch"

    def shortcomings(self) -> list[Shortcoming]:
        """What this machine's file system, or this process's rights, lack."""
        return [Shortcoming("storage", "Workspaces are only watched: a command may fill the disk for seconds")]

    def path(self, thread_id: ThreadId) -> Path:
        """Where the thread's files are, or will be; raises InvalidInput for what is no thread id."""
        return self._root / thread_owner(thread_id) / thread_id

    def shared_path(self, owner: UserId) -> Path:
        return self._shared_root / checked_user(owner)

    def prepare(self, thread_id: ThreadId, profile: SandboxProfile) -> Place:
        """The thread's folders, made when missing. Safe to repeat, and in several processes at once."""
        return self._prepare(thread_id, thread_owner(thread_id), profile)

    def release(self, thread_id: ThreadId) -> None:
        """Nothing runs in the thread's sandbox any more: let go of what its folder costs while it is used."""

    def delete(self, thread_id: ThreadId) -> None:
        """Remove the thread's files, whatever they are, and who it was."""
        path = self.path(thread_id)
        if not path.parent.is_dir():
            self.registry.forget(thread_id)
            return
        with self._alone(thread_id):
            if path.is_symlink():
                path.unlink()
            elif path.exists():
                remove_tree(path)
            self.registry.forget(thread_id)

    def threads(self) -> list[ThreadId]:
        """The threads that have files."""
        return [ThreadId(found.name) for found in places_on_disk(self._root) if not is_spare(found.name)]

    def usage(self, thread_id: ThreadId) -> tuple[int, int] | None:
        """Bytes that the workspace uses, and how many it may; None when only looking at all of it would tell."""
        del thread_id
        return None

    def _prepare(self, name: str, owner: UserId, profile: SandboxProfile) -> Place:
        _make_root(self._root)
        _make_root(self._shared_root)
        with self._alone(name):
            agent = self.registry.identity_of(name, owner)
            workspace = self._root / owner / name
            _make_root(workspace.parent)
            _make_owned(workspace, agent.uid, agent.gid, 0o770)
            shared = self.shared_path(owner)
            _make_owned(shared, 0 if os.geteuid() == 0 else agent.uid, agent.gid, 0o2770)
        return Place(
            name,
            Folder(workspace, host_view(workspace, root=self._root, host_root=self._host_root)),
            Folder(shared, host_view(shared, root=self._shared_root, host_root=self._host_shared)),
            agent,
            Bounds(disk_bytes=profile.disk_mb * _MIB, max_files=profile.max_files),
        )

    def _alone(self, name: str) -> AbstractContextManager[None]:
        return locked(self._root / ".locks", name)


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


def _make_root(root: Path) -> None:
    if not root.is_dir():
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        root.chmod(0o711)  # whatever the umask: the engine, and agents under bubblewrap, pass through


def _make_owned(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInput("The workspace's place is taken by something that is not a folder.")
    if os.geteuid() == 0 and (status.st_uid, status.st_gid) != (uid, gid):
        os.chown(path, uid, gid, follow_symlinks=False)
    if stat.S_IMODE(status.st_mode) != mode:
        path.chmod(mode)

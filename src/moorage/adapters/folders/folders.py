"""Where files live: WORKSPACE_ROOT/{user}/{thread}/, and SHARED_DIR/{user}/ for all threads of a user."""

import os
import stat
import threading
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage.adapters.folders.images import Size, image_usage, prepare_image, release_image, remove_image
from moorage.adapters.folders.layout import (
    checked_user,
    find_place,
    host_view,
    image_of,
    is_spare,
    new_spare,
    place_names,
    places_on_disk,
    thread_owner,
)
from moorage.adapters.folders.locks import locked
from moorage.adapters.folders.mounts import bind, is_mount, mounts_below, unmount
from moorage.adapters.folders.ownership import let_the_group_write, make_folder, make_passage, own
from moorage.adapters.folders.quotas import limit, quota_usage, unlimit
from moorage.adapters.folders.registry import Registry
from moorage.adapters.folders.removal import remove_tree
from moorage.adapters.folders.room import low_disks
from moorage.adapters.folders.trying import Found, StorageKind, try_folders
from moorage.errors import Conflict, InvalidInput
from moorage.ids import ThreadId, UserId, is_user_id, owner_of, user_place
from moorage.sandboxes.port import AgentIdentity, Bounds, Folder, SandboxUnavailable, Shortcoming
from moorage.sandboxes.profiles import SandboxProfile
from moorage.telemetry import get_logger

log = get_logger(__name__)

_MIB = 1024 * 1024
_WORKSPACE_MODE = 0o770
_SHARED_MODE = 0o2770
_SHARED_FILES = 100_000


class HostFull(SandboxUnavailable):
    """The machine's disk is nearly full."""

    code = "host_disk_full"


@dataclass(frozen=True, slots=True)
class Place:
    """Folders that are ready, and who works in them. `name` is the thread's id, or that of a spare place.

    `bounds` are for the helper to see to: none where the file system does.
    """

    name: str
    owner: UserId
    workspace: Folder
    shared: Folder
    agent: AgentIdentity
    bounds: Bounds


class Folders:
    """Makes, finds, bounds and removes the folders. All calls block on the disk: keep them off the event loop.

    Several processes may do so at once. `host_root` and `host_shared` are the two roots as the container engine's
    machine names them, when that is not as this process does: the server runs in a container, or the engine on Windows.
    """

    def __init__(
        self,
        root: Path,
        shared_root: Path,
        *,
        registry: Registry,
        storage: StorageKind | Literal["auto"] = "auto",
        host_root: str | None = None,
        host_shared: str | None = None,
        shared_disk_mb: int = 1024,
    ) -> None:
        self.registry = registry
        self._root = root.absolute()
        self._shared_root = shared_root.absolute()
        self._host_root = host_root
        self._host_shared = host_shared
        self._shared_size = Size(shared_disk_mb, _SHARED_FILES)
        self._wanted: StorageKind | Literal["auto"] = storage
        self._trying = threading.Lock()
        self._tried: Found | None = None
        if os.geteuid() != 0:
            registry.everyone = AgentIdentity(os.geteuid(), os.getegid())

    @property
    def storage(self) -> StorageKind:
        """How new workspaces are bounded. Found out by trying, once; raises SandboxUnavailable when none will do."""
        return self._found.storage

    def shortcomings(self) -> list[Shortcoming]:
        """What this machine's file systems, or this process's rights, lack."""
        return [*self._found.shortcomings, *self.low_disks()]

    def low_disks(self) -> list[Shortcoming]:
        """Those of them that come and go (`LOW_DISK`), as they are now."""
        return list(low_disks(self._root, self._shared_root))

    def path(self, thread_id: ThreadId) -> Path:
        """Where the thread's files are, or will be; raises InvalidInput for what is no thread id."""
        return self._root / thread_owner(thread_id) / thread_id

    def shared_path(self, owner: UserId) -> Path:
        return self._shared_root / checked_user(owner)

    def identity(self, thread_id: ThreadId) -> AgentIdentity:
        """Who the thread's agent is."""
        return self._found.everyone or self.registry.identity(thread_id)

    def prepare(self, thread_id: ThreadId, profile: SandboxProfile) -> Place:
        """The thread's folders, made when missing and ready to be used. Safe to repeat.

        Raises HostFull when they would be new and the machine's disk is nearly full.
        """
        return self._prepare(thread_id, thread_owner(thread_id), profile)

    def holds(self, place: Place) -> bool:
        """Whether the place is as `prepare` left it: nobody unmounted its file systems since."""
        folders = (place.workspace.path, place.shared.path)
        return all(is_mount(folder) for folder in folders if image_of(folder).exists())

    def release(self, thread_id: ThreadId) -> None:
        """Nothing runs in the thread's sandbox any more: let go of what its folder costs while it is used."""
        path = self.path(thread_id)
        if path.parent.is_dir():
            with self._alone(thread_id), _told("let go of"):
                release_image(path)
                self._release_shared(thread_owner(thread_id))

    def delete(self, thread_id: ThreadId) -> None:
        """Remove the thread's files, whatever they are, and who its agent was. Nothing there is no error."""
        self._delete(thread_id, thread_owner(thread_id))

    def delete_user(self, owner: UserId) -> None:
        """Remove a user's shared folder and, when no thread of theirs has files, all that is left of them."""
        shared = self.shared_path(owner)
        make_passage(self._root)
        with self._alone(_shared_lock(owner)), _told("removed"):
            _remove(shared)
            if not place_names(self._root / owner, owner):
                if (self._root / owner).is_dir():
                    remove_tree(self._root / owner)
                self.registry.forget_user(owner)

    def threads(self) -> list[ThreadId]:
        """The threads that have files."""
        return [ThreadId(found.name) for found in places_on_disk(self._root) if not is_spare(found.name)]

    def mounted(self) -> list[ThreadId]:
        """The threads whose folders cost what `release` lets go of.

        For a shared folder that no workspace of its user goes with any more, the user's own place.
        """
        found = [place.relative_to(self._root).parts for place in mounts_below(self._root)]
        threads = [ThreadId(parts[1]) for parts in found if len(parts) == 2 and owner_of(parts[1]) == parts[0]]
        shared = {place.name for place in mounts_below(self._shared_root) if place.parent == self._shared_root}
        alone = shared - {parts[0] for parts in found if len(parts) == 2}
        return [*threads, *(user_place(UserId(name)) for name in sorted(alone) if is_user_id(name))]

    def usage(self, thread_id: ThreadId) -> tuple[int, int] | None:
        """Bytes that the workspace uses, and how many it may; None when only a walk through all of it would tell."""
        path = self.path(thread_id)
        try:
            if image_of(path).exists():
                return image_usage(path)
            return quota_usage(path) if self._found.storage == "quota" else None
        except FileNotFoundError:  # removed meanwhile
            return None

    def prepare_spare(self, owner: UserId, profile: SandboxProfile) -> Place:
        """A place of no thread yet, for a sandbox that is made before it is needed."""
        return self._prepare(new_spare(), checked_user(owner), profile)

    def adopt(self, spare: Place, thread_id: ThreadId) -> Place:
        """Make the spare place the thread's, which has no files yet; what is mounted in a container stays as it is.

        Raises Conflict (`has_files`) when the thread has a folder.
        """
        if thread_owner(thread_id) != spare.owner:
            raise InvalidInput("A spare place is its user's alone.")
        new = self.path(thread_id)
        with self._alone(thread_id), self._alone(spare.name), _told("adopted"):
            if find_place(self._root, spare.owner, thread_id) is not None:
                raise Conflict("This thread has files already", code="has_files")
            self.registry.rename(spare.name, thread_id)
            if image_of(spare.workspace.path).exists():
                image_of(spare.workspace.path).rename(image_of(new))
                new.mkdir(mode=0o700)
                bind(spare.workspace.path, new)
                unmount(spare.workspace.path)
                spare.workspace.path.rmdir()
            else:
                spare.workspace.path.rename(new)
        return Place(thread_id, spare.owner, self._workspace(new), spare.shared, spare.agent, spare.bounds)

    def spares(self) -> list[tuple[UserId, str]]:
        """The owners and names of all spare places, whoever made them."""
        return [(found.owner, found.name) for found in places_on_disk(self._root) if is_spare(found.name)]

    def discard(self, owner: UserId, spare: str) -> None:
        """Remove a spare place."""
        if not is_spare(spare):
            raise InvalidInput("This is no spare place.")
        self._delete(spare, checked_user(owner))

    def _prepare(self, name: str, owner: UserId, profile: SandboxProfile) -> Place:
        found = self._found
        workspace, shared = self._root / owner / name, self.shared_path(owner)
        # Both locks: whoever lets go of the shared folder must see that this workspace needs it.
        with self._alone(name), self._alone(_shared_lock(owner)), _told("prepared"):
            if find_place(self._root, owner, name) is None:
                self._refuse_without_room()
            agent = found.everyone or self.registry.identity_of(name, owner)
            make_passage(workspace.parent)
            size = Size(profile.disk_mb, profile.max_files)
            uid = None if found.everyone is None else agent.uid
            self._ready(shared, uid=uid, gid=agent.gid, mode=_SHARED_MODE, size=self._shared_size)
            let_the_group_write(shared)
            bounded = self._ready(workspace, uid=agent.uid, gid=agent.gid, mode=_WORKSPACE_MODE, size=size)
        bounds = Bounds() if bounded else Bounds(disk_bytes=profile.disk_mb * _MIB, max_files=profile.max_files)
        view = host_view(shared, root=self._shared_root, host_root=self._host_shared)
        return Place(name, owner, self._workspace(workspace), Folder(shared, view), agent, bounds)

    def _refuse_without_room(self) -> None:
        """Those that are there have been promised theirs."""
        if lacks := self.low_disks():
            log.error("disk_nearly_full", detail=lacks[0].detail)
            raise HostFull(
                "The server's own disk is nearly full, so no new workspace is made: its operator must free some space.",
                retry_after=60,
            )

    def _ready(self, folder: Path, *, uid: int | None, gid: int, mode: int, size: Size) -> bool:
        """Answers whether the file system bounds it. `uid` None: root's."""
        image = image_of(folder)
        has_image = image.exists()
        if has_image or (self._found.storage == "loop" and _is_unused(folder)):
            if os.geteuid() != 0:
                raise SandboxUnavailable("This workspace is a file system of its own: only root can mount it")
            prepare_image(folder, uid=uid or 0, gid=gid, size=size)
            if own(folder, uid=uid, gid=gid, mode=mode) and has_image:
                os.chown(image, uid or 0, gid)
            return True
        make_folder(folder)
        if self._found.gives:
            own(folder, uid=uid, gid=gid, mode=mode)
        return self._found.storage == "quota" and limit(folder, uid or gid, size)

    def _delete(self, name: str, owner: UserId) -> None:
        folder = self._root / owner / name
        if folder.parent.is_dir():
            with self._alone(name), _told("removed"):
                found = find_place(self._root, owner, name)
                _remove(folder)
                if found is not None and found.uid in self.registry.uids and self._found.storage == "quota":
                    unlimit(folder.parent, found.uid)
                self._release_shared(owner)
                self.registry.forget(name)
        else:
            self.registry.forget(name)

    def _release_shared(self, owner: UserId) -> None:
        """Unmount it when no workspace of the user is in use, as far as mounts show that."""
        with self._alone(_shared_lock(owner)):
            places = [self._root / owner / name for name in place_names(self._root / owner, owner)]
            if all(image_of(place).exists() and not is_mount(place) for place in places):
                release_image(self.shared_path(owner))

    def _workspace(self, path: Path) -> Folder:
        return Folder(path, host_view(path, root=self._root, host_root=self._host_root))

    @property
    def _found(self) -> Found:
        with self._trying:
            if self._tried is None:
                self._tried = try_folders(
                    self._root,
                    self._shared_root,
                    wanted=self._wanted,
                    uids=self.registry.uids,
                    in_a_container=self._host_root is not None,
                )
                self.registry.everyone = self._tried.everyone
            return self._tried

    @property
    def _locks(self) -> Path:
        return self._root / ".locks"

    def _alone(self, name: str) -> AbstractContextManager[None]:
        return locked(self._locks, name)


def _shared_lock(owner: UserId) -> str:
    return f"shared {owner}"


def _is_unused(folder: Path) -> bool:
    """Whether it is missing, or empty and of no agent yet: no container can have it."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return True
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != 0 or stat.S_IMODE(status.st_mode) != 0o700:
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def _remove(folder: Path) -> None:
    """In an order that a second try can finish: what tells that there is something goes last."""
    remove_image(folder)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        remove_tree(folder)


@contextmanager
def _told(what: str) -> Generator[None]:
    try:
        yield
    except OSError as error:
        log.warning("folder_failed", doing=what, error=str(error))
        reason = error.strerror or type(error).__name__  # without the paths of this machine
        raise SandboxUnavailable(f"A workspace could not be {what}: {reason}", code="folder_failed") from error

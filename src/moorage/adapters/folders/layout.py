"""What is where: WORKSPACE_ROOT/{user}/{place}/ and, where it has a file system of its own, {user}/.images/{place}.img.

A place is a thread's, by its id, or a spare one, `.spare-*`, that will become a thread's.
"""

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId, is_user_id, owner_of

IMAGES = ".images"
IMAGE_SUFFIX = ".img"
_SPARE = ".spare-"


@dataclass(frozen=True, slots=True)
class FoundPlace:
    """A place that is on the disk, and whom it belongs to there."""

    name: str
    owner: UserId
    uid: int
    gid: int


def thread_owner(thread_id: ThreadId) -> UserId:
    """Raises InvalidInput for what is no thread id."""
    owner = owner_of(thread_id)
    if owner is None:
        raise InvalidInput("This is not a thread id.")
    return owner


def checked_user(owner: UserId) -> UserId:
    if not is_user_id(owner):
        raise InvalidInput("This is not a user id.")
    return owner


def new_spare() -> str:
    return f"{_SPARE}{secrets.token_hex(8)}"


def is_spare(name: str) -> bool:
    return name.startswith(_SPARE)


def image_of(folder: Path) -> Path:
    """The file whose content is the folder's file system, if it has its own."""
    return folder.parent / IMAGES / f"{folder.name}{IMAGE_SUFFIX}"


def find_place(root: Path, owner: UserId, name: str) -> FoundPlace | None:
    """Whom the place belongs to on the disk: by its image if it has one, else by its folder."""
    folder = root / owner / name
    for path in (image_of(folder), folder):
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return FoundPlace(name, owner, status.st_uid, status.st_gid)
    return None


def places_on_disk(root: Path) -> Iterator[FoundPlace]:
    """All places below `root`, each once."""
    for owner in [UserId(name) for name in _listed(root) if is_user_id(name)]:
        for name in sorted(place_names(root / owner, owner)):
            found = find_place(root, owner, name)
            if found is not None:
                yield found


def place_names(folder: Path, owner: UserId) -> set[str]:
    """The user's places, by folder or image."""
    images = {name.removesuffix(IMAGE_SUFFIX) for name in _listed(folder / IMAGES) if name.endswith(IMAGE_SUFFIX)}
    return {name for name in {*_listed(folder), *images} if is_spare(name) or owner_of(name) == owner}


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


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []

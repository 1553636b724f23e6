"""Which kind of storage this machine has, and whether agents can have uids of their own: found out by trying."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moorage.adapters.folders.images import remove_image, try_images
from moorage.adapters.folders.locks import locked
from moorage.adapters.folders.mounts import hidden_from_the_engine
from moorage.adapters.folders.ownership import let_the_group_write, make_passage, who_may_own
from moorage.adapters.folders.quotas import try_quotas
from moorage.adapters.folders.removal import remove_tree
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable, Shortcoming

type StorageKind = Literal["loop", "quota", "watch"]

_AGENT = 1000  # every agent, where root cannot give files to whom it likes but there is a first user


@dataclass(frozen=True, slots=True)
class Found:
    """`everyone`: who all agents are, if they cannot differ. `gives`: whether files can be given to agents at all."""

    storage: StorageKind
    everyone: AgentIdentity | None
    gives: bool
    shortcomings: tuple[Shortcoming, ...]


def try_folders(
    root: Path, shared_root: Path, *, wanted: StorageKind | Literal["auto"], uids: range, in_a_container: bool
) -> Found:
    """Raises SandboxUnavailable when the storage that is `wanted` does not work, saying why."""
    for folder in (root, shared_root):
        make_passage(folder)
    with locked(root / ".locks", "trying"):
        no_uids = _everywhere((root, shared_root), lambda folder: who_may_own(folder, uids[-1]))
        gives = no_uids is None or _everywhere((root, shared_root), lambda folder: who_may_own(folder, _AGENT)) is None
        storage, unbounded = _storage(root, shared_root, wanted, uids, no_uids, in_a_container)
        no_access_lists = _attempt(shared_root, _try_access_lists)
    found: list[Shortcoming] = []
    if no_uids is not None:
        found.append(Shortcoming("agent_uids", f"All agents have the same uid, and share its limits: {no_uids}"))
    if unbounded:
        looked = "Workspaces are only looked at while commands run, and shared folders are not bounded"
        found.append(Shortcoming("storage", f"{looked}: {unbounded}"))
    if no_access_lists:
        found.append(Shortcoming("shared_access", no_access_lists))
    return Found(storage, _everyone() if no_uids else None, gives, tuple(found))


def _storage(
    root: Path,
    shared_root: Path,
    wanted: StorageKind | Literal["auto"],
    uids: range,
    no_uids: str | None,
    in_a_container: bool,
) -> tuple[StorageKind, str]:
    """The first kind that works, and why no better one does."""

    def try_loop(folder: Path) -> str | None:
        return hidden_from_the_engine(folder.parent.parent, in_a_container=in_a_container) or try_images(folder)

    def try_quota(folder: Path) -> str | None:
        return try_quotas(folder, uids.stop)

    kinds: tuple[tuple[StorageKind, Callable[[Path], str | None]], ...] = (("loop", try_loop), ("quota", try_quota))
    reasons: list[str] = []
    for kind, attempt in kinds:
        if wanted in ("auto", kind):
            reason = no_uids or _everywhere((root, shared_root), attempt)
            if reason is None:
                return kind, ""
            if wanted == kind:
                raise SandboxUnavailable(f"SANDBOX_STORAGE={kind} does not work here: {reason}", code="no_storage")
            reasons.append(f"{kind}: {reason}")
    return "watch", "; ".join(reasons) or "SANDBOX_STORAGE=watch"


def _everyone() -> AgentIdentity:
    return AgentIdentity(os.geteuid(), os.getegid()) if os.geteuid() != 0 else AgentIdentity(_AGENT, _AGENT)


def _try_access_lists(folder: Path) -> str | None:
    folder.mkdir()
    if let_the_group_write(folder):
        return None
    return "Files in a shared folder may be closed to the user's other threads: SHARED_DIR keeps no access lists"


def _everywhere(parents: Iterable[Path], attempt: Callable[[Path], str | None]) -> str | None:
    """Why it does not work in one of them."""
    return next((reason for parent in parents if (reason := _attempt(parent, attempt)) is not None), None)


def _attempt(parent: Path, attempt: Callable[[Path], str | None]) -> str | None:
    place = parent / ".trying"
    _clear(place)  # of one that was killed
    place.mkdir(mode=0o700)
    try:
        return attempt(place / "folder")
    finally:
        _clear(place)


def _clear(place: Path) -> None:
    remove_image(place / "folder")
    if place.exists():
        remove_tree(place)

"""Folders on a real disk, what agents do in them, and a world to start over in."""

import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.uids import own_uids

from moorage.adapters.folders import Folders, Place, Registry
from moorage.adapters.folders.mounts import unmount
from moorage.adapters.folders.removal import remove_tree
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.port import AgentIdentity
from moorage.sandboxes.profiles import SandboxProfile

ALICE, BOB = UserId("alice"), UserId("bob")
UIDS = own_uids(10_000, 10_999)
SMALL = SandboxProfile(disk_mb=16, max_files=200)

_MOMENT_SECONDS = 10
_POLL_SECONDS = 0.02

Storage = Literal["auto", "loop", "quota", "watch"]


@dataclass
class World:
    """Two roots, and as many processes' worth of `Folders` over them as a test wants."""

    base: Path
    storage: Storage = "loop"
    opened: list[Registry] = field(default_factory=list[Registry])

    @property
    def root(self) -> Path:
        return self.base / "ws"

    @property
    def shared(self) -> Path:
        return self.base / "sh"

    def folders(self, storage: Storage | None = None, *, host_root: str | None = None) -> Folders:
        registry = Registry(self.root / ".registry.sqlite3", uids=UIDS)
        self.opened.append(registry)
        return Folders(
            self.root,
            self.shared,
            registry=registry,
            storage=storage or self.storage,
            host_root=host_root,
            shared_disk_mb=16,
        )

    def images(self) -> set[str]:
        """The files of ours that are disks now."""
        done = subprocess.run(["losetup", "--noheadings", "--output", "BACK-FILE"], capture_output=True, text=True)
        return {line.strip() for line in done.stdout.splitlines() if line.strip().startswith(str(self.base))}

    def images_once(self, wanted: Callable[[set[str]], bool]) -> set[str]:
        """The same, once they are as wanted, or as they are after a while.

        Whoever starts a sandbox on this machine has a copy of all mounts for a moment, so a disk that was let go may
        stay one until then.
        """
        deadline = time.monotonic() + _MOMENT_SECONDS
        while not wanted(images := self.images()) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return images

    def images_of(self, place: Place) -> int:
        return sum(place.name in image for image in self.images())

    def mounts(self) -> list[Path]:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        places = [Path(line.split(" ")[4]) for line in lines]
        return [place for place in places if place.is_relative_to(self.base)]

    def restart_the_machine(self) -> None:
        """Nothing is mounted any more, and no file is a disk."""
        for place in reversed(self.mounts()):
            unmount(place)

    def end(self) -> None:
        for registry in self.opened:
            registry.close()
        self.restart_the_machine()
        remove_tree(self.base)  # what is left would count for the next world's projects


@contextmanager
def open_world(base: Path, storage: Storage) -> Generator[World]:
    world = World(base, storage)
    try:
        yield world
    finally:
        world.end()


def as_agent(
    agent: AgentIdentity, program: str, folder: Path, *, umask: int = 0o077
) -> subprocess.CompletedProcess[str]:
    """Run a shell program in the folder with the agent's rights, and no others'."""
    return subprocess.run(
        ["sh", "-c", program],
        user=agent.uid if os.geteuid() == 0 else None,
        group=agent.gid if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
        umask=umask,
        cwd="/",
        env={"PATH": os.environ["PATH"], "FOLDER": str(folder), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
    )


def thread_of(owner: UserId = ALICE) -> ThreadId:
    return new_thread_id(owner)


def prepared(folders: Folders, owner: UserId = ALICE, profile: SandboxProfile = SMALL) -> Place:
    return folders.prepare(new_thread_id(owner), profile)

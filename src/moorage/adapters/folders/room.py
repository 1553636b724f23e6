"""Whether the machine's own disk has room for more workspaces: sparse images promise more than it may have."""

import os
from collections.abc import Iterator
from pathlib import Path

from moorage.sandboxes.port import Shortcoming

LOW_DISK = "disk"
"""The name of what this machine lacks now and then."""

_MIB = 1024 * 1024
_LEAST_BYTES = 1024 * _MIB
_LEAST_PART = 20  # of a small disk a twentieth, as ext4 keeps for root


def low_disk(folder: Path) -> str | None:
    """How little room is left where `folder` is, in words; None when there is enough."""
    disk = os.statvfs(folder)
    free, least = disk.f_bavail * disk.f_frsize, min(_LEAST_BYTES, disk.f_blocks * disk.f_frsize // _LEAST_PART)
    return None if free >= least else f"{free // _MIB} MiB left, of {least // _MIB} MiB that new workspaces need"


def low_disks(root: Path, shared_root: Path) -> Iterator[Shortcoming]:
    """What the operator must know of the disks that workspaces and shared folders are on."""
    for name, folder in (("WORKSPACE_ROOT", root), ("SHARED_DIR", shared_root)):
        if (low := low_disk(folder)) is not None:
            yield Shortcoming(LOW_DISK, f"No new workspace is made: the disk of {name} has only {low}")

"""Folders in which something may be mounted."""

import shutil
import subprocess
from pathlib import Path


def remove_with_mounts(folder: Path) -> None:
    """Unmount all that is below it first: what is mounted there is not to be removed."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    for line in reversed(lines):
        place = Path(line.split(" ")[4])
        if place.is_relative_to(folder):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
    shutil.rmtree(folder, ignore_errors=True)

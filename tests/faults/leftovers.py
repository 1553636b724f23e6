"""What sandboxes leave on the machine: containers, mounts, disks made of files, and processes of agents."""

import json
import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.adapters.folders.mounts import unmount


@dataclass(frozen=True)
class Machine:
    """The part of this machine that belongs to the world in `folder`, whose agents have the uids of `uids`."""

    folder: Path
    uids: range

    def containers(self) -> list[str]:
        """Running or not: all that were given one of the world's folders."""
        found = subprocess.run(["docker", "ps", "-aq"], check=True, capture_output=True, text=True).stdout.split()
        if not found:
            return []
        # Some may be gone by now: the answer is about the others.
        told = subprocess.run(["docker", "inspect", *found], check=False, capture_output=True, text=True).stdout
        described: list[dict[str, Any]] = json.loads(told)
        return [one["Name"].removeprefix("/") for one in described if str(self.folder) in json.dumps(one["HostConfig"])]

    def mounts(self) -> list[Path]:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
        places = [Path(line.split(" ")[4]) for line in lines]
        return [place for place in places if place.is_relative_to(self.folder)]

    def disks(self) -> list[str]:
        """The world's files that are loop devices; removed ones, too."""
        files: list[str] = []
        for device in Path("/sys/block").glob("loop*/loop/backing_file"):
            with suppress(OSError):  # detached meanwhile
                files.append(device.read_text(encoding="utf-8").strip())
        return [file for file in files if file.startswith(str(self.folder))]

    def processes(self) -> dict[int, int]:
        """Of the world's agents that are alive: each one's parent."""
        found: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if entry.stat().st_uid in self.uids:
                        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                        if state not in "ZX":
                            found[int(entry.name)] = int(parent)
        return found

    def helpers(self) -> list[int]:
        """The first processes of agents: what they all come from."""
        processes = self.processes()
        return sorted(pid for pid, parent in processes.items() if parent not in processes)

    def leftovers(self) -> list[str]:
        """Whatever is there, in words."""
        return [
            *(f"container {name}" for name in self.containers()),
            *(f"mount {place}" for place in self.mounts()),
            *(f"loop device of {file}" for file in self.disks()),
            *(f"process {pid}: {_command_line(pid)}" for pid in self.processes()),
        ]

    def clear(self) -> None:
        """After a failure."""
        for name in self.containers():
            subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for place in reversed(self.mounts()):
            unmount(place)


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100]
    return "gone"


def removed_threads_left(folder: Path, threads: list[str]) -> Generator[str]:
    """What is left of the files of threads that are no more."""
    for thread_id in threads:
        for place in (folder / "workspaces").glob(f"*/{thread_id}"):
            yield f"folder {place}"
        for image in (folder / "workspaces").glob(f"*/.images/{thread_id}*"):
            yield f"image {image}"

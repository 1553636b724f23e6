"""A process that keeps contents of snapshots, killed at each of its steps."""

import asyncio
import hashlib
import signal
import subprocess
import sys
from pathlib import Path

from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.ids import UserId
from moorage.snapshots import Digest

AL = UserId("al")

KILLED = """
import asyncio, os, sys
from pathlib import Path
from moorage.adapters import snapshot_files
from moorage.ids import UserId

calls = int(sys.argv[2])
def counted(function):
    def call(*values, **named):
        global calls
        calls -= 1
        if calls < 0:
            os.kill(os.getpid(), 9)
        return function(*values, **named)
    return call

for name in ("open", "pwrite", "ftruncate", "close", "rename", "mkdir", "unlink"):
    setattr(os, name, counted(getattr(os, name)))
snapshot_files._sync = counted(snapshot_files._sync)

async def parts(name):
    yield name * 1_000_000
    yield name * 1_000_000

async def main():
    async with snapshot_files.SnapshotFiles(Path(sys.argv[1])).open(UserId("al")) as objects:
        for name in (b"a", b"b", b"c"):
            await objects.add(parts(name))
        await objects.settle()
        print("settled", flush=True)

asyncio.run(main())
"""


async def nobody_wants() -> set[Digest]:
    return set()


async def test_killed_at_any_moment_it_leaves_no_half_object(tmp_path: Path) -> None:
    """Each object that has a name is whole, what was settled is there, and collecting clears up the rest."""
    wanted = {hashlib.sha256(name * 2_000_000).hexdigest() for name in (b"a", b"b", b"c")}
    for calls in range(0, 60, 3):
        root = tmp_path / str(calls)
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", KILLED, str(root), str(calls)], capture_output=True, text=True
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        named = {path.parent.name + path.name for path in root.glob("al/objects/*/*")}
        for path in root.glob("al/objects/*/*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.parent.name + path.name
        if "settled" in done.stdout:
            assert named == wanted
        store = SnapshotFiles(root)
        await store.collect(AL, nobody_wants)
        assert [path for path in root.rglob("*") if path.is_file() and path.name != "lock"] == []
        if done.returncode == 0:
            return
    raise AssertionError("it never came to its end")

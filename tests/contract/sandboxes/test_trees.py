"""Workspaces as a whole, kept and made again, through real sandboxes of both kinds and on a real disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.contract.sandboxes.harness import Harbour

from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import CommandResult, PathError, Sandbox
from moorage.sandboxes.trees import (
    FetchedFile,
    Listing,
    Planted,
    ReadContent,
    TreeBounds,
    TreeEntry,
    TreeRefused,
    Trees,
)
from moorage.snapshots import Manifest
from moorage.snapshots.taking import Picture, take

type Sh = Callable[[str], Awaitable[CommandResult]]

ALICE = UserId("alice")
BOUNDS = TreeBounds(max_files=10_000, max_bytes=2**30)
TELL = """
find . -mindepth 1 ! -type l -printf '%P %y %m %s %T@\\n' | grep -av ' d ' | sort
find . -type l -printf '%P %l\\n' | sort
find . -type d -printf '%P %m %T@\\n' | grep -a ^[a-z] | sort
find . -type f -exec sha256sum {} + | sort
"""


class WatchedTrees:
    """What was asked of a sandbox's trees."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        self.fetched: list[bytes] = []
        self.written: list[bytes] = []

    async def list(self, bounds: TreeBounds) -> Listing:
        return await self._trees.list(bounds)

    def fetch(self, wanted: Sequence[TreeEntry]) -> AbstractAsyncContextManager[AsyncIterator[FetchedFile]]:
        self.fetched += [entry.path for entry in wanted]
        return self._trees.fetch(wanted)

    async def plant(
        self, entries: Sequence[TreeEntry], *, keep: Collection[bytes], read: ReadContent, bounds: TreeBounds
    ) -> Planted:
        self.written += [entry.path for entry in entries if entry.type == "file" and entry.path not in keep]
        return await self._trees.plant(entries, keep=keep, read=read, bounds=bounds)


@pytest.fixture
def store(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "snapshots")


@pytest.fixture
async def other(harbour: Harbour) -> AsyncIterator[Sandbox]:
    thread_id = harbour.new_thread()
    yield await harbour.sandboxes.acquire(thread_id)
    await harbour.sandboxes.delete(thread_id)


async def allowed() -> None: ...


async def taken(
    trees: Trees, store: SnapshotFiles, earlier: Manifest | None = None, bounds: TreeBounds = BOUNDS
) -> Picture:
    async with store.open(ALICE) as objects:
        picture = await take(trees, objects, earlier=earlier or Manifest(), bounds=bounds, check_space=allowed)
        await objects.settle()
    return picture


async def planted(trees: Trees, store: SnapshotFiles, manifest: Manifest, keep: Collection[bytes] = ()) -> Planted:
    async with store.open(ALICE) as objects:
        return await trees.plant(
            manifest.entries, keep=keep, read=lambda entry: objects.read(manifest.digests[entry.path]), bounds=BOUNDS
        )


async def told(sandbox: Sandbox) -> str:
    result = await sandbox.run(TELL, time_limit=20)
    assert result.exit_code == 0, result.output
    return result.output


async def test_a_workspace_comes_up_the_same_in_another_thread(
    sandbox: Sandbox, other: Sandbox, sh: Sh, store: SnapshotFiles
) -> None:
    made = await sh(
        "mkdir -p a/b 'odd name' && echo hi > a/b/x && chmod 751 a/b/x && ln -s /etc/passwd link && ln a/b/x hard"
        " && printf y > \"$(printf 'odd name/\\377\\n')\" && truncate -s 50M sparse && head -c 3000000 /dev/urandom > b"
        " && mkfifo pipe && touch -d 2001-02-03 a/b/x && mkdir shut && echo secret > shut/f && chmod 000 shut/f shut"
    )
    assert made.exit_code == 0, made.output
    picture = await taken(sandbox.trees, store)
    assert (picture.left_out, picture.missed) == (1, 0)
    await other.run("mkdir -p junk/deep; echo x > junk/deep/f; mkfifo p; ln -s / root; chmod 000 junk", time_limit=20)
    await planted(other.trees, store, picture.manifest)
    modes = await other.run("stat -c %a shut a/b", time_limit=10)
    assert modes.output.split()[0] == "0"
    for each in (sandbox, other):
        await each.run("chmod 700 shut; chmod 600 shut/f; rm -f pipe", time_limit=10)
    assert await told(other) == await told(sandbox)
    assert (await other.run("du -k sparse", time_limit=10)).output.split()[0] == "0"


async def test_nothing_is_fetched_of_what_did_not_change(sandbox: Sandbox, sh: Sh, store: SnapshotFiles) -> None:
    await sh("mkdir d; for i in $(seq 50); do echo $i > d/$i; done")
    trees = WatchedTrees(sandbox.trees)
    first = await taken(trees, store)
    assert len(trees.fetched) == 50
    assert first.added_bytes > 0
    trees.fetched.clear()
    await sh("echo changed > d/7; mv d/8 d/eight; rm d/9; chmod 600 d/10; cp d/11 d/again")
    second = await taken(trees, store, first.manifest)
    assert set(trees.fetched) == {b"d/7", b"d/eight", b"d/10", b"d/again"}
    assert second.added_bytes == len("changed\n")
    trees.fetched.clear()
    third = await taken(trees, store, second.manifest)
    assert (trees.fetched, third.added_bytes) == ([], 0)
    assert third.manifest.same_as(second.manifest)


async def test_a_change_right_after_a_snapshot_shows_in_the_next(
    sandbox: Sandbox, sh: Sh, store: SnapshotFiles
) -> None:
    await sh("echo one > file")
    picture = await taken(sandbox.trees, store)
    for text in ("two", "six", "ten", "one"):
        await sh(f"echo {text} > file")
        later = await taken(sandbox.trees, store, picture.manifest)
        assert (later.manifest.digests == picture.manifest.digests) == (text == "one" and picture is later)
        picture = later


async def test_only_what_changed_is_written_when_files_are_taken_back(
    sandbox: Sandbox, sh: Sh, store: SnapshotFiles
) -> None:
    await sh("for i in 1 2 3; do echo $i > $i; done")
    first = await taken(sandbox.trees, store)
    await sh("echo changed > 2; echo new > 4")
    listing = await sandbox.trees.list(BOUNDS)
    keep = {entry.path for entry in listing.entries if entry in first.manifest.entries}
    trees = WatchedTrees(sandbox.trees)
    assert await planted(trees, store, first.manifest, keep) == Planted(written=1, removed=1)
    assert trees.written == [b"2"]
    assert (await sh("cat 1 2 3; ls")).output == "1\n2\n3\n1\n2\n3\n"


async def test_each_file_is_of_one_moment_while_a_program_writes(
    sandbox: Sandbox, sh: Sh, store: SnapshotFiles
) -> None:
    """A writer fills each file with one letter, over and over; a torn one would hold two."""
    await sh("for i in 1 2 3 4 5 6; do head -c 200000 /dev/zero | tr '\\0' a > $i; done")
    write = (
        "import os,itertools\n"
        "for letter in itertools.cycle(b'abc'):\n"
        "  for name in '123456':\n"
        "    with open(name,'r+b') as f: f.write(bytes([letter])*200000)\n"
    )
    going = asyncio.Event()
    writing = asyncio.create_task(
        sandbox.run(f'echo go; python3 -c "{write}"', time_limit=60, on_output=lambda _stream, _text: going.set())
    )
    await asyncio.wait_for(going.wait(), 10)
    kept = 0
    try:
        for _ in range(5):
            picture = await taken(sandbox.trees, store)
            assert picture.missed + picture.manifest.files == 6
            async with store.open(ALICE) as objects:
                for digest in picture.manifest.digests.values():
                    data = b"".join([piece async for piece in objects.read(digest) if isinstance(piece, bytes)])
                    assert len(set(data)) == 1
                    assert len(data) == 200_000
                    kept += 1
    finally:
        writing.cancel()
        await asyncio.wait([writing])
    rest = await taken(sandbox.trees, store)
    assert (rest.missed, rest.manifest.files) == (0, 6)


async def test_a_tree_beyond_the_bounds_is_refused_in_words(sandbox: Sandbox, sh: Sh, store: SnapshotFiles) -> None:
    await sh("mkdir many; cd many; for i in $(seq 120); do : > $i; done")
    with pytest.raises(TreeRefused) as refused:
        await taken(sandbox.trees, store, bounds=TreeBounds(max_files=100, max_bytes=2**30))
    assert refused.value.code == "too_many_files"
    await sh("rm -r many; truncate -s 10M long")
    with pytest.raises(TreeRefused) as refused:
        await taken(sandbox.trees, store, bounds=TreeBounds(max_files=100, max_bytes=2**20))
    assert refused.value.code == "workspace_too_large"
    await sh("python3 -c \"import os\nfor _ in range(400): os.mkdir('d'*30); os.chdir('d'*30)\"; rm long")
    with pytest.raises(TreeRefused) as refused:
        await taken(sandbox.trees, store)
    assert refused.value.code == "too_deep"


async def test_what_does_not_fit_is_told_and_the_sandbox_works_on(harbour: Harbour, store: SnapshotFiles) -> None:
    source, target = harbour.new_thread(), harbour.new_thread()
    large, tight = await harbour.sandboxes.acquire(source), await harbour.sandboxes.acquire(target, profile="tight")
    try:
        await large.run("head -c 20000000 /dev/urandom > big", time_limit=20)
        picture = await taken(large.trees, store)
        await tight.run("echo mine > mine", time_limit=20)
        with pytest.raises(PathError) as refused:
            await planted(tight.trees, store, picture.manifest)
        assert refused.value.code == "no_space"
        assert (await tight.run("echo ok", time_limit=20)).output == "ok\n"
    finally:
        await harbour.sandboxes.delete(source)
        await harbour.sandboxes.delete(target)


async def test_threads_without_files_have_none_and_get_no_sandbox(harbour: Harbour, thread_id: ThreadId) -> None:
    assert not await harbour.sandboxes.has_files(thread_id)
    assert not harbour.sandboxes.is_awake(thread_id)
    assert all(info.thread_id != thread_id for info in await harbour.provider.list())

"""Contents of snapshots on a real disk: kept once per user, whole or not at all, and collected when not needed."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from moorage.adapters import snapshot_files
from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.errors import Unavailable
from moorage.ids import UserId
from moorage.sandboxes.trees import Piece, TreeEntry
from moorage.snapshots import Digest, Manifest, SnapshotDamaged, Stored, UserObjects
from moorage.snapshots.taking import keep_manifest, read_manifest

AL, AL_ICE = UserId("al"), UserId("al-ice")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path)


async def pieces(*parts: Piece) -> AsyncIterator[Piece]:
    for part in parts:
        yield part


async def add(store: SnapshotFiles, *parts: Piece, owner: UserId = AL) -> Stored:
    async with store.open(owner) as objects:
        stored = await objects.add(pieces(*parts))
        await objects.settle()
    return stored


async def read(store: SnapshotFiles, digest: Digest, owner: UserId = AL) -> list[Piece]:
    async with store.open(owner) as objects:
        return [piece async for piece in objects.read(digest)]


def file_of(root: Path, digest: Digest, owner: UserId = AL) -> Path:
    return root / owner / "objects" / digest[:2] / digest[2:]


def files_below(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]


def wants(*digests: Digest) -> Callable[[], Awaitable[set[Digest]]]:
    async def manifests() -> set[Digest]:
        return set(digests)

    return manifests


async def keep(objects: UserObjects, **files: bytes) -> Digest:
    """A manifest of these files; answers its digest."""
    manifest = Manifest()
    for name, content in files.items():
        stored = await objects.add(pieces(content))
        manifest.entries.append(TreeEntry(name.encode(), "file", 0o644, len(content)))
        manifest.digests[name.encode()] = stored.digest
    return await keep_manifest(objects, manifest)


@pytest.mark.parametrize("parts", [(), (b"",), (b"a",), (b"a" * 3_000_000,), (b"a", b"b" * 1_500_000, b"c")])
async def test_contents_come_back_under_the_digest_of_their_bytes(
    store: SnapshotFiles, parts: tuple[bytes, ...]
) -> None:
    stored = await add(store, *parts)
    whole = b"".join(parts)
    assert (stored.digest, stored.size, stored.added) == (hashlib.sha256(whole).hexdigest(), len(whole), len(whole))
    assert b"".join(map(bytes, await read(store, stored.digest))) == whole


async def test_of_what_broke_off_nothing_is_left(store: SnapshotFiles, tmp_path: Path) -> None:
    async with store.open(AL) as objects:
        await objects.add(pieces(b"whole, but nobody asked for it to last"))
    assert files_below(tmp_path) == []


async def test_holes_are_kept_as_holes_and_count_as_zeros(store: SnapshotFiles, tmp_path: Path) -> None:
    stored = await add(store, 50_000_000, b"middle", 10_000_000)
    whole = bytes(50_000_000) + b"middle" + bytes(10_000_000)
    assert (stored.digest, stored.added) == (hashlib.sha256(whole).hexdigest(), 6)
    path = file_of(tmp_path, stored.digest)
    assert path.stat().st_size == len(whole)
    assert path.stat().st_blocks * 512 < 100_000
    assert sum(piece if isinstance(piece, int) else len(piece) for piece in await read(store, stored.digest)) == len(
        whole
    )
    assert (await add(store, whole)).added == 0


async def test_the_same_contents_are_kept_once_per_user_and_never_shared_across(
    store: SnapshotFiles, tmp_path: Path
) -> None:
    first = await add(store, b"the same")
    assert (await add(store, b"the ", b"same")).added == 0
    theirs = await add(store, b"the same", owner=AL_ICE)
    assert theirs.added == 8
    ours = file_of(tmp_path, first.digest).stat()
    assert (ours.st_nlink, ours.st_mode & 0o777) == (1, 0o600)
    assert ours.st_ino != file_of(tmp_path, first.digest, AL_ICE).stat().st_ino


async def test_nothing_has_a_name_before_it_is_on_the_disk(store: SnapshotFiles, tmp_path: Path) -> None:
    async with store.open(AL) as objects:
        stored = await objects.add(pieces(b"x"))
        assert not file_of(tmp_path, stored.digest).exists()
        assert await objects.missing([stored.digest]) == {stored.digest}
        await objects.settle()
        assert await objects.missing([stored.digest]) == set()


async def test_who_gives_up_in_the_middle_leaves_nothing(store: SnapshotFiles, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[Piece]:
        yield b"x" * 2_000_000
        raise ConnectionError

    async with store.open(AL) as objects:
        with pytest.raises(ConnectionError):
            await objects.add(broken())
    assert files_below(tmp_path) == []


async def test_who_is_cancelled_in_the_middle_leaves_nothing(store: SnapshotFiles, tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[Piece]:
        while True:
            yield os.urandom(2_000_000)
            begun.set()

    async with store.open(AL) as objects:
        adding = asyncio.create_task(objects.add(endless()))
        await begun.wait()
        adding.cancel()
        await asyncio.wait([adding])
    assert files_below(tmp_path) == []


async def test_what_is_damaged_or_gone_says_so(store: SnapshotFiles, tmp_path: Path) -> None:
    stored = await add(store, b"whole")
    file_of(tmp_path, stored.digest).write_bytes(b"wrong")
    with pytest.raises(SnapshotDamaged):
        await read(store, stored.digest)
    file_of(tmp_path, stored.digest).unlink()
    with pytest.raises(SnapshotDamaged):
        await read(store, stored.digest)


@pytest.mark.parametrize("digest", ["", "../../x", "a" * 63, "A" * 64, "a" * 64 + "\n"])
async def test_only_digests_lead_to_files(store: SnapshotFiles, digest: str) -> None:
    with pytest.raises(SnapshotDamaged):
        await read(store, digest)


async def test_only_users_have_folders(store: SnapshotFiles) -> None:
    with pytest.raises(ValueError, match="user id"):
        await add(store, b"x", owner=UserId("../al"))


# Collecting ----------------------------------------------------------------------------------------------------------


async def test_what_no_manifest_refers_to_is_removed_and_all_else_stays(store: SnapshotFiles, tmp_path: Path) -> None:
    async with store.open(AL) as objects:
        old = await keep(objects, a=b"both", b=b"old")
        new = await keep(objects, a=b"both", c=b"new")
    await add(store, b"theirs", owner=AL_ICE)
    assert await store.collect(AL, wants(new)) == 2
    async with store.open(AL) as objects:
        manifest = await read_manifest(objects, new)
        assert await objects.missing(set(manifest.digests.values())) == set()
        assert await objects.missing([old]) == {old}
    assert await store.collect(AL, wants()) == 3
    assert [path.parts[-4] for path in files_below(tmp_path)] == [AL_ICE]
    assert await store.owners() == [AL, AL_ICE]


async def test_nothing_is_collected_while_somebody_adds_in_any_process(store: SnapshotFiles, tmp_path: Path) -> None:
    other = SnapshotFiles(tmp_path)
    async with store.open(AL) as objects:
        await keep(objects, a=b"a")
        assert await other.collect(AL, wants()) == 0
        async with other.open(AL):
            assert await store.collect(AL, wants()) == 0
    assert await other.collect(AL, wants()) == 2


async def test_who_comes_while_it_is_collected_waits(store: SnapshotFiles) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> set[Digest]:
        asked.set()
        await may_go_on.wait()
        return set()

    collecting = asyncio.create_task(store.collect(AL, slow))
    await asked.wait()
    adding = [asyncio.create_task(add(store, b"x%d" % number)) for number in range(10)]
    await add(store, b"other users need not wait", owner=AL_ICE)
    assert not any(task.done() for task in adding)
    may_go_on.set()
    await collecting
    assert all(stored.added for stored in await asyncio.gather(*adding))


async def test_what_is_used_is_counted_and_counted_anew_after_collecting(store: SnapshotFiles) -> None:
    assert await store.used_bytes(AL) == 0
    await add(store, os.urandom(100_000))
    assert await store.used_bytes(AL) >= 100_000
    await store.collect(AL, wants())
    assert await store.used_bytes(AL) == 0


async def test_a_full_disk_is_told_as_such(store: SnapshotFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(snapshot_files.os, "pwrite", full)
    with pytest.raises(Unavailable) as refused:
        await add(store, b"x")
    assert refused.value.code == "disk_full"

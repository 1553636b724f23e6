"""Snapshots of threads' files: rows on a real Postgres, contents and workspaces on a real disk."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.folder_trees import FolderPlaces
from tests.integration.runs_harness import ALICE, Harbor, end_of, open_harbor

from moorage.adapters.postgres import snapshots as table
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.snapshots import PostgresSnapshots
from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.claims import Claim
from moorage.errors import InvalidPayload
from moorage.ids import ThreadId, new_run_id
from moorage.sandboxes.trees import Planted, TreeBounds, TreeRefused
from moorage.snapshots import (
    Snapshot,
    SnapshotKind,
    SnapshotLimits,
    SnapshotNotFound,
    Snapshots,
    SnapshotSpaceUsedUp,
)
from moorage.threads import Thread, ThreadBusy, ThreadNotFound

SCRIPT = {
    "hello": ["hi"],
    "note": [calls(call("write_todos", "w1", todos=[{"content": "think", "status": "pending"}])), "noted"],
}
MIB = 1024 * 1024
LIMITS = SnapshotLimits(TreeBounds(max_files=1000, max_bytes=100 * MIB))


@pytest.fixture(autouse=True)
async def _alice(add_user: AddUser) -> None:
    await add_user(ALICE)


@pytest.fixture
def places(tmp_path: Path) -> FolderPlaces:
    return FolderPlaces(tmp_path / "workspaces")


@pytest.fixture
def store(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "snapshots")


async def small(_: Thread) -> str:
    return "small"


@pytest.fixture
def snapshots(database: Database, store: SnapshotFiles, places: FolderPlaces) -> Snapshots:
    return Snapshots(PostgresSnapshots(database), store, places, LIMITS, profile_of=small)


def limited(database: Database, store: SnapshotFiles, places: FolderPlaces, *, user_bytes: int) -> Snapshots:
    limits = SnapshotLimits(LIMITS.bounds, user_bytes=user_bytes)
    return Snapshots(PostgresSnapshots(database), store, places, limits, profile_of=small)


@asynccontextmanager
async def a_thread(database: Database, places: FolderPlaces, **files: str) -> AsyncGenerator[tuple[Harbor, Thread]]:
    """A harbour with a thread that has these files."""
    async with open_harbor(database, SCRIPT) as harbor:
        thread = await harbor.new_thread()
        if files:
            write(places.make(thread.thread_id), **files)
        yield harbor, thread


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def objects(store_root: Path) -> int:
    return len(list(store_root.glob("*/objects/*/*")))


async def all_of(snapshots: Snapshots, thread: Thread) -> list[Snapshot]:
    return (await snapshots.search(thread, limit=100, cursor=None)).items


async def checkpoint_of(harbor: Harbor, thread: Thread) -> str | None:
    query = "SELECT max(checkpoint_id) AS id FROM checkpoints WHERE thread_id = %s AND checkpoint_ns = ''"
    rows = await harbor.database.tenant_rows(ALICE, query, [thread.thread_id])
    return rows[0]["id"]


# Taking --------------------------------------------------------------------------------------------------------------


async def test_a_snapshot_is_of_the_present_checkpoint(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one", b="three") as (harbor, thread):
        first = await snapshots.take(thread)
        await harbor.say(thread, "hello")
        second = await snapshots.take(thread)
        assert first.checkpoint_id is None
        assert second.checkpoint_id == await checkpoint_of(harbor, thread)
        assert (first.content.files, first.content.bytes, first.content.added_bytes) == (2, 8, 8)
        assert (first.content.kind, second.content.added_bytes) == (SnapshotKind.REQUEST, 0)
        assert await all_of(snapshots, thread) == [second, first]


async def test_what_did_not_change_is_neither_fetched_nor_stored_again(
    database: Database, places: FolderPlaces, snapshots: Snapshots, tmp_path: Path
) -> None:
    async with a_thread(database, places, a="one", b="three") as (_, thread):
        first = await snapshots.take(thread)
        places.asked.clear()
        before = objects(tmp_path / "snapshots")
        second = await snapshots.take(thread)
        assert places.asked == ["list"]
        assert objects(tmp_path / "snapshots") == before
        assert first.content.manifest == second.content.manifest


async def test_contents_that_are_gone_from_the_disk_are_fetched_again(
    database: Database, places: FolderPlaces, snapshots: Snapshots, tmp_path: Path
) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        await snapshots.take(thread)
        for path in (tmp_path / "snapshots").glob("*/objects/*/*"):
            path.unlink()
        again = await snapshots.take(thread)
        (places.path(thread.thread_id) / "a").unlink()
        assert await snapshots.restore(thread, again) == Planted(1, 0)


async def test_a_thread_without_files_has_an_empty_snapshot_and_no_sandbox(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places) as (_, thread):
        assert (await snapshots.take(thread)).content.files == 0
        assert places.asked == []


async def test_a_busy_thread_has_no_snapshot_taken(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with open_harbor(database, SCRIPT, workers=0) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread, "hello")
        with pytest.raises(ThreadBusy):
            await snapshots.take(thread)
        assert places.asked == []


async def test_what_happens_meanwhile_refuses_the_snapshot(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one") as (harbor, thread):

        async def meanwhile() -> None:
            await harbor.say(thread, "hello")

        places.meanwhile = meanwhile
        with pytest.raises(ThreadBusy):
            await snapshots.take(thread)
        assert await all_of(snapshots, thread) == []


async def test_a_file_that_keeps_changing_is_missed_and_the_snapshot_says_so(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, still="one", moving="") as (_, thread):
        path = places.path(thread.thread_id) / "moving"

        async def meanwhile() -> None:
            path.write_text(path.read_text() + "x")

        places.meanwhile = meanwhile
        content = (await snapshots.take(thread)).content
        assert (content.files, content.missed) == (1, 1)


async def test_a_file_that_changes_once_is_asked_for_again(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, still="one", moving="old") as (_, thread):

        async def meanwhile() -> None:
            if places.asked.count("fetch") == 1 and places.asked[-1] == "fetch":
                (places.path(thread.thread_id) / "moving").write_text("newer")

        places.meanwhile = meanwhile
        content = (await snapshots.take(thread)).content
        assert (content.files, content.missed) == (2, 0)
        assert places.fetched == [b"moving", b"still", b"moving"]


async def test_what_is_too_much_is_refused_and_nothing_is_listed(
    database: Database, store: SnapshotFiles, places: FolderPlaces
) -> None:
    tight = SnapshotLimits(TreeBounds(max_files=1, max_bytes=10))
    snapshots = Snapshots(PostgresSnapshots(database), store, places, tight, profile_of=small)
    async with a_thread(database, places, a="one", b="two") as (_, thread):
        with pytest.raises(TreeRefused) as refused:
            await snapshots.take(thread)
        assert refused.value.code == "too_many_files"
        assert await all_of(snapshots, thread) == []


async def test_who_has_used_up_the_space_adds_nothing_and_may_take_what_is_there(
    database: Database, store: SnapshotFiles, places: FolderPlaces
) -> None:
    snapshots = limited(database, store, places, user_bytes=120_000)
    async with a_thread(database, places, a="x" * 100_000) as (_, thread):
        first = await snapshots.take(thread)
        for _ in range(5):
            (places.path(thread.thread_id) / "a").chmod(0o644)  # only a time changes that no snapshot shows
            await snapshots.take(thread)
        write(places.path(thread.thread_id), b="y" * 20_000)
        with pytest.raises(SnapshotSpaceUsedUp):
            await snapshots.take(thread)
        (places.path(thread.thread_id) / "a").unlink()
        for snapshot in await all_of(snapshots, thread):
            await snapshots.delete(thread, snapshot.snapshot_id)
        assert (await snapshots.take(thread)).content.added_bytes == 20_000
        with pytest.raises(SnapshotNotFound):
            await snapshots.get(thread, first.snapshot_id)


async def test_links_and_folders_take_up_space_too(
    database: Database, store: SnapshotFiles, places: FolderPlaces
) -> None:
    async with a_thread(database, places, a="x" * 100_000) as (_, thread):
        await limited(database, store, places, user_bytes=0).take(thread)
        full = limited(database, store, places, user_bytes=await store.used_bytes(ALICE, counted_now=True))
        (places.path(thread.thread_id) / "link").symlink_to("x" * 1000)
        with pytest.raises(SnapshotSpaceUsedUp):
            await full.take(thread)


async def test_one_that_does_not_fit_is_refused_and_leaves_nothing(
    database: Database, store: SnapshotFiles, places: FolderPlaces, tmp_path: Path
) -> None:
    snapshots = limited(database, store, places, user_bytes=50_000)
    async with a_thread(database, places, a="x" * 100_000, b="small") as (_, thread):
        with pytest.raises(SnapshotSpaceUsedUp):
            await snapshots.take(thread)
        assert objects(tmp_path / "snapshots") == 0
        (places.path(thread.thread_id) / "a").unlink()
        assert (await snapshots.take(thread)).content.bytes == 5


async def test_snapshots_at_once_and_in_several_servers_do_not_pass_the_limit_together(
    database: Database, places: FolderPlaces, tmp_path: Path
) -> None:
    stores = [SnapshotFiles(tmp_path / "snapshots") for _ in range(3)]
    servers = [limited(database, store, places, user_bytes=150_000) for store in stores]
    async with open_harbor(database, SCRIPT) as harbor:
        threads = [await harbor.new_thread() for _ in range(6)]
        for number, thread in enumerate(threads):
            write(places.make(thread.thread_id), a=str(number) * 60_000)
        for store in stores:
            assert await store.used_bytes(ALICE) == 0  # what each of them believes for some minutes
        taking = (servers[number % 3].take(thread) for number, thread in enumerate(threads))
        taken = await asyncio.gather(*taking, return_exceptions=True)
        assert {type(one) for one in taken} <= {Snapshot, SnapshotSpaceUsedUp}
        await servers[0].collect()
        assert await stores[0].used_bytes(ALICE, counted_now=True) <= 150_000
        small_one = await harbor.new_thread()
        write(places.make(small_one.thread_id), a="fits")
        assert (await servers[0].take(small_one)).content.bytes == 4


async def test_of_a_thread_the_newest_are_kept(
    database: Database, places: FolderPlaces, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "KEPT", 3)
    async with a_thread(database, places, a="one") as (harbor, thread):
        other = await harbor.new_thread()
        await snapshots.take(other)
        taken = [await snapshots.take(thread) for _ in range(5)]
        assert await all_of(snapshots, thread) == taken[:1:-1]
        assert len(await all_of(snapshots, other)) == 1


async def test_many_at_once_are_all_kept(database: Database, places: FolderPlaces, snapshots: Snapshots) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        taken = await asyncio.gather(*(snapshots.take(thread) for _ in range(10)))
        assert {item.snapshot_id for item in await all_of(snapshots, thread)} == {item.snapshot_id for item in taken}


async def test_a_list_is_given_in_parts(database: Database, places: FolderPlaces, snapshots: Snapshots) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        taken = [await snapshots.take(thread) for _ in range(5)]
        found: list[Snapshot] = []
        cursor = None
        for _ in range(3):
            page = await snapshots.search(thread, limit=2, cursor=cursor)
            found, cursor = found + page.items, page.next_cursor
        assert (found, cursor) == (taken[::-1], None)
        with pytest.raises(InvalidPayload):
            await snapshots.search(thread, limit=2, cursor="nonsense")


# After runs ----------------------------------------------------------------------------------------------------------


async def test_what_goes_wrong_when_a_run_is_seen_off_does_not_cost_it_its_outcome(database: Database) -> None:
    async def fail(_: Claim) -> None:
        raise ZeroDivisionError

    async with open_harbor(database, SCRIPT, before_end=fail) as harbor:
        assert end_of(await harbor.say(await harbor.new_thread(), "hello")) == "success"


async def test_a_run_that_used_a_sandbox_leaves_a_snapshot_of_its_last_checkpoint(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with open_harbor(database, SCRIPT, before_end=snapshots.after_run) as harbor:
        thread = await harbor.new_thread()
        write(places.make(thread.thread_id), a="one")
        assert end_of(await harbor.say(thread, "hello")) == "success"
        assert await all_of(snapshots, thread) == [], "its sandbox was not used"
        places.awake.add(thread.thread_id)
        await harbor.say(thread, "note")
        [snapshot] = await all_of(snapshots, thread)
        assert snapshot.content.kind is SnapshotKind.RUN
        assert snapshot.checkpoint_id == await checkpoint_of(harbor, thread)
        await harbor.say(thread, "hello")
        assert await all_of(snapshots, thread) == [snapshot], "nothing was changed"
        write(places.path(thread.thread_id), a="two")
        await harbor.say(thread, "hello")
        assert len(await all_of(snapshots, thread)) == 2


async def test_a_run_does_not_fail_with_its_snapshot(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with open_harbor(database, SCRIPT, before_end=snapshots.after_run) as harbor:
        for error in (TreeRefused("too much"), RuntimeError("a bug")):
            thread = await harbor.new_thread()
            places.make(thread.thread_id)
            places.awake.add(thread.thread_id)

            async def meanwhile(error: Exception = error) -> None:
                raise error

            places.meanwhile = meanwhile
            assert end_of(await harbor.say(thread, "hello")) == "success"
            assert await all_of(snapshots, thread) == []


async def test_a_run_that_is_stopped_does_not_wait_for_its_snapshot(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with open_harbor(database, SCRIPT, before_end=snapshots.after_run) as harbor:
        thread = await harbor.new_thread()
        places.make(thread.thread_id)
        places.awake.add(thread.thread_id)
        asked = asyncio.Event()

        async def meanwhile() -> None:
            asked.set()
            await asyncio.Event().wait()

        places.meanwhile = meanwhile
        saying = asyncio.create_task(harbor.say(thread, "hello"))
        await asked.wait()
        await harbor.runs.stop(thread.thread_id)
        assert end_of(await saying) in ("success", "cancelled")


async def test_who_lost_the_run_leaves_no_snapshot(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        places.awake.add(thread.thread_id)
        await snapshots.after_run(Claim(new_run_id(), thread.thread_id, ALICE, 1))
        assert await all_of(snapshots, thread) == []


# Restoring -----------------------------------------------------------------------------------------------------------


async def test_files_are_taken_back_and_only_what_changed_is_written(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, same="s", changed="old", removed="gone") as (_, thread):
        folder = places.path(thread.thread_id)
        snapshot = await snapshots.take(thread)
        inode = (folder / "same").stat().st_ino
        write(folder, changed="new", added="x")
        (folder / "removed").unlink()
        assert await snapshots.restore(thread, snapshot) == Planted(written=2, removed=1)
        assert read(folder) == {"same": "s", "changed": "old", "removed": "gone"}
        assert (folder / "same").stat().st_ino == inode
        assert places.profiles[-1] == "small"
        assert await snapshots.restore(thread, await snapshots.take(thread)) == Planted(0, 0)


async def test_a_file_that_is_changed_while_they_are_taken_back_is_looked_at_again(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one", b="two") as (_, thread):
        snapshot = await snapshots.take(thread)
        folder = places.path(thread.thread_id)

        async def meanwhile() -> None:
            if places.asked.count("plant") == 1:
                write(folder, a="changed")

        places.meanwhile = meanwhile
        await snapshots.restore(thread, snapshot)
        assert read(folder) == {"a": "one", "b": "two"}


async def test_nothing_is_taken_back_in_a_busy_thread(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one") as (harbor, thread):
        snapshot = await snapshots.take(thread)

        async def meanwhile() -> None:
            await harbor.say(thread, "hello")

        places.meanwhile = meanwhile
        with pytest.raises(ThreadBusy):
            await snapshots.restore(thread, snapshot)


async def test_a_workspace_that_no_snapshot_could_be_taken_of_can_be_restored(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        snapshot = await snapshots.take(thread)
        folder = places.path(thread.thread_id)
        for number in range(1100):
            (folder / str(number)).touch()
        with pytest.raises(TreeRefused):
            await snapshots.take(thread)
        await snapshots.restore(thread, snapshot)
        assert read(folder) == {"a": "one"}


# Removing ------------------------------------------------------------------------------------------------------------


async def test_what_no_snapshot_needs_goes_with_the_last_that_did(
    database: Database, places: FolderPlaces, snapshots: Snapshots, tmp_path: Path
) -> None:
    async with a_thread(database, places, both="both", old="old") as (_, thread):
        first = await snapshots.take(thread)
        (places.path(thread.thread_id) / "old").unlink()
        second = await snapshots.take(thread)
        assert objects(tmp_path / "snapshots") == 4
        await snapshots.delete(thread, first.snapshot_id)
        assert objects(tmp_path / "snapshots") == 2
        assert await snapshots.restore(thread, second) == Planted(0, 0)
        for wrong in (first.snapshot_id, "nonsense", "\x00"):
            with pytest.raises(SnapshotNotFound):
                await snapshots.delete(thread, wrong)


async def test_a_thread_that_is_deleted_takes_its_snapshots_along(
    database: Database, places: FolderPlaces, snapshots: Snapshots, tmp_path: Path
) -> None:
    async with a_thread(database, places, a="mine") as (harbor, thread):
        other = await harbor.new_thread()
        write(places.make(other.thread_id), a="its own")
        await snapshots.take(thread)
        kept = await snapshots.take(other)
        await snapshots.forget(ALICE, thread.thread_id)
        await harbor.threads.delete(thread)
        assert objects(tmp_path / "snapshots") == 2
        assert await all_of(snapshots, other) == [kept]
        with pytest.raises(ThreadNotFound):
            await snapshots.take(thread)


async def test_the_chore_removes_what_crashed_snapshots_left_and_what_users_who_are_gone_had(
    database: Database, store: SnapshotFiles, places: FolderPlaces, snapshots: Snapshots, tmp_path: Path
) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        await snapshots.take(thread)
        root = tmp_path / "snapshots"
        (root / "alice" / "incoming").mkdir(exist_ok=True)
        (root / "alice" / "incoming" / "half").write_text("half")
        (root / "gone" / "objects" / "ab").mkdir(parents=True)
        (root / "gone" / "objects" / "ab" / "c").write_text("x")
        assert await snapshots.collect() == 1
        assert [path for path in root.rglob("*") if path.name in ("half", "c")] == []
        assert objects(root) == 2


async def test_snapshots_and_collecting_at_once_lose_nothing(
    database: Database, places: FolderPlaces, snapshots: Snapshots
) -> None:
    async with a_thread(database, places, a="one") as (_, thread):
        folder = places.path(thread.thread_id)

        async def collect() -> None:
            for _ in range(30):
                await snapshots.collect()

        collecting = asyncio.create_task(collect())
        for number in range(15):
            write(folder, a=f"one {number % 3}")
            snapshot = await snapshots.take(thread)
            if number % 2:
                await snapshots.delete(thread, snapshot.snapshot_id)
        await collecting
        for snapshot in await all_of(snapshots, thread):
            os.utime(folder / "a")
            await snapshots.restore(thread, snapshot)


async def test_no_thread_of_another_user_is_reached(
    database: Database, places: FolderPlaces, snapshots: Snapshots, add_user: AddUser
) -> None:
    mallory = await add_user("mallory")
    async with a_thread(database, places, a="one") as (_, thread):
        snapshot = await snapshots.take(thread)
        theirs = replace(thread, owner_id=mallory)
        assert (await snapshots.search(theirs, limit=10, cursor=None)).items == []
        with pytest.raises(SnapshotNotFound):
            await snapshots.get(theirs, snapshot.snapshot_id)
        with pytest.raises(SnapshotNotFound):
            await snapshots.delete(theirs, snapshot.snapshot_id)
        other = replace(thread, thread_id=ThreadId(f"alice-{'0' * 8}-0000-4000-8000-{'0' * 12}"))
        with pytest.raises(SnapshotNotFound):
            await snapshots.get(other, snapshot.snapshot_id)

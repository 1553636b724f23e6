"""Workspaces that are file systems of their own: killed servers, leftovers, repairs, growth, and who may see them."""

import os
import signal
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from tests.integration.folders_harness import ALICE, SMALL, World, as_agent, open_world, prepared, thread_of

from moorage.adapters.folders import Folders, Place, mounts
from moorage.adapters.folders.layout import image_of
from moorage.errors import Conflict
from moorage.ids import ThreadId, user_place
from moorage.sandboxes.port import SandboxUnavailable

MOST_STEPS = 200
APART = ("unshare", "--mount", "--propagation", "private")
STEPS = ("os.", "fcntl.", "subprocess.Popen", "sqlite3.", "open", "pathlib.", "shutil.")


@pytest.fixture
def world(public_tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[World]:
    base = public_tmp_path / tmp_path_factory.mktemp("world").name
    base.mkdir(mode=0o711)
    with open_world(base, "loop") as world:
        try:
            assert world.folders().storage == "loop"
        except SandboxUnavailable as error:
            pytest.skip(error.detail)
        yield world


@pytest.fixture
def folders(world: World) -> Folders:
    return world.folders()


@pytest.fixture
def place(folders: Folders) -> Place:
    return prepared(folders)


def _killed_at(step: int, act: Callable[[], object]) -> bool:
    """Do it in a process that is killed when it has taken so many steps; answers whether it came so far."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child runs nothing of other threads
        child = os.fork()
    if child == 0:
        taken = 0

        def count(event: str, _: object) -> None:
            nonlocal taken
            if event.startswith(STEPS) and event != "os.kill":
                taken += 1
                if taken > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            act()
        except BaseException:  # noqa: BLE001 the last words of a process
            traceback.print_exc()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def _steps(act: Callable[[], Callable[[], object]], folders: Folders) -> Generator[int]:
    """Kill what `act` answers after one step, after two, and so on, until it ends by itself."""
    assert folders.storage == "loop"
    for step in range(MOST_STEPS):
        what = act()
        folders.registry.close()  # no connection is for two processes
        if not _killed_at(step, what):
            assert step > 5
            return
        yield step
    pytest.fail("It takes too many steps")


def test_a_server_killed_while_it_prepares_a_folder_leaves_one_that_can_be_prepared(
    world: World, folders: Folders
) -> None:
    kept = prepared(folders)
    threads: list[ThreadId] = []

    def act() -> Callable[[], object]:
        threads.append(thread_of())
        return lambda: folders.prepare(threads[-1], SMALL)

    for step in _steps(act, folders):
        place = folders.prepare(threads[-1], SMALL)
        wrote = as_agent(place.agent, 'echo hi > "$FOLDER/note"', place.workspace.path)
        assert (step, wrote.stderr) == (step, "")
        folders.delete(threads[-1])
    assert set(folders.threads()) == {kept.name, threads[-1]}
    assert len(world.images_once(lambda images: len(images) == 3)) == 3  # the shared folder too


def test_a_server_killed_while_it_deletes_a_folder_leaves_one_that_can_be_deleted(
    world: World, folders: Folders
) -> None:
    threads: list[ThreadId] = []

    def act() -> Callable[[], object]:
        threads.append(thread_of())
        place = folders.prepare(threads[-1], SMALL)
        (place.workspace.path / "d" / "e").mkdir(parents=True)
        return lambda: folders.delete(threads[-1])

    for step in _steps(act, folders):
        folders.delete(threads[-1])
        assert (step, folders.threads()) == (step, [])
    assert [path for path in (world.root / ALICE).rglob("*") if path.name != ".images"] == []
    left = world.images_once(lambda images: not any(thread_id in image for image in images for thread_id in threads))
    assert not any(thread_id in image for image in left for thread_id in threads)


def test_a_server_killed_while_it_adopts_a_spare_place_loses_nothing(world: World, folders: Folders) -> None:
    tried: list[tuple[Place, ThreadId]] = []

    def act() -> Callable[[], object]:
        tried.append((folders.prepare_spare(ALICE, SMALL), thread_of()))
        (tried[-1][0].workspace.path / "note").write_text("there before")
        return lambda: folders.adopt(*tried[-1])

    for step in _steps(act, folders):
        spare, thread_id = tried[-1]
        was_handed_over = not image_of(spare.workspace.path).exists()
        place = folders.prepare(thread_id, SMALL)
        assert (step, (place.workspace.path / "note").exists()) == (step, was_handed_over)
        for owner, name in folders.spares():
            folders.discard(owner, name)
        assert (step, (place.workspace.path / "note").exists()) == (step, was_handed_over)
        assert folders.spares() == []
        folders.delete(thread_id)
    assert len(world.images()) == 2


def test_a_process_that_comes_later_finds_what_one_that_was_killed_had_mounted(world: World) -> None:
    threads = [thread_of()]
    folders = world.folders()
    assert folders.storage == "loop"
    assert not _killed_at(MOST_STEPS, lambda: folders.prepare(threads[0], SMALL))
    before = world.images()
    place = world.folders().prepare(threads[0], SMALL)
    assert world.images() == before
    assert world.mounts().count(place.workspace.path) == 1


def test_processes_that_prepare_one_folder_at_once_mount_it_once(world: World) -> None:
    thread_id = thread_of()
    every = [world.folders() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        places = list(pool.map(lambda folders: folders.prepare(thread_id, SMALL), every))
    assert len(set(map(repr, places))) == 1
    assert world.mounts().count(places[0].workspace.path) == 1
    assert len(world.images()) == 2


def test_what_is_released_is_no_disk_any_more_and_the_shared_folder_goes_last(world: World, folders: Folders) -> None:
    first, second = prepared(folders), prepared(folders)
    folders.release(ThreadId(first.name))
    assert first.shared.path in world.mounts()
    folders.release(ThreadId(second.name))
    assert world.mounts() == []
    assert world.images_once(lambda images: not images) == set()


def test_what_is_busy_can_be_released(world: World, folders: Folders, place: Place) -> None:
    with (place.workspace.path / "note").open("w") as file:
        folders.release(ThreadId(place.name))
        assert place.workspace.path not in world.mounts()
        file.write("written late")
    folders.prepare(ThreadId(place.name), SMALL)
    assert (place.workspace.path / "note").read_text() == "written late"


def test_what_is_mounted_elsewhere_still_is_the_same_disk(world: World, folders: Folders, place: Place) -> None:
    """As in a container that takes its time to go: two file systems on one file would destroy it."""
    program = 'echo ready; read go; echo late > "$0/late"'
    elsewhere = subprocess.Popen(
        [*APART, "sh", "-c", program, place.workspace.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert elsewhere.stdout is not None
    assert elsewhere.stdout.readline() == b"ready\n"
    folders.release(ThreadId(place.name))
    assert world.images_of(place) == 1
    folders.prepare(ThreadId(place.name), SMALL)
    assert world.images_of(place) == 1
    elsewhere.communicate(b"go\n")
    assert (place.workspace.path / "late").read_text() == "late\n"


def test_an_adopted_place_is_the_one_that_a_container_has_mounted(folders: Folders) -> None:
    spare, thread_id = folders.prepare_spare(ALICE, SMALL), thread_of()
    program = 'mount --bind "$0" /mnt && echo ready && read go && echo inside > /mnt/note && read go'
    container = subprocess.Popen(
        [*APART, "sh", "-c", program, spare.workspace.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert container.stdout is not None
    assert container.stdout.readline() == b"ready\n"
    place = folders.adopt(spare, thread_id)
    (place.workspace.path / "outside").touch()
    container.communicate(b"go\ngo\n")
    assert (place.workspace.path / "note").read_text() == "inside\n"


def test_adopting_what_was_adopted_is_refused(folders: Folders) -> None:
    spare, thread_id = folders.prepare_spare(ALICE, SMALL), thread_of()
    folders.adopt(spare, thread_id)
    with pytest.raises(Conflict):
        folders.adopt(spare, thread_id)
    with pytest.raises(SandboxUnavailable):
        folders.adopt(spare, thread_of())


def test_who_misses_the_mount_may_not_write(world: World, folders: Folders, place: Place) -> None:
    folders.release(ThreadId(place.name))
    assert "Permission denied" in as_agent(place.agent, 'touch "$FOLDER/lost"', place.workspace.path).stderr


def test_nothing_in_a_workspace_gives_rights_or_is_a_device(place: Place) -> None:
    flags = os.statvfs(place.workspace.path).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV


def test_the_machine_gets_back_what_removed_files_took(folders: Folders) -> None:
    profile = replace(SMALL, disk_mb=64)
    place = prepared(folders, profile=profile)
    as_agent(place.agent, 'head -c 50M /dev/urandom > "$FOLDER/big"; sync', place.workspace.path)
    image = image_of(place.workspace.path)
    assert image.stat().st_blocks * 512 > 50 * 2**20
    (place.workspace.path / "big").unlink()
    folders.release(ThreadId(place.name))
    assert image.stat().st_blocks * 512 < 10 * 2**20


def test_a_larger_profile_makes_a_workspace_larger_and_a_smaller_one_leaves_it(folders: Folders) -> None:
    place = prepared(folders)
    (place.workspace.path / "note").write_text("kept")
    thread_id = ThreadId(place.name)
    sizes: list[int] = []
    for disk_mb in (64, 16):
        folders.release(thread_id)
        folders.prepare(thread_id, replace(SMALL, disk_mb=disk_mb))
        sizes.append((folders.usage(thread_id) or (0, 0))[1])
    assert 64 * 2**20 <= sizes[0] == sizes[1] < 80 * 2**20
    assert (place.workspace.path / "note").read_text() == "kept"


def test_a_file_system_with_errors_takes_no_writes_until_it_is_repaired(world: World, place: Place) -> None:
    (place.workspace.path / "note").write_text("kept")
    os.sync()
    device = os.minor(place.workspace.path.stat().st_dev)
    Path(f"/sys/fs/ext4/loop{device}/trigger_fs_error").write_text("a test")
    assert "Read-only" in as_agent(place.agent, 'touch "$FOLDER/x"', place.workspace.path).stderr
    world.folders().prepare(ThreadId(place.name), SMALL)
    assert as_agent(place.agent, 'touch "$FOLDER/x"', place.workspace.path).stderr == ""
    assert (place.workspace.path / "note").read_text() == "kept"


def test_an_image_that_is_none_is_named_and_can_be_deleted(folders: Folders, place: Place) -> None:
    folders.release(ThreadId(place.name))
    with image_of(place.workspace.path).open("r+b") as file:
        file.write(b"\0" * 100_000_000)
    with pytest.raises(SandboxUnavailable):
        folders.prepare(ThreadId(place.name), SMALL)
    folders.delete(ThreadId(place.name))
    folders.prepare(ThreadId(place.name), SMALL)


def test_a_folder_from_before_stays_a_folder_and_is_watched(world: World) -> None:
    old = prepared(world.folders("watch"))
    (old.workspace.path / "note").write_text("kept")
    empty = prepared(world.folders("watch"))
    for before in (old, empty):
        now = world.folders("loop").prepare(ThreadId(before.name), SMALL)
        assert now.bounds.disk_bytes == SMALL.disk_mb * 2**20
        assert now.workspace.path not in world.mounts()
    assert (old.workspace.path / "note").read_text() == "kept"


def test_a_file_system_from_before_is_still_one_when_new_ones_are_not(world: World, place: Place) -> None:
    (place.workspace.path / "note").write_text("kept")
    world.restart_the_machine()
    now = world.folders("watch").prepare(ThreadId(place.name), SMALL)
    assert now.bounds.disk_bytes is None
    assert (now.workspace.path / "note").read_text() == "kept"


def test_a_server_that_is_not_root_says_what_it_lacks(world: World) -> None:
    (world.base / "plain").mkdir()
    os.chown(world.base / "plain", 12_345, 12_345)
    program = """
import os, pathlib, sys
from moorage.adapters.folders import *
from moorage.ids import *
from moorage.sandboxes.profiles import SandboxProfile

os.setgroups([]), os.setgid(12345), os.setuid(12345)  # all is imported: the project may be root's alone
base = pathlib.Path(sys.argv[1])
registry = Registry(base / "ws/.registry.sqlite3", uids=range(200000, 210000))
folders = Folders(base / "ws", base / "sh", registry=registry)
thread = new_thread_id(UserId("alice"))
place = folders.prepare(thread, SandboxProfile())
(place.workspace.path / "note").touch()
(place.shared.path / "note").touch()
print(folders.storage, registry.identity(thread).uid, folders.identity(thread).uid, place.agent.uid)
print(*(lack.name for lack in folders.shortcomings()), place.bounds.max_files)
folders.release(thread)
folders.delete(thread)
folders.delete_user(UserId("alice"))
print(folders.threads())
"""
    done = _python(program, str(world.base / "plain"))
    assert done.stdout.splitlines() == ["watch 12345 12345 12345", "agent_uids storage 100000", "[]"], done.stderr


def test_mounts_that_the_engine_would_not_see_are_not_made(world: World) -> None:
    program = (
        "import pathlib, sys; from moorage.adapters.folders import *\n"
        "base = pathlib.Path(sys.argv[1])\n"
        "registry = Registry(base / 'ws/.registry.sqlite3', uids=range(310000, 311000))\n"
        "for host_root in sys.argv[2:]:\n"
        "    folders = Folders(base / 'ws', base / 'sh', registry=registry, host_root=host_root or None)\n"
        "    print(folders.storage, 'rshared' in ''.join(lack.detail for lack in folders.shortcomings()))\n"
    )
    assert _python(program, str(world.base), "", before=APART).stdout == "watch True\n"
    assert _python(program, str(world.base), "/srv/ws").stdout == "watch True\n"
    shared = ["sh", "-c", 'mount --bind "$0" "$0" && mount --make-rshared "$0" && exec "$@"', str(world.base)]
    seen = _python(program, str(world.base), "/srv/ws", before=(*APART, *shared))
    assert seen.stdout == "loop False\n", seen.stderr


def test_no_storage_that_does_not_work_is_taken_for_another(world: World) -> None:
    with pytest.raises(SandboxUnavailable, match="SANDBOX_STORAGE=loop does not work here"):
        assert world.folders("loop", host_root="/srv/ws").storage


def test_unmounting_what_is_no_mount_is_no_error(world: World) -> None:
    mounts.unmount(world.base)
    mounts.unmount(world.base / "missing")


def _python(program: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_is_mounted_is_told_and_a_shared_folder_only_when_it_is_alone(world: World, folders: Folders) -> None:
    first, spare = prepared(folders), folders.prepare_spare(ALICE, SMALL)
    assert folders.mounted() == [ThreadId(first.name)]
    mounts.unmount(first.workspace.path)
    assert folders.mounted() == []
    mounts.unmount(spare.workspace.path)
    assert folders.mounted() == [user_place(ALICE)]
    folders.release(user_place(ALICE))
    assert folders.mounted() == []

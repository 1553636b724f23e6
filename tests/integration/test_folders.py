"""Folders of threads and users, on every kind of storage: whose they are, what they survive, how they go."""

import os
import stat
import subprocess
from collections.abc import Generator
from pathlib import Path
from shutil import which

import pytest
from tests.integration.folders_harness import (
    ALICE,
    BOB,
    SMALL,
    Storage,
    World,
    as_agent,
    open_world,
    prepared,
    thread_of,
)

from moorage.adapters.folders import Folders, Place, host_view
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId, user_place
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable
from moorage.sandboxes.profiles import SandboxProfile

IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")


@pytest.fixture(params=["loop", "quota", "watch"])
def world(
    request: pytest.FixtureRequest, public_tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World]:
    storage: Storage = request.param
    base = Path(os.environ.get("TEST_QUOTA_DIR", public_tmp_path)) / tmp_path_factory.mktemp("world").name
    base.mkdir(mode=0o711)
    base.chmod(0o711)
    with open_world(base, storage) as world:
        try:
            assert world.folders().storage == storage
        except SandboxUnavailable as error:
            pytest.skip(error.detail)
        yield world


@pytest.fixture
def folders(world: World) -> Folders:
    return world.folders()


@pytest.fixture
def place(folders: Folders) -> Place:
    return prepared(folders)


@pytest.mark.parametrize(
    ("host_root", "expected"),
    [
        (None, "/app/ws/alice/t"),
        ("", "/app/ws/alice/t"),
        ("/srv/moorage/ws", "/srv/moorage/ws/alice/t"),
        ("/srv/moorage/ws/", "/srv/moorage/ws/alice/t"),
        ("C:\\moorage\\ws", "C:\\moorage\\ws\\alice\\t"),
        ("C:\\moorage\\ws\\", "C:\\moorage\\ws\\alice\\t"),
        ("D:/moorage/ws", "D:\\moorage\\ws\\alice\\t"),
        ("\\\\server\\share\\ws", "\\\\server\\share\\ws\\alice\\t"),
        ("/c/moorage/ws", "/c/moorage/ws/alice/t"),
        ("/run/desktop/mnt/host/c/ws", "/run/desktop/mnt/host/c/ws/alice/t"),
    ],
)
def test_a_folder_is_named_as_the_engine_s_machine_names_it(host_root: str | None, expected: str) -> None:
    assert host_view(Path("/app/ws/alice/t"), root=Path("/app/ws"), host_root=host_root) == expected


def test_a_thread_s_folder_is_below_its_owner_s(world: World) -> None:
    thread_id = ThreadId("al-ice-550e8400-e29b-41d4-a716-446655440000")
    assert world.folders().path(thread_id) == world.root / "al-ice" / thread_id
    assert world.folders(host_root="/srv/ws").path(thread_id) == world.root / "al-ice" / thread_id


@pytest.mark.parametrize(
    "text", ["", "alice", "../alice-550e8400-e29b-41d4-a716-446655440000", "a/b", "..", ".spare-1"]
)
def test_what_is_no_thread_id_has_no_folder(folders: Folders, text: str) -> None:
    for use in (folders.path, folders.delete, folders.release, folders.usage, folders.identity):
        with pytest.raises(InvalidInput):
            use(ThreadId(text))
    with pytest.raises(InvalidInput):
        folders.prepare(ThreadId(text), SMALL)


@pytest.mark.parametrize("text", ["", "..", ".", "a/b", "A"])
def test_what_is_no_user_id_has_no_shared_folder(folders: Folders, text: str) -> None:
    with pytest.raises(InvalidInput):
        folders.shared_path(UserId(text))
    with pytest.raises(InvalidInput):
        folders.delete_user(UserId(text))


@IS_ROOT
def test_a_workspace_is_its_agent_s_alone(folders: Folders, place: Place) -> None:
    status = place.workspace.path.stat()
    assert (status.st_uid, status.st_gid) == (place.agent.uid, place.agent.gid)
    assert stat.S_IMODE(status.st_mode) == 0o770
    assert (
        as_agent(place.agent, 'echo mine > "$FOLDER/note" && mkdir "$FOLDER/d"', place.workspace.path).returncode == 0
    )
    for other in (prepared(folders, BOB).agent, AgentIdentity(65534, 65534)):
        for attempt in ('cat "$FOLDER/note"', 'ls "$FOLDER"', 'touch "$FOLDER/x"'):
            assert "Permission denied" in as_agent(other, attempt, place.workspace.path).stderr


@IS_ROOT
def test_the_threads_of_a_user_share_a_folder_and_nobody_else_sees_it(folders: Folders, place: Place) -> None:
    second, other = prepared(folders), prepared(folders, BOB)
    shared = place.shared.path
    made = as_agent(place.agent, 'mkdir "$FOLDER/d" && echo one > "$FOLDER/d/file"', shared)
    changed = as_agent(second.agent, 'echo two >> "$FOLDER/d/file" && cat "$FOLDER/d/file"', shared)
    assert (made.returncode, changed.stdout) == (0, "one\ntwo\n")
    assert "Permission denied" in as_agent(other.agent, 'ls "$FOLDER"', shared).stderr
    assert shared.stat().st_uid == 0
    assert other.shared.path != shared


def test_the_folders_above_can_be_passed_but_not_read(world: World, place: Place) -> None:
    for above in (world.root, world.shared, place.workspace.path.parent):
        assert stat.S_IMODE(above.stat().st_mode) == 0o711


def test_preparing_again_keeps_the_files_and_the_agent(world: World, folders: Folders, place: Place) -> None:
    (place.workspace.path / "note").write_text("kept")
    for again in (folders, world.folders()):
        assert again.prepare(ThreadId(place.name), SMALL) == place
        assert (place.workspace.path / "note").read_text() == "kept"


def test_files_outlive_a_release_and_a_restart_of_the_machine(world: World, folders: Folders, place: Place) -> None:
    (place.workspace.path / "note").write_text("kept")
    (place.shared.path / "note").write_text("kept too")
    folders.release(ThreadId(place.name))
    folders.release(ThreadId(place.name))
    world.restart_the_machine()
    world.folders().prepare(ThreadId(place.name), SMALL)
    assert (place.workspace.path / "note").read_text() == "kept"
    assert (place.shared.path / "note").read_text() == "kept too"


@IS_ROOT
def test_a_full_workspace_is_full_for_its_agent_and_for_nobody_else(
    world: World, folders: Folders, place: Place
) -> None:
    other = prepared(folders)
    full = as_agent(place.agent, 'head -c 40M /dev/zero > "$FOLDER/big"', place.workspace.path)
    if world.storage == "watch":
        assert (place.bounds.disk_bytes, place.bounds.max_files) == (16 * 2**20, 200)
        return
    assert "No space left" in full.stderr or "quota exceeded" in full.stderr
    assert 15 * 2**20 < (place.workspace.path / "big").stat().st_size < 20 * 2**20
    for here in (other.workspace.path, other.shared.path):
        assert as_agent(other.agent, 'head -c 10M /dev/zero > "$FOLDER/big"', here).returncode == 0
    assert (
        as_agent(
            place.agent, 'rm "$FOLDER/big" && head -c 10M /dev/zero > "$FOLDER/b"', place.workspace.path
        ).returncode
        == 0
    )


@IS_ROOT
def test_a_workspace_holds_only_so_many_files_and_others_still_theirs(
    world: World, folders: Folders, place: Place
) -> None:
    if world.storage == "watch":
        pytest.skip("the helper counts")
    other = prepared(folders)
    many = as_agent(place.agent, 'i=0; while : > "$FOLDER/$i"; do i=$((i+1)); done', place.workspace.path)
    assert "No space left" in many.stderr or "quota exceeded" in many.stderr
    assert 150 <= len(list(place.workspace.path.iterdir())) <= 240
    assert as_agent(other.agent, 'touch "$FOLDER/one"', other.workspace.path).returncode == 0
    assert place.bounds.max_files is None


@IS_ROOT
def test_a_shared_folder_is_bounded_too(world: World, place: Place) -> None:
    if world.storage == "watch":
        pytest.skip("nothing bounds it, as its shortcoming says")
    full = as_agent(place.agent, 'head -c 40M /dev/zero > "$FOLDER/big"', place.shared.path)
    assert "No space left" in full.stderr or "quota exceeded" in full.stderr


def test_what_a_workspace_uses_is_told_without_a_walk(world: World, folders: Folders, place: Place) -> None:
    if world.storage == "watch":
        assert folders.usage(ThreadId(place.name)) is None
        return
    as_agent(place.agent, 'head -c 5M /dev/zero > "$FOLDER/big"; sync', place.workspace.path)
    os.sync()
    used, limit = folders.usage(ThreadId(place.name)) or (0, 0)
    assert 5 * 2**20 <= used < 6 * 2**20
    assert 16 * 2**20 <= limit < 20 * 2**20
    folders.release(ThreadId(place.name))
    released, most = folders.usage(ThreadId(place.name)) or (0, 0)
    assert abs(released - used) < 2**20
    assert abs(most - limit) < 3 * 2**20


def test_threads_with_files_are_listed(world: World, folders: Folders, place: Place) -> None:
    second = prepared(folders, BOB)
    folders.prepare(user_place(BOB), SMALL)
    folders.prepare_spare(ALICE, SMALL)
    folders.release(ThreadId(second.name))
    assert set(world.folders().threads()) == {place.name, second.name, user_place(BOB)}
    folders.delete(ThreadId(place.name))
    assert place.name not in folders.threads()


def test_deleting_removes_all_of_a_thread_and_nothing_else(world: World, folders: Folders, place: Place) -> None:
    kept = prepared(folders)
    (kept.workspace.path / "note").write_text("kept")
    (place.shared.path / "note").write_text("kept")
    folders.registry.note(ThreadId(place.name), "made")
    folders.delete(ThreadId(place.name))
    folders.delete(ThreadId(place.name))
    folders.delete(thread_of(UserId("nobody")))
    assert not place.workspace.path.exists()
    assert folders.registry.log(ThreadId(place.name)) == []
    assert (kept.workspace.path / "note").read_text() == (kept.shared.path / "note").read_text() == "kept"
    left = world.images_once(lambda images: not any(place.name in image for image in images))
    assert not any(place.name in image for image in left)


def test_a_deleted_thread_s_folder_can_be_made_again_and_is_empty(folders: Folders, place: Place) -> None:
    (place.workspace.path / "note").touch()
    folders.delete(ThreadId(place.name))
    assert list(folders.prepare(ThreadId(place.name), SMALL).workspace.path.iterdir()) == []


HOSTILE = {
    "unreadable": 'mkdir -p "$FOLDER/a/b/c" && touch "$FOLDER/a/b/f" && chmod 0 "$FOLDER/a/b" "$FOLDER/a" "$FOLDER"',
    "odd": 'cd "$FOLDER" && mkfifo pipe && ln -s / root && ln -s loop loop && touch -- -rf "$(printf "\\377\\n")"',
    "wide": 'cd "$FOLDER" && for i in $(seq 60); do mkdir -p $i/x/y && touch $i/x/f; done; seq 2500 | xargs touch',
}


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_workspace_holds_it_can_be_deleted(folders: Folders, program: str) -> None:
    place = prepared(folders, profile=SandboxProfile(disk_mb=64, max_files=10_000))
    made = as_agent(place.agent, program, place.workspace.path)
    assert made.returncode == 0, made.stderr
    folders.delete(ThreadId(place.name))
    assert not place.workspace.path.exists()
    assert Path("/etc/passwd").exists()


def test_however_deep_a_workspace_is_it_can_be_deleted(folders: Folders) -> None:
    place = prepared(folders, profile=SandboxProfile(disk_mb=64, max_files=10_000))
    level = os.open(place.workspace.path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d" * 10, dir_fd=level)
        above, level = level, os.open("d" * 10, os.O_RDONLY, dir_fd=level)
        os.close(above)
    os.close(level)
    folders.delete(ThreadId(place.name))
    assert not place.workspace.path.exists()


@IS_ROOT
@pytest.mark.skipif(which("chattr") is None, reason="no chattr")
def test_unchangeable_files_can_be_deleted(folders: Folders, place: Place) -> None:
    inner = place.workspace.path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "fixed").touch()
    (inner / "log").touch()
    for flag, path in (("+i", inner / "fixed"), ("+a", inner / "log"), ("+i", inner), ("+a", inner.parent)):
        if subprocess.run(["chattr", flag, path], capture_output=True, check=False).returncode:
            pytest.skip("this file system has no such flags")
    subprocess.run(["chattr", "+i", place.workspace.path], check=True)
    folders.delete(ThreadId(place.name))
    assert not place.workspace.path.exists()


def test_a_link_in_the_place_of_a_workspace_is_refused_then_removed(world: World, tmp_path: Path) -> None:
    folders, thread_id = world.folders(), thread_of()
    (tmp_path / "precious").write_text("kept")
    path = folders.path(thread_id)
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path)
    with pytest.raises(InvalidInput):
        folders.prepare(thread_id, SMALL)
    folders.delete(thread_id)
    assert not path.is_symlink()
    assert (tmp_path / "precious").read_text() == "kept"


@IS_ROOT
def test_files_of_another_uid_become_the_agent_s(world: World) -> None:
    folders, thread_id = world.folders(), thread_of()
    path = folders.path(thread_id)
    (path / "d").mkdir(parents=True)
    (path / "d" / "file").write_text("old")
    (path / "link").symlink_to("/etc/passwd")
    subprocess.run(["chown", "-R", "-h", "1000:1000", path], check=True)
    place = folders.prepare(thread_id, SMALL)
    for own in (path, path / "d", path / "d" / "file", path / "link"):
        assert (own.lstat().st_uid, own.lstat().st_gid) == (place.agent.uid, place.agent.gid)
    assert Path("/etc/passwd").stat().st_uid == 0
    assert as_agent(place.agent, 'echo new > "$FOLDER/d/file"', path).returncode == 0
    assert place.bounds.disk_bytes is not None  # what was there before is only watched


@IS_ROOT
def test_a_copy_of_the_folders_without_the_registry_works(world: World, folders: Folders, place: Place) -> None:
    (place.workspace.path / "note").write_text("kept")
    other = prepared(folders, BOB)
    world.restart_the_machine()
    copy = World(world.base / "copy", world.storage)
    copy.base.mkdir(mode=0o711)
    copied = subprocess.run(["cp", "-a", "--sparse=always", world.root, world.shared, copy.base], check=False)
    assert copied.returncode == 0
    (copy.root / ".registry.sqlite3").unlink()
    with open_world(copy.base, copy.storage) as copy:
        again = copy.folders()
        found = again.prepare(ThreadId(place.name), SMALL)
        assert found.agent == place.agent
        assert again.prepare(ThreadId(other.name), SMALL).agent == other.agent
        assert (found.workspace.path / "note").read_text() == "kept"


def test_a_user_who_is_gone_leaves_nothing(world: World, folders: Folders, place: Place) -> None:
    (place.shared.path / "note").touch()
    folders.delete(ThreadId(place.name))
    folders.delete_user(ALICE)
    folders.delete_user(ALICE)
    assert not place.shared.path.exists()
    assert not place.workspace.path.parent.exists()
    assert world.images_once(lambda images: not images) == set()


def test_a_spare_place_becomes_a_thread_s(world: World, folders: Folders) -> None:
    spare = folders.prepare_spare(ALICE, SMALL)
    (spare.workspace.path / "note").write_text("there before")
    thread_id = thread_of()
    place = folders.adopt(spare, thread_id)
    assert place.agent == spare.agent == folders.identity(thread_id)
    assert place.workspace.path == folders.path(thread_id)
    assert not spare.workspace.path.exists()
    assert world.folders().prepare(thread_id, SMALL) == place
    assert (place.workspace.path / "note").read_text() == "there before"
    assert folders.spares() == []


def test_a_spare_place_is_not_for_a_thread_with_files_or_of_another_user(folders: Folders, place: Place) -> None:
    spare = folders.prepare_spare(ALICE, SMALL)
    with pytest.raises(Exception, match="files already"):
        folders.adopt(spare, ThreadId(place.name))
    with pytest.raises(InvalidInput):
        folders.adopt(spare, thread_of(BOB))
    assert folders.spares() == [(ALICE, spare.name)]
    folders.discard(ALICE, spare.name)
    assert folders.spares() == []
    with pytest.raises(InvalidInput):
        folders.discard(ALICE, place.name)

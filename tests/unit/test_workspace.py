from pathlib import Path

import pytest

from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId
from moorage.sandboxes.port import AgentIdentity
from moorage.sandboxes.workspace import Workspaces, agent_identity, host_view

THREAD = ThreadId("al-ice-550e8400-e29b-41d4-a716-446655440000")


@pytest.fixture
def workspaces(tmp_path: Path) -> Workspaces:
    return Workspaces(tmp_path / "workspaces", tmp_path / "shared")


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


def test_a_thread_s_folder_is_below_its_owner_s(workspaces: Workspaces, tmp_path: Path) -> None:
    assert workspaces.path(THREAD) == tmp_path / "workspaces" / "al-ice" / THREAD


@pytest.mark.parametrize("text", ["", "alice", "../alice-550e8400-e29b-41d4-a716-446655440000", "a/b", THREAD + "/.."])
def test_what_is_no_thread_id_has_no_folder(workspaces: Workspaces, text: str) -> None:
    with pytest.raises(InvalidInput):
        workspaces.path(ThreadId(text))


@pytest.mark.parametrize("text", ["", "..", ".", "a/b", "A"])
def test_what_is_no_user_id_has_no_shared_folder(workspaces: Workspaces, text: str) -> None:
    with pytest.raises(InvalidInput):
        workspaces.shared_path(UserId(text))


def test_a_new_folder_belongs_to_the_agent_and_is_closed_to_others(workspaces: Workspaces) -> None:
    status = workspaces.open_workspace(THREAD).path.stat()
    assert (status.st_uid, status.st_gid) == (workspaces.agent.uid, workspaces.agent.gid)
    assert status.st_mode & 0o077 == 0


def test_opening_twice_keeps_the_files(workspaces: Workspaces) -> None:
    (workspaces.open_workspace(THREAD).path / "note").write_text("kept")
    assert (workspaces.open_workspace(THREAD).path / "note").read_text() == "kept"


def test_a_link_in_the_place_of_a_folder_is_refused(workspaces: Workspaces, tmp_path: Path) -> None:
    workspaces.open_workspace(THREAD).path.rmdir()
    workspaces.path(THREAD).symlink_to(tmp_path)
    with pytest.raises(InvalidInput):
        workspaces.open_workspace(THREAD)


def test_a_workspace_is_deleted_with_all_it_holds_and_nothing_else(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    folder = workspaces.open_workspace(THREAD).path
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "file").touch()
    (folder / "a" / "link").symlink_to(tmp_path)
    (folder / "a" / "b").chmod(0)
    workspaces.delete(THREAD)
    assert not folder.exists()
    assert (tmp_path / "precious").read_text() == "kept"


def test_deleting_what_is_not_there_is_no_error(workspaces: Workspaces) -> None:
    workspaces.delete(THREAD)


def test_a_link_in_the_place_of_a_workspace_is_removed_and_not_followed(workspaces: Workspaces, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    workspaces.open_workspace(THREAD).path.rmdir()
    workspaces.path(THREAD).symlink_to(tmp_path)
    workspaces.delete(THREAD)
    assert not workspaces.path(THREAD).is_symlink()
    assert (tmp_path / "precious").exists()


def test_commands_never_run_as_root() -> None:
    assert agent_identity() == AgentIdentity(1000, 1000) or agent_identity().uid != 0

"""The broker's socket in the file system."""

import os
import socket
import stat
from pathlib import Path

import pytest

from moorage.adapters.sandboxd.socket_file import BrokerRuns, listening
from moorage.errors import InvalidInput


def test_only_its_user_and_group_reach_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "run" / "broker.sock"
    with listening(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_socket_and_folder_belong_to_the_group_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "run" / "broker.sock"
    with listening(path, group=54321):
        assert (path.stat().st_gid, path.parent.stat().st_gid) == (54321, 54321)


def test_at_the_end_it_is_gone(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        pass
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("error", [BrokenPipeError("said to nobody"), BlockingIOError("not now")])
def test_what_fails_while_it_listens_is_not_taken_for_a_fault_of_the_socket(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(type(error)), listening(tmp_path / "s"):
        raise error
    assert not (tmp_path / "s").exists()


def test_what_a_broker_that_died_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    with listening(tmp_path / "s"), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))


def test_a_socket_at_which_somebody_answers_stays(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        with pytest.raises(BrokerRuns), listening(tmp_path / "s"):
            pass
        assert (tmp_path / "s").exists()


def test_a_second_broker_does_not_start(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        with pytest.raises(BrokerRuns), listening(tmp_path / "s"):
            pass
        assert (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_not_touched(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "s"
    {"file": path.touch, "folder": path.mkdir, "link": lambda: path.symlink_to("elsewhere")}[kind]()
    with pytest.raises(InvalidInput, match="no socket"), listening(path):
        pass
    assert path.is_symlink() or path.exists()


def test_a_folder_in_which_others_may_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with pytest.raises(InvalidInput, match="others may replace"), listening(tmp_path / "run" / "s"):
        pass


def test_a_path_too_long_for_a_socket_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="bytes long"), listening(tmp_path / ("x" * 120)):
        pass


def test_the_socket_of_another_is_not_removed_at_the_end(tmp_path: Path) -> None:
    with listening(tmp_path / "s"):
        (tmp_path / "s").unlink()
        (tmp_path / "s").touch()
    assert (tmp_path / "s").exists()

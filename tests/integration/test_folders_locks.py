"""What a process that is frozen holds: others are told, and lose nothing by it."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from tests.integration.folders_harness import ALICE, SMALL, World, open_world, thread_of

from moorage.adapters.folders import locks
from moorage.adapters.folders.locks import StillLocked, locked

_HOLD = """
import sys
from pathlib import Path
from moorage.adapters.folders.locks import locked
with locked(Path(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_WAIT_SECONDS", 0.2)


@pytest.fixture
def world(public_tmp_path: Path, tmp_path: Path) -> Generator[World]:
    with open_world(public_tmp_path / tmp_path.name, "watch") as world:
        yield world


@contextmanager
def frozen_holder(file: Path, name: str) -> Generator[subprocess.Popen[str]]:
    """A process that is stopped while it holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, file, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            yield process
        finally:
            process.kill()


def test_who_waits_for_a_frozen_process_is_told_and_the_log_tells_which_it_is(tmp_path: Path) -> None:
    with (
        frozen_holder(tmp_path / "locks", "mine") as holder,
        structlog.testing.capture_logs() as logged,
        pytest.raises(StillLocked, match="Trying again is safe") as error,
        locked(tmp_path / "locks", "mine"),
    ):
        pytest.fail("two hold it")
    assert error.value.retry_after
    [told] = [line for line in logged if line["event"] == "lock_not_free"]
    assert [held.split()[0] for held in told["held_by"]] == [str(holder.pid)]


def test_what_a_frozen_process_holds_is_free_when_it_goes_on_and_other_names_always_are(tmp_path: Path) -> None:
    with frozen_holder(tmp_path / "locks", "mine") as holder:
        with locked(tmp_path / "locks", "another"):
            pass
        holder.send_signal(signal.SIGCONT)
        holder.communicate("")
        with locked(tmp_path / "locks", "mine"):
            pass


def test_a_workspace_that_a_frozen_process_holds_is_refused_untouched_and_had_again_after_its_end(world: World) -> None:
    folders, thread_id = world.folders(), thread_of(ALICE)
    place = folders.prepare(thread_id, SMALL)
    (place.workspace.path / "mine").write_text("kept")
    with frozen_holder(world.root / ".locks", thread_id):
        for attempt in (lambda: folders.prepare(thread_id, SMALL), lambda: folders.delete(thread_id)):
            with pytest.raises(StillLocked):
                attempt()
        folders.prepare(thread_of(ALICE), SMALL)
    assert folders.prepare(thread_id, SMALL) == place
    assert (place.workspace.path / "mine").read_text() == "kept"

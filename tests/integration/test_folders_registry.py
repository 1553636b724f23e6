"""Who each agent is: numbers that are given once, whoever asks, and believed from the disk when the file is lost."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from moorage.adapters.folders import Registry, uid_range
from moorage.errors import InvalidInput
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.port import SandboxUnavailable, StaleClaim

ALICE, BOB = UserId("alice"), UserId("bob")
UIDS = range(300_000, 301_000)
IS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to others")

NewRegistry = Callable[..., Registry]


@pytest.fixture
def new_registry(tmp_path: Path) -> NewRegistry:
    """Each is one process's."""
    return lambda uids=UIDS: Registry(tmp_path / "ws" / ".registry.sqlite3", uids=uids)


@pytest.fixture
def registry(new_registry: NewRegistry) -> Registry:
    return new_registry()


def _folder(registry: Registry, root: Path, thread_id: ThreadId) -> None:
    """What there is of a thread on the disk."""
    agent = registry.identity(thread_id)
    folder = root / thread_id[:-37] / thread_id
    folder.mkdir(parents=True)
    os.chown(folder, agent.uid, agent.gid)


@pytest.mark.parametrize("text", ["200000-265535", " 10000 - 10999 "])
def test_a_range_of_uids_is_two_numbers(text: str) -> None:
    assert len(uid_range(text)) >= 1000


@pytest.mark.parametrize(
    "text",
    ["", "200000", "0-65535", "9999-20000", "200000-200998", "2-1", "-1-5000", "1e5-2e5", "200000-²", "60000-70000"],
)
def test_other_ranges_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        uid_range(text)


def test_a_thread_keeps_its_uid_and_shares_its_user_s_gid(registry: Registry, new_registry: NewRegistry) -> None:
    first, second, other = new_thread_id(ALICE), new_thread_id(ALICE), new_thread_id(BOB)
    assert registry.identity(first) == new_registry().identity(first)
    assert registry.identity(first).uid != registry.identity(second).uid
    assert registry.identity(first).gid == registry.identity(second).gid == registry.gid(ALICE)
    assert registry.identity(first).gid != registry.identity(other).gid


def test_no_number_is_given_twice_whoever_asks_at_once(new_registry: NewRegistry) -> None:
    threads = [new_thread_id(UserId(f"user{number % 7}")) for number in range(140)]
    registries = [new_registry() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda n: registries[n % 4].identity(threads[n % 140]), range(280)))
    assert len({agent.uid for agent in given} | {agent.gid for agent in given}) == 140 + 7
    assert set(Counter(agent.uid for agent in given).values()) == {2}


def test_no_number_is_given_twice_by_processes_at_once(new_registry: NewRegistry, tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from moorage.adapters.folders import Registry; from moorage.ids import *\n"
        "registry = Registry(pathlib.Path(sys.argv[1]), uids=range(300_000, 301_000))\n"
        "for _ in range(40): print(registry.identity(new_thread_id(UserId('alice'))).uid)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "ws" / ".registry.sqlite3")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    given = [line for process in running for line in process.communicate()[0].split()]
    assert len(given) == len(set(given)) == 120


def test_a_freed_number_rests_until_all_others_were_used(new_registry: NewRegistry) -> None:
    registry = new_registry(range(300_000, 300_005))
    first = new_thread_id(ALICE)
    freed = registry.identity(first).uid
    registry.forget(first)
    later = [registry.identity(new_thread_id(ALICE)).uid for _ in range(4)]
    assert later[-1] == freed
    assert freed not in later[:-1]


def test_when_all_numbers_are_in_use_the_operator_is_told(new_registry: NewRegistry) -> None:
    registry = new_registry(range(300_000, 300_002))
    first = new_thread_id(ALICE)
    registry.identity(first)
    with pytest.raises(SandboxUnavailable, match="SANDBOX_UID_RANGE"):
        registry.identity(new_thread_id(ALICE))
    assert registry.identity(first)


@IS_ROOT
def test_a_number_without_a_folder_is_free_again_when_it_is_needed(tmp_path: Path) -> None:
    now = 1_000_000.0
    registry = Registry(tmp_path / "ws" / ".registry.sqlite3", uids=range(300_000, 300_003), clock=lambda: now)
    kept, never_used = new_thread_id(ALICE), new_thread_id(ALICE)
    _folder(registry, tmp_path / "ws", kept)
    unused = registry.identity(never_used)
    now += 7200
    assert registry.identity(new_thread_id(ALICE)) == unused
    with pytest.raises(SandboxUnavailable):
        registry.identity(new_thread_id(ALICE))


@IS_ROOT
def test_a_lost_registry_is_made_again_from_the_folders(new_registry: NewRegistry, tmp_path: Path) -> None:
    old = new_registry()
    threads = [new_thread_id(user) for user in (ALICE, ALICE, BOB)]
    for thread_id in threads:
        _folder(old, tmp_path / "ws", thread_id)
    before = [old.identity(thread_id) for thread_id in threads]
    (tmp_path / "ws" / ".registry.sqlite3").unlink()
    new = new_registry()
    fresh = new.identity(new_thread_id(UserId("carol")))
    assert [new.identity(thread_id) for thread_id in threads] == before
    assert {fresh.uid, fresh.gid}.isdisjoint({number for agent in before for number in (agent.uid, agent.gid)})


@IS_ROOT
def test_two_folders_of_one_uid_get_two(new_registry: NewRegistry, tmp_path: Path) -> None:
    threads = [new_thread_id(ALICE), new_thread_id(BOB)]
    for thread_id in threads:
        folder = tmp_path / "ws" / thread_id[:-37] / thread_id
        folder.mkdir(parents=True)
        os.chown(folder, 300_007, 300_008)
    registry = new_registry()
    assert len({registry.identity(thread_id).uid for thread_id in threads}) == 2
    assert len({registry.identity(thread_id).gid for thread_id in threads}) == 2


def test_whoever_has_it_open_notices_that_it_was_taken_away(
    registry: Registry, new_registry: NewRegistry, tmp_path: Path
) -> None:
    registry.identity(new_thread_id(ALICE))
    (tmp_path / "ws" / ".registry.sqlite3").unlink()
    thread_id = new_thread_id(ALICE)
    assert new_registry().identity(thread_id) == registry.identity(thread_id)


def test_a_damaged_registry_is_named(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "ws" / ".registry.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"no database, but long enough to be read as one" * 100)
    with pytest.raises(SandboxUnavailable) as refused:
        registry.identity(new_thread_id(ALICE))
    assert refused.value.code == "registry_damaged"


def test_a_process_killed_while_it_writes_leaves_a_sound_registry(registry: Registry, tmp_path: Path) -> None:
    thread_id = new_thread_id(ALICE)
    agent = registry.identity(thread_id)
    program = (
        "import os, signal, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 1'); c.execute('BEGIN IMMEDIATE'); c.execute('DELETE FROM places')\n"
        "c.executemany('INSERT INTO notes (thread_id, at, text) VALUES (?, ?, ?)', [('a', 'b', 'c' * 500)] * 1000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "ws" / ".registry.sqlite3"
    killed = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert registry.identity(thread_id) == agent
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_only_its_owner_may_read_the_registry(registry: Registry, tmp_path: Path) -> None:
    registry.identity(new_thread_id(ALICE))
    assert (tmp_path / "ws" / ".registry.sqlite3").stat().st_mode & 0o777 == 0o600


def test_an_older_claim_is_refused_by_every_process(registry: Registry, new_registry: NewRegistry) -> None:
    thread_id, other = new_thread_id(ALICE), new_thread_id(ALICE)
    registry.admit(thread_id, 7)
    registry.admit(thread_id, 7)
    registry.admit(thread_id, None)
    with pytest.raises(StaleClaim):
        new_registry().admit(thread_id, 6)
    new_registry().admit(other, 6)
    new_registry().admit(thread_id, 8)
    with pytest.raises(StaleClaim):
        registry.admit(thread_id, 7)


def test_of_claims_at_once_the_newest_wins(new_registry: NewRegistry) -> None:
    thread_id = new_thread_id(ALICE)
    registries = [new_registry() for _ in range(4)]

    def admitted(token: int) -> bool:
        try:
            registries[token % 4].admit(thread_id, token)
        except StaleClaim:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(admitted, range(40, 0, -1)))
    assert answers[0]
    assert not admitted(39)


def test_the_newest_notes_are_kept_without_control_characters(registry: Registry) -> None:
    thread_id = new_thread_id(ALICE)
    for number in range(60):
        registry.note(thread_id, f"note\x1b[31m\n{number}")
    kept = registry.log(thread_id)
    assert len(kept) == 50
    assert kept[-1].endswith(" note[31m59")
    assert registry.log(new_thread_id(ALICE)) == []


def test_what_is_forgotten_is_gone(registry: Registry) -> None:
    thread_id = new_thread_id(ALICE)
    registry.admit(thread_id, 9)
    registry.note(thread_id, "made")
    registry.forget(thread_id)
    registry.admit(thread_id, 1)
    assert registry.log(thread_id) == []

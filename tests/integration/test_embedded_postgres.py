"""The embedded Postgres: killed, orphaned, fought over, and run from awkward places."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from tests.faults.waiting import eventually

from moorage.adapters.embedded_cluster import EmbeddedPostgresError
from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.postgres.migrate import migrate
from moorage.adapters.postgres.pool import Database, open_database
from moorage.errors import Unavailable

OWNER = """
import asyncio, sys
from pathlib import Path
from moorage.adapters.embedded_postgres import open_embedded_postgres

async def own():
    async with open_embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

asyncio.run(own())
"""


@pytest.fixture(scope="module")
async def made_once(public_tmp_path: Path) -> Path:
    """A data folder whose cluster exists and is stopped: making one takes a second."""
    path = public_tmp_path / "made-once"
    async with open_embedded_postgres(path):
        pass
    return path


@pytest.fixture
def data_dir(public_tmp_path: Path, made_once: Path) -> Iterator[Path]:
    path = public_tmp_path / "embedded"
    subprocess.run(["cp", "-a", made_once, path], check=True)
    yield path
    shutil.rmtree(path)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(data_dir: Path) -> int:
    return int((data_dir / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0])


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def servers_of(data_dir: Path) -> list[str]:
    """The processes that run programs of Postgres on this folder."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if os.fsencode(data_dir / "postgres") in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def died(pid: int) -> None:
    """Return once `pid` is dead; a zombie counts."""
    deadline = time.monotonic() + 20
    while True:
        if not is_running(pid):
            return
        assert time.monotonic() < deadline, f"process {pid} lives on"
        await asyncio.sleep(0.01)


async def eventually_executes(url: str, statement: str, *, within: float) -> list[tuple[object, ...]]:
    deadline = time.monotonic() + within
    while True:
        try:
            return await asyncio.to_thread(execute, url, statement)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)


async def refusals_until_it_answers(database: Database, *, within: float) -> list[Unavailable]:
    refusals: list[Unavailable] = []
    deadline = time.monotonic() + within
    while True:
        try:
            await database.ping()
        except Unavailable as error:
            refusals.append(error)
        else:
            return refusals
        assert time.monotonic() < deadline, "it does not recover"


@asynccontextmanager
async def owner_process(data_dir: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Another process that owns the embedded server, killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(data_dir), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout
        async for line in process.stdout:
            if line.startswith(b"postgresql:"):
                yield process, line.decode().strip()
                break
        else:
            pytest.fail("the owner did not start")
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_starts_keeps_its_data_and_is_stopped_with_us(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir) as url:
        execute(url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        first = postmaster(data_dir)
    assert not is_running(first)
    async with open_embedded_postgres(data_dir) as url:
        assert execute(url, "SELECT n FROM kept") == [(7,)]


async def test_its_user_owns_the_database_but_is_no_superuser(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir) as url:
        assert execute(url, "SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user") == [
            (False, False)
        ]
        assert execute(url, "SHOW listen_addresses") == [("",)]
        assert execute(url, "SHOW synchronous_commit") == [("on",)]


async def test_nobody_else_can_reach_its_files_or_its_socket(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir):
        for name in ("data", "socket"):
            assert (data_dir / "postgres" / name).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
async def test_it_comes_back_within_seconds_when_it_dies(data_dir: Path, number: signal.Signals) -> None:
    async with open_embedded_postgres(data_dir) as url:
        execute(url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        first = postmaster(data_dir)
        os.kill(first, number)
        await died(first)
        assert await eventually_executes(url, "SELECT n FROM kept", within=5) == [(7,)]
        second = postmaster(data_dir)
    assert not is_running(second)


async def test_it_is_stopped_also_while_it_is_coming_back(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir):
        first = postmaster(data_dir)

        async def another_starts() -> bool:
            return bool({*servers_of(data_dir)} - {str(first)})

        os.kill(first, signal.SIGKILL)
        await eventually(another_starts, seconds=20, what="another is started")
    assert servers_of(data_dir) == []


async def test_it_is_stopped_when_its_start_is_cancelled(data_dir: Path) -> None:
    for folder, milliseconds in (
        (data_dir / "new", 100),
        (data_dir, 10),
        (data_dir, 20),
        (data_dir, 40),
        (data_dir, 80),
    ):
        with suppress(TimeoutError):
            async with asyncio.timeout(milliseconds / 1000), open_embedded_postgres(folder):
                await asyncio.Event().wait()
        assert servers_of(folder) == []


async def test_a_new_owner_takes_over_after_kill_9_of_the_old_one(data_dir: Path) -> None:
    async with owner_process(data_dir) as (process, url):
        execute(url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        process.kill()
        await process.wait()
        orphan = postmaster(data_dir)
        assert is_running(orphan)
        async with open_embedded_postgres(data_dir) as url:
            assert execute(url, "SELECT n FROM kept") == [(7,)]
            second = postmaster(data_dir)
    assert not is_running(orphan)
    assert not is_running(second)


async def test_a_new_owner_starts_after_both_were_killed(data_dir: Path) -> None:
    async with owner_process(data_dir) as (process, url):
        execute(url, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        process.kill()
        os.kill(postmaster(data_dir), signal.SIGKILL)
        await process.wait()
        async with open_embedded_postgres(data_dir) as url:
            assert execute(url, "SELECT n FROM kept") == [(7,)]


async def test_a_pid_file_that_names_a_stranger_is_ignored(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir):
        lines = (data_dir / "postgres/data/postmaster.pid").read_text().split("\n")
    (data_dir / "postgres/data/postmaster.pid").write_text("\n".join([str(os.getppid()), *lines[1:]]))
    async with open_embedded_postgres(data_dir) as url:
        assert execute(url, "SELECT 1") == [(1,)]


async def test_a_half_made_cluster_is_made_anew(data_dir: Path) -> None:
    (data_dir / "postgres/data").rename(data_dir / "postgres/data.new")
    (data_dir / "postgres/data.new/global/pg_control").unlink()
    async with open_embedded_postgres(data_dir) as url:
        assert execute(url, "SELECT 1") == [(1,)]


async def test_a_second_owner_is_refused_and_told_why(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir) as url:
        with pytest.raises(EmbeddedPostgresError, match=f"process {os.getpid()}.*DATA_DIR"):
            async with open_embedded_postgres(data_dir):
                pass
        assert execute(url, "SELECT 1") == [(1,)]


async def test_a_path_too_long_for_a_socket_works(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir / ("long " * 30)) as url:
        assert execute(url, "SELECT 1") == [(1,)]


async def test_what_does_not_start_says_why(data_dir: Path) -> None:
    (data_dir / "postgres/data/PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedPostgresError, match="PostgreSQL version 12"):
        async with open_embedded_postgres(data_dir):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a folder that the server's user cannot enter")
async def test_as_root_a_private_folder_is_left_alone_and_the_files_go_elsewhere(
    tmp_path: Path, public_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = public_tmp_path / "state"
    monkeypatch.setattr("moorage.adapters.embedded_cluster._STATE", state)
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    for _ in range(2):
        async with open_embedded_postgres(private / "data") as url:
            assert str(state.name) in url
    assert private.stat().st_mode & 0o777 == 0o700
    assert Path((private / "data/postgres.location").read_text().strip()).parent == state


async def test_the_pool_says_unavailable_while_it_is_away_and_recovers_by_itself(data_dir: Path) -> None:
    async with open_embedded_postgres(data_dir) as url:
        await asyncio.to_thread(migrate, url)
        async with open_database(url) as database:
            await database.ping()
            stopped = postmaster(data_dir)
            os.kill(stopped, signal.SIGQUIT)
            await died(stopped)
            refusals = await refusals_until_it_answers(database, within=5)
            assert all(refusal.retry_after for refusal in refusals)
            for _ in range(20):
                await database.ping()


@pytest.mark.skipif(os.geteuid() != 0, reason="this test makes a plain user of root; as a plain user all others do")
async def test_it_works_as_a_plain_user(public_tmp_path: Path) -> None:
    home = public_tmp_path / "plain"
    home.mkdir()
    nobody = 65534
    os.chown(home, nobody, nobody)
    # Imported before the change of user: our Python may lie in root's home.
    program = (
        "import asyncio, os, sys, moorage.adapters.embedded_postgres; asyncio.run(asyncio.to_thread(int)); "
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); exec(sys.argv.pop(1))"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, OWNER, str(home / "data"), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    async for line in process.stdout:
        if line.startswith(b"postgresql:"):
            break
    pid = postmaster(home / "data")
    assert owner_of(pid) == nobody
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert not is_running(pid)

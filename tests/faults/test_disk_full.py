"""The disk under Postgres' tables fills up while runs go on, and is made free again."""

import os
import subprocess
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.faults.checkers import check
from tests.faults.scripts import list_files, script
from tests.faults.server import Server
from tests.faults.user import Thread
from tests.faults.waiting import eventually
from tests.faults.world import World

_MEGABYTES = 24
_DATABASE = "faults"
_TABLES = ("run_events", "messages")

_LONG = "x" * 60_000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk of its own")


class SmallDisk:
    """A disk of some megabytes, which can be filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def free(self) -> None:
        (self.folder / "ballast").unlink()


@pytest.fixture
def disk(world: World) -> Generator[SmallDisk]:
    """With the tables of events and messages on it."""
    folder = world.folder / "small-disk"
    folder.mkdir(mode=0o755)
    _run("mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m,mode=755", "tmpfs", str(folder))
    try:
        tables = folder / "tables"
        tables.mkdir()
        owner = world.postgres.data.stat()
        os.chown(tables, owner.st_uid, owner.st_gid)
        with _superuser(world) as connection:
            connection.execute(sql.SQL("CREATE TABLESPACE small LOCATION {}").format(sql.Literal(str(tables))))
            _move(connection, "small")
            yield SmallDisk(folder)
            _move(connection, "pg_default")
            connection.execute("DROP TABLESPACE small")
    finally:
        _run("umount", "--lazy", str(folder))


async def test_a_full_disk_is_said_and_loses_nothing(world: World, disk: SmallDisk):
    server = await world.server()
    thread = await world.thread(server)
    await thread.play(list_files(), then="before")
    disk.fill()
    assert await _until_refused(thread) == 503
    reply = await thread.post("/api/chat/{id}", message=_LONG)
    assert (reply.status_code, reply.json()["code"]) == (503, "database_cannot_write"), reply.text
    assert int(reply.headers["retry-after"]) > 0
    assert (await server.status_of("/readyz"), await server.status_of("/healthz")) == (503, 200)
    disk.free()
    await thread.play(list_files(), then="after")
    assert thread.events[-1].data["status"] == "success"
    await check(world, thread)
    await eventually(lambda: _is_ready(server), seconds=15, what="the server is ready again")


async def _until_refused(thread: Thread) -> int:
    """Send messages: what is free within the tables' own pages goes first."""
    for _ in range(60):
        answer = await thread.try_to_say(script(then=_LONG))
        if isinstance(answer, int) and answer != 429:
            return answer
    raise AssertionError("the disk is not full")


async def _is_ready(server: Server) -> bool:
    return await server.status_of("/readyz") == 200


def _superuser(world: World) -> psycopg.Connection:
    return psycopg.connect(world.postgres.url(_DATABASE), autocommit=True)


def _move(connection: psycopg.Connection, tablespace: str) -> None:
    for table in _TABLES:
        statement = sql.SQL("ALTER TABLE {} SET TABLESPACE {}")
        connection.execute(statement.format(sql.Identifier(table), sql.Identifier(tablespace)))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

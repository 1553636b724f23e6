"""`moorage migrate` against real databases: repeated, raced, killed, and with few rights."""

import asyncio
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from moorage.adapters.postgres.migrate import (
    MigrationRefused,
    current_revision,
    head_revision,
    is_up_to_date,
    migrate,
)
from moorage.adapters.postgres.pool import NotMigrated, open_database
from moorage.errors import Unavailable

NewDatabase = Callable[..., str]
# One process that imports everything once, then forks a migration and kills it, at each of the moments.
MIGRATE_AND_DIE = """
import os, signal, sys, time
from moorage.adapters.postgres.migrate import migrate
for milliseconds in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        migrate(sys.argv[1])
        os._exit(0)
    time.sleep(int(milliseconds) / 1000)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


@pytest.fixture
def plain_role(postgres_url: str) -> Iterator[str]:
    """A role that may log in and nothing more."""
    name = f"moorage_test_{uuid.uuid4().hex[:12]}"
    password = str(conninfo_to_dict(postgres_url).get("password") or "")
    create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(create)
        yield name
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO CURRENT_USER").format(sql.Identifier(name)))
        for (database,) in connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'moorage_test_%'"
        ).fetchall():
            drop_what_belongs_to(name, make_conninfo(postgres_url, dbname=database))
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def drop_what_belongs_to(role: str, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(role)))


def test_a_new_database_is_brought_up_to_date_and_stays_so(new_database: NewDatabase) -> None:
    url = new_database()
    assert current_revision(url) is None
    migrate(url)
    assert current_revision(url) == head_revision()
    migrate(url)
    assert is_up_to_date(url)


async def test_a_database_that_was_never_migrated_is_refused(new_database: NewDatabase) -> None:
    with pytest.raises(NotMigrated, match="moorage migrate"):
        async with open_database(new_database()):
            pass


async def test_a_name_as_long_as_postgres_allows_and_full_of_specials_works(new_database: NewDatabase) -> None:
    url = new_database(name="moorage_test_" + "%\"' {x}" * 7 + "x")
    await asyncio.to_thread(migrate, url)
    async with open_database(url) as database, database.system_transaction() as connection:
        await connection.execute("SELECT * FROM users")


def test_two_at_once_both_succeed(new_database: NewDatabase) -> None:
    url = new_database()
    failures: list[BaseException] = []

    def attempt() -> None:
        try:
            migrate(url)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=attempt) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert is_up_to_date(url)


def test_a_migration_that_hangs_elsewhere_is_not_waited_for_without_end(new_database: NewDatabase) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [0x6D6F6F72616765])
        with pytest.raises(Unavailable, match="Another migration"):
            migrate(url, wait_seconds=0.3)


def test_after_kill_9_at_any_moment_the_rerun_finishes(new_database: NewDatabase) -> None:
    url = new_database()
    moments = [str(milliseconds) for milliseconds in range(5, 150, 5)]
    subprocess.run([sys.executable, "-c", MIGRATE_AND_DIE, url, *moments], check=True)
    migrate(url)
    assert is_up_to_date(url)


def test_an_index_left_half_built_is_built_again(new_database: NewDatabase, postgres_url: str) -> None:
    url = new_database()
    migrate(url)
    with psycopg.connect(make_conninfo(postgres_url, dbname=conninfo_to_dict(url)["dbname"])) as connection:
        connection.execute(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'checkpoints_thread_id_idx'::regclass"
        )
        connection.execute("DELETE FROM checkpoint_migrations WHERE v >= 6")
    migrate(url)
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = 'checkpoints_thread_id_idx'::regclass"
        ).fetchone()
    assert row == (True,)


def test_an_owner_who_may_not_create_roles_is_told_what_to_run(
    new_database: NewDatabase, postgres_url: str, plain_role: str
) -> None:
    url = new_database(owner=plain_role)
    with pytest.raises(MigrationRefused, match="CREATE ROLE") as refusal:
        migrate(url)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(refusal.value.detail.partition("run: ")[2])  # type: ignore[arg-type]
    migrate(url)
    assert is_up_to_date(url)


async def test_the_server_may_log_in_as_another_role_than_the_owner(new_database: NewDatabase, plain_role: str) -> None:
    admin_url = new_database()
    await asyncio.to_thread(migrate, admin_url, login_user=plain_role)
    url = make_conninfo(admin_url, user=plain_role)
    assert await asyncio.to_thread(is_up_to_date, url)
    async with open_database(url) as database, database.system_transaction() as connection:
        await connection.execute("SELECT * FROM users")
    with pytest.raises(MigrationRefused):
        await asyncio.to_thread(migrate, url)


def test_the_role_that_the_server_logs_in_as_is_made_when_there_is_none(
    new_database: NewDatabase, postgres_url: str
) -> None:
    admin_url, user = new_database(), f"moorage_test_{uuid.uuid4().hex[:12]}"
    try:
        migrate(admin_url, login_user=user, login_password="pass 'word'")
        url = make_conninfo(admin_url, user=user, password="pass 'word'")
        assert is_up_to_date(url)
        migrate(admin_url, login_user=user, login_password="another")  # it keeps the first
        assert is_up_to_date(url)
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(user)))


def test_it_prints_nothing_and_leaves_logging_alone(
    new_database: NewDatabase, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level)
    migrate(new_database())
    assert (logging.root.level, list(logging.root.handlers), logging.getLogger("alembic").level) == before
    assert capfd.readouterr() == ("", "")

"""`moorage migrate`: roles, the checkpoint saver's tables, then our own, in that order and safe to repeat."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import LiteralString

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from langgraph.checkpoint.postgres import PostgresSaver
from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from moorage.adapters.postgres.roles import Roles
from moorage.errors import Conflict, InvalidInput, Unavailable

_LOCK = 0x6D6F6F72616765  # "moorage"; advisory locks belong to one database
_LOCK_WAIT_SECONDS = 300.0
_LOCK_POLL_SECONDS = 0.2
_INHERITANCE_OPTIONS = 160000  # the first version that can grant SET without INHERIT

_log = structlog.get_logger(__name__)


class MigrationRefused(Conflict):
    """The database cannot be migrated as this user; `detail` says what to run."""

    code = "migration_refused"


def migrate(
    admin_url: str,
    *,
    login_user: str | None = None,
    login_password: str | None = None,
    wait_seconds: float = _LOCK_WAIT_SECONDS,
) -> None:
    """Bring the database at `admin_url` up to date; blocks. Repeating it, also after a crash, is safe.

    `login_user` is the role the server logs in as, when that is not the one that migrates; with a `login_password` it
    is made when there is none. When another process migrates, this one waits for it. Raises MigrationRefused or
    Unavailable.
    """
    try:
        with _connect(admin_url) as connection, _only_one(connection, wait_seconds):
            if login_user and login_password:
                _ensure_login(connection, login_user, login_password)
            _ensure_roles(connection, login_user or connection.info.user)
            _set_up_checkpoint_tables(admin_url)
            _upgrade(admin_url)
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationRefused(f"The database refuses the migration: {error.diag.message_primary}") from error
    except psycopg.OperationalError as error:
        raise Unavailable("Postgres does not answer", retry_after=2) from error


def login_user_of(url: str) -> str | None:
    """The role that `url` logs in as, if it names one."""
    user = conninfo_to_dict(url).get("user")
    return str(user) if user else None


def login_password_of(url: str) -> str | None:
    """The password that `url` logs in with, if it holds one."""
    password = conninfo_to_dict(url).get("password")
    return str(password) if password else None


def head_revision() -> str:
    """The revision that this version of the code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None, "the package lacks its migrations"  # noqa: S101
    return head


def current_revision(url: str) -> str | None:
    """The database's revision, None when it was never migrated; blocks. Raises Unavailable."""
    try:
        with _connect(url) as connection:
            return _read_revision(connection)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege):
        return None
    except psycopg.OperationalError as error:
        raise Unavailable("Postgres does not answer", retry_after=2) from error


def is_up_to_date(url: str) -> bool:
    """Whether the database at `url` has the revision that this code needs; blocks. Raises Unavailable."""
    return current_revision(url) == head_revision()


def _connect(url: str) -> Connection[TupleRow]:
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise InvalidInput("The database's URL must look like postgresql://user:password@host:5432/name") from None
    return psycopg.connect(url, autocommit=True, connect_timeout=5, application_name="moorage migrate")


def _read_revision(connection: Connection[TupleRow]) -> str | None:
    """Read it as the app role, which may: the login role inherits nothing."""
    connection.execute("SELECT set_config('role', %s, false)", [Roles.of_database(connection.info.dbname).app])
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return row[0] if row else None


@contextmanager
def _only_one(connection: Connection[TupleRow], wait_seconds: float) -> Generator[None]:
    """Hold the migration lock, polled for: a blocked lock call holds a snapshot that index builds wait for."""
    deadline = time.monotonic() + wait_seconds
    waiting = False
    while not _scalar(connection, "SELECT pg_try_advisory_lock(%s)", _LOCK):
        if not waiting:
            _log.info("waiting_for_another_migration", database=connection.info.dbname)
            waiting = True
        if time.monotonic() > deadline:
            raise Unavailable(f"Another migration has been running for {wait_seconds:.0f} s", retry_after=60)
        time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _ensure_login(connection: Connection[TupleRow], user: str, password: str) -> None:
    """Make the role that the server logs in as; one that is there keeps its password."""
    if _scalar(connection, "SELECT true FROM pg_roles WHERE rolname = %s", user):
        return
    # A verifier: the server's log may show statements, and never sees the password.
    verifier = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
    create = sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS PASSWORD {}")
    try:
        connection.execute(create.format(sql.Identifier(user), sql.Literal(verifier)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationRefused(
            f"{connection.info.user} may not create {user}, which DATABASE_URL names: make it as a superuser"
        ) from error


def _ensure_roles(connection: Connection[TupleRow], login_user: str) -> None:
    roles = Roles.of_database(connection.info.dbname)
    statements = [
        sql.SQL("CREATE ROLE {} NOLOGIN NOSUPERUSER NOBYPASSRLS").format(sql.Identifier(role))
        for role in (roles.app, roles.system)
        if not _scalar(connection, "SELECT true FROM pg_roles WHERE rolname = %s", role)
    ]
    statements += [
        sql.SQL("GRANT {} TO {}{}").format(sql.Identifier(role), sql.Identifier(login_user), _grant_options(connection))
        for role in (roles.app, roles.system)
        if statements or not _may_take(connection, login_user, role)
    ]
    try:
        for statement in statements:
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege as error:
        script = " ".join(statement.as_string(connection) + ";" for statement in statements)
        raise MigrationRefused(
            f"{connection.info.user} may not create the server's database roles. As a superuser, run: {script}"
        ) from error


def _may_take(connection: Connection[TupleRow], login_user: str, role: str) -> bool:
    privilege = "SET" if connection.info.server_version >= _INHERITANCE_OPTIONS else "MEMBER"
    return bool(_scalar(connection, "SELECT pg_has_role(%s, %s, %s)", login_user, role, privilege))


def _grant_options(connection: Connection[TupleRow]) -> sql.SQL:
    """Without inheritance, a login role that forgets SET ROLE sees nothing."""
    has_options = connection.info.server_version >= _INHERITANCE_OPTIONS
    return sql.SQL(" WITH INHERIT FALSE, SET TRUE" if has_options else "")


def _set_up_checkpoint_tables(url: str) -> None:
    with _connect(url) as connection:
        _drop_unfinished_indexes(connection)
    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()


def _drop_unfinished_indexes(connection: Connection[TupleRow]) -> None:
    """A CREATE INDEX CONCURRENTLY that was killed leaves an invalid index, which IF NOT EXISTS takes for done."""
    unfinished = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_class t ON t.oid = i.indrelid "
        "WHERE NOT i.indisvalid AND t.relname LIKE 'checkpoint%' AND pg_table_is_visible(t.oid)"
    ).fetchall()
    for (name,) in unfinished:
        connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))


def _upgrade(url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _config() -> Config:
    config = Config(stdout=StringIO())
    # Alembic reads the value as a ConfigParser template.
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scalar(connection: Connection[TupleRow], query: LiteralString, *parameters: object) -> object:
    row = connection.execute(query, parameters).fetchone()
    return row[0] if row else None

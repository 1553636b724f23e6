"""A real Postgres for whoever asks for it: one server a session, one fresh database a module, empty for each test."""

import asyncio
import os
import signal
import tempfile
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.folders.mounts import unmount
from moorage.adapters.postgres.migrate import migrate
from moorage.adapters.postgres.pool import Database, open_database
from moorage.adapters.postgres.roles import Roles
from moorage.ids import UserId

# Whatever starts the tests in the background may have SIGINT ignored, and the processes that tests start inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)

NewDatabase = Callable[..., str]
AddUser = Callable[[str], Awaitable[UserId]]

_EMPTY = """
    TRUNCATE runs, run_events, interrupts, tool_calls, approval_rules, messages, threads, idempotency_keys,
        assistants, assistant_versions, store_items, crons, webhook_deliveries, snapshots, coming_threads, sandbox_uses,
        refresh_tokens, revoked_access_tokens, login_failures, setup_links, api_keys, ws_tickets,
        checkpoints, checkpoint_blobs, checkpoint_writes CASCADE;
    ALTER TABLE users NO FORCE ROW LEVEL SECURITY;
    DELETE FROM users;
    ALTER TABLE users FORCE ROW LEVEL SECURITY;
"""


@pytest.fixture(scope="session")
def public_tmp_path() -> Generator[Path]:
    """A folder outside the repository that any user may enter: pytest's own are private, and Postgres is not root."""
    with tempfile.TemporaryDirectory(prefix="moorage-tests-") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


@pytest.fixture(scope="session", autouse=True)
def nothing_stays_mounted(tmp_path_factory: pytest.TempPathFactory, public_tmp_path: Path) -> Generator[None]:
    """Workspaces may be file systems of their own, which outlive the servers that mounted them, and killed tests."""
    own = tmp_path_factory.getbasetemp()
    run = (
        own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    )  # the workers of a run have a folder each in its own
    for other in run.parent.glob("pytest-*/"):
        if other != run and not _is_running(other):
            _unmount_below(other)
    yield
    _unmount_below(own)
    _unmount_below(public_tmp_path)


def _is_running(tests: Path) -> bool:
    """Whether whoever made this folder for tests, whose process id pytest keeps in it, is still there."""
    try:
        return Path("/proc", (tests / ".lock").read_text(encoding="ascii")).exists()
    except OSError:
        return False


def _unmount_below(folder: Path) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        place = Path(line.split(" ")[4])
        if place.is_relative_to(folder):
            unmount(place)


@pytest.fixture(scope="session")
async def postgres_url(public_tmp_path: Path) -> AsyncGenerator[str]:
    """A server, as its superuser: TEST_DATABASE_URL or an embedded one."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    async with open_embedded_postgres(public_tmp_path / "session") as url:
        yield make_conninfo(url, user="postgres", dbname="postgres")


@pytest.fixture(scope="session")
def login_role(postgres_url: str) -> Generator[str]:
    """A plain role, with the superuser's password, that owns the databases and that the server logs in as."""
    name = f"moorage_test_{uuid.uuid4().hex[:12]}"
    password = conninfo_to_dict(postgres_url).get("password") or ""
    create = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Literal(str(password))))
    yield name
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def new_database(postgres_url: str, login_role: str) -> Generator[NewDatabase]:
    """Make a fresh database with nothing in it, and answer the URL by which the server logs in."""
    names: list[str] = []

    def make(*, name: str = "", owner: str = login_role) -> str:
        names.append(name or f"moorage_test_{uuid.uuid4().hex[:12]}")
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {} OWNER {}")
            connection.execute(create.format(sql.Identifier(names[-1]), sql.Identifier(owner)))
        return make_conninfo(postgres_url, dbname=names[-1], user=owner)

    yield make
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in names:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            roles = Roles.of_database(name)
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(roles.app)))
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(roles.system)))


@pytest.fixture(scope="module")
async def database_url(new_database: NewDatabase) -> str:
    """A fresh, migrated database; as the role the server logs in as."""
    url = new_database()
    await asyncio.to_thread(migrate, url)
    return url


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncGenerator[Database]:
    """The module's database, open; what earlier tests wrote is still in it."""
    async with open_database(database_url) as database:
        yield database


@pytest.fixture
async def database(pool: Database, database_url: str) -> Database:
    """The module's database, open, emptied for this test."""
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(_EMPTY)
    return pool


@pytest.fixture
def add_user(database: Database) -> AddUser:
    """Insert a user who cannot log in."""

    async def add(user_id: str) -> UserId:
        async with database.system_transaction() as connection:
            await connection.execute("INSERT INTO users (user_id, password_hash) VALUES (%s, '!')", [user_id])
        return UserId(user_id)

    return add

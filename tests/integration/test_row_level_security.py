"""The second wall between tenants: Postgres itself, tried as the roles the server runs under."""

import re
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

import moorage
import moorage_api
from moorage.adapters.postgres.pool import Database, open_database
from moorage.ids import ThreadId, UserId, new_thread_id

TENANT_TABLES = (
    "threads", "runs", "run_events", "interrupts", "messages", "tool_calls", "approval_rules", "idempotency_keys",
    "checkpoints", "checkpoint_blobs", "checkpoint_writes", "users", "api_keys", "store_items", "crons", "assistants",
    "assistant_versions", "snapshots", "coming_threads", "sandbox_uses",
)  # fmt: skip
TENANTS_ALONE = {"assistants", "assistant_versions", "snapshots"}  # the system asks for them as their owner
SYSTEM_ONLY_TABLES = (
    "refresh_tokens", "revoked_access_tokens", "login_failures", "setup_links", "ws_tickets", "checkpoint_migrations",
    "webhook_deliveries",
)  # fmt: skip
# Who may look across tenants, and what for.
SYSTEM_MODULES = {
    "api_keys.py": "nobody is known before a key or a ticket was looked up",
    "approvals.py": "overdue approvals of all users expire",
    "busy_threads.py": "sandboxes of threads in which something runs stay, those without a thread or user go",
    "crons.py": "whose time has come, of all users",
    "event_readers.py": "which of the followed threads moved on",
    "event_writer.py": "one group commit for all runs",
    "pool.py": "defines it",
    "retention.py": "what is old is removed",
    "run_queue.py": "workers take the runs of all users",
    "store.py": "items whose time is over are removed",
    "threads.py": "threads whose time is over",
    "totals.py": "numbers of the whole installation, for administrators",
    "users.py": "log-in",
    "webhook_deliveries.py": "what is due, of all users",
}
ROW_PER_TABLE = """
    INSERT INTO threads (thread_id, owner_id) VALUES (%(thread)s, %(owner)s);
    INSERT INTO runs (run_id, thread_id, owner_id, kind, input)
        VALUES (%(run)s, %(thread)s, %(owner)s, 'message', '{}');
    INSERT INTO run_events (thread_id, seq, run_id, generation, type, data, owner_id)
        VALUES (%(thread)s, 1, %(run)s, 1, 'agent_start', '{}', %(owner)s);
    INSERT INTO interrupts (id, thread_id, owner_id, run_id, call_id, tool_name, tool_input, digest, allowed_decisions,
            expires_at)
        VALUES (%(interrupt)s, %(thread)s, %(owner)s, %(run)s, 'c', 'execute', '{}', 'd', '{approve}', now());
    INSERT INTO messages (id, thread_id, owner_id, position, role, content)
        VALUES ('m', %(thread)s, %(owner)s, 1, 'user', 'hello');
    INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES (%(thread)s, 'c', '{}');
    INSERT INTO checkpoint_blobs (thread_id, channel, version, type) VALUES (%(thread)s, 'c', '1', 'empty');
    INSERT INTO checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
        VALUES (%(thread)s, 'c', 't', 0, 'c', '');
    INSERT INTO tool_calls (thread_id, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
            tool, args, state)
        VALUES (%(thread)s, '', 'm', 0, %(owner)s, %(run)s, 1, 'c', 'execute', '{}', 'started');
    INSERT INTO approval_rules (rule_id, thread_id, owner_id, effect, tool, match, pattern)
        VALUES (%(run)s, %(thread)s, %(owner)s, 'allow', 'execute', 'same', '{}');
    INSERT INTO idempotency_keys (owner_id, key, digest, answer) VALUES (%(owner)s, 'k', 'd', '{}');
    INSERT INTO api_keys (key_id, user_id, name, prefix, key_hash, scopes)
        VALUES (%(run)s, %(owner)s, 'n', 'p', %(hash)s, '{read}');
    INSERT INTO store_items (owner_id, namespace, key, value, words) VALUES (%(owner)s, '{notes}', 'k', '{}', '');
    INSERT INTO crons (cron_id, owner_id, assistant_id, schedule, payload, request, policy)
        VALUES (%(run)s, %(owner)s, 'agent', '@daily', '{}', '{}', 'enqueue');
    INSERT INTO assistants (owner_id, assistant_id, graph_id, name)
        VALUES (%(owner)s, '00000000-0000-4000-8000-000000000000', 'agent', 'n');
    INSERT INTO assistant_versions (owner_id, assistant_id, version, graph_id, name, context, config, metadata)
        VALUES (%(owner)s, '00000000-0000-4000-8000-000000000000', 1, 'agent', 'n', '{}', '{}', '{}');
    INSERT INTO snapshots (snapshot_id, thread_id, owner_id, kind, manifest, files, bytes, added_bytes, left_out,
            missed)
        VALUES (%(run)s, %(thread)s, %(owner)s, 'request', repeat('0', 64), 0, 0, 0, 0, 0);
    INSERT INTO coming_threads (thread_id, owner_id, until) VALUES (%(thread)s, %(owner)s, now());
    INSERT INTO sandbox_uses (use_id, thread_id, owner_id, until) VALUES (%(run)s, %(thread)s, %(owner)s, now())
"""


async def fill(database: Database, owner: UserId) -> ThreadId:
    """One row of `owner` in each tenant table."""
    thread = new_thread_id(owner)
    values = {"thread": thread, "owner": owner, "run": uuid.uuid4(), "interrupt": uuid.uuid4().hex}
    values["hash"] = uuid.uuid4().bytes
    async with database.tenant_transaction(owner) as connection:
        for statement in ROW_PER_TABLE.split(";\n"):
            await connection.execute(statement, values)
    return thread


async def count(connection: psycopg.AsyncConnection[dict[str, int]], table: str) -> int:
    cursor = await connection.execute(f"SELECT count(*) AS n FROM {table}")  # noqa: S608
    row = await cursor.fetchone()
    assert row is not None
    return row["n"]


@pytest.mark.parametrize("table", TENANT_TABLES)
async def test_each_user_sees_exactly_its_own_rows(
    database: Database, add_user: Callable[[str], Awaitable[UserId]], table: str
) -> None:
    al, al_ice = await add_user("al"), await add_user("al-ice")
    await fill(database, al)
    await fill(database, al_ice)
    for user in (al, al_ice):
        async with database.tenant_transaction(user) as connection:
            assert await count(connection, table) == 1
    async with database.connection() as connection:
        assert await count(connection, table) == 0, "no user is set"
    if table in TENANTS_ALONE:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with database.system_transaction() as connection:
                await count(connection, table)
        return
    async with database.system_transaction() as connection:
        assert await count(connection, table) == 2


@pytest.mark.parametrize("table", SYSTEM_ONLY_TABLES)
async def test_tenants_cannot_even_ask_for_what_only_the_system_needs(database: Database, table: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.tenant_transaction(UserId("alice")) as connection:
            await count(connection, table)


async def test_nobody_can_write_under_anothers_name(
    database: Database, add_user: Callable[[str], Awaitable[UserId]]
) -> None:
    alice, bob = await add_user("alice"), await add_user("bob")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with database.tenant_transaction(alice) as connection:
            await connection.execute(
                "INSERT INTO threads (thread_id, owner_id) VALUES (%s, %s)", [new_thread_id(bob), bob]
            )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
        async with database.tenant_transaction(alice) as connection:
            await connection.execute(
                "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES (%s, 'c', '{}')",
                [new_thread_id(bob)],
            )


async def test_a_threads_owner_must_be_the_one_in_its_id(
    database: Database, add_user: Callable[[str], Awaitable[UserId]]
) -> None:
    al, al_ice = await add_user("al"), await add_user("al-ice")
    with pytest.raises(psycopg.errors.CheckViolation, match="threads_owner_in_id"):
        async with database.tenant_transaction(al) as connection:
            await connection.execute(
                "INSERT INTO threads (thread_id, owner_id) VALUES (%s, %s)", [new_thread_id(al_ice), al]
            )


@pytest.mark.parametrize("table", TENANT_TABLES)
@pytest.mark.parametrize("verb", ["UPDATE {table} SET {column} = {column}", "DELETE FROM {table}"])
async def test_another_users_rows_cannot_be_hit(
    database: Database, add_user: Callable[[str], Awaitable[UserId]], verb: str, table: str
) -> None:
    al, al_ice = await add_user("al"), await add_user("al-ice")
    await fill(database, al_ice)
    column = {"users": "user_id", "api_keys": "user_id"}.get(table, "owner_id")
    column = "thread_id" if table.startswith("checkpoint") else column
    try:
        async with database.tenant_transaction(al) as connection:
            hit = (await connection.execute(verb.format(table=table, column=column))).rowcount
    except psycopg.errors.InsufficientPrivilege:
        hit = 0  # nobody may, not even with rows of one's own
    assert hit == 0
    async with database.tenant_transaction(al_ice) as connection:
        assert await count(connection, table) == 1


@pytest.mark.parametrize("table", sorted(set(TENANT_TABLES) - {"users", "threads"}))
async def test_no_row_can_be_given_to_another_user(
    database: Database, add_user: Callable[[str], Awaitable[UserId]], table: str
) -> None:
    al, al_ice = await add_user("al"), await add_user("al-ice")
    await fill(database, al)
    column, value = ("user_id", al_ice) if table == "api_keys" else ("owner_id", al_ice)
    if table.startswith("checkpoint"):
        column, value = "thread_id", new_thread_id(al_ice)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        async with database.tenant_transaction(al) as connection:
            await connection.execute(f"UPDATE {table} SET {column} = %s", [value])  # noqa: S608


async def test_every_table_is_known_to_these_tests(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert {name for (name,) in await cursor.fetchall()} == {*TENANT_TABLES, *SYSTEM_ONLY_TABLES, "alembic_version"}


async def test_every_policy_compares_the_owner_or_is_the_systems(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT tablename, policyname, array_to_string(roles, ','), qual, with_check FROM pg_policies "
            "WHERE schemaname = 'public'"
        )
        policies = await cursor.fetchall()
    for table, name, role, condition, check in policies:
        if role.startswith("moorage_app_"):
            assert "current_setting('app.user_id'::text, true)" in condition, (table, name)
        else:
            assert role.startswith("moorage_system_"), (table, name)
        assert check is None, (table, name)


async def test_the_user_of_one_transaction_is_gone_in_the_next(
    database: Database, database_url: str, add_user: Callable[[str], Awaitable[UserId]]
) -> None:
    alice = await add_user("alice")
    await fill(database, alice)
    async with open_database(database_url, min_size=1, max_size=1) as single:
        async with single.tenant_transaction(alice) as connection:
            assert await count(connection, "threads") == 1
        with pytest.raises(ZeroDivisionError):
            async with single.tenant_transaction(alice):
                raise ZeroDivisionError
        async with single.connection() as connection:
            assert await count(connection, "threads") == 0


async def test_the_system_role_is_gone_after_its_transaction(database: Database) -> None:
    async with database.system_transaction() as connection:
        pass
    cursor = await connection.execute("SELECT current_user AS name")
    row = await cursor.fetchone()
    assert row is not None
    assert row["name"].startswith("moorage_app_")


async def test_a_login_that_forgets_its_role_sees_nothing(
    database: Database, database_url: str, add_user: Callable[[str], Awaitable[UserId]]
) -> None:
    await fill(database, await add_user("alice"))
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute("SELECT count(*) FROM threads")
        assert await cursor.fetchone() == (0,)


async def test_every_table_forces_row_level_security(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace "
            "AND NOT (relrowsecurity AND relforcerowsecurity) ORDER BY relname"
        )
        assert await cursor.fetchall() == [("alembic_version",), ("checkpoint_migrations",)]


async def test_neither_role_can_log_in_or_pass_the_wall(database_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        cursor = await connection.execute(
            "SELECT rolcanlogin, rolsuper, rolbypassrls, rolcreaterole FROM pg_roles "
            "WHERE rolname IN ('moorage_app_' || current_database(), 'moorage_system_' || current_database())"
        )
        assert await cursor.fetchall() == [(False, False, False, False)] * 2


def test_only_listed_modules_work_as_the_system() -> None:
    folder = Path(moorage.__file__).parent
    asks = re.compile(r"\bsystem_(transaction|pipeline)\(")
    found = {path.relative_to(folder) for path in folder.rglob("*.py") if asks.search(path.read_text())}
    assert found == {Path("adapters/postgres") / name for name in SYSTEM_MODULES}
    api = Path(moorage_api.__file__).parent
    assert [path for path in api.rglob("*.py") if asks.search(path.read_text())] == []

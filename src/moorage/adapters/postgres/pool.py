"""The one connection pool, and the two kinds of transaction that everything runs in."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from copy import copy
from typing import Any

import orjson
import psycopg
from psycopg import AsyncConnection, sql
from psycopg.abc import Params, QueryNoTemplate
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from moorage.adapters.postgres.roles import Roles
from moorage.claims import Claim, ClaimLost
from moorage.errors import Unavailable
from moorage.ids import UserId

_FRESH_SECONDS = 1.0
_CHECK_SECONDS = 2.0
_STATEMENT_SECONDS = 10.0
_UNHURRIED_SECONDS = 300.0
_CHECKOUT_SECONDS = 5.0
_RETRY_SECONDS = 2
_CANNOT_WRITE_SECONDS = 30
_REFUSED_SECONDS = 10.0
_READ_ONLY = "The database is read-only"
_MAY_WRITE = "SELECT current_setting('transaction_read_only')::bool AS read_only"
_FENCED = "MO001"  # what `moorage_hold` raises

# An idle transaction may hold a thread's row lock: a frozen process must not hold it for ever.
_SESSION = sql.SQL(
    "SELECT set_config('role', {role}, false), set_config('TimeZone', 'UTC', false), "
    "set_config('idle_in_transaction_session_timeout', '30s', false)"
)


class CannotWrite(Unavailable):
    """Postgres answers, and can store nothing: its disk is full, or it is read-only."""

    code = "database_cannot_write"


class NotMigrated(Unavailable):
    """The database lacks our roles or tables; `moorage migrate` makes them."""

    code = "not_migrated"


class Connection(AsyncConnection[DictRow]):
    """A pooled connection that knows when it last answered."""

    answered_at = 0.0


class Database:
    """Transactions for tenants and for the system, over one pool.

    Nothing holds a connection while it waits for anything but Postgres. Every method raises Unavailable when Postgres
    does not answer, cannot write or has no connection free for 5 seconds.

    A tenant's transaction may be given a claim to `hold`: its first statement then raises ClaimLost unless the claim
    still holds, and nothing can take it away before the transaction ends. It costs no round trip.
    """

    def __init__(self, pool: AsyncConnectionPool[Connection], roles: Roles) -> None:
        self._pool = pool
        self._seconds = _STATEMENT_SECONDS
        self._refused: tuple[float, CannotWrite] | None = None  # the last write that failed, and when
        self._set_system = sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.system))
        self._as_system = sql.SQL("BEGIN; {}").format(self._set_system)

    @asynccontextmanager
    async def tenant_transaction(self, user_id: UserId, *, hold: Claim | None = None) -> AsyncGenerator[Connection]:
        """A transaction that sees and writes only what `user_id` owns. Commits at the end, rolls back on an error."""
        async with self._transaction(sql.SQL("BEGIN; ") + _act_as(user_id, hold)) as connection:
            yield connection

    @asynccontextmanager
    async def tenant_pipeline(self, user_id: UserId, *, hold: Claim | None = None) -> AsyncGenerator[Connection]:
        """`tenant_transaction` whose statements go out together: a round trip per read, and one for all the rest.

        An error is raised by the next read, or at the end.
        """
        async with self._pipeline(_act_as(user_id, hold)) as connection:
            yield connection

    @asynccontextmanager
    async def tenant_batch(self, user_id: UserId, *, hold: Claim | None = None) -> AsyncGenerator[Connection]:
        """`tenant_transaction` in one round trip, in which nothing may be read before its end.

        What is sent before the one synchronisation at its end is a transaction by itself (PostgreSQL, "Pipelining").
        """
        async with self.connection() as connection, connection.pipeline():
            await connection.execute(_act_as(user_id, hold), prepare=False)
            yield connection

    async def tenant_rows(self, user_id: UserId, query: QueryNoTemplate, values: Params | None = None) -> list[DictRow]:
        """What one query answers, seen as `user_id`, in one round trip."""
        async with self.connection() as connection, connection.cursor(binary=True) as cursor:
            async with connection.pipeline():
                await connection.execute(_act_as(user_id, None), prepare=False)
                await cursor.execute(query, values)
            return await cursor.fetchall()

    @asynccontextmanager
    async def system_pipeline(self) -> AsyncGenerator[Connection]:
        """`system_transaction` in the manner of `tenant_pipeline`."""
        async with self._pipeline(self._set_system) as connection:
            yield connection

    @asynccontextmanager
    async def system_transaction(self) -> AsyncGenerator[Connection]:
        """A transaction across tenants, with the few verbs that the system role is granted. Not for requests."""
        async with self._transaction(self._as_system) as connection:
            yield connection

    @property
    def unhurried(self) -> "Database":
        """The same for what may take minutes: removing or copying all that a thread has."""
        unhurried = copy(self)
        unhurried._seconds = _UNHURRIED_SECONDS
        return unhurried

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        """A connection in autocommit mode, as the app role with no user set: it sees no tenant's rows."""
        try:
            with _unavailable():
                async with self._pool.connection() as connection, _clean(connection):
                    with _at_most(self._seconds, connection):
                        yield connection
                    connection.answered_at = time.monotonic()
        except CannotWrite as error:
            self._refused = (time.monotonic(), error)
            raise

    async def ping(self) -> None:
        """One round trip on a connection that was checked; raises Unavailable, also when a write failed lately."""
        async with self.connection() as connection:
            with _at_most(_CHECK_SECONDS, connection):
                row = await (await connection.execute(_MAY_WRITE, prepare=False)).fetchone()
        if row is None or row["read_only"]:
            raise CannotWrite(_READ_ONLY, retry_after=_CANNOT_WRITE_SECONDS)
        if self._refused is not None and time.monotonic() - self._refused[0] < _REFUSED_SECONDS:
            raise self._refused[1]

    @asynccontextmanager
    async def _pipeline(self, who: sql.Composed) -> AsyncGenerator[Connection]:
        async with self.connection() as connection:
            try:
                async with connection.pipeline():
                    await connection.execute("BEGIN")
                    await connection.execute(who, prepare=False)
                    yield connection
                    ended = await connection.execute("COMMIT")
            except BaseException:
                with suppress(psycopg.OperationalError):
                    await connection.rollback()
                raise
            if ended.statusmessage != "COMMIT":
                raise psycopg.errors.InFailedSqlTransaction("a statement failed earlier in this transaction")

    @asynccontextmanager
    async def _transaction(self, begin: sql.Composed) -> AsyncGenerator[Connection]:
        async with self.connection() as connection:
            # Several statements without parameters go out as one simple query: one round trip, like a bare BEGIN.
            await connection.execute(begin, prepare=False)
            try:
                yield connection
                _refuse_failed(connection)
            except BaseException:
                with suppress(psycopg.OperationalError):  # the connection is gone, and the transaction with it
                    await connection.rollback()
                raise
            await connection.commit()


@asynccontextmanager
async def open_database(url: str, *, min_size: int = 2, max_size: int = 20) -> AsyncGenerator[Database]:
    """The database at `url`, which must have been migrated; raises NotMigrated or Unavailable."""
    roles = await _check_roles(url)

    async def configure(connection: Connection) -> None:
        await connection.execute(_SESSION.format(role=sql.Literal(roles.app)), prepare=False)
        set_json_dumps(orjson.dumps, connection)
        set_json_loads(orjson.loads, connection)

    pool = AsyncConnectionPool(
        url,
        connection_class=Connection,
        kwargs=_connect_options(),
        min_size=min_size,
        max_size=max_size,
        timeout=_CHECKOUT_SECONDS,
        # The pool's own retries back off up to minutes. Giving up early makes the next request try at once.
        reconnect_timeout=_RETRY_SECONDS,
        configure=configure,
        check=_check_idle,
        open=False,
        name="moorage",
    )
    async with pool:
        yield Database(pool, roles)


def _act_as(user_id: UserId, hold: Claim | None) -> sql.Composed:
    """The one statement that a tenant's transaction starts with. WHERE comes first: the claim is read as that user."""
    who = sql.SQL("set_config('app.user_id', {}, true)").format(sql.Literal(user_id))
    if hold is None:
        return sql.SQL("SELECT ") + who
    held = sql.SQL("SELECT moorage_hold({}, {}) WHERE ").format(sql.Literal(hold.run_id), sql.Literal(hold.generation))
    return held + who + sql.SQL(" IS NOT NULL")


def _connect_options() -> dict[str, Any]:
    return {
        "autocommit": True,
        "row_factory": dict_row,
        "prepare_threshold": 0,
        "connect_timeout": 5,
        "tcp_user_timeout": 10_000,
        # For whoever only waits for an answer: a peer that vanished is noticed within half a minute.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "application_name": "moorage",
    }


async def _check_roles(url: str) -> Roles:
    """Prove with one connection that both roles may be taken, where a pool would only time out."""
    with _unavailable():
        async with await AsyncConnection.connect(url, autocommit=True, connect_timeout=5) as connection:
            roles = Roles.of_database(connection.info.dbname)
            try:
                for role in (roles.system, roles.app):
                    await connection.execute("SELECT set_config('role', %s, false)", [role])
            except (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege):
                raise NotMigrated(
                    f"The database {connection.info.dbname} is not ready for {connection.info.user}: "
                    "run `moorage migrate`"
                ) from None
            return roles


async def _check_idle(connection: Connection) -> None:
    """Ask a connection whether it lives, unless it answered a moment ago: saves most calls a round trip."""
    if time.monotonic() - connection.answered_at > _FRESH_SECONDS:
        with _at_most(_CHECK_SECONDS, connection):
            await connection.execute("", prepare=False)
        connection.answered_at = time.monotonic()


@asynccontextmanager
async def _clean(connection: Connection) -> AsyncGenerator[None]:
    """What is cancelled at the wrong moment may leave a connection in a pipeline: nobody else may get it."""
    try:
        yield
    finally:
        in_pipeline = connection._pipeline is not None  # pyright: ignore[reportPrivateUsage]
        if in_pipeline or connection.pgconn.pipeline_status != PipelineStatus.OFF:
            await connection.close()


@contextmanager
def _at_most(seconds: float, connection: Connection) -> Generator[None]:
    """Hang up on a Postgres that keeps the connection and does not answer, as one that is frozen.

    Cancelling would not do: psycopg then asks Postgres to cancel the statement, and waits for that answer.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as line:
        line.shutdown(socket.SHUT_RDWR)


def _refuse_failed(connection: Connection) -> None:
    """COMMIT of a failed transaction quietly rolls back: say so instead, when a caller swallowed the error."""
    if connection.info.transaction_status == TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction("a statement failed earlier in this transaction")


@contextmanager
def _unavailable() -> Generator[None]:
    """Turn what Postgres cannot do just now, and a claim that is lost, into the errors that callers know."""
    try:
        yield
    except PoolTimeout:
        raise Unavailable("Postgres does not answer", retry_after=_RETRY_SECONDS) from None
    except (
        psycopg.errors.DeadlockDetected,
        psycopg.errors.SerializationFailure,
        psycopg.errors.LockNotAvailable,
    ) as error:
        raise Unavailable("The database is busy", retry_after=1) from error
    except psycopg.errors.DiskFull as error:
        raise CannotWrite("The database's disk is full", retry_after=_CANNOT_WRITE_SECONDS) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise CannotWrite(_READ_ONLY, retry_after=_CANNOT_WRITE_SECONDS) from error
    except psycopg.OperationalError as error:
        raise Unavailable("Postgres does not answer", retry_after=_RETRY_SECONDS) from error
    except psycopg.DatabaseError as error:
        if error.sqlstate == _FENCED:
            raise ClaimLost("This run is not this worker's any more") from None
        raise

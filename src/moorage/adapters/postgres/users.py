"""Users, refresh tokens and failed log-ins in Postgres, as the system role: nobody is a tenant before log-in."""

from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg import AsyncConnection, errors

from moorage.adapters.postgres.pool import Database
from moorage.events import scrub_text
from moorage.identity.port import Refreshed, RefreshUse, Standing
from moorage.identity.user import LastAdmin, User
from moorage.ids import UserId
from moorage.paging import Page, decode_cursor, encode_cursor

type Row = dict[str, Any]

_WINDOW = timedelta(minutes=15)
_FAILURES_PER_ACCOUNT = 5
_FAILURES_PER_ADDRESS = 20
_COLUMNS = "user_id, password_hash, email, is_admin, is_active, token_version, created_at"

_STANDING = """
SELECT is_admin, is_active, token_version,
    EXISTS (SELECT FROM revoked_access_tokens r WHERE r.jti = %(token_id)s)
    OR EXISTS (SELECT FROM refresh_tokens f WHERE f.family = %(family)s AND f.revoked_at IS NOT NULL) AS token_revoked
FROM users WHERE user_id = %(user_id)s
"""

_SEARCH = f"""
SELECT {_COLUMNS} FROM users
WHERE user_id > %(after)s AND (strpos(user_id, %(part)s) > 0 OR strpos(lower(email), %(part)s) > 0)
ORDER BY user_id LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

# Locked in one order: of two administrators who disable each other, the later finds what the earlier did.
_LOCK_ADMINS = "SELECT user_id FROM users WHERE is_admin AND is_active ORDER BY user_id FOR UPDATE"

_USE_REFRESH_TOKEN = f"""
SELECT t.family, t.used_at IS NOT NULL AS used, u.is_active, u.token_version = t.token_version AS current,
    t.expires_at < now() OR EXISTS (
        SELECT FROM refresh_tokens f WHERE f.family = t.family AND f.revoked_at IS NOT NULL
    ) AS dead, {", ".join(f"u.{name}" for name in _COLUMNS.split(", "))}
FROM refresh_tokens t JOIN users u USING (user_id) WHERE t.token_hash = %s FOR UPDATE OF t
"""  # noqa: S608 -- constant columns

_BLOCKED = """
SELECT ceil(extract(epoch FROM max(until) - now()))::int AS seconds FROM (
    SELECT min(failed_at) + %(window)s AS until FROM (
        SELECT failed_at FROM login_failures WHERE account = %(account)s AND failed_at > now() - %(window)s
        ORDER BY failed_at DESC LIMIT %(per_account)s) a HAVING count(*) = %(per_account)s
    UNION ALL
    SELECT min(failed_at) + %(window)s FROM (
        SELECT failed_at FROM login_failures WHERE address = %(address)s AND failed_at > now() - %(window)s
        ORDER BY failed_at DESC LIMIT %(per_address)s) b HAVING count(*) = %(per_address)s
) blocks
"""

_LOCK_ATTEMPTS = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"

_END_TOKENS = "UPDATE users SET token_version = token_version + 1, updated_at = now() WHERE user_id = %s"

_END_KEYS = "DELETE FROM api_keys WHERE user_id = %s"


class PostgresUserStore:
    """`moorage.identity.port.UserStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user_id: UserId, password_hash: str, *, email: str | None, is_admin: bool) -> bool:
        async with self._database.system_transaction() as connection:
            return await _add(connection, user_id, password_hash, email=email, is_admin=is_admin)

    async def find(self, user_id: str) -> User | None:
        statement: LiteralString = f"SELECT {_COLUMNS} FROM users WHERE user_id = %s"  # noqa: S608
        if "\x00" in user_id:
            return None
        async with self._database.system_transaction() as connection:
            row = await (await connection.execute(statement, [user_id])).fetchone()
        return _user(row) if row else None

    async def standing(self, user_id: UserId, token_id: str, family: UUID) -> Standing | None:
        values = {"user_id": user_id, "token_id": token_id, "family": family}
        async with self._database.system_transaction() as connection:
            row = await (await connection.execute(_STANDING, values)).fetchone()
        return Standing(**row) if row else None

    async def search(self, *, query: str | None = None, limit: int, cursor: str | None) -> Page[User]:
        after = scrub_text(decode_cursor(cursor, 1)[0]) if cursor else ""
        values = {"after": after, "part": scrub_text(query or "").lower(), "limit": limit + 1}
        async with self._database.system_transaction() as connection:
            rows = await (await connection.execute(_SEARCH, values)).fetchall()
        more = encode_cursor(rows[limit - 1]["user_id"]) if len(rows) > limit else None
        return Page([_user(row) for row in rows[:limit]], more)

    async def set_password(self, user_id: UserId, password_hash: str, *, keep_keys: bool = False) -> bool:
        async with self._database.system_transaction() as connection:
            await connection.execute("UPDATE users SET password_hash = %s WHERE user_id = %s", [password_hash, user_id])
            if not keep_keys:
                await connection.execute(_END_KEYS, [user_id])
            return await _end_tokens(connection, user_id)

    async def set_active(self, user_id: UserId, *, active: bool, spare_last_admin: bool = False) -> bool:
        async with self._database.system_transaction() as connection:
            if spare_last_admin and not active:
                await _refuse_last_admin(connection, user_id)
            await connection.execute("UPDATE users SET is_active = %s WHERE user_id = %s", [active, user_id])
            if not active:
                await connection.execute(_END_KEYS, [user_id])
            return await _end_tokens(connection, user_id)

    async def end_all_tokens(self, user_id: UserId) -> None:
        async with self._database.system_transaction() as connection:
            await _end_tokens(connection, user_id)

    async def revoke_access_token(self, user_id: UserId, token_id: str, *, until: datetime) -> None:
        async with self._database.system_transaction() as connection:
            await connection.execute(
                "INSERT INTO revoked_access_tokens (jti, user_id, expires_at) VALUES (%s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [token_id, user_id, until],
            )
            # A leeway after its end, no token counts by its own claims.
            await connection.execute(
                "DELETE FROM revoked_access_tokens WHERE user_id = %s AND expires_at < now() - interval '1 hour'",
                [user_id],
            )

    async def add_refresh_token(self, user: User, digest: bytes, family: UUID, *, lifetime: timedelta) -> None:
        async with self._database.system_transaction() as connection:
            await _add_refresh_token(connection, user, digest, family, lifetime)

    async def rotate_refresh_token(self, digest: bytes, following: bytes, *, lifetime: timedelta) -> Refreshed:
        async with self._database.system_transaction() as connection:
            row = await (await connection.execute(_USE_REFRESH_TOKEN, [digest])).fetchone()
            if row is None:
                return Refreshed(RefreshUse.UNKNOWN)
            if row["used"]:
                await _revoke_family(connection, row["family"], row["user_id"])
                return Refreshed(RefreshUse.REUSED)
            if row["dead"] or not row["is_active"] or not row["current"]:
                return Refreshed(RefreshUse.UNKNOWN)
            await connection.execute("UPDATE refresh_tokens SET used_at = now() WHERE token_hash = %s", [digest])
            # In the same transaction: whoever waits to use the old one again must find this one to revoke.
            await _add_refresh_token(connection, _user(row), following, row["family"], lifetime)
        return Refreshed(RefreshUse.OK, _user(row), row["family"])

    async def revoke_family(self, family: UUID, user_id: UserId) -> None:
        async with self._database.system_transaction() as connection:
            await _revoke_family(connection, family, user_id)

    async def seconds_blocked(self, account: str, address: str) -> int:
        async with self._database.system_transaction() as connection:
            return await _seconds_blocked(connection, _storable(account), address)

    async def settle_attempt(self, account: str, address: str, *, success: bool) -> int:
        name = _storable(account)
        async with self._database.system_transaction() as connection:
            await connection.execute(_LOCK_ATTEMPTS, [f"account {name}"])
            await connection.execute(_LOCK_ATTEMPTS, [f"address {address}"])
            if seconds := await _seconds_blocked(connection, name, address):
                return seconds
            if success:
                await connection.execute("DELETE FROM login_failures WHERE account = %s", [name])
                return 0
            await connection.execute("INSERT INTO login_failures (account, address) VALUES (%s, %s)", [name, address])
            await connection.execute("DELETE FROM login_failures WHERE failed_at < now() - 2 * %s", [_WINDOW])
        return 0

    async def offer_setup(self, digest: bytes, *, lifetime: timedelta) -> bool:
        async with self._database.system_transaction() as connection:
            await connection.execute("LOCK TABLE setup_links IN SHARE ROW EXCLUSIVE MODE")
            if await _has_admin(connection):
                return False
            await connection.execute("DELETE FROM setup_links")
            statement = "INSERT INTO setup_links (token_hash, expires_at) VALUES (%s, now() + %s)"
            await connection.execute(statement, [digest, lifetime])
        return True

    async def add_first_admin(self, digest: bytes, user_id: UserId, password_hash: str) -> bool:
        async with self._database.system_transaction() as connection:
            await connection.execute("LOCK TABLE setup_links IN SHARE ROW EXCLUSIVE MODE")
            statement = "SELECT FROM setup_links WHERE token_hash = %s AND used_at IS NULL AND expires_at > now()"
            found = await (await connection.execute(statement, [digest])).fetchone()
            if found is None or await _has_admin(connection):
                return False
            if not await _add(connection, user_id, password_hash, email=None, is_admin=True):
                return False
            await connection.execute("UPDATE setup_links SET used_at = now() WHERE token_hash = %s", [digest])
        return True


async def _add(
    connection: AsyncConnection[Row], user_id: UserId, password_hash: str, *, email: str | None, is_admin: bool
) -> bool:
    statement = "INSERT INTO users (user_id, password_hash, email, is_admin) VALUES (%s, %s, %s, %s)"
    try:
        async with connection.transaction():
            await connection.execute(statement, [user_id, password_hash, email, is_admin])
    except errors.UniqueViolation:
        return False
    return True


async def _seconds_blocked(connection: AsyncConnection[Row], account: str, address: str) -> int:
    values = {
        "account": account,
        "address": address,
        "window": _WINDOW,
        "per_account": _FAILURES_PER_ACCOUNT,
        "per_address": _FAILURES_PER_ADDRESS,
    }
    row = await (await connection.execute(_BLOCKED, values)).fetchone()
    return max(0, (row["seconds"] if row else None) or 0)


async def _has_admin(connection: AsyncConnection[Row]) -> bool:
    return await (await connection.execute("SELECT FROM users WHERE is_admin LIMIT 1")).fetchone() is not None


async def _refuse_last_admin(connection: AsyncConnection[Row], user_id: UserId) -> None:
    admins = await (await connection.execute(_LOCK_ADMINS)).fetchall()
    if [row["user_id"] for row in admins] == [user_id]:
        raise LastAdmin


async def _end_tokens(connection: AsyncConnection[Row], user_id: UserId) -> bool:
    changed = await connection.execute(_END_TOKENS, [user_id])
    revoke = "UPDATE refresh_tokens SET revoked_at = now() WHERE user_id = %s AND revoked_at IS NULL"
    await connection.execute(revoke, [user_id])
    return changed.rowcount == 1


async def _add_refresh_token(
    connection: AsyncConnection[Row], user: User, digest: bytes, family: UUID, lifetime: timedelta
) -> None:
    await connection.execute(
        "INSERT INTO refresh_tokens (token_hash, user_id, family, token_version, expires_at)"
        " VALUES (%s, %s, %s, %s, now() + %s)",
        [digest, user.user_id, family, user.token_version, lifetime],
    )
    await connection.execute("DELETE FROM refresh_tokens WHERE user_id = %s AND expires_at < now()", [user.user_id])


async def _revoke_family(connection: AsyncConnection[Row], family: UUID, user_id: str) -> None:
    statement = "UPDATE refresh_tokens SET revoked_at = now() WHERE family = %s AND user_id = %s AND revoked_at IS NULL"
    await connection.execute(statement, [family, user_id])


def _storable(account: str) -> str:
    """What may be no username at all, as Postgres can store it."""
    return account[:100].replace("\x00", "").encode("utf-8", "replace").decode()


def _user(row: Row) -> User:
    return User(
        user_id=UserId(row["user_id"]),
        password_hash=row["password_hash"],
        email=row["email"],
        is_admin=row["is_admin"],
        is_active=row["is_active"],
        token_version=row["token_version"],
        created_at=row["created_at"],
    )

"""API keys and tickets in Postgres: managed as their owner, looked up as the system role, as nobody is known before."""

from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from moorage.adapters.postgres.pool import Database
from moorage.identity.port import KeyStanding
from moorage.identity.principal import ApiKey, KeyProof, Proof, Scope, TokenProof
from moorage.ids import UserId
from moorage.paging import Page, decode_time_cursor, encode_cursor

type Row = dict[str, Any]

_COLUMNS = "key_id, name, prefix, scopes, created_at, expires_at, last_used_at"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_FORGET_EXPIRED = "DELETE FROM api_keys WHERE user_id = %s AND expires_at < now() - interval '30 days'"
_COUNT = "SELECT count(*) AS keys FROM api_keys WHERE user_id = %s AND (expires_at IS NULL OR expires_at > now())"

_INSERT = f"""
INSERT INTO api_keys (key_id, user_id, name, prefix, key_hash, scopes, expires_at)
VALUES (%s, %s, %s, %s, %s, %s, now() + %s) RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_LIST = f"""
SELECT {_COLUMNS} FROM api_keys
WHERE user_id = %(user)s AND (%(at)s::timestamptz IS NULL OR (created_at, key_id) < (%(at)s, %(id)s))
ORDER BY created_at DESC, key_id DESC LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

_STANDING = """
SELECT k.key_id, k.user_id, k.scopes, coalesce(k.last_used_at > now() - interval '1 minute', false) AS used_lately
FROM api_keys k JOIN users u USING (user_id)
WHERE k.key_hash = %s AND u.is_active AND (k.expires_at IS NULL OR k.expires_at > now())
"""

_TOUCH = """
UPDATE api_keys SET last_used_at = now()
WHERE key_id = %s AND (last_used_at IS NULL OR last_used_at <= now() - interval '1 minute')
"""

_ADD_TICKET = """
INSERT INTO ws_tickets
    (ticket_hash, user_id, key_id, token_version, token_id, token_family, token_expires_at, expires_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, now() + %s)
"""
_FORGET_TICKETS = """
DELETE FROM ws_tickets WHERE ticket_hash IN (
    SELECT ticket_hash FROM ws_tickets WHERE expires_at < now() LIMIT 100 FOR UPDATE SKIP LOCKED
)
"""

_USE_TICKET = """
WITH used AS (DELETE FROM ws_tickets WHERE ticket_hash = %s RETURNING *)
SELECT used.*, k.key_hash FROM used LEFT JOIN api_keys k USING (key_id) WHERE used.expires_at > now()
"""


class PostgresKeyStore:
    """`moorage.identity.port.KeyStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_key(
        self,
        user_id: UserId,
        digest: bytes,
        *,
        name: str,
        prefix: str,
        scopes: frozenset[Scope],
        lifetime: timedelta | None,
        limit: int,
    ) -> ApiKey | None:
        values = [uuid4(), user_id, name, prefix, digest, sorted(scopes), lifetime]
        async with self._database.tenant_transaction(user_id) as connection:
            await connection.execute(_LOCK, [f"api keys of {user_id}"])
            await connection.execute(_FORGET_EXPIRED, [user_id])
            counted = await (await connection.execute(_COUNT, [user_id])).fetchone()
            if counted is None or counted["keys"] >= limit:
                return None
            row = await (await connection.execute(_INSERT, values)).fetchone()
        return _key(row) if row else None

    async def search_keys(self, user_id: UserId, *, limit: int, cursor: str | None) -> Page[ApiKey]:
        at, last_id = decode_time_cursor(cursor) if cursor else (None, None)
        key_id = _uuid(last_id) if last_id is not None else None
        values = {"user": user_id, "at": at if key_id else None, "id": key_id, "limit": limit + 1}
        async with self._database.tenant_transaction(user_id) as connection:
            rows = await (await connection.execute(_LIST, values)).fetchall()
        last = rows[limit - 1] if len(rows) > limit else None
        more = encode_cursor(last["created_at"].isoformat(), str(last["key_id"])) if last else None
        return Page([_key(row) for row in rows[:limit]], more)

    async def remove_key(self, user_id: UserId, key_id: UUID) -> bool:
        async with self._database.tenant_transaction(user_id) as connection:
            statement = "DELETE FROM api_keys WHERE key_id = %s AND user_id = %s"
            return (await connection.execute(statement, [key_id, user_id])).rowcount == 1

    async def key_standing(self, digest: bytes) -> KeyStanding | None:
        async with self._database.system_transaction() as connection:
            row = await (await connection.execute(_STANDING, [digest])).fetchone()
        if row is None:
            return None
        return KeyStanding(row["key_id"], UserId(row["user_id"]), _scopes(row), row["used_lately"])

    async def touch_key(self, key_id: UUID) -> None:
        async with self._database.system_transaction() as connection:
            await connection.execute(_TOUCH, [key_id])

    async def add_ticket(self, digest: bytes, proof: Proof, *, lifetime: timedelta) -> None:
        if isinstance(proof, KeyProof):
            stands_for = [proof.key_id, None, None, None, None]
        else:
            stands_for = [None, proof.token_version, proof.token_id, proof.family, proof.expires_at]
        async with self._database.system_transaction() as connection:
            await connection.execute(_FORGET_TICKETS)
            await connection.execute(_ADD_TICKET, [digest, proof.user_id, *stands_for, lifetime])

    async def use_ticket(self, digest: bytes) -> Proof | None:
        async with self._database.system_transaction() as connection:
            row = await (await connection.execute(_USE_TICKET, [digest])).fetchone()
        if row is None:
            return None
        user_id = UserId(row["user_id"])
        if row["key_id"] is not None:
            return KeyProof(user_id, row["key_id"], row["key_hash"])
        return TokenProof(user_id, row["token_version"], row["token_id"], row["token_family"], row["token_expires_at"])


def _uuid(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _scopes(row: Row) -> frozenset[Scope]:
    return frozenset(map(Scope, row["scopes"]))


def _key(row: Row) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=_scopes(row),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )

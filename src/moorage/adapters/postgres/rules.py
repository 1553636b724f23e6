"""Remembered rules in Postgres."""

from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim
from moorage.events import encode
from moorage.ids import ThreadId, UserId
from moorage.paging import Page, decode_time_cursor, encode_cursor
from moorage.rules import Effect, Match, NewRule, Rule, RuleNotFound

type Row = dict[str, Any]

_COLUMNS = """rule_id, thread_id, owner_id, effect, tool, match, pattern, interrupt_id, created_at, expires_at,
    revoked_at"""
_IN_FORCE = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"

_INSERT = """
INSERT INTO approval_rules (rule_id, thread_id, owner_id, effect, tool, match, pattern, interrupt_id, expires_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now() + %s)
"""

_ACTIVE = f"""
SELECT {_COLUMNS} FROM approval_rules WHERE thread_id = %s AND {_IN_FORCE} ORDER BY created_at, rule_id
"""  # noqa: S608 -- constant columns

_LIST = f"""
SELECT {_COLUMNS} FROM approval_rules
WHERE owner_id = %(owner)s AND thread_id = %(thread)s AND {_IN_FORCE}
    AND (%(at)s::timestamptz IS NULL OR (created_at, rule_id) < (%(at)s, %(id)s))
ORDER BY created_at DESC, rule_id DESC LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

_REVOKE = f"""
UPDATE approval_rules SET revoked_at = now()
WHERE rule_id = %s AND thread_id = %s AND owner_id = %s AND {_IN_FORCE} RETURNING rule_id
"""  # noqa: S608 -- constant columns


async def insert_rule(connection: AsyncConnection[Row], claim: Claim, rule: NewRule, *, interrupt_id: str) -> None:
    """Store a rule in the transaction of the decision that made it."""
    values = [uuid4(), claim.thread_id, claim.owner_id, rule.effect.value, rule.tool, rule.match.value]
    await connection.execute(_INSERT, [*values, Jsonb(rule.pattern, dumps=encode), interrupt_id, rule.lifetime])


async def active_rules(connection: AsyncConnection[Row], thread_id: ThreadId) -> list[Rule]:
    """The thread's rules in force, oldest first."""
    rows = await (await connection.execute(_ACTIVE, [thread_id])).fetchall()
    return [_rule(row) for row in rows]


class PostgresRuleBook:
    """`moorage.rules.RuleBook` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, owner: UserId, thread_id: ThreadId) -> list[Rule]:
        async with self._database.tenant_transaction(owner) as connection:
            return await active_rules(connection, thread_id)

    async def search(self, owner: UserId, thread_id: ThreadId, *, limit: int, cursor: str | None) -> Page[Rule]:
        at, last_id = decode_time_cursor(cursor) if cursor else (None, None)
        rule_id = _uuid(last_id) if last_id is not None else None
        values = {"owner": owner, "thread": thread_id, "at": at if rule_id else None, "id": rule_id, "limit": limit + 1}
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(_LIST, values)).fetchall()
        last = rows[limit - 1] if len(rows) > limit else None
        more = encode_cursor(last["created_at"].isoformat(), str(last["rule_id"])) if last else None
        return Page([_rule(row) for row in rows[:limit]], more)

    async def revoke(self, owner: UserId, thread_id: ThreadId, rule_id: str) -> None:
        known = _uuid(rule_id)
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_REVOKE, [known, thread_id, owner])).fetchone() if known else None
        if row is None:
            raise RuleNotFound


def _uuid(text: str) -> UUID | None:
    with suppress(ValueError):
        return UUID(text)
    return None


def _rule(row: Row) -> Rule:
    return Rule(
        rule_id=str(row["rule_id"]),
        thread_id=ThreadId(row["thread_id"]),
        owner_id=UserId(row["owner_id"]),
        effect=Effect(row["effect"]),
        tool=row["tool"],
        match=Match(row["match"]),
        pattern=row["pattern"],
        interrupt_id=row["interrupt_id"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )

"""The store's items in Postgres."""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.pool import Database
from moorage.events import encode, scrub_text
from moorage.ids import UserId
from moorage.messages import search_query
from moorage.store import ANSWER_BYTES, Condition, Item, Namespace, NewItem, Operator, StoreFull, TooMuch

type Row = dict[str, Any]

_BATCH = 1000

_ALIVE = "(expires_at IS NULL OR expires_at > now())"
_THIS = "owner_id = %(owner)s AND namespace = %(namespace)s::text[] AND key = %(key)s"
_WORDS = "to_tsvector('simple'::regconfig, left(moorage_words(%(text)s), 100000))"

# One that has expired is as one that was never there.
_REPLACE = f"""
UPDATE store_items SET value = %(value)s, words = {_WORDS}, ttl = %(ttl)s, expires_at = now() + %(ttl)s::interval,
    created_at = CASE WHEN {_ALIVE} THEN created_at ELSE now() END, updated_at = now()
WHERE {_THIS} RETURNING key
"""  # noqa: S608 -- constant parts

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 3))"

_IS_FULL = f"""
SELECT count(*) >= %(quota)s AS is_full FROM (
    SELECT FROM store_items WHERE owner_id = %(owner)s AND {_ALIVE} LIMIT %(quota)s) items
"""  # noqa: S608 -- constant parts

# Somebody else may have put it in between.
_INSERT = f"""
INSERT INTO store_items (owner_id, namespace, key, value, words, ttl, expires_at)
VALUES (%(owner)s, %(namespace)s, %(key)s, %(value)s, {_WORDS}, %(ttl)s, now() + %(ttl)s::interval)
ON CONFLICT (owner_id, namespace, key) DO UPDATE SET value = EXCLUDED.value, words = EXCLUDED.words,
    ttl = EXCLUDED.ttl, expires_at = EXCLUDED.expires_at, updated_at = EXCLUDED.updated_at
"""  # noqa: S608 -- constant parts

_REFRESH = f"UPDATE store_items SET expires_at = now() + ttl WHERE {_THIS} AND ttl IS NOT NULL AND {_ALIVE}"  # noqa: S608
_FIND = f"SELECT namespace, key, value, created_at, updated_at FROM store_items WHERE {_THIS} AND {_ALIVE}"  # noqa: S608
_DELETE = f"DELETE FROM store_items WHERE {_THIS}"  # noqa: S608

# Who searches the same at the same time must not wait for another's refreshing, which does as well.
_SEARCH = """
WITH found AS (
    SELECT namespace, key, value, created_at, updated_at, {score} AS score FROM store_items
    WHERE owner_id = %(owner)s AND {alive} AND {wanted}
    ORDER BY score DESC NULLS LAST, updated_at DESC, namespace, key LIMIT %(limit)s OFFSET %(offset)s
), due AS (
    SELECT i.namespace, i.key FROM store_items i JOIN found USING (namespace, key)
    WHERE i.owner_id = %(owner)s AND i.ttl IS NOT NULL AND %(refresh)s FOR NO KEY UPDATE OF i SKIP LOCKED
), refreshed AS (
    UPDATE store_items i SET expires_at = now() + ttl FROM due
    WHERE i.owner_id = %(owner)s AND i.namespace = due.namespace AND i.key = due.key
)
SELECT namespace, key, created_at, updated_at, score, CASE WHEN size <= %(most)s THEN value END AS value FROM (
    SELECT *, sum(octet_length(value::text)) OVER () AS size FROM found) sized
ORDER BY score DESC NULLS LAST, updated_at DESC, namespace, key
"""

# Any of the words will do, unless one is excluded: that must hold whatever else is found.
_QUERY = """(SELECT CASE WHEN position('!' IN q::text) > 0 THEN q ELSE replace(q::text, ' & ', ' | ')::tsquery END
    FROM websearch_to_tsquery('simple', %(query)s) q)"""

_NAMESPACES = """
SELECT DISTINCT namespace[1:COALESCE(%(depth)s, cardinality(namespace))] AS namespace FROM store_items
WHERE owner_id = %(owner)s AND {alive} AND {wanted}
ORDER BY namespace LIMIT %(limit)s OFFSET %(offset)s
"""

# Asked twice: of one that is being put again, what counts is how it is then.
_SWEEP = """
DELETE FROM store_items WHERE expires_at <= now() AND (owner_id, namespace, key) IN (
    SELECT owner_id, namespace, key FROM store_items WHERE expires_at <= now() LIMIT %s)
"""

_COMPARED: dict[Operator, LiteralString] = {
    Operator.GREATER: ">",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS: "<",
    Operator.LESS_OR_EQUAL: "<=",
}


class PostgresItemTable:
    """`moorage.store.ItemTable` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, owner: UserId, item: NewItem, *, quota: int) -> None:
        values = {
            **_address(owner, item.namespace, item.key),
            "value": Jsonb(item.value, dumps=encode),
            "text": scrub_text(item.text),
            "ttl": item.ttl,
        }
        async with self._database.tenant_pipeline(owner) as connection:
            if await (await connection.execute(_REPLACE, values)).fetchone():
                return
            if quota:
                await connection.execute(_LOCK, [f"store:{owner}"])
                row = await (await connection.execute(_IS_FULL, {"owner": owner, "quota": quota})).fetchone()
                if row and row["is_full"]:
                    raise StoreFull(f"{quota} items are stored already: delete some")
            await connection.execute(_INSERT, values)

    async def find(self, owner: UserId, namespace: Namespace, key: str, *, refresh: bool) -> Item | None:
        values = _address(owner, namespace, key)
        async with self._database.tenant_pipeline(owner) as connection:
            if refresh:
                await connection.execute(_REFRESH, values)
            row = await (await connection.execute(_FIND, values)).fetchone()
        return _item(row) if row else None

    async def delete(self, owner: UserId, namespace: Namespace, key: str) -> None:
        async with self._database.tenant_pipeline(owner) as connection:
            await connection.execute(_DELETE, _address(owner, namespace, key))

    async def search(
        self,
        owner: UserId,
        prefix: Namespace,
        *,
        conditions: Sequence[Condition],
        query: str | None,
        limit: int,
        offset: int,
        refresh: bool,
    ) -> list[Item]:
        values: dict[str, Any] = {
            "owner": owner,
            "limit": limit,
            "offset": offset,
            "refresh": refresh,
            "most": ANSWER_BYTES,
        }
        wanted = [sql.SQL("true"), *_begins(values, prefix), *(_met(values, condition) for condition in conditions)]
        score = sql.SQL("NULL::float4")
        if query is not None:
            values["query"] = search_query(scrub_text(query))
            wanted.append(sql.SQL("words @@ {}").format(sql.SQL(_QUERY)))
            score = sql.SQL("ts_rank(words, {})").format(sql.SQL(_QUERY))
        statement = sql.SQL(_SEARCH).format(score=score, alive=sql.SQL(_ALIVE), wanted=sql.SQL(" AND ").join(wanted))
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(statement, values)).fetchall()
        if any(row["value"] is None for row in rows):
            raise TooMuch
        return [_item(row) for row in rows]

    async def namespaces(
        self,
        owner: UserId,
        *,
        prefix: Namespace,
        suffix: Namespace,
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> list[Namespace]:
        values: dict[str, Any] = {"owner": owner, "depth": max_depth, "limit": limit, "offset": offset}
        wanted = [sql.SQL("true"), *_begins(values, prefix, any_label="*"), *_ends(values, suffix)]
        statement = sql.SQL(_NAMESPACES).format(alive=sql.SQL(_ALIVE), wanted=sql.SQL(" AND ").join(wanted))
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(statement, values)).fetchall()
        return [tuple(row["namespace"]) for row in rows]


async def forget_expired_items(database: Database) -> int:
    """Remove what nobody is shown any more; answers how many."""
    removed = 0
    while True:
        async with database.system_transaction() as connection:
            swept = (await connection.execute(_SWEEP, [_BATCH])).rowcount
        removed += swept
        if swept < _BATCH:
            return removed


def _address(owner: UserId, namespace: Namespace, key: str) -> dict[str, Any]:
    return {"owner": owner, "namespace": list(namespace), "key": key}


def _bound(values: dict[str, Any], value: Any) -> sql.Placeholder:
    """A placeholder of its own for a value of which there may be several."""
    name = f"bound_{len(values)}"
    values[name] = value
    return sql.Placeholder(name)


def _begins(values: dict[str, Any], prefix: Namespace, any_label: str | None = None) -> Iterator[sql.Composable]:
    if prefix:
        yield sql.SQL("cardinality(namespace) >= {}").format(_bound(values, len(prefix)))
    for position, label in enumerate(prefix, start=1):
        if label != any_label:
            yield sql.SQL("namespace[{}] = {}").format(_bound(values, position), _bound(values, label))


def _ends(values: dict[str, Any], suffix: Namespace) -> Iterator[sql.Composable]:
    if suffix:
        yield sql.SQL("cardinality(namespace) >= {}").format(_bound(values, len(suffix)))
    for position, label in enumerate(reversed(suffix)):
        if label != "*":
            from_end = sql.SQL("namespace[cardinality(namespace) - {}] = {}")
            yield from_end.format(_bound(values, position), _bound(values, label))


def _met(values: dict[str, Any], condition: Condition) -> sql.Composable:
    """JSON's own equality and order; a number is never more or less than a string."""
    path = _bound(values, list(condition.path))
    part = sql.SQL("COALESCE(value #> {}::text[], 'null')").format(path)
    operand = sql.SQL("{}::jsonb").format(_bound(values, Jsonb(condition.operand, dumps=encode)))
    match condition.operator:
        case Operator.EQUAL:
            return sql.SQL("{} = {}").format(part, operand)
        case Operator.NOT_EQUAL:
            return sql.SQL("{} <> {}").format(part, operand)
        case operator:
            ordered = sql.SQL("jsonb_typeof({0}) = jsonb_typeof({1}) AND {0} {2} {1}")
            return ordered.format(part, operand, sql.SQL(_COMPARED[operator]))


def _item(row: Row) -> Item:
    score = row.get("score")
    return Item(tuple(row["namespace"]), row["key"], row["value"], row["created_at"], row["updated_at"], score)

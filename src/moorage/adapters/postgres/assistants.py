"""Users' assistants in Postgres, each with its versions."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.pool import Database
from moorage.assistants import Assistant, AssistantFilter, wire_assistant_id
from moorage.assistants.service import AssistantLimit, Change, SortBy
from moorage.events import encode
from moorage.ids import ThreadId, UserId

type Row = dict[str, Any]

_CONTENT = "graph_id, name, description, context, config, metadata"
_COLUMNS = f"assistant_id::text, {_CONTENT}, version, created_at, updated_at"

_FIND = f"SELECT {_COLUMNS} FROM assistants WHERE owner_id = %s AND assistant_id = %s"  # noqa: S608 -- constant columns

# The system's assistants are not stored: they come along as rows, to be sorted among the user's.
_ALL = f"""
    SELECT {_COLUMNS} FROM assistants WHERE owner_id = %(owner)s
    UNION ALL
    SELECT {_COLUMNS} FROM jsonb_to_recordset(%(beside)s) AS system (assistant_id text, graph_id text, name text,
        description text, context jsonb, config jsonb, metadata jsonb, version integer, created_at timestamptz,
        updated_at timestamptz)
"""  # noqa: S608 -- constant columns

_WANTED = """
    (%(graph)s::text IS NULL OR graph_id = %(graph)s)
    AND (%(name)s::text IS NULL OR position(lower(%(name)s) IN lower(name)) > 0)
    AND metadata @> %(metadata)s
"""

_SEARCH = f"""
SELECT {_COLUMNS} FROM ({_ALL}) AS every WHERE {_WANTED} ORDER BY {{key}} {{direction}}, assistant_id
LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 -- constant columns

_COUNT = f"SELECT count(*) AS n FROM ({_ALL}) AS every WHERE {_WANTED}"  # noqa: S608 -- constant columns

_INSERT = f"""
INSERT INTO assistants (owner_id, assistant_id, {_CONTENT})
VALUES (%(owner)s, %(id)s, %(graph)s, %(name)s, %(description)s, %(context)s, %(config)s, %(metadata)s)
ON CONFLICT DO NOTHING RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_UPDATE = f"""
UPDATE assistants SET graph_id = %(graph)s, name = %(name)s, description = %(description)s, context = %(context)s,
    config = %(config)s, metadata = %(metadata)s, version = %(version)s, updated_at = now()
WHERE owner_id = %(owner)s AND assistant_id = %(id)s RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_KEEP_VERSION = f"""
INSERT INTO assistant_versions (owner_id, assistant_id, version, {_CONTENT})
SELECT owner_id, assistant_id, version, {_CONTENT} FROM assistants WHERE owner_id = %s AND assistant_id = %s
"""  # noqa: S608 -- constant columns

_VERSIONS = f"""
SELECT assistant_id::text, {_CONTENT}, version, created_at, created_at AS updated_at FROM assistant_versions
WHERE owner_id = %s AND assistant_id = %s AND metadata @> %s ORDER BY version DESC LIMIT %s OFFSET %s
"""  # noqa: S608 -- constant columns

_SET_LATEST = f"""
UPDATE assistants a SET graph_id = v.graph_id, name = v.name, description = v.description, context = v.context,
    config = v.config, metadata = v.metadata, version = v.version, updated_at = now()
FROM assistant_versions v
WHERE a.owner_id = %s AND a.assistant_id = %s AND v.owner_id = a.owner_id AND v.assistant_id = a.assistant_id
    AND v.version = %s
RETURNING {", ".join(f"a.{column.strip()}" for column in _COLUMNS.split(","))}
"""  # noqa: S608 -- constant columns

_THREADS = """
SELECT thread_id FROM threads
WHERE owner_id = %(owner)s AND (assistant_id = %(id)s OR metadata @> %(named)s) ORDER BY thread_id LIMIT %(limit)s
"""


class PostgresAssistantStore:
    """`moorage.assistants.AssistantStore` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, owner: UserId, assistant_id: str) -> Assistant | None:
        rows = await self._database.tenant_rows(owner, _FIND, [owner, UUID(assistant_id)])
        return _assistant(rows[0]) if rows else None

    async def search(
        self,
        owner: UserId,
        wanted: AssistantFilter,
        *,
        beside: Sequence[Assistant],
        sort_by: SortBy,
        descending: bool,
        limit: int,
        offset: int,
    ) -> list[Assistant]:
        direction = sql.SQL("DESC" if descending else "ASC")
        statement = sql.SQL(_SEARCH).format(key=sql.Identifier(sort_by), direction=direction)
        values = {**_wanted(owner, wanted, beside), "limit": limit, "offset": offset}
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(statement, values)).fetchall()
        return [_assistant(row) for row in rows]

    async def count(self, owner: UserId, wanted: AssistantFilter, *, beside: Sequence[Assistant]) -> int:
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_COUNT, _wanted(owner, wanted, beside))).fetchone()
        return row["n"] if row else 0

    async def insert(self, owner: UserId, assistant: Assistant, *, most: int) -> Assistant | None:
        async with self._database.tenant_transaction(owner) as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [f"assistants:{owner}"])
            row = await (await connection.execute(_INSERT, _values(owner, assistant))).fetchone()
            if row is None:
                return None
            statement = "SELECT count(*) AS n FROM assistants WHERE owner_id = %s"
            counted = await (await connection.execute(statement, [owner])).fetchone()
            if counted and counted["n"] > most:
                raise AssistantLimit(f"{most} assistants are saved already: delete one")
            await connection.execute(_KEEP_VERSION, [owner, row["assistant_id"]])
        return _assistant(row)

    async def change(self, owner: UserId, assistant_id: str, change: Change, *, most: int) -> Assistant | None:
        key = [owner, UUID(assistant_id)]
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(f"{_FIND} FOR UPDATE", key)).fetchone()
            if row is None:
                return None
            changed = change(_assistant(row))
            version = await _next_version(connection, key)
            if version > most:
                raise AssistantLimit(f"This assistant has {most} versions: save a new one")
            values = {**_values(owner, changed), "version": version}
            row = await (await connection.execute(_UPDATE, values)).fetchone()
            await connection.execute(_KEEP_VERSION, key)
        return _assistant(row) if row else None

    async def delete(self, owner: UserId, assistant_id: str) -> bool:
        async with self._database.tenant_transaction(owner) as connection:
            statement = "DELETE FROM assistants WHERE owner_id = %s AND assistant_id = %s"
            return (await connection.execute(statement, [owner, UUID(assistant_id)])).rowcount > 0

    async def versions(
        self, owner: UserId, assistant_id: str, *, metadata: Mapping[str, Any], limit: int, offset: int
    ) -> list[Assistant]:
        values = [owner, UUID(assistant_id), _json(metadata), limit, offset]
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(_VERSIONS, values)).fetchall()
        return [_assistant(row) for row in rows]

    async def set_latest(self, owner: UserId, assistant_id: str, version: int) -> Assistant | None:
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_SET_LATEST, [owner, UUID(assistant_id), version])).fetchone()
        return _assistant(row) if row else None

    async def threads_of(self, owner: UserId, assistant_id: str, *, limit: int) -> list[ThreadId]:
        named = _json({"assistant_id": wire_assistant_id(assistant_id)})
        values = {"owner": owner, "id": assistant_id, "named": named, "limit": limit}
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(_THREADS, values)).fetchall()
        return [ThreadId(row["thread_id"]) for row in rows]


async def _next_version(connection: AsyncConnection[Row], key: Sequence[object]) -> int:
    statement = "SELECT max(version) + 1 AS next FROM assistant_versions WHERE owner_id = %s AND assistant_id = %s"
    row = await (await connection.execute(statement, key)).fetchone()
    return row["next"] if row else 1


def _wanted(owner: UserId, wanted: AssistantFilter, beside: Sequence[Assistant]) -> Row:
    rows = [{column: getattr(item, column) for column in _FIELDS} for item in beside]
    return {
        "owner": owner,
        "beside": _json(rows),
        "graph": wanted.graph_id,
        "name": wanted.name,
        "metadata": _json(wanted.metadata or {}),
    }


def _values(owner: UserId, assistant: Assistant) -> Row:
    return {
        "owner": owner,
        "id": UUID(assistant.assistant_id),
        "graph": assistant.graph_id,
        "name": assistant.name,
        "description": assistant.description,
        "context": _json(assistant.context),
        "config": _json(assistant.config),
        "metadata": _json(assistant.metadata),
    }


_FIELDS = (
    "assistant_id",
    "graph_id",
    "name",
    "description",
    "context",
    "config",
    "metadata",
    "version",
    "created_at",
    "updated_at",
)


def _json(value: object) -> Jsonb:
    return Jsonb(value, dumps=encode)


def _assistant(row: Row) -> Assistant:
    return Assistant(**{column: row[column] for column in _FIELDS})

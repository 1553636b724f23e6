"""Lists of threads for the LangGraph wire: four statements for a page, however many threads are on it.

Row security keeps the planner from the index on metadata: its operators are not leakproof, so they may only look at
rows that are known to be one's own. One's own threads are read in the order of their last change, which for most
questions ends after a few; a filter that nothing fits reads all of them.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.interrupts import COLUMNS as INTERRUPT_COLUMNS
from moorage.adapters.postgres.interrupts import interrupt_of
from moorage.adapters.postgres.messages import MESSAGE_COLUMNS, message_of
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.threads import THREAD_COLUMNS, thread_of
from moorage.approvals import Interrupt
from moorage.events import encode
from moorage.ids import ThreadId, UserId
from moorage.thread_lists import (
    ListedThread,
    SortBy,
    Stored,
    ThreadFilter,
    ThreadPage,
    ThreadQuery,
    ThreadStorage,
)
from moorage.threads import HistoryMessage

type Row = dict[str, Any]

_MESSAGES_OF_A_THREAD = 1000
_BYTES_OF_A_PAGE = 16 * 1024 * 1024

_PAGE = sql.SQL(
    f"SELECT {THREAD_COLUMNS} FROM threads t WHERE owner_id = %(owner)s AND NOT is_temporary {{condition}} "  # noqa: S608 -- constant columns
    "ORDER BY {order}, thread_id LIMIT %(limit)s OFFSET %(offset)s"
)

_COUNT = sql.SQL("SELECT count(*) AS n FROM threads WHERE owner_id = %(owner)s AND NOT is_temporary {condition}")

_CONDITIONS: dict[str, LiteralString] = {
    "ids": "AND thread_id = ANY(%(ids)s)",
    "metadata": "AND metadata @> %(metadata)s",
    "values": "AND state_values @> %(values)s",
    "status": "AND run_status = %(status)s",
}

_ORDERS: dict[SortBy, LiteralString] = {
    SortBy.THREAD_ID: "thread_id",
    SortBy.STATUS: "run_status",
    SortBy.CREATED_AT: "created_at",
    SortBy.UPDATED_AT: "updated_at",
    SortBy.STATE_UPDATED_AT: "COALESCE(state_updated_at, created_at)",
}

_VALUES = "SELECT thread_id, state_values FROM threads WHERE owner_id = %s AND thread_id = ANY(%s)"

# The first and the last messages of each thread come before those between, until the page is full.
_MESSAGES = f"""
SELECT {MESSAGE_COLUMNS}, thread_id FROM (
    SELECT *, sum(octet_length(content) + COALESCE(octet_length(thinking), 0) + COALESCE(pg_column_size(tool_calls), 0))
        OVER (ORDER BY least(nth, nth_last), thread_id, position) AS bytes_so_far
    FROM (
        SELECT {MESSAGE_COLUMNS}, thread_id, row_number() OVER (PARTITION BY thread_id ORDER BY position) AS nth,
            row_number() OVER (PARTITION BY thread_id ORDER BY position DESC) AS nth_last
        FROM messages WHERE owner_id = %(owner)s AND thread_id = ANY(%(ids)s)
    ) AS numbered WHERE least(nth, nth_last) <= %(most)s
) AS counted WHERE bytes_so_far <= %(bytes)s OR nth = 1 ORDER BY thread_id, position
"""  # noqa: S608 -- constant columns

_PENDING = f"""
SELECT {INTERRUPT_COLUMNS} FROM interrupts i
WHERE i.owner_id = %s AND i.thread_id = ANY(%s) AND i.status = 'pending' AND i.expires_at > now()
ORDER BY i.thread_id, i.seq, i.created_at, i.id
"""  # noqa: S608 -- constant columns

_STORAGE = """
SELECT 'checkpoints' AS kind, NULL AS channel, count(*) AS rows,
    COALESCE(sum(pg_column_size(checkpoint) + pg_column_size(metadata)), 0)::bigint AS bytes
FROM checkpoints WHERE thread_id = %(thread_id)s
UNION ALL
SELECT 'writes', NULL, count(*), COALESCE(sum(octet_length(blob)), 0)::bigint
FROM checkpoint_writes WHERE thread_id = %(thread_id)s
UNION ALL
SELECT 'values', channel, count(*), COALESCE(sum(octet_length(blob)), 0)::bigint
FROM checkpoint_blobs WHERE thread_id = %(thread_id)s GROUP BY channel
"""


class PostgresThreadLists:
    """`moorage.thread_lists.ThreadLists` on Postgres."""

    def __init__(self, database: Database, *, session_life: timedelta) -> None:
        """Sessions without activity for `session_life` are expired; 0 means never."""
        self._database = database
        self._life = session_life.total_seconds()

    async def search(self, owner: UserId, query: ThreadQuery) -> ThreadPage:
        async with self._database.tenant_pipeline(owner) as connection:
            rows = await self._page(connection, owner, query)
            ids = [row["thread_id"] for row in rows[: query.limit]]
            values = await _values_of(connection, owner, ids) if query.with_values else {}
            messages = await _messages_of(connection, owner, ids) if query.with_values else {}
            pending = await _pending_of(connection, owner, ids) if query.with_pending else {}
        items = [
            ListedThread(thread_of(row), values.get(found, {}), messages.get(found, []), pending.get(found, []))
            for found, row in zip(ids, rows, strict=False)
        ]
        return ThreadPage(items, len(rows) > query.limit)

    async def _page(self, connection: AsyncConnection[Row], owner: UserId, query: ThreadQuery) -> list[Row]:
        condition, values = _where(owner, query.where)
        order = sql.SQL(_ORDERS[query.sort_by]) + sql.SQL(" ASC" if query.ascending else " DESC")
        page = {"life": self._life, "limit": query.limit + 1, "offset": query.offset}
        cursor = await connection.execute(_PAGE.format(condition=condition, order=order), {**values, **page})
        return await cursor.fetchall()

    async def count(self, owner: UserId, where: ThreadFilter) -> int:
        condition, values = _where(owner, where)
        rows = await self._database.tenant_rows(owner, _COUNT.format(condition=condition), values)
        return rows[0]["n"]

    async def storage(self, owner: UserId, thread_id: ThreadId) -> ThreadStorage:
        rows = await self._database.unhurried.tenant_rows(owner, _STORAGE, {"thread_id": thread_id})
        kinds: dict[str, dict[str | None, Stored]] = defaultdict(dict)
        for row in rows:
            kinds[row["kind"]][row["channel"]] = Stored(row["rows"], row["bytes"])
        channels = {str(channel): stored for channel, stored in kinds["values"].items()}
        everything = Stored(
            sum(item.count for item in channels.values()), sum(item.bytes for item in channels.values())
        )
        return ThreadStorage(kinds["checkpoints"][None], everything, channels, kinds["writes"][None])


def _where(owner: UserId, where: ThreadFilter) -> tuple[sql.Composed, Row]:
    given = {
        "ids": None if where.ids is None else list(where.ids),
        "metadata": Jsonb(where.metadata, dumps=encode) if where.metadata else None,
        "values": Jsonb(where.values, dumps=encode) if where.values else None,
        "status": where.status and where.status.value,
    }
    asked = [sql.SQL(condition) for name, condition in _CONDITIONS.items() if given[name] is not None]
    return sql.SQL(" ").join(asked), {"owner": owner, **given}


async def _values_of(connection: AsyncConnection[Row], owner: UserId, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    rows = await (await connection.execute(_VALUES, [owner, list(ids)])).fetchall()
    return {row["thread_id"]: row["state_values"] for row in rows}


async def _messages_of(
    connection: AsyncConnection[Row], owner: UserId, ids: Sequence[str]
) -> dict[str, list[HistoryMessage]]:
    values = {"owner": owner, "ids": list(ids), "most": _MESSAGES_OF_A_THREAD // 2, "bytes": _BYTES_OF_A_PAGE}
    found: dict[str, list[HistoryMessage]] = defaultdict(list)
    for row in await (await connection.execute(_MESSAGES, values)).fetchall():
        found[row["thread_id"]].append(message_of(row))
    return found


async def _pending_of(
    connection: AsyncConnection[Row], owner: UserId, ids: Sequence[str]
) -> dict[str, list[Interrupt]]:
    found: dict[str, list[Interrupt]] = defaultdict(list)
    for row in await (await connection.execute(_PENDING, [owner, list(ids)])).fetchall():
        found[row["thread_id"]].append(interrupt_of(row))
    return found

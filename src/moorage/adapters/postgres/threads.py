"""Threads in Postgres."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.idempotency import earlier_answer, keep_answer
from moorage.adapters.postgres.interrupts import pending_of
from moorage.adapters.postgres.messages import latest_messages, messages_after, search_messages
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.pruning import PRUNE
from moorage.events import encode
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId, UserId
from moorage.paging import Page, decode_time_cursor, encode_cursor
from moorage.threads import (
    METADATA_LIMIT,
    ExpiryStrategy,
    FoundMessage,
    HistoryMessage,
    MetadataTooLarge,
    NewThread,
    SessionChanges,
    SessionFilter,
    SessionQuotaExceeded,
    SessionStatus,
    Snapshot,
    Thread,
    ThreadExists,
    ThreadRunStatus,
    Ttl,
)

type Row = dict[str, Any]

# Of the table `threads t`.
THREAD_COLUMNS = """thread_id, owner_id, title, assistant_id, run_status, message_count, turn_count, last_seq,
    created_at, last_active, COALESCE(wire_id, thread_id) AS wire_id, metadata, updated_at, state_updated_at, error,
    per_call, ttl, expires_at, pinned, archived,
    (SELECT count(*) FROM interrupts i
        WHERE i.thread_id = t.thread_id AND i.status = 'pending' AND i.expires_at > now()) AS pending_count,
    CASE WHEN status = 'active' AND %(life)s > 0 AND last_active < now() - make_interval(secs => %(life)s)
    THEN 'expired' ELSE status END AS status"""

_FIND = f"SELECT {THREAD_COLUMNS} FROM threads t WHERE owner_id = %(owner)s AND thread_id = %(thread_id)s"  # noqa: S608

_LISTED = """owner_id = %(owner)s AND NOT is_temporary AND archived = %(archived)s
    AND (%(query)s::text IS NULL OR title ILIKE %(query)s)
    AND (%(pinned)s::boolean IS NULL OR pinned = %(pinned)s)
    AND (%(run_status)s::text IS NULL OR run_status = %(run_status)s)"""

_LIST = f"""
SELECT {THREAD_COLUMNS} FROM threads t
WHERE {_LISTED}
    AND (%(at)s::timestamptz IS NULL OR (last_active, thread_id) < (%(at)s, %(id)s))
ORDER BY last_active DESC, thread_id DESC LIMIT %(limit)s OFFSET %(offset)s
"""  # noqa: S608 -- constant columns

_TOTAL = f"SELECT count(*) AS total FROM threads WHERE {_LISTED}"  # noqa: S608 -- constant conditions

# Clients of the LangGraph wire, who know titles only, sort by when a thread was changed.
_AMEND = f"""
UPDATE threads t SET title = COALESCE(%(title)s, title), pinned = COALESCE(%(pinned)s, pinned),
    archived = COALESCE(%(archived)s, archived),
    updated_at = CASE WHEN %(title)s::text IS NULL THEN updated_at ELSE now() END
WHERE owner_id = %(owner)s AND thread_id = %(thread_id)s
RETURNING {THREAD_COLUMNS}
"""  # noqa: S608 -- constant columns

# A stateless run's thread that is only kept for a last look does not count.
_COUNT_ACTIVE = """
SELECT count(*) AS active FROM threads WHERE owner_id = %(owner)s AND status = 'active'
    AND NOT (is_temporary AND expires_at IS NOT NULL)
    AND (%(life)s = 0 OR last_active >= now() - make_interval(secs => %(life)s))
"""

_INSERT = """
INSERT INTO threads (thread_id, owner_id, title, assistant_id, wire_id, metadata, is_temporary, ttl, expires_at)
VALUES (%(thread_id)s, %(owner)s, %(title)s, %(assistant_id)s, %(wire_id)s, %(metadata)s, %(is_temporary)s, %(ttl)s,
    now() + make_interval(secs => %(seconds)s::double precision))
ON CONFLICT (thread_id) DO NOTHING
"""

_CHANGE = f"""
UPDATE threads t SET metadata = metadata || %(metadata)s, updated_at = now(), ttl = COALESCE(%(ttl)s, ttl),
    expires_at = COALESCE(now() + make_interval(secs => %(seconds)s::double precision), expires_at)
WHERE owner_id = %(owner)s AND thread_id = %(thread_id)s
RETURNING {THREAD_COLUMNS}
"""  # noqa: S608 -- constant columns

_BUSY = "EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status IN ('queued', 'running'))"

_AT_REST = f"SELECT FROM threads t WHERE thread_id = %(thread_id)s AND NOT {_BUSY} FOR NO KEY UPDATE"

# Whoever was active meanwhile has the time again from then on, and who is busy now, from now on.
_RENEW = f"""
UPDATE threads t SET expires_at = life.began + make_interval(secs => (t.ttl ->> 'minutes')::double precision * 60)
FROM (
    SELECT t.thread_id, CASE WHEN {_BUSY} THEN now() ELSE t.last_active END AS began FROM threads t
    WHERE t.expires_at <= now() AND t.ttl IS NOT NULL
) AS life
WHERE t.thread_id = life.thread_id
    AND life.began + make_interval(secs => (t.ttl ->> 'minutes')::double precision * 60) > now()
"""  # noqa: S608 -- constant parts

_EXPIRED = f"""
SELECT {THREAD_COLUMNS} FROM threads t WHERE expires_at <= now() AND NOT {_BUSY} ORDER BY expires_at LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

# In this order: what refers to the thread first. Everything is gone, or nothing.
_TABLES_OF_A_THREAD = (
    "run_events",
    "messages",
    "interrupts",
    "tool_calls",
    "approval_rules",
    "runs",
    "checkpoint_writes",
    "checkpoint_blobs",
    "checkpoints",
    "snapshots",
    "coming_threads",
    "sandbox_uses",
    "threads",
)


class PostgresThreadStore:
    """`moorage.threads.ThreadStore` on Postgres."""

    def __init__(self, database: Database, *, session_life: timedelta) -> None:
        """Sessions without activity for `session_life` are expired; 0 means never."""
        self._database = database
        self._life = session_life.total_seconds()

    async def create(self, owner: UserId, new: NewThread, *, quota: int, request: RequestKey | None = None) -> ThreadId:
        async with self._database.tenant_pipeline(owner) as connection:
            if (earlier := await earlier_answer(connection, owner, request)) is not None:
                return ThreadId(earlier["thread_id"])
            if quota:
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))", [f"quota:{owner}"])
                if await self._count(connection, owner) >= quota:
                    raise SessionQuotaExceeded(f"{quota} sessions are active already: close or delete one")
            inserted = await connection.execute(_INSERT, {"owner": owner, **_new_row(new)})
            await keep_answer(connection, owner, request, {"thread_id": new.thread_id})
        if inserted.rowcount == 0:
            raise ThreadExists
        return new.thread_id

    async def find(self, owner: UserId, thread_id: ThreadId) -> Thread | None:
        values = {"owner": owner, "thread_id": thread_id, "life": self._life}
        async with self._database.tenant_pipeline(owner) as connection:
            row = await (await connection.execute(_FIND, values)).fetchone()
        return thread_of(row) if row else None

    async def search(
        self, owner: UserId, where: SessionFilter, *, limit: int, cursor: str | None, offset: int
    ) -> Page[Thread]:
        at, last_id = decode_time_cursor(cursor) if cursor else (None, None)
        values = {
            "owner": owner,
            "life": self._life,
            "query": f"%{_literal(where.query)}%" if where.query else None,
            "archived": where.archived,
            "pinned": where.pinned,
            "run_status": where.run_status and where.run_status.value,
            "at": at,
            "id": last_id,
            "limit": limit + 1,
            "offset": offset,
        }
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(_LIST, values)).fetchall()
            counted = await (await connection.execute(_TOTAL, values)).fetchone()
        last = rows[limit - 1] if len(rows) > limit else None
        more = encode_cursor(last["last_active"].isoformat(), last["thread_id"]) if last else None
        return Page([thread_of(row) for row in rows[:limit]], more, counted["total"] if counted else 0)

    async def amend(self, owner: UserId, thread_id: ThreadId, changes: SessionChanges) -> Thread | None:
        values = {"owner": owner, "thread_id": thread_id, "life": self._life}
        changed = {"title": changes.title, "pinned": changes.pinned, "archived": changes.archived}
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_AMEND, {**values, **changed})).fetchone()
        return thread_of(row) if row else None

    async def change(
        self, owner: UserId, thread_id: ThreadId, *, metadata: Mapping[str, Any], ttl: Ttl | None
    ) -> Thread | None:
        values = {"owner": owner, "thread_id": thread_id, "life": self._life, "metadata": _jsonb(metadata)}
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_CHANGE, {**values, **_ttl_values(ttl)})).fetchone()
            if row is not None and len(encode(row["metadata"])) > METADATA_LIMIT:
                raise MetadataTooLarge
        return thread_of(row) if row else None

    async def prune(self, owner: UserId, thread_id: ThreadId) -> bool:
        values = {"thread_id": thread_id}
        async with self._database.unhurried.tenant_transaction(owner) as connection:
            if not (await connection.execute(_AT_REST, values)).rowcount:
                return False
            await connection.execute(PRUNE, values)
        return True

    async def expired(self, *, limit: int) -> list[Thread]:
        async with self._database.system_transaction() as connection:
            await connection.execute(_RENEW)
            rows = await connection.execute(_EXPIRED, {"life": self._life, "limit": limit})
            return [thread_of(row) for row in await rows.fetchall()]

    async def close(self, owner: UserId, thread_id: ThreadId) -> None:
        statement = "UPDATE threads SET status = %s WHERE owner_id = %s AND thread_id = %s"
        async with self._database.tenant_transaction(owner) as connection:
            await connection.execute(statement, [SessionStatus.CLOSED.value, owner, thread_id])

    async def delete(self, owner: UserId, thread_id: ThreadId) -> None:
        async with self._database.unhurried.tenant_transaction(owner) as connection:
            await connection.execute("SELECT FROM threads WHERE thread_id = %s FOR UPDATE", [thread_id])
            for table in _TABLES_OF_A_THREAD:
                statement = sql.SQL("DELETE FROM {} WHERE thread_id = %s").format(sql.Identifier(table))
                await connection.execute(statement, [thread_id])

    async def count_active(self, owner: UserId) -> int:
        async with self._database.tenant_transaction(owner) as connection:
            return await self._count(connection, owner)

    async def _count(self, connection: AsyncConnection[Row], owner: UserId) -> int:
        row = await (await connection.execute(_COUNT_ACTIVE, {"owner": owner, "life": self._life})).fetchone()
        return row["active"] if row else 0

    async def messages(self, owner: UserId, thread_id: ThreadId, *, limit: int, after: int) -> list[HistoryMessage]:
        async with self._database.tenant_transaction(owner) as connection:
            return await messages_after(connection, owner, thread_id, after=after, limit=limit)

    async def search_messages(
        self, owner: UserId, *, query: str, thread_id: ThreadId | None, limit: int, cursor: str | None
    ) -> Page[FoundMessage]:
        async with self._database.tenant_transaction(owner) as connection:
            return await search_messages(
                connection, owner, query=query, thread_id=thread_id, limit=limit, cursor=cursor
            )

    async def snapshot(self, owner: UserId, thread_id: ThreadId, *, limit: int) -> Snapshot | None:
        values = {"owner": owner, "thread_id": thread_id, "life": self._life}
        async with self._database.tenant_transaction(owner) as connection:
            # Whoever writes events, messages or interrupts locks this row, so what is read below is as of its last_seq.
            row = await (await connection.execute(f"{_FIND} FOR SHARE", values)).fetchone()
            if row is None:
                return None
            messages = await latest_messages(connection, owner, thread_id, limit=limit)
            pending = await pending_of(connection, thread_id)
            return Snapshot(replace(thread_of(row), pending_count=len(pending)), messages, pending)


def _new_row(new: NewThread) -> Row:
    return {
        "thread_id": new.thread_id,
        "title": new.title,
        "assistant_id": new.assistant_id,
        "wire_id": new.wire_id,
        "metadata": _jsonb(new.metadata),
        "is_temporary": new.is_temporary,
        **_ttl_values(new.ttl),
    }


def _ttl_values(ttl: Ttl | None) -> Row:
    if ttl is None:
        return {"ttl": None, "seconds": None}
    return {"ttl": _jsonb({"minutes": ttl.minutes, "strategy": ttl.strategy.value}), "seconds": ttl.minutes * 60}


def _jsonb(value: Mapping[str, Any]) -> Jsonb:
    return Jsonb(value, dumps=encode)


def _literal(query: str) -> str:
    return query.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def thread_of(row: Row) -> Thread:
    """A thread from a row with `THREAD_COLUMNS`."""
    ttl = row["ttl"]
    return Thread(
        thread_id=ThreadId(row["thread_id"]),
        owner_id=UserId(row["owner_id"]),
        title=row["title"],
        assistant_id=row["assistant_id"],
        status=SessionStatus(row["status"]),
        run_status=ThreadRunStatus(row["run_status"]),
        message_count=row["message_count"],
        turn_count=row["turn_count"],
        last_seq=row["last_seq"],
        created_at=row["created_at"],
        last_active=row["last_active"],
        wire_id=row["wire_id"],
        metadata=row["metadata"],
        updated_at=row["updated_at"],
        state_updated_at=row["state_updated_at"],
        error=row["error"],
        per_call=row["per_call"],
        ttl=Ttl(ttl["minutes"], ExpiryStrategy(ttl["strategy"])) if ttl else None,
        expires_at=row["expires_at"],
        pinned=row["pinned"],
        archived=row["archived"],
        pending_count=row["pending_count"],
    )

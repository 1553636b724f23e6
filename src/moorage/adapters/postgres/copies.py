"""Copies of threads in Postgres: all rows in one transaction, under the source's lock."""

from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection

from moorage.adapters.postgres.idempotency import earlier_answer, find_answer, keep_answer
from moorage.adapters.postgres.pool import Database
from moorage.copies import ThreadBusy
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId
from moorage.threads import SessionQuotaExceeded, Thread, ThreadNotFound

type Row = dict[str, Any]

# May be repeated. A thread's id stands in no other column, nor inside the values.
COPY_CHECKPOINTS: tuple[LiteralString, ...] = (
    """
    INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s
    ON CONFLICT DO NOTHING
    """,
)

# Events are not copied: the first one of the copy comes after the last message's position.
_COPY_THREAD = """
INSERT INTO threads
    (thread_id, owner_id, title, assistant_id, message_count, turn_count, first_seq, last_seq, graph_open, metadata,
    state_values, state_updated_at)
SELECT %(target)s, owner_id, COALESCE(%(title)s, title), assistant_id, message_count, turn_count, last_seq + 1,
    last_seq, graph_open, metadata, state_values, state_updated_at
FROM threads WHERE thread_id = %(source)s
"""

_COPY_MESSAGES = """
INSERT INTO messages (id, thread_id, owner_id, run_id, position, role, content, thinking, tool_calls, call_id, usage,
    agent, duration_ms, created_at)
SELECT id, %(target)s, owner_id, run_id, position, role, content, thinking, tool_calls, call_id, usage,
    agent, duration_ms, created_at
FROM messages WHERE thread_id = %(source)s
"""

# What came of calls whose results are not in the state yet. What waits for a human, and remembered rules, stay behind.
_COPY_CALLS = """
INSERT INTO tool_calls (thread_id, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
    tool, args, state, result, started_at, finished_at)
SELECT %(target)s, checkpoint_ns, message_id, position, owner_id, run_id, generation, tool_call_id,
    tool, args, state, result, started_at, finished_at
FROM tool_calls WHERE thread_id = %(source)s
"""

_COPY: tuple[LiteralString, ...] = (_COPY_THREAD, _COPY_MESSAGES, _COPY_CALLS, *COPY_CHECKPOINTS)

_LOCK_QUOTA = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1))"  # making a session takes it, too

_STANDING = """
SELECT last_seq, EXISTS (SELECT FROM runs WHERE thread_id = %(source)s AND status IN ('queued', 'running')) AS busy,
    (SELECT count(*) FROM threads WHERE owner_id = %(owner)s AND status = 'active'
        AND (%(life)s = 0 OR last_active >= now() - make_interval(secs => %(life)s))) AS active
FROM threads WHERE owner_id = %(owner)s AND thread_id = %(source)s
"""


class PostgresCopyStore:
    """`moorage.copies.CopyStore` on Postgres."""

    def __init__(self, database: Database, *, session_life: timedelta) -> None:
        """Sessions without activity for `session_life` count in no quota; 0 means all do."""
        self._database = database.unhurried
        self._life = session_life.total_seconds()

    async def check(self, source: Thread, *, quota: int) -> int:
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            return await self._standing(connection, source, quota)

    async def find_earlier(self, source: Thread, request: RequestKey) -> ThreadId | None:
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            answer = await find_answer(connection, source.owner_id, request)
        return ThreadId(answer["thread_id"]) if answer else None

    async def insert(
        self,
        source: Thread,
        target: ThreadId,
        *,
        title: str | None,
        quota: int,
        as_of: int,
        request: RequestKey | None,
    ) -> ThreadId:
        values = {"source": source.thread_id, "target": target, "title": title}
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            if (earlier := await earlier_answer(connection, source.owner_id, request)) is not None:
                return ThreadId(earlier["thread_id"])
            if quota:
                await connection.execute(_LOCK_QUOTA, [f"quota:{source.owner_id}"])
            await connection.execute("SELECT FROM threads WHERE thread_id = %s FOR NO KEY UPDATE", [source.thread_id])
            if await self._standing(connection, source, quota) != as_of:
                raise ThreadBusy
            for statement in _COPY:
                await connection.execute(statement, values)
            await keep_answer(connection, source.owner_id, request, {"thread_id": target})
        return target

    async def _standing(self, connection: AsyncConnection[Row], source: Thread, quota: int) -> int:
        values = {"owner": source.owner_id, "source": source.thread_id, "life": self._life}
        row = await (await connection.execute(_STANDING, values)).fetchone()
        if row is None:
            raise ThreadNotFound
        if row["busy"]:
            raise ThreadBusy
        if quota and row["active"] >= quota:
            raise SessionQuotaExceeded(f"{quota} sessions are active already: close or delete one")
        return row["last_seq"]

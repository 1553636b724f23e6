"""Copies of threads in Postgres: all rows in one transaction, under the source's lock."""

from datetime import timedelta
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.idempotency import earlier_answer, find_answer, keep_answer
from moorage.adapters.postgres.pool import Database
from moorage.copies import ANNOUNCED_SECONDS, Copied, Moment
from moorage.events import encode, scrub_text
from moorage.idempotency import RequestKey
from moorage.ids import ThreadId
from moorage.snapshots import CopiedFiles
from moorage.threads import SessionQuotaExceeded, Thread, ThreadBusy, ThreadNotFound

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

# The copy has other inodes than what is listed there: the next snapshot of it reads its files once.
_COPY_SNAPSHOTS = """
INSERT INTO snapshots (snapshot_id, thread_id, owner_id, checkpoint_id, kind, manifest, files, bytes, added_bytes,
    left_out, missed, created_at)
SELECT gen_random_uuid(), %(target)s, owner_id, checkpoint_id, kind, manifest, files, bytes, 0, left_out, missed,
    created_at
FROM (SELECT * FROM snapshots WHERE thread_id = %(source)s FOR SHARE) AS kept
"""

_COPY: tuple[LiteralString, ...] = (_COPY_THREAD, _COPY_MESSAGES, _COPY_CALLS, *COPY_CHECKPOINTS, _COPY_SNAPSHOTS)

# Of a moment in the past: the checkpoints that led to it, and of the graphs inside those whose calls were made before
# it. What was written on the checkpoint itself came after it. No calls: what came of those that were open is not known
# then, and they count as never run.
_CUT = """
SELECT COALESCE(max(position), 0) AS cut FROM messages WHERE thread_id = %(source)s AND id = ANY(%(message_ids)s)
"""

_COPY_AT: tuple[LiteralString, ...] = (
    """
    INSERT INTO threads
        (thread_id, owner_id, title, assistant_id, message_count, turn_count, first_seq, last_seq, graph_open, metadata,
        state_values, state_updated_at)
    SELECT %(target)s, owner_id, COALESCE(%(title)s, title), assistant_id, kept.messages, kept.turns, last_seq + 1,
        last_seq, true, metadata, %(values)s, now()
    FROM threads, (
        SELECT count(*) AS messages, count(*) FILTER (WHERE role = 'user') AS turns FROM messages
        WHERE thread_id = %(source)s AND position <= %(cut)s
    ) AS kept
    WHERE thread_id = %(source)s
    """,
    f"{_COPY_MESSAGES} AND position <= %(cut)s",
    """
    WITH RECURSIVE history AS (
        SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
        WHERE thread_id = %(source)s AND checkpoint_ns = '' AND checkpoint_id = %(checkpoint_id)s
        UNION ALL
        SELECT parent.checkpoint_id, parent.parent_checkpoint_id FROM history CROSS JOIN LATERAL (
            SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
            WHERE thread_id = %(source)s AND checkpoint_ns = '' AND checkpoint_id = history.parent_checkpoint_id LIMIT 1
        ) AS parent
    )
    INSERT INTO checkpoints
        (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = %(source)s AND CASE
        WHEN checkpoint_ns = '' THEN checkpoint_id IN (SELECT checkpoint_id FROM history)
        ELSE metadata -> 'parents' ->> '' IN (SELECT checkpoint_id FROM history)
            AND metadata -> 'parents' ->> '' <> %(checkpoint_id)s
    END
    """,
    """
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(target)s, checkpoint_ns, channel, version, type, blob FROM checkpoint_blobs
    WHERE thread_id = %(source)s AND (checkpoint_ns, channel, version) IN (
        SELECT checkpoint_ns, version.key, version.value
        FROM checkpoints, jsonb_each_text(checkpoint -> 'channel_versions') AS version WHERE thread_id = %(target)s
    )
    """,
    """
    INSERT INTO checkpoint_writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
    SELECT %(target)s, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
    FROM checkpoint_writes WHERE thread_id = %(source)s
        AND NOT (checkpoint_ns = '' AND checkpoint_id = %(checkpoint_id)s)
        AND (checkpoint_ns, checkpoint_id)
            IN (SELECT checkpoint_ns, checkpoint_id FROM checkpoints WHERE thread_id = %(target)s)
    """,
    f"""{_COPY_SNAPSHOTS} WHERE checkpoint_id IS NULL
        OR checkpoint_id IN (SELECT checkpoint_id FROM checkpoints WHERE thread_id = %(target)s AND checkpoint_ns = '')
    """,  # noqa: S608 -- constant parts
)

# What a server left here that died over it goes with the next copy of its owner.
_FORGET_OLD = "DELETE FROM coming_threads WHERE owner_id = %s AND until <= now()"

_ANNOUNCE = """
INSERT INTO coming_threads (thread_id, owner_id, until) VALUES (%s, %s, now() + make_interval(secs => %s))
ON CONFLICT (thread_id) DO UPDATE SET until = EXCLUDED.until
"""

_WITHDRAW = "DELETE FROM coming_threads WHERE thread_id = %s"

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

    async def find_earlier(self, source: Thread, request: RequestKey) -> Copied | None:
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            answer = await find_answer(connection, source.owner_id, request)
        return _copied(answer) if answer else None

    async def announce(self, source: Thread, target: ThreadId) -> None:
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            await connection.execute(_FORGET_OLD, [source.owner_id])
            await connection.execute(_ANNOUNCE, [target, source.owner_id, ANNOUNCED_SECONDS])

    async def withdraw(self, source: Thread, target: ThreadId) -> None:
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            await connection.execute(_WITHDRAW, [target])

    async def insert(
        self,
        source: Thread,
        target: Copied,
        *,
        title: str | None,
        quota: int,
        as_of: int,
        request: RequestKey | None,
        moment: Moment | None,
    ) -> Copied:
        values: Row = {"source": source.thread_id, "target": target.thread_id, "title": title}
        async with self._database.tenant_pipeline(source.owner_id) as connection:
            if (earlier := await earlier_answer(connection, source.owner_id, request)) is not None:
                return _copied(earlier)
            if quota:
                await connection.execute(_LOCK_QUOTA, [f"quota:{source.owner_id}"])
            await connection.execute("SELECT FROM threads WHERE thread_id = %s FOR NO KEY UPDATE", [source.thread_id])
            if await self._standing(connection, source, quota) != as_of:
                raise ThreadBusy
            if moment is not None:
                values |= await _values_of(connection, source, moment)
            for statement in _COPY if moment is None else _COPY_AT:
                await connection.execute(statement, values)
            await connection.execute(_WITHDRAW, [target.thread_id])
            answer = {"thread_id": target.thread_id, "files": target.files.value}
            await keep_answer(connection, source.owner_id, request, answer)
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


async def _values_of(connection: AsyncConnection[Row], source: Thread, moment: Moment) -> Row:
    """What `_COPY_AT` needs of a moment."""
    ids = {"source": source.thread_id, "message_ids": [scrub_text(message_id) for message_id in moment.message_ids]}
    row = await (await connection.execute(_CUT, ids)).fetchone()
    return {
        "cut": row["cut"] if row else 0,
        "checkpoint_id": scrub_text(moment.checkpoint_id),
        "values": Jsonb(dict(moment.values), dumps=encode),
    }


def _copied(answer: Row) -> Copied:
    """From an answer that was kept; those of before told nothing of files, and copied what there was."""
    return Copied(ThreadId(answer["thread_id"]), CopiedFiles(answer.get("files", CopiedFiles.CURRENT)))

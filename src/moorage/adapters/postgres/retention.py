"""What is not kept for ever: old events of threads that rest, and answers to repeated requests."""

from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection

from moorage.adapters.postgres.pool import Database
from moorage.ids import ThreadId

_KEYS_KEPT = timedelta(hours=24)
_BATCH = 5000
_THREADS = 200

type Row = dict[str, Any]

# A thread rests when nothing runs or waits in it. Its oldest event tells whether there is anything to forget.
_RESTING = """
    NOT EXISTS (SELECT FROM runs r WHERE r.thread_id = t.thread_id AND r.status IN ('queued', 'running'))
    AND NOT EXISTS (SELECT FROM interrupts i WHERE i.thread_id = t.thread_id AND i.status = 'pending')
"""

_OLD_THREADS = f"""
SELECT t.thread_id FROM threads t
WHERE t.thread_id > %s AND t.first_seq <= t.last_seq AND t.created_at < now() - %s AND {_RESTING}
    AND EXISTS (SELECT FROM run_events e
        WHERE e.thread_id = t.thread_id AND e.seq = t.first_seq AND e.created_at < now() - %s)
ORDER BY t.thread_id LIMIT %s
"""  # noqa: S608 -- constant parts

_LOCK = "SELECT FROM threads WHERE thread_id = %s FOR NO KEY UPDATE SKIP LOCKED"

# Under the lock, in a statement of its own. What is forgotten is always the oldest, without a hole.
_FORGET = f"""
WITH oldest AS MATERIALIZED (
    SELECT e.seq, e.created_at < now() - %s AS old FROM threads t JOIN run_events e USING (thread_id)
    WHERE t.thread_id = %s AND {_RESTING} ORDER BY e.seq LIMIT %s
), upto AS (
    SELECT max(seq) AS seq FROM oldest WHERE seq < ALL (SELECT seq FROM oldest WHERE NOT old)
), moved AS (
    UPDATE threads SET first_seq = upto.seq + 1 FROM upto WHERE thread_id = %s AND upto.seq IS NOT NULL
)
DELETE FROM run_events e USING upto WHERE e.thread_id = %s AND e.seq <= upto.seq
"""  # noqa: S608 -- constant parts

_FORGET_KEYS = """
DELETE FROM idempotency_keys WHERE (owner_id, key) IN (
    SELECT owner_id, key FROM idempotency_keys WHERE created_at < now() - %s LIMIT %s
)
"""


async def forget_events(database: Database, *, older_than: timedelta) -> int:
    """Delete events older than this (0: none ever), of threads that rest; answers how many.

    The thread's state and messages stay; who asks for forgotten events is told so. Answers kept for repeated requests
    go after 24 hours. Each transaction is short, so this may run beside everything else, on every server.
    """
    while await _forget_keys(database) == _BATCH:
        pass
    if older_than <= timedelta():
        return 0
    forgotten, last = 0, ""
    while threads := await _old_threads(database, older_than, after=last):
        for thread_id in threads:
            forgotten += await _forget_thread(database, thread_id, older_than)
        last = threads[-1]
    return forgotten


async def _forget_keys(database: Database) -> int:
    async with database.system_transaction() as connection:
        return (await connection.execute(_FORGET_KEYS, [_KEYS_KEPT, _BATCH])).rowcount


async def _old_threads(database: Database, older_than: timedelta, *, after: str) -> list[ThreadId]:
    async with database.system_transaction() as connection:
        rows = await (await connection.execute(_OLD_THREADS, [after, older_than, older_than, _THREADS])).fetchall()
    return [ThreadId(row["thread_id"]) for row in rows]


async def _forget_thread(database: Database, thread_id: ThreadId, older_than: timedelta) -> int:
    forgotten = 0
    while True:
        async with database.system_transaction() as connection:
            deleted = await _forget_batch(connection, thread_id, older_than)
        forgotten += deleted
        if deleted < _BATCH:
            return forgotten


async def _forget_batch(connection: AsyncConnection[Row], thread_id: ThreadId, older_than: timedelta) -> int:
    if not (await connection.execute(_LOCK, [thread_id])).rowcount:
        return 0  # deleted, or in use
    return (await connection.execute(_FORGET, [older_than, thread_id, _BATCH, thread_id, thread_id])).rowcount

"""The messages of threads in Postgres: as a history, and as something to search in."""

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection

from moorage.events import Message, Role, scrub_text
from moorage.ids import RunId, ThreadId, UserId
from moorage.messages import search_query, snippet
from moorage.paging import Page, decode_time_cursor, encode_cursor, position
from moorage.threads import FoundMessage, HistoryMessage

type Row = dict[str, Any]

MESSAGE_COLUMNS = "position, run_id, id, role, content, thinking, tool_calls, call_id, usage, duration_ms, created_at"

_AFTER = f"""
SELECT {MESSAGE_COLUMNS} FROM messages
WHERE owner_id = %s AND thread_id = %s AND position > %s ORDER BY position LIMIT %s
"""  # noqa: S608 -- constant columns

_LATEST = f"""
SELECT * FROM (
    SELECT {MESSAGE_COLUMNS} FROM messages WHERE owner_id = %s AND thread_id = %s ORDER BY position DESC LIMIT %s
) latest ORDER BY position
"""  # noqa: S608 -- constant columns

# From the user's threads to their messages, which is what row security lets the planner do: it may not ask the index of
# words first, as that would touch what belongs to others.
_SEARCH = """
SELECT m.position, m.run_id, m.id, m.role, m.content, m.thinking, m.tool_calls, m.call_id, m.usage, m.duration_ms,
    m.created_at, m.thread_id, t.title
FROM threads t JOIN messages m ON m.thread_id = t.thread_id AND m.owner_id = t.owner_id
WHERE t.owner_id = %(owner)s
    AND (%(thread)s::text IS NULL OR t.thread_id = %(thread)s)
    AND m.words @@ websearch_to_tsquery('simple', %(query)s)
    AND (%(at)s::timestamptz IS NULL
        OR (m.created_at, m.thread_id, m.position) < (%(at)s, %(last_thread)s, %(last_position)s))
ORDER BY m.created_at DESC, m.thread_id DESC, m.position DESC LIMIT %(limit)s
"""


async def messages_after(
    connection: AsyncConnection[Row], owner: UserId, thread_id: ThreadId, *, after: int, limit: int
) -> list[HistoryMessage]:
    rows = await (await connection.execute(_AFTER, [owner, thread_id, after, limit])).fetchall()
    return [message_of(row) for row in rows]


async def latest_messages(
    connection: AsyncConnection[Row], owner: UserId, thread_id: ThreadId, *, limit: int
) -> list[HistoryMessage]:
    """The last `limit` messages, oldest first."""
    rows = await (await connection.execute(_LATEST, [owner, thread_id, limit])).fetchall()
    return [message_of(row) for row in rows]


async def search_messages(
    connection: AsyncConnection[Row],
    owner: UserId,
    *,
    query: str,
    thread_id: ThreadId | None,
    limit: int,
    cursor: str | None,
) -> Page[FoundMessage]:
    """Messages with these words, newest first; raises InvalidPayload for a cursor that is not ours."""
    query = scrub_text(query)
    at, last = decode_time_cursor(cursor) if cursor else (None, "/0")
    last_thread, _, last_position = last.rpartition("/")
    values = {
        "owner": owner,
        "thread": thread_id,
        "query": search_query(query),
        "at": at,
        "last_thread": last_thread,
        "last_position": position(last_position),
        "limit": limit + 1,
    }
    rows = await (await connection.execute(_SEARCH, values)).fetchall()
    found = [
        FoundMessage(ThreadId(row["thread_id"]), row["title"], message_of(row), snippet(row["content"], query))
        for row in rows[:limit]
    ]
    end = rows[limit - 1] if len(rows) > limit else None
    more = encode_cursor(end["created_at"].isoformat(), f"{end['thread_id']}/{end['position']}") if end else None
    return Page(found, more)


def message_of(row: Row) -> HistoryMessage:
    run_id: UUID = row["run_id"]
    message = Message(
        id=row["id"],
        role=Role(row["role"]),
        content=row["content"],
        thinking=row["thinking"],
        tool_calls=row["tool_calls"],
        call_id=row["call_id"],
        usage=row["usage"],
        duration_ms=row["duration_ms"],
    )
    return HistoryMessage(message, RunId(str(run_id)), row["position"], row["created_at"])

"""Snapshots in Postgres: which there are of a thread, and at which of its checkpoints."""

import uuid
from typing import Any

from psycopg import AsyncConnection

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_endings import LOCK_THREAD
from moorage.claims import Claim
from moorage.events import scrub_text
from moorage.ids import ThreadId, UserId
from moorage.paging import Page, decode_time_cursor, encode_cursor
from moorage.snapshots import Digest, NewSnapshot, Snapshot, SnapshotKind
from moorage.threads import Thread, ThreadBusy, ThreadNotFound

type Row = dict[str, Any]

KEPT = 50

_COLUMNS = """snapshot_id, thread_id, owner_id, checkpoint_id, kind, manifest, files, bytes, added_bytes, left_out,
    missed, created_at"""

_OF_THREAD = "owner_id = %(owner)s AND thread_id = %(thread_id)s"

_STANDING = f"""
SELECT last_seq, EXISTS (SELECT FROM runs WHERE thread_id = %(thread_id)s AND status IN ('queued', 'running')) AS busy
FROM threads WHERE {_OF_THREAD}
"""  # noqa: S608 -- constant parts

# `clock_timestamp`: when the transaction began, an older one may not have been there yet.
_INSERT = f"""
INSERT INTO snapshots ({_COLUMNS})
VALUES (%(snapshot_id)s, %(thread_id)s, %(owner)s,
    (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = %(thread_id)s AND checkpoint_ns = ''),
    %(kind)s, %(manifest)s, %(files)s, %(bytes)s, %(added_bytes)s, %(left_out)s, %(missed)s, clock_timestamp())
RETURNING {_COLUMNS}
"""  # noqa: S608 -- constant columns

_DROP_OLD = f"""
DELETE FROM snapshots WHERE snapshot_id IN (
    SELECT snapshot_id FROM snapshots WHERE {_OF_THREAD} ORDER BY created_at DESC, snapshot_id DESC OFFSET %(kept)s
)
"""  # noqa: S608 -- constant parts

_SEARCH = f"""
SELECT {_COLUMNS} FROM snapshots WHERE {_OF_THREAD}
    AND (%(at)s::timestamptz IS NULL OR (created_at, snapshot_id) < (%(at)s, %(id)s::uuid))
ORDER BY created_at DESC, snapshot_id DESC LIMIT %(limit)s
"""  # noqa: S608 -- constant columns

# A root checkpoint, and all that came before it. LATERAL: each is looked up by its key.
HISTORY = """
WITH RECURSIVE history AS (
    SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
    WHERE thread_id = %(thread_id)s AND checkpoint_ns = '' AND checkpoint_id = %(checkpoint_id)s
    UNION ALL
    SELECT parent.checkpoint_id, parent.parent_checkpoint_id FROM history CROSS JOIN LATERAL (
        SELECT checkpoint_id, parent_checkpoint_id FROM checkpoints
        WHERE thread_id = %(thread_id)s AND checkpoint_ns = '' AND checkpoint_id = history.parent_checkpoint_id LIMIT 1
    ) AS parent
)"""

_AT = f"""{HISTORY}
SELECT {_COLUMNS} FROM snapshots
WHERE {_OF_THREAD} AND (checkpoint_id IS NULL OR checkpoint_id IN (SELECT checkpoint_id FROM history))
ORDER BY checkpoint_id DESC NULLS LAST, created_at DESC LIMIT 1
"""  # noqa: S608 -- constant parts


class PostgresSnapshots:
    """`moorage.snapshots.SnapshotTable` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def standing(self, thread: Thread) -> int:
        async with self._database.tenant_transaction(thread.owner_id) as connection:
            return await _standing(connection, _of(thread))

    async def insert(
        self,
        owner: UserId,
        thread_id: ThreadId,
        new: NewSnapshot,
        *,
        as_of: int | None = None,
        hold: Claim | None = None,
    ) -> Snapshot:
        values: Row = {
            "owner": owner,
            "thread_id": thread_id,
            "snapshot_id": uuid.uuid4(),
            "kind": new.kind.value,
            "manifest": new.manifest,
            "files": new.files,
            "bytes": new.bytes,
            "added_bytes": new.added_bytes,
            "left_out": new.left_out,
            "missed": new.missed,
            "kept": KEPT,
        }
        async with self._database.tenant_transaction(owner, hold=hold) as connection:
            if as_of is not None:  # who holds a run must not wait for its thread, as others do it the other way round
                await connection.execute(LOCK_THREAD, [thread_id])
                if await _standing(connection, values) != as_of:
                    raise ThreadBusy
            row = await (await connection.execute(_INSERT, values)).fetchone()
            await connection.execute(_DROP_OLD, values)
        if row is None:
            raise ThreadNotFound
        return _snapshot(row)

    async def newest(self, owner: UserId, thread_id: ThreadId) -> Snapshot | None:
        values: Row = {"owner": owner, "thread_id": thread_id, "at": None, "id": None, "limit": 1}
        async with self._database.tenant_transaction(owner) as connection:
            row = await (await connection.execute(_SEARCH, values)).fetchone()
        return _snapshot(row) if row else None

    async def at(self, thread: Thread, checkpoint_id: str) -> Snapshot | None:
        values = {**_of(thread), "checkpoint_id": scrub_text(checkpoint_id)}
        async with self._database.tenant_transaction(thread.owner_id) as connection:
            row = await (await connection.execute(_AT, values)).fetchone()
        return _snapshot(row) if row else None

    async def find(self, thread: Thread, snapshot_id: str) -> Snapshot | None:
        if (known := _uuid(snapshot_id)) is None:
            return None
        query = f"SELECT {_COLUMNS} FROM snapshots WHERE {_OF_THREAD} AND snapshot_id = %(id)s"  # noqa: S608
        async with self._database.tenant_transaction(thread.owner_id) as connection:
            row = await (await connection.execute(query, {**_of(thread), "id": known})).fetchone()
        return _snapshot(row) if row else None

    async def search(self, thread: Thread, *, limit: int, cursor: str | None) -> Page[Snapshot]:
        at, last_id = decode_time_cursor(cursor) if cursor else (None, None)
        known = _uuid(last_id) if last_id is not None else None
        values = {**_of(thread), "at": at if known else None, "id": known, "limit": limit + 1}
        async with self._database.tenant_transaction(thread.owner_id) as connection:
            rows = await (await connection.execute(_SEARCH, values)).fetchall()
        last = rows[limit - 1] if len(rows) > limit else None
        more = encode_cursor(last["created_at"].isoformat(), str(last["snapshot_id"])) if last else None
        return Page([_snapshot(row) for row in rows[:limit]], more)

    async def delete(self, thread: Thread, snapshot_id: str) -> bool:
        if (known := _uuid(snapshot_id)) is None:
            return False
        query = f"DELETE FROM snapshots WHERE {_OF_THREAD} AND snapshot_id = %(id)s"  # noqa: S608
        async with self._database.tenant_transaction(thread.owner_id) as connection:
            return (await connection.execute(query, {**_of(thread), "id": known})).rowcount > 0

    async def delete_all(self, owner: UserId, thread_id: ThreadId) -> int:
        query = f"DELETE FROM snapshots WHERE {_OF_THREAD}"  # noqa: S608
        async with self._database.tenant_transaction(owner) as connection:
            return (await connection.execute(query, {"owner": owner, "thread_id": thread_id})).rowcount

    async def manifests(self, owner: UserId) -> set[Digest]:
        query = "SELECT DISTINCT manifest FROM snapshots WHERE owner_id = %s"
        async with self._database.tenant_transaction(owner) as connection:
            rows = await (await connection.execute(query, [owner])).fetchall()
        return {row["manifest"] for row in rows}


async def _standing(connection: AsyncConnection[Row], values: Row) -> int:
    row = await (await connection.execute(_STANDING, values)).fetchone()
    if row is None:
        raise ThreadNotFound
    if row["busy"]:
        raise ThreadBusy
    return row["last_seq"]


def _of(thread: Thread) -> Row:
    return {"owner": thread.owner_id, "thread_id": thread.thread_id}


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _snapshot(row: Row) -> Snapshot:
    return Snapshot(
        snapshot_id=str(row["snapshot_id"]),
        thread_id=ThreadId(row["thread_id"]),
        owner_id=UserId(row["owner_id"]),
        checkpoint_id=row["checkpoint_id"],
        created_at=row["created_at"],
        content=NewSnapshot(
            kind=SnapshotKind(row["kind"]),
            manifest=row["manifest"],
            files=row["files"],
            bytes=row["bytes"],
            added_bytes=row["added_bytes"],
            left_out=row["left_out"],
            missed=row["missed"],
        ),
    )

"""Reading a thread's checkpoints as its owner, under row-level security: nobody's claim is needed for that.

The reads are the library's own, each statement in one round trip. They wait for a Postgres that is away.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncCursor
from psycopg.abc import QueryNoTemplate
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.patience import patiently
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.serializer import StrictSerializer
from moorage.errors import PermissionDenied
from moorage.events import encode, scrub_text
from moorage.ids import ThreadId, UserId

# As the library's, but a backslash in a name is no escape sequence, and what pruning left for the chain is no state.
_SELECT = """
SELECT thread_id, checkpoint, checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata,
    (
        SELECT array_agg(ARRAY[convert_to(versions.key, 'UTF8'), convert_to(blobs.type, 'UTF8'), blobs.blob])
        FROM jsonb_each_text(checkpoint -> 'channel_versions') AS versions CROSS JOIN LATERAL (
            SELECT type, blob FROM checkpoint_blobs WHERE checkpoint_blobs.thread_id = checkpoints.thread_id
                AND checkpoint_blobs.checkpoint_ns = checkpoints.checkpoint_ns
                AND channel = versions.key AND version = versions.value LIMIT 1
        ) AS blobs
    ) AS channel_values,
    (
        SELECT array_agg(ARRAY[convert_to(task_id, 'UTF8'), convert_to(channel, 'UTF8'), convert_to(type, 'UTF8'), blob,
            convert_to(task_path, 'UTF8'), convert_to(idx::text, 'UTF8')])
        FROM checkpoint_writes AS writes WHERE writes.thread_id = checkpoints.thread_id
            AND writes.checkpoint_ns = checkpoints.checkpoint_ns AND writes.checkpoint_id = checkpoints.checkpoint_id
    ) AS pending_writes
FROM (SELECT * FROM checkpoints WHERE NOT metadata ? 'superseded') AS checkpoints """

# What the channels are read from: their writes on all ancestors, down to the nearest that holds the whole value. The
# library reads the thread's latest 1024 checkpoints for it; this walks up only as far as it must. LATERAL, here and in
# pruning: each row is looked up by its key, where a join may read a whole thread for each, by its estimates.
_HISTORY = """
WITH RECURSIVE chain AS (
    SELECT wanted.channel, 0 AS depth, target.parent_checkpoint_id AS checkpoint_id, NULL::text AS version,
        NULL::jsonb AS inline, false AS is_stored
    FROM checkpoints AS target, unnest(%(channels)s::text[]) AS wanted(channel)
    WHERE target.thread_id = %(thread_id)s AND target.checkpoint_ns = %(ns)s AND target.checkpoint_id = %(id)s
    UNION ALL
    SELECT chain.channel, chain.depth + 1, ancestor.parent_checkpoint_id, found.version, found.inline, EXISTS (
            SELECT FROM checkpoint_blobs AS stored WHERE stored.thread_id = %(thread_id)s
                AND stored.checkpoint_ns = %(ns)s AND stored.channel = chain.channel
                AND stored.version = found.version AND stored.type <> 'empty')
    FROM chain CROSS JOIN LATERAL (
        SELECT * FROM checkpoints WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(ns)s
            AND checkpoint_id = chain.checkpoint_id LIMIT 1
    ) AS ancestor CROSS JOIN LATERAL (
        SELECT ancestor.checkpoint -> 'channel_versions' ->> chain.channel AS version,
            NULLIF(ancestor.checkpoint -> 'channel_values' -> chain.channel, 'null') AS inline
    ) AS found
    WHERE NOT chain.is_stored AND chain.inline IS NULL
)
SELECT 'w' AS _kind, chain.depth, chain.channel, chain.checkpoint_id, type, blob, task_id, task_path, idx,
    NULL AS version, NULL::jsonb AS inline
FROM chain CROSS JOIN LATERAL (
    SELECT * FROM checkpoint_writes WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(ns)s
        AND checkpoint_id = chain.checkpoint_id AND checkpoint_writes.channel = chain.channel OFFSET 0
) AS written WHERE NOT chain.is_stored AND chain.inline IS NULL
UNION ALL
SELECT 'b', chain.depth, chain.channel, NULL, stored.type, stored.blob, NULL, NULL, NULL, chain.version, chain.inline
FROM chain LEFT JOIN LATERAL (
    SELECT type, blob FROM checkpoint_blobs WHERE thread_id = %(thread_id)s AND checkpoint_ns = %(ns)s
        AND checkpoint_blobs.channel = chain.channel AND checkpoint_blobs.version = chain.version LIMIT 1
) AS stored ON true WHERE chain.is_stored OR chain.inline IS NOT NULL
ORDER BY depth
"""


class ThreadReader(AsyncPostgresSaver):
    """The checkpoints of one thread, to look at: what would change them raises PermissionDenied."""

    SELECT_SQL = _SELECT

    def __init__(self, database: Database, owner: UserId, thread_id: ThreadId) -> None:
        super().__init__(conn=cast("Any", None), serde=StrictSerializer())  # every statement goes through `database`
        self._database = database
        self._owner = owner
        self._thread_id = thread_id

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        self._check(config)
        return await super().aget_tuple(config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        self._check(config)
        async for item in super().alist(config, filter=filter, before=before, limit=limit):
            yield item

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        self._check(config)
        target = get_checkpoint_id(config)
        if not channels or not target:
            return await super().aget_delta_channel_history(config=config, channels=channels)
        ns = config.get("configurable", {}).get("checkpoint_ns", "")
        values = {"thread_id": self._thread_id, "ns": scrub_text(ns), "id": target, "channels": list(channels)}
        rows = await patiently(lambda: self._database.tenant_rows(self._owner, _HISTORY, values))
        seeds = {row["channel"]: row for row in rows if row["_kind"] == "b"}
        return self._build_delta_channels_writes_history(
            channels=channels,
            chain_by_ch={
                channel: list(dict.fromkeys(row["checkpoint_id"] for row in rows if row["channel"] == channel))
                for channel in channels
            },
            seed_ver_by_ch={channel: row["version"] for channel, row in seeds.items()},
            seed_inline_by_ch={channel: row["inline"] for channel, row in seeds.items()},
            stage2_rows=cast("Any", [row for row in rows if row["blob"] is not None]),
        )

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[AsyncCursor[DictRow]]:
        """For the library's reads; it asks for a pipeline when it writes."""
        if pipeline:
            raise PermissionDenied("These checkpoints are only read", code="only_reads")
        yield cast("AsyncCursor[DictRow]", _Reader(self._database, self._owner))

    def _check(self, config: RunnableConfig | None) -> None:
        thread_id = (config or {}).get("configurable", {}).get("thread_id")
        if thread_id != self._thread_id:
            raise PermissionDenied("These are the checkpoints of another thread", code="foreign_thread")


class _Reader:
    """What the library's reads need of a cursor. No connection is held between two statements."""

    def __init__(self, database: Database, owner: UserId) -> None:
        self._database = database
        self._owner = owner
        self._rows: Iterator[DictRow] = iter(())

    async def execute(self, query: QueryNoTemplate, values: Sequence[Any] = (), **_: Any) -> None:
        clean = [_clean(value) for value in values]
        self._rows = iter(await patiently(lambda: self._database.tenant_rows(self._owner, query, clean)))

    async def fetchone(self) -> DictRow | None:
        return next(self._rows, None)

    async def fetchall(self) -> list[DictRow]:
        return list(self._rows)

    async def __aiter__(self) -> AsyncIterator[DictRow]:
        for row in self._rows:
            yield row


def _clean(value: Any) -> Any:
    match value:
        case str():
            return scrub_text(value)
        case Jsonb():
            return Jsonb(value.obj, dumps=encode)
        case _:
            return value

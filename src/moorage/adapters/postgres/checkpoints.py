"""LangGraph's Postgres saver for one run: fenced, bound to its thread, working as its owner under row-level security.

Writes are one statement each: it checks the claim, acts as the owner and stores. They wait for a Postgres that is away;
each may be repeated, because what is stored under a key is stored under it again.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, LiteralString, cast

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.serde.types import _DeltaSnapshot  # pyright: ignore[reportPrivateUsage]
from langgraph.types import Overwrite
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.checkpoint_reader import ThreadReader
from moorage.adapters.postgres.copies import COPY_CHECKPOINTS
from moorage.adapters.postgres.patience import patiently
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.pruning import DELETE_ALL, PRUNE
from moorage.claims import Claim
from moorage.events import encode, scrub_text

type OnSaved = Callable[[Collection[str]], None]

_MESSAGES = "messages"
_LONGEST_INTEGER = 63

# Every row that is stored is made from `held`, so the claim is checked, and the owner set, before the first one.
_HELD = """
WITH held AS MATERIALIZED (
    SELECT moorage_hold(%(run_id)s::uuid, %(generation)s::bigint)
    WHERE set_config('app.user_id', %(owner_id)s::text, true) IS NOT NULL
)"""

_PUT_BLOBS = """, blobs AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT %(thread_id)s::text, %(ns)s::text, item.* FROM held,
        unnest(%(channels)b::text[], %(versions)b::text[], %(types)b::text[], %(values)b::bytea[]) AS item
    ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING
)"""

_PUT = """
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
SELECT %(thread_id)s::text, %(ns)s::text, %(id)s::text, %(parent_id)s::text, %(checkpoint)b::jsonb, %(metadata)b::jsonb
FROM held
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata
"""

_PUT_WRITES = """
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, blob)
SELECT %(thread_id)s::text, %(ns)s::text, %(id)s::text, %(task_id)s::text, %(task_path)s::text, item.* FROM held,
    unnest(%(positions)b::int[], %(channels)b::text[], %(types)b::text[], %(values)b::bytea[]) AS item
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) """

_KEEP_FIRST = "DO NOTHING"
_KEEP_LAST = "DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob"


class ThreadSaver(ThreadReader):
    """A checkpoint saver for one run. Runs do not wait for one another.

    Writes raise ClaimLost, and store nothing, when the run is not this worker's any more. After each that stored
    messages `on_saved` is called with their ids: what it is told of survives.
    """

    def __init__(
        self, database: Database, claim: Claim, on_saved: OnSaved | None = None, *, blank: bool = False
    ) -> None:
        """In a `blank` thread there is nothing until this saver itself has stored something."""
        super().__init__(database, claim.owner_id, claim.thread_id)
        self._claim = claim
        self._on_saved = on_saved
        self._blank = blank

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        self._check(config)
        return None if self._blank else await super().aget_tuple(config)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        place = self._place(config)
        inline, stored = _split(checkpoint["channel_values"])
        changed = [channel for channel in new_versions if channel in stored]
        values = {
            **place,
            "id": checkpoint["id"],
            "parent_id": place["id"],
            "checkpoint": Jsonb({**checkpoint, "channel_values": inline}, dumps=encode),
            "metadata": Jsonb(get_serializable_checkpoint_metadata(config, metadata), dumps=encode),
            "versions": [str(new_versions[channel]) for channel in changed],
            **self._dumped([(channel, stored[channel]) for channel in changed]),
        }
        await self._write(_HELD + _PUT_BLOBS + _PUT if changed else _HELD + _PUT, values)
        self._tell([(channel, stored[channel]) for channel in changed])
        found = {"thread_id": place["thread_id"], "checkpoint_ns": place["ns"], "checkpoint_id": checkpoint["id"]}
        return {"configurable": found}

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        place = self._place(config)
        if not writes:
            return
        special = all(channel in WRITES_IDX_MAP for channel, _ in writes)
        # One statement must not store a place twice: of special ones the last counts, as if stored one by one.
        numbered = [(WRITES_IDX_MAP.get(write[0], index), write) for index, write in enumerate(writes)]
        kept = dict(numbered) if special else dict(reversed(numbered))
        values = {
            **place,
            "task_id": scrub_text(task_id),
            "task_path": scrub_text(task_path),
            "positions": list(kept),
            **self._dumped(list(kept.values())),
        }
        await self._write(_HELD + _PUT_WRITES + (_KEEP_LAST if special else _KEEP_FIRST), values)
        self._tell(writes)

    async def adelete_thread(self, thread_id: str) -> None:
        await self.aprune([thread_id], strategy="delete")

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove the thread's checkpoints: all of them, or those that the latest of each namespace does not need.

        Those that only its changes-only channels are still read from cannot be read themselves any more.
        """
        statements = (PRUNE,) if strategy == "keep_latest" else DELETE_ALL
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"Unknown prune strategy: {strategy!r}")
        for thread_id in thread_ids:
            self._check({"configurable": {"thread_id": thread_id}})
            values = {"thread_id": thread_id}
            await patiently(lambda: self._batch(statements, values))  # noqa: B023 -- awaited at once

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of the thread to another one of the same owner that has none."""
        self._check({"configurable": {"thread_id": source_thread_id}})
        values = {"source": source_thread_id, "target": target_thread_id}
        await patiently(lambda: self._batch(COPY_CHECKPOINTS, values))

    def _place(self, config: RunnableConfig) -> dict[str, Any]:
        """The parameters that every write has."""
        self._check(config)
        claim, place = self._claim, config.get("configurable", {})
        return {
            "run_id": claim.run_id,
            "generation": claim.generation,
            "owner_id": claim.owner_id,
            "thread_id": claim.thread_id,
            "ns": scrub_text(place["checkpoint_ns"]),
            "id": place.get("checkpoint_id"),
        }

    def _dumped(self, items: Sequence[tuple[str, Any]]) -> dict[str, list[Any]]:
        dumped = [self.serde.dumps_typed(value) for _, value in items]
        return {
            "channels": [scrub_text(channel) for channel, _ in items],
            "types": [form for form, _ in dumped],
            "values": [data for _, data in dumped],
        }

    async def _batch(self, statements: Sequence[LiteralString], values: Mapping[str, Any]) -> None:
        async with self._database.tenant_batch(self._claim.owner_id, hold=self._claim) as connection:
            for statement in statements:
                await connection.execute(statement, values)

    async def _write(self, query: LiteralString, values: Mapping[str, Any]) -> None:
        self._blank = False

        async def once() -> None:
            async with self._database.connection() as connection:
                await connection.execute(query, values)

        await patiently(once)

    def _tell(self, writes: Sequence[tuple[str, Any]]) -> None:
        if self._on_saved is not None:
            saved = [found for channel, value in writes if channel == _MESSAGES for found in message_ids(value)]
            if saved:
                self._on_saved(saved)


def message_ids(value: Any) -> Iterator[str]:
    """The ids of all messages in what is written to a channel of messages: one, several, or an Overwrite of them."""
    match value:
        case BaseMessage():
            if value.id and value.type != "remove":
                yield value.id
        case Overwrite():
            yield from message_ids(value.value)
        case _DeltaSnapshot():
            yield from message_ids(value.value)
        case {"__overwrite__": written} | {"type": "__overwrite__", "value": written}:
            yield from message_ids(written)
        case {"id": str() as found}:
            yield found
        case list() | tuple():
            for item in cast("Sequence[Any]", value):
                yield from message_ids(item)
        case _:
            pass


def _split(channels: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands in the checkpoint's JSON, and what is stored beside it: all that JSON could not give back."""
    inline: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    for channel, value in channels.items():
        if isinstance(value, _DeltaSnapshot):
            inline[channel], stored[channel] = True, value
        elif _fits_json(value):
            inline[channel] = value
        else:
            stored[channel] = value
    return inline, stored


def _fits_json(value: Any) -> bool:
    match value:
        case None | bool():
            return True
        case int():
            return value.bit_length() <= _LONGEST_INTEGER
        case float():
            return math.isfinite(value)
        case str():
            return value == scrub_text(value)
        case _:
            return False

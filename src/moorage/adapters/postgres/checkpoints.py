"""LangGraph's Postgres saver, bound to one thread and working as its owner, under row-level security."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import ChannelVersions, Checkpoint, CheckpointMetadata, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg import AsyncCursor
from psycopg.rows import DictRow, dict_row

from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim
from moorage.errors import PermissionDenied


class ThreadSaver(AsyncPostgresSaver):
    """A checkpoint saver for one run. Each has a lock of its own, so runs do not wait for one another."""

    def __init__(self, database: Database, claim: Claim) -> None:
        super().__init__(conn=cast("Any", None))  # every statement goes through _cursor below
        self._database = database
        self._claim = claim

    @asynccontextmanager
    async def _cursor(self, *, pipeline: bool = False) -> AsyncGenerator[AsyncCursor[DictRow]]:
        owner = self._claim.owner_id
        transaction = self._database.tenant_batch if pipeline else self._database.tenant_transaction
        async with (
            self.lock,
            transaction(owner) as connection,
            connection.cursor(binary=True, row_factory=dict_row) as cursor,
        ):
            yield cursor

    def _check(self, config: RunnableConfig | None) -> None:
        thread_id = (config or {}).get("configurable", {}).get("thread_id")
        if thread_id != self._claim.thread_id:
            raise PermissionDenied("A run may touch the checkpoints of its own thread only", code="foreign_thread")

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

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        self._check(config)
        return await super().aput(config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._check(config)
        await super().aput_writes(config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        self._check({"configurable": {"thread_id": thread_id}})
        await super().adelete_thread(thread_id)

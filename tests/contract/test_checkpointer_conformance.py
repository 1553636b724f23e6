"""The public conformance suite of checkpointers, run against ours on a real Postgres."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from tests.conftest import AddUser

from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim
from moorage.ids import ThreadId, UserId, new_run_id

ALICE = UserId("alice")
RUN = """
INSERT INTO runs (run_id, thread_id, owner_id, kind, input, status, generation)
VALUES (%s, %s, %s, 'message', '{}', 'running', 1)
"""


class SaverOfManyThreads(BaseCheckpointSaver[str]):
    """The suite works on threads that it names: each gets rows of its own, and a saver that is bound to it."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self._database = database
        self._savers: dict[str, ThreadSaver] = {}

    async def _saver(self, name: str) -> ThreadSaver:
        if name not in self._savers:
            claim = Claim(new_run_id(), ThreadId(f"{ALICE}-{name}"), ALICE, 1)
            async with self._database.tenant_transaction(ALICE) as connection:
                await connection.execute(
                    "INSERT INTO threads (thread_id, owner_id) VALUES (%s, %s)", [claim.thread_id, ALICE]
                )
                await connection.execute(RUN, [claim.run_id, claim.thread_id, ALICE])
            self._savers[name] = ThreadSaver(self._database, claim)
        return self._savers[name]

    async def aget_tuple(self, config: Any) -> Any:
        found = await (await self._saver(_name(config))).aget_tuple(_renamed(config))
        return found and _back(found)

    async def alist(
        self, config: Any, *, filter: Any = None, before: Any = None, limit: int | None = None
    ) -> AsyncIterator[Any]:
        saver = await self._saver(_name(config))
        before = before and _renamed(before)
        async for item in saver.alist(_renamed(config), filter=filter, before=before, limit=limit):
            yield _back(item)

    async def aput(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        saver = await self._saver(_name(config))
        return _unnamed(await saver.aput(_renamed(config), checkpoint, metadata, new_versions))

    async def aput_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        await (await self._saver(_name(config))).aput_writes(_renamed(config), writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        await (await self._saver(thread_id)).adelete_thread(f"{ALICE}-{thread_id}")

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._saver(target_thread_id)
        saver = await self._saver(source_thread_id)
        await saver.acopy_thread(f"{ALICE}-{source_thread_id}", f"{ALICE}-{target_thread_id}")

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        for name in thread_ids:
            await (await self._saver(name)).aprune([f"{ALICE}-{name}"], strategy=strategy)


def _name(config: Any) -> str:
    return config["configurable"]["thread_id"]


def _renamed(config: Any) -> Any:
    return {**config, "configurable": {**config["configurable"], "thread_id": f"{ALICE}-{_name(config)}"}}


def _unnamed(config: Any) -> Any:
    name = _name(config).removeprefix(f"{ALICE}-")
    return {**config, "configurable": {**config["configurable"], "thread_id": name}}


def _back(found: Any) -> Any:
    parent = found.parent_config and _unnamed(found.parent_config)
    return found._replace(config=_unnamed(found.config), parent_config=parent)


async def test_every_capability_that_we_declare_passes_the_suite(database: Database, add_user: AddUser) -> None:
    await add_user(ALICE)

    @checkpointer_test(name="ThreadSaver")
    async def saver() -> AsyncGenerator[BaseCheckpointSaver[str]]:
        yield SaverOfManyThreads(database)

    report = await validate(saver)
    assert {name: found.failures for name, found in report.results.items() if found.failures} == {}
    assert {name for name, found in report.results.items() if found.passed} == {
        "put",
        "put_writes",
        "get_tuple",
        "list",
        "delete_thread",
        "copy_thread",
        "prune",
    }

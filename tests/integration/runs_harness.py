"""Everything that executes runs, on a real Postgres, with a scripted model and a sandbox of paper in this process."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tests.fake_agent import FakeAgent, Script

from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.checkpoints import ThreadSaver
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.journal import PostgresJournal, open_journal
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.run_records import PostgresRunRecords
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.agent.runner import AgentRunner
from moorage.approvals import Answer, Approvals, Decided, Decision, DecisionType
from moorage.assistants import Assistant, get_assistant
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.rules import Remember
from moorage.runs.executor import BeforeEnd, Executor, RunLimits
from moorage.runs.run import Started
from moorage.runs.service import Runs
from moorage.runs.worker import Worker
from moorage.sandboxes.port import fencing_token
from moorage.threads import NewThread, Thread, Threads

ALICE = UserId("alice")
PATIENCE = 20


@dataclass(frozen=True)
class Told:
    """An event as a reader gets it."""

    seq: int
    run_id: str
    type: str
    data: dict[str, Any]


class Harbor:
    """One user, `workers` workers that share a database, and what they say."""

    def __init__(
        self,
        database: Database,
        script: Script,
        *,
        limits: RunLimits,
        life: timedelta,
        workers: int,
        approval_ttl: timedelta,
        lease: timedelta,
        before_end: BeforeEnd | None,
    ) -> None:
        self.database = database
        self.agent = FakeAgent(script)
        self.sandbox = self.agent.sandbox
        self.log = PostgresEventLog(database)
        self.queue = PostgresRunQueue(database, self.log, session_life=life, queue_limit=3, ttl=approval_ttl)
        runner = AgentRunner(self.agent.agents, partial(ThreadSaver, database))
        self.cleaned: list[ThreadId] = []
        self.cleaned_under: list[int | None] = []
        self.contexts: list[Any] = []
        self.let_go = asyncio.Event()
        executor = Executor(
            runner,
            self.log,
            self.queue,
            limits,
            open_journal=partial(open_journal, database, lease=timedelta(seconds=30)),
            load_assistant=self._assistant,
            kill_leftovers=self._clean,
            before_end=before_end,
        )
        new_worker = partial(Worker, self.queue, executor, name="worker", concurrency=8, lease=lease)
        self.workers = [new_worker() for _ in range(workers)]
        self.store = PostgresThreadStore(database, session_life=life)
        self.approval_store = PostgresApprovalStore(database, self.log, on_decided=self.queue.wake)
        self.approvals = Approvals(self.approval_store)
        here = self.workers[0] if self.workers else None
        self.runs = Runs(self.queue, here, PostgresRunRecords(database), self.log)
        self.removed: list[ThreadId] = []
        self.threads = Threads(self.store, quota=0, stop_runs=self.runs.stop_for_good, remove_files=self._remove)

    async def _remove(self, thread_id: ThreadId) -> None:
        self.removed.append(thread_id)

    async def _assistant(self, _owner: UserId, assistant_id: str, context: Any) -> Assistant:
        self.contexts.append(context)
        return get_assistant(assistant_id)

    async def _clean(self, thread_id: ThreadId) -> None:
        self.cleaned.append(thread_id)
        self.cleaned_under.append(fencing_token.get())

    async def new_thread(self) -> Thread:
        thread_id = new_thread_id(ALICE)
        await self.store.create(ALICE, NewThread(thread_id), quota=0)
        return await self.thread(thread_id)

    async def thread(self, thread_id: ThreadId) -> Thread:
        found = await self.store.find(ALICE, thread_id)
        assert found is not None
        return found

    async def start(self, thread: Thread, text: str = "go", **options: Any) -> Started:
        return await self.runs.start(thread, text, **options)

    async def say(self, thread: Thread, text: str = "go") -> list[Told]:
        """Send a message and read its run to the end."""
        return await self.told(thread, await self.start(thread, text))

    async def told(self, thread: Thread, started: Started | Decided) -> list[Told]:
        """All events of one run, once it has ended."""
        found: list[Told] = []
        async with asyncio.timeout(PATIENCE):
            async with aclosing(self.log.follow(thread.thread_id, after=started.first_seq - 1, idle=60)) as batches:
                async for batch in batches:
                    events = [Told(event.seq, event.run_id, event.type, json.loads(event.data)) for event in batch]
                    found += [event for event in events if event.run_id == started.run_id]
                    if found and found[-1].type == "run_end":
                        return found
        raise AssertionError("the log was closed")

    async def answer(self, thread: Thread, **decisions: Decision) -> Decided:
        """Decide by call id."""
        answers = [Answer(decision, call_id=call_id) for call_id, decision in decisions.items()]
        return await self.approvals.answer(ALICE, thread.thread_id, answers, via="test")

    def remembering(self, decision: Decision, remember: Remember) -> Decision:
        return replace(decision, remember=remember)

    def journal_finish(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Set once a tool's result is in the journal; its worker then waits for `let_go`."""
        finished = asyncio.Event()
        finish = PostgresJournal.finish

        async def finish_and_wait(journal: PostgresJournal, *values: Any) -> None:
            await finish(journal, *values)
            if not finished.is_set():
                finished.set()
                await self.let_go.wait()

        monkeypatch.setattr(PostgresJournal, "finish", finish_and_wait)
        return finished

    async def cancel(self, thread: Thread) -> None:
        """What the API's cancel does."""
        await self.runs.stop(thread.thread_id)
        await self.approvals.cancel_pending(ALICE, thread.thread_id)

    async def everything(self, thread: Thread) -> list[Told]:
        events = await self.log.read(thread.thread_id, after=0, limit=1000)
        return [Told(event.seq, event.run_id, event.type, json.loads(event.data)) for event in events]

    async def rows_about(self, thread: Thread) -> dict[str, int]:
        """How many rows each table that has threads in it holds about this one."""
        async with self.database.tenant_transaction(ALICE) as connection:
            found = await connection.execute(
                "SELECT table_name AS name FROM information_schema.columns"
                " WHERE column_name = 'thread_id' AND table_schema = 'public'"
            )
            names = [row["name"] for row in await found.fetchall()]
            counts: dict[str, int] = {}
            for name in names:
                sql = f"SELECT count(*) AS n FROM {name} WHERE thread_id = %s"  # noqa: S608
                row = await (await connection.execute(sql, [thread.thread_id])).fetchone()  # pyright: ignore[reportArgumentType]
                counts[name] = row["n"] if row else 0
        return counts


@asynccontextmanager
async def open_harbor(
    database: Database,
    script: Script,
    *,
    max_steps: int = 20,
    timeout_seconds: float = PATIENCE,
    life: timedelta = timedelta(hours=1),
    workers: int = 1,
    approval_ttl: timedelta = timedelta(hours=1),
    lease: timedelta = timedelta(seconds=30),
    before_end: BeforeEnd | None = None,
) -> AsyncGenerator[Harbor]:
    """A running harbor. On the way out the workers stop first, and the log's writer last."""
    limits = RunLimits(max_steps=max_steps, timeout_seconds=timeout_seconds)
    harbor = Harbor(
        database,
        script,
        limits=limits,
        life=life,
        workers=workers,
        approval_ttl=approval_ttl,
        lease=lease,
        before_end=before_end,
    )
    async with asyncio.TaskGroup() as outer:
        writer = outer.create_task(harbor.log.write_forever())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(harbor.log.poll_forever())]
            tasks += [group.create_task(worker.work_forever()) for worker in harbor.workers]
            try:
                yield harbor
            finally:
                for worker in harbor.workers:
                    await worker.stop(patience=5)
                for task in tasks:
                    task.cancel()
        writer.cancel()


APPROVE = Decision(DecisionType.APPROVE)
REJECT = Decision(DecisionType.REJECT)


def types(told: list[Told]) -> list[str]:
    return [event.type for event in told]


def end_of(told: list[Told]) -> str:
    assert types(told).count("run_end") == 1
    return told[-1].data["status"]


def code_of(told: list[Told]) -> str:
    [error] = [event.data for event in told if event.type == "error"]
    return error["code"]


def text_of(told: list[Told]) -> str:
    return "".join(event.data["content_delta"] for event in told if event.type == "content_stream")

#!/usr/bin/env python3
"""What durability costs: the queue and the event log on a Postgres of their own, against bare commits on the same one.

Prints one JSON line. `commit_ms` is one row inserted and committed on a bare connection, `commits_per_s` the same from
16 connections; the ratios are to these, because disks differ more than programs do.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import psycopg
import uvloop
from psycopg import sql

from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.migrate import migrate
from moorage.adapters.postgres.notices import Notices
from moorage.adapters.postgres.pool import Database, open_database
from moorage.adapters.postgres.run_queue import PostgresRunQueue
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.claims import Claim
from moorage.events import EventType, run_event
from moorage.ids import RunId, ThreadId, UserId, new_thread_id
from moorage.runs.executor import Execution, Executor
from moorage.runs.run import BusyPolicy, Outcome, RunStatus
from moorage.runs.worker import Worker
from moorage.threads import NewThread

_USER = UserId("bench")
_HOUR = timedelta(hours=1)
_AT_ONCE = 16
_DONE = Outcome(RunStatus.SUCCESS)
_CLAIM_LIMIT = 64


@dataclass
class Bench:
    """`far_queue` stands for another process's: it hears of work by notices only."""

    url: str
    database: Database
    log: PostgresEventLog
    queue: PostgresRunQueue
    far_queue: PostgresRunQueue
    threads: PostgresThreadStore

    async def new_thread(self) -> ThreadId:
        thread_id = new_thread_id(_USER)
        await self.threads.create(_USER, NewThread(thread_id), quota=0)
        return thread_id

    async def submit(self, thread_id: ThreadId) -> RunId:
        started = await self.queue.submit(
            _USER, thread_id, content="hello", policy=BusyPolicy.ENQUEUE, idempotency_key=None
        )
        return started.run_id

    async def claims(self, count: int) -> list[Claim]:
        """So many running runs, on as many threads."""
        for _ in range(count):
            await self.submit(await self.new_thread())
        return [run.claim for run in await self.queue.claim("bench", limit=count, lease=_HOUR)]


@dataclass
class Started:
    """An executor that does nothing but note when each run got there."""

    queue: PostgresRunQueue
    at: dict[RunId, float] = field(default_factory=dict[RunId, float])
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def execute(self, execution: Execution) -> None:
        self.at[execution.run.claim.run_id] = time.perf_counter()
        self.news.set()
        await self.queue.finish(execution.run.claim, _DONE)

    async def when(self, run_id: RunId) -> float:
        while run_id not in self.at:
            self.news.clear()
            await self.news.wait()
        return self.at[run_id]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--events", type=int, default=10_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # noqa: S103 -- Postgres does not run as root, and must get in
        async with open_bench(Path(folder)) as bench:
            figures = await measure(bench, runs=args.runs, events=args.events)
    print(json.dumps(figures))


async def measure(bench: Bench, *, runs: int, events: int) -> dict[str, Any]:
    commit_ms = await bare_commit(bench.url)
    commits = await bare_commits(bench.url)
    near = await start_latency(bench, bench.queue, runs)
    far = await start_latency(bench, bench.far_queue, runs)
    claims = await claims_per_second(bench, runs)
    written = await events_per_second(bench, events)
    thread_id, appended = await long_thread(bench, events)
    replay = await milliseconds(lambda: replayed(bench, thread_id, appended))
    select = await milliseconds(lambda: selected(bench.url, thread_id))
    return {
        "commit_ms": round(commit_ms, 2),
        "commits_per_s": round(commits),
        "start_ms": near,
        "start_in_another_process_ms": far,
        "claims_per_s": round(claims),
        "events_per_s": round(written),
        "replay_ms": round(replay, 1),
        "start_over_commit": round(near["p50"] / commit_ms, 1),
        "far_start_over_commit": round(far["p50"] / commit_ms, 1),
        "claims_over_commits": round(claims / commits, 2),
        "events_over_commits": round(written / commits, 1),
        "replay_over_select": round(replay / select, 1),
    }


async def start_latency(bench: Bench, queue: PostgresRunQueue, runs: int) -> dict[str, float]:
    """From the call that submits a message to the worker's first step on its run, in milliseconds; one at a time."""
    started = Started(queue)
    worker = Worker(queue, cast("Executor", started), name="bench", concurrency=_AT_ONCE)
    working = asyncio.create_task(worker.work_forever())
    threads = [await bench.new_thread() for _ in range(_AT_ONCE)]
    waited: list[float] = []
    for number in range(runs):
        began = time.perf_counter()
        run_id = await bench.submit(threads[number % _AT_ONCE])
        waited.append(1e3 * (await started.when(run_id) - began))
    working.cancel()
    await asyncio.wait([working])
    waited.sort()
    return {"p50": round(waited[runs // 2], 2), "p95": round(waited[int(runs * 0.95)], 2)}


async def claims_per_second(bench: Bench, runs: int) -> float:
    """Runs taken off a full queue; their ends are not counted."""
    for _ in range(runs):
        await bench.submit(await bench.new_thread())
    claimed, spent = 0, 0.0
    while claimed < runs:
        began = time.perf_counter()
        found = await bench.queue.claim("bench", limit=_CLAIM_LIMIT, lease=_HOUR)
        spent += time.perf_counter() - began
        claimed += len(found)
        for run in found:
            await bench.queue.finish(run.claim, _DONE)
    return claimed / spent


async def events_per_second(bench: Bench, events: int) -> float:
    """16 runs that each wait for the commit of one event before they write the next."""
    claims = await bench.claims(_AT_ONCE)

    async def write(claim: Claim) -> None:
        for _ in range(events // _AT_ONCE):
            await bench.log.append(claim, [run_event(EventType.TODO_UPDATE, {"todos": []})])

    began = time.perf_counter()
    await asyncio.gather(*(write(claim) for claim in claims))
    spent = time.perf_counter() - began
    for claim in claims:
        await bench.queue.finish(claim, _DONE)
    return events / spent


async def long_thread(bench: Bench, events: int) -> tuple[ThreadId, int]:
    """A thread with that many events, and its last seq."""
    [claim] = await bench.claims(1)
    for _ in range(events // 500):
        await bench.log.append(claim, [run_event(EventType.TODO_UPDATE, {"todos": []}) for _ in range(500)])
    await bench.queue.finish(claim, _DONE)
    return claim.thread_id, events


async def replayed(bench: Bench, thread_id: ThreadId, last: int) -> None:
    """Follow from the start until the seq is there."""
    async for batch in bench.log.follow(thread_id, after=0, idle=60):
        if batch and batch[-1].seq >= last:
            return


async def selected(url: str, thread_id: ThreadId) -> None:
    """The same rows, as fast as one statement can have them."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        query = "SELECT seq, run_id, type, data FROM run_events WHERE thread_id = %s ORDER BY seq"
        await (await connection.execute(query, [thread_id])).fetchall()


async def milliseconds(action: Callable[[], Awaitable[None]]) -> float:
    """The median of five."""
    spent: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        await action()
        spent.append(1e3 * (time.perf_counter() - began))
    return sorted(spent)[2]


async def bare_commit(url: str) -> float:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS bare (id bigint GENERATED ALWAYS AS IDENTITY, text text)")
        waited: list[float] = []
        for _ in range(200):
            began = time.perf_counter()
            await connection.execute("INSERT INTO bare (text) VALUES ('x')")
            waited.append(1e3 * (time.perf_counter() - began))
    return sorted(waited)[100]


async def bare_commits(url: str) -> float:
    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            for _ in range(100):
                await connection.execute("INSERT INTO bare (text) VALUES ('x')")

    began = time.perf_counter()
    await asyncio.gather(*(write() for _ in range(_AT_ONCE)))
    return 100 * _AT_ONCE / (time.perf_counter() - began)


@asynccontextmanager
async def open_bench(folder: Path) -> AsyncGenerator[Bench]:
    async with open_embedded_postgres(folder / "postgres") as url:
        await asyncio.to_thread(migrate, url)
        superuser = psycopg.conninfo.make_conninfo(url, user="postgres")
        async with open_database(url) as database, asyncio.TaskGroup() as group:
            log, notices = PostgresEventLog(database), Notices(url, process="another")
            queue, far_queue = (
                PostgresRunQueue(database, log, session_life=_HOUR, queue_limit=10, ttl=_HOUR) for _ in range(2)
            )
            notices.listen("work", lambda _: far_queue.wake(), own=False)
            beside = [log.write_forever, log.poll_forever, notices.run_forever]
            tasks = [group.create_task(work()) for work in beside]
            async with database.system_transaction() as connection:
                await connection.execute(
                    sql.SQL("INSERT INTO users (user_id, password_hash) VALUES ({}, '!')").format(sql.Literal(_USER))
                )
            threads = PostgresThreadStore(database, session_life=_HOUR)
            yield Bench(superuser, database, log, queue, far_queue, threads)
            for task in tasks:
                task.cancel()


if __name__ == "__main__":
    uvloop.run(main())

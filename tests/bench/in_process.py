#!/usr/bin/env python3
"""The limit: the agent's graph with LangGraph's own Postgres saver, durability sync, nothing served; prints runs/s."""

import argparse
import asyncio
import json
import os
import tempfile
import time
import uuid
from pathlib import Path

import psycopg_pool
import uvloop
from deepagents import create_deep_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.rows import dict_row

from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.agent.bench_model import BenchModel


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200)
    args = parser.parse_args()
    options = {"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)  # noqa: S103 -- Postgres does not run as root, and must get in
        async with (
            open_embedded_postgres(Path(folder) / "postgres") as url,
            psycopg_pool.AsyncConnectionPool(url, kwargs=options, min_size=2, max_size=20, open=False) as pool,
        ):
            await AsyncPostgresSaver(pool).setup()
            graph = create_deep_agent(BenchModel())
            gate = asyncio.Semaphore(args.concurrency)

            async def run() -> None:
                async with gate:
                    agent = graph.copy(update={"checkpointer": AsyncPostgresSaver(pool)})
                    message = {"messages": [HumanMessage(f"hi n={args.tokens}")]}
                    config = {"configurable": {"thread_id": str(uuid.uuid4())}}
                    async for _ in agent.astream(message, config, stream_mode=["messages"], durability="sync"):
                        pass

            await run()
            started = time.perf_counter()
            await asyncio.gather(*(run() for _ in range(args.runs)))
            wall = time.perf_counter() - started
    print(json.dumps({"runs": args.runs, "concurrency": args.concurrency, "runs_per_s": round(args.runs / wall, 1)}))


uvloop.run(main())

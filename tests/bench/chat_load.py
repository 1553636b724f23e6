#!/usr/bin/env python3
"""Drive a running server over `/api/chat` and print one JSON line of figures (milliseconds, runs and tokens a second).

chat_load.py BASE [--wire] [--no-login] [--runs 64] [--concurrency 16] [--tokens 200] [--delay 0]

--wire: over the LangGraph wire instead, in the mode `messages-tuple`; with --no-login that is any LangGraph server.
Throughput: --delay 0. Streams held: --runs = --concurrency = N with --delay 0.05; `dilation` is then the time a run
took over the time that its model alone needs.
"""

import argparse
import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

_TOKEN = b"tok "


@dataclass(frozen=True)
class Run:
    create: float
    first: float
    total: float


@dataclass(frozen=True)
class Way:
    """How a client opens a thread, and what it posts where to start a run in it."""

    open: str
    opening: dict[str, Any]
    start: str
    starting: Callable[[str], dict[str, Any]]


CHAT = Way("/api/sessions", {"assistant_id": "deep"}, "/api/chat/{}", lambda text: {"message": text})
WIRE = Way(
    "/threads",
    {},
    "/threads/{}/runs/stream",
    lambda text: {
        "assistant_id": "deep",
        "input": {"messages": [{"type": "human", "content": text}]},
        "stream_mode": ["messages-tuple"],
    },
)


async def one_run(client: httpx.AsyncClient, way: Way, tokens: int, delay: float) -> Run:
    """Open a session, send a message, read the stream to its end; raises RuntimeError when tokens are missing."""
    started = time.perf_counter()
    reply = await client.post(way.open, json=way.opening)
    reply.raise_for_status()
    thread_id = reply.json()["thread_id"]
    created = time.perf_counter()
    first, seen, tail = 0.0, 0, b""
    body = way.starting(f"hi n={tokens} d={delay}")
    async with client.stream("POST", way.start.format(thread_id), json=body) as stream:
        stream.raise_for_status()
        async for chunk in stream.aiter_raw():
            data = tail + chunk
            data = data.partition(b"event: message_complete")[0]
            hits = data.count(_TOKEN)
            if hits and not first:
                first = time.perf_counter() - created
            seen += hits
            cut = data.rfind(_TOKEN)
            tail = data[max(cut + len(_TOKEN), len(data) - len(_TOKEN) + 1) :]
            if b"event: error" in chunk:
                raise RuntimeError(chunk[:300].decode(errors="replace"))
    if seen < tokens:
        raise RuntimeError(f"only {seen} of {tokens} tokens")
    return Run(created - started, first, time.perf_counter() - created)


def at(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base")
    parser.add_argument("--wire", action="store_true")
    parser.add_argument("--no-login", action="store_true")
    parser.add_argument("--runs", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--warm", type=int, default=3)
    args = parser.parse_args()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=2000)
    async with httpx.AsyncClient(base_url=args.base, timeout=180, limits=limits) as client:
        if not args.no_login:
            client.headers["authorization"] = f"Bearer {await new_user(client)}"
        way = WIRE if args.wire else CHAT
        for _ in range(args.warm):
            await one_run(client, way, args.tokens, 0)
        gate = asyncio.Semaphore(args.concurrency)

        async def gated() -> Run | str:
            async with gate:
                try:
                    return await one_run(client, way, args.tokens, args.delay)
                except (httpx.HTTPError, RuntimeError) as error:
                    return repr(error)[:300]

        started = time.perf_counter()
        rows = await asyncio.gather(*(gated() for _ in range(args.runs)))
        wall = time.perf_counter() - started
    print(json.dumps(figures(rows, wall, args)))


async def new_user(client: httpx.AsyncClient) -> str:
    account = {"username": f"bench-{secrets.token_hex(4)}", "password": secrets.token_urlsafe(16)}
    (await client.post("/api/auth/register", json=account)).raise_for_status()
    reply = await client.post("/api/auth/login", json=account)
    reply.raise_for_status()
    return reply.json()["access_token"]


def figures(rows: list[Run | str], wall: float, args: argparse.Namespace) -> dict[str, object]:
    good = [row for row in rows if isinstance(row, Run)]
    bad = [row for row in rows if isinstance(row, str)]
    ideal = args.tokens * args.delay
    dilation = {
        f"dilation_p{round(share * 100)}": round(at([row.total for row in good], share) / ideal, 3)
        for share in (0.5, 0.99)
        if ideal
    }
    return {
        "runs": args.runs,
        "concurrency": args.concurrency,
        "tokens": args.tokens,
        "failed": len(bad),
        "runs_per_s": round(len(good) / wall, 1),
        "tokens_per_s": round(len(good) * args.tokens / wall),
        "create_ms": round(1e3 * at([row.create for row in good], 0.5), 1),
        "first_token_ms": round(1e3 * at([row.first for row in good], 0.5), 1),
        "first_token_p99_ms": round(1e3 * at([row.first for row in good], 0.99), 1),
        "total_ms": round(1e3 * at([row.total for row in good], 0.5), 1),
        **dilation,
        "first_error": bad[:1],
    }


asyncio.run(main())

"""Postgres restarts, goes away, freezes, and refuses to write, while runs go on."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from tests.faults.checkers import check
from tests.faults.scripts import list_files, script, words
from tests.faults.server import Server
from tests.faults.user import Thread, persist
from tests.faults.waiting import POLL_SECONDS, eventually
from tests.faults.world import World

_THREADS = 4
_OUTAGE_SECONDS = 5
_AWAY_SECONDS = 4
_ANSWER_SECONDS = 10


@dataclass
class Answers:
    """What a client that asks all the time was told: moment, status (0: nobody answered), Retry-After."""

    told: list[tuple[float, int, str | None]] = field(default_factory=list)

    def failures(self, *, after: float = 0) -> list[tuple[float, int, str | None]]:
        return [item for item in self.told if item[1] != 200 and item[0] > after]


@pytest.mark.parametrize("way", ["stop_fast", "stop_immediate", "kill"])
async def test_a_restart_under_load_is_seconds_of_503_and_nothing_lost(world: World, way: str):
    server = await world.server()
    threads = [await world.thread(server) for _ in range(_THREADS)]
    async with _asking(threads[0]) as answers, asyncio.TaskGroup() as group:
        talks = [group.create_task(_talk(thread)) for thread in threads]
        await world.model.until_asked(await _first_mark(threads))
        await asyncio.to_thread(getattr(world.postgres, way))
        await asyncio.to_thread(world.postgres.start)
        back = time.monotonic()
        await asyncio.wait(talks)
    assert {(status, wait is not None) for _, status, wait in answers.failures()} <= {(503, True)}
    assert answers.failures(after=back + _OUTAGE_SECONDS) == []
    for thread in threads:
        assert {event.data["status"] for event in thread.events if event.type == "run_end"} == {"success"}
        await check(world, thread)


@pytest.mark.parametrize("away", ["kill", "freeze"])
async def test_while_postgres_is_away_the_server_lives_is_not_ready_and_says_so(world: World, away: str):
    server = await world.server()
    thread = await world.thread(server)
    message = script(list_files(), then=words(20), hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    await asyncio.to_thread(getattr(world.postgres, away))
    gone = time.monotonic()
    await world.model.release(message.mark)
    assert await server.status_of("/readyz", seconds=_ANSWER_SECONDS) == 503, "the very first question gets an answer"
    reply = await thread.post("/api/chat/{id}", message="lost")
    assert (reply.status_code, "retry-after" in reply.headers) == (503, True), reply.text
    while time.monotonic() < gone + _AWAY_SECONDS:
        assert await server.status_of("/healthz") == 200
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.to_thread(world.postgres.ensure)
    await eventually(lambda: _is(server, "/readyz", 200), seconds=_OUTAGE_SECONDS, what="it is ready again")
    assert await thread.until_end(sent.run_id) == "success"
    assert await thread.settle() == "idle"
    await check(world, thread)


async def test_a_postgres_that_may_only_read_is_waited_for(world: World):
    server = await world.server()
    thread = await world.thread(server)
    message = script(list_files(), then=words(20), hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    await _only_read(world, yes=True)
    await world.model.release(message.mark)
    reply = await thread.post("/api/chat/{id}", message="refused")
    assert (reply.status_code, "retry-after" in reply.headers) == (503, True), reply.text
    assert (await thread.get("/api/sessions/{id}"))["thread_id"] == thread.id
    assert await server.status_of("/healthz") == 200
    await _only_read(world, yes=False)
    assert await thread.until_end(sent.run_id) == "success"
    await check(world, thread)


async def _only_read(world: World, *, yes: bool) -> None:
    async with world.superuser() as connection:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {'on' if yes else 'off'}")
        await connection.execute("SELECT pg_reload_conf()")

    async def applied() -> bool:
        rows = await world.rows("SELECT current_setting('default_transaction_read_only') AS now")
        return rows == [{"now": "on" if yes else "off"}]

    await eventually(applied, seconds=5, what="the setting is in force")


async def _talk(thread: Thread) -> None:
    for number in range(2):
        await thread.say(script(list_files(), then=words(15 + number), pause=0.05))
    await thread.settle(seconds=60)


async def _first_mark(threads: list[Thread]) -> str:
    async def first() -> str:
        return next((sent.mark for thread in threads for sent in thread.sent), "")

    return await eventually(first, seconds=20, what="a message is acknowledged")


@asynccontextmanager
async def _asking(thread: Thread) -> AsyncGenerator[Answers]:
    """Somebody asks for the thread all the time."""
    answers = Answers()

    async def ask() -> None:
        async with thread.user.client(thread.server) as client:
            while True:
                try:
                    reply = await client.get(f"/api/sessions/{thread.id}")
                    told = (time.monotonic(), reply.status_code, reply.headers.get("retry-after"))
                except httpx.TransportError:
                    told = (time.monotonic(), 0, None)
                answers.told.append(told)
                await asyncio.sleep(POLL_SECONDS)

    asking = asyncio.create_task(ask())
    try:
        yield answers
        await persist(lambda: thread.post("/api/sessions/{id}/cancel"))
    finally:
        asking.cancel()
        await asyncio.wait([asking])


async def _is(server: Server, path: str, status: int) -> bool:
    return await server.status_of(path) == status

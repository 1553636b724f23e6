"""Runs that are stopped from outside."""

import asyncio
from collections.abc import AsyncIterator

from tests.compat.scenarios.busy import SLOW
from tests.compat.scenarios.pausing import ONE
from tests.compat.wire import Wire, interrupts, numbers, script

type Facts = AsyncIterator[tuple[str, str]]


async def running(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    run = await wire.running(thread, SLOW)
    reply = await wire.post(f"/threads/{thread}/runs/{run}/cancel?wait=true")
    yield "`cancel?wait=true` of a running run", str(reply.status_code)
    yield "... the run is then", await wire.run_status(thread, run)
    yield "... the thread is then", (await wire.settled(thread))["status"]
    yield "... its messages", ", ".join(message["type"] for message in await wire.messages(thread))
    reply = await wire.http.get(f"/threads/{thread}/runs/{run}/join")
    yield "... waiting for it", f"{reply.status_code} with {', '.join(sorted(reply.json()))}"
    yield "... the next message", (await wire.wait(thread, script(then="go on"))).json()["messages"][-1]["content"]


async def without_waiting(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    run = await wire.running(thread, SLOW)
    reply = await wire.post(f"/threads/{thread}/runs/{run}/cancel")
    yield "`cancel` without waiting", f"{reply.status_code}, {len(reply.content)} bytes"
    yield "... the run ends as", await wire.until_run(thread, run)
    reply = await wire.post(f"/threads/{thread}/runs/{run}/cancel")
    yield "`cancel` of a run that is over", str(reply.status_code)


async def the_stream(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    async with wire.run_stream(thread, SLOW, stream_mode=["values", "messages-tuple"]) as stream:
        await stream.until("messages", 3)
        run = stream.headers["content-location"].rsplit("/", 1)[1]
        rest = asyncio.create_task(_rest(wire, thread, run))
        await wire.post(f"/threads/{thread}/runs/{run}/cancel?wait=true")
        yield "a cancelled run's stream ends with", await rest


async def _rest(wire: Wire, thread: str, run: str) -> str:
    async with wire.join(thread, run) as stream:
        frames = await stream.all()
    return frames[-1].event if frames else "nothing"


async def waiting_in_line(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    first = await wire.running(thread, SLOW)
    second = (await wire.create(thread, script(then="second"))).json()["run_id"]
    reply = await wire.post(f"/threads/{thread}/runs/{second}/cancel?wait=true")
    yield "`cancel` of a run in the queue", f"{reply.status_code}, then {await wire.run_status(thread, second)}"
    yield "... the first run ends as", await wire.until_run(thread, first)


async def rolled_back(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="before"))
    run = await wire.running(thread, SLOW)
    reply = await wire.post(f"/threads/{thread}/runs/{run}/cancel?wait=true&action=rollback")
    yield "`cancel?action=rollback`", str(reply.status_code)
    yield "... the run is then", await wire.run_status(thread, run)
    yield "... messages left of before", str(len(await wire.messages(thread)))
    yield "... the thread is then", (await wire.settled(thread))["status"]


async def paused(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, ONE)
    run = (await wire.get(f"/threads/{thread}/runs"))[0]["run_id"]
    reply = await wire.post(f"/threads/{thread}/runs/{run}/cancel?wait=true")
    found = await wire.settled(thread)
    yield "`cancel` of a run that waits for approval", str(reply.status_code)
    yield "... the thread is then", f"{found['status']}, {len(interrupts(found))} pending"


async def many(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    run = await wire.running(thread, numbers(40))
    reply = await wire.post("/runs/cancel", {"thread_id": thread, "run_ids": [run]})
    yield "`POST /runs/cancel`", f"{reply.status_code}, {len(reply.content)} bytes"
    yield "... the run ends as", await wire.until_run(thread, run)


async def forgotten(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="said"))
    run = (await wire.get(f"/threads/{thread}/runs"))[0]["run_id"]
    reply = await wire.http.delete(f"/threads/{thread}/runs/{run}")
    yield "`DELETE` of a run", f"{reply.status_code}, then {await wire.run_status(thread, run)}"
    yield "... messages left", str(len(await wire.messages(thread)))
    busy = await wire.running(thread, SLOW)
    reply = await wire.http.delete(f"/threads/{thread}/runs/{busy}")
    yield "`DELETE` of a running run", str(reply.status_code)
    await wire.post(f"/threads/{thread}/runs/{busy}/cancel?wait=true")


SCENARIOS = (running, without_waiting, the_stream, waiting_in_line, rolled_back, paused, many, forgotten)

"""SIGTERM: what runs gets its time, the rest is handed back, and everybody is told."""

import asyncio
import time

import httpx
from tests.faults.checkers import check
from tests.faults.scripts import effect, long_sleep, script, words
from tests.faults.user import Thread, read_events
from tests.faults.waiting import eventually
from tests.faults.world import World, processes_with

_EXIT_SECONDS = 30
_ENDLESS = long_sleep()


async def test_sigterm_ends_a_server_in_time_and_its_work_goes_on_in_the_next(world: World):
    server = await world.server()
    short, endless, talking = [await world.thread(server) for _ in range(3)]
    await _start_tool(world, short, "short", then="sleep 3")
    await _start_tool(world, endless, "endless", then=_ENDLESS)
    message = script(then=words(20), hold=True)
    sent = await talking.say(message)
    await world.model.until_asked(message.mark)
    reading = asyncio.Event()
    reader = asyncio.create_task(_last_frame(talking, reading))
    await asyncio.wait_for(reading.wait(), 10)
    began = time.monotonic()
    server.terminate()
    await eventually(lambda: _is_refused(short), seconds=5, what="new work is refused")
    assert await asyncio.wait_for(reader, 10) == ("stream_closed", "server_restart")
    assert await server.until_ended(seconds=_EXIT_SECONDS) == 0
    assert time.monotonic() - began < _EXIT_SECONDS
    assert processes_with(_ENDLESS) == []
    await server.start()
    await world.model.release(message.mark)
    for thread in (short, endless, talking):
        assert await thread.settle() == "idle"
    results = {thread: (await thread.until_type("tool_result")).data["status"] for thread in (short, endless)}
    assert results == {short: "success", endless: "outcome_unknown"}
    assert await talking.until_end(sent.run_id) == "success"
    attempts = await world.rows("SELECT DISTINCT attempt FROM runs WHERE thread_id = ANY(%s)", [short.id, talking.id])
    assert attempts == [{"attempt": 1}], "a stop that was asked for costs an attempt"
    for thread in (short, endless, talking):
        await check(world, thread)


async def test_a_worker_that_is_asked_to_stop_hands_its_run_to_another_one(world: World):
    front, [worker, other] = await world.split(workers=2)
    other.freeze()
    thread = await world.thread(front)
    message = script(then="said by the other", hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    other.thaw()
    worker.terminate()
    await world.model.release(message.mark)
    assert await worker.until_ended(seconds=_EXIT_SECONDS) == 0
    assert await thread.until_end(sent.run_id) == "success"
    assert (await world.until_run(sent.run_id, "success"))["attempt"] == 1
    await check(world, thread)


async def _start_tool(world: World, thread: Thread, name: str, *, then: str) -> None:
    sent = await thread.say(script(effect(name, then=then), then="ok"))
    assert await thread.until_end(sent.run_id) == "interrupted"
    await thread.approve()
    await world.until_effect(thread, name)


async def _is_refused(thread: Thread) -> bool:
    try:
        return (await thread.post("/api/sessions")).status_code == 503
    except httpx.TransportError:
        return True


async def _last_frame(thread: Thread, reading: asyncio.Event) -> tuple[str, str | None]:
    """The last thing that a reader is told; `reading` says that it is one."""
    async with (
        thread.user.client(thread.server) as client,
        client.stream("GET", f"/api/sessions/{thread.id}/events", timeout=60) as reply,
    ):
        reading.set()
        events = [event async for event in read_events(reply)]
    return events[-1].type, events[-1].data.get("reason")

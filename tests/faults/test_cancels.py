"""Cancel, whatever the run is doing: terminal within 5 seconds, its processes dead within 2, the thread usable."""

import asyncio
import time

import pytest
from tests.faults.checkers import check
from tests.faults.scripts import effect, list_files, long_sleep, script
from tests.faults.server import Server
from tests.faults.user import Sent, Thread
from tests.faults.waiting import eventually
from tests.faults.world import World, processes_with

_TERMINAL_SECONDS = 5
_DEAD_SECONDS = 2
_ENDLESS = long_sleep()


async def test_a_model_call_is_cancelled(world: World):
    thread = await world.thread(await world.server())
    sent = await _hold(world, thread)
    await _cancel(thread, sent)
    await _is_usable(world, thread)


async def test_queued_messages_are_cancelled_with_what_runs(world: World):
    thread = await world.thread(await world.server())
    running = await _hold(world, thread)
    queued = [await thread.say(script(then="never said")) for _ in range(3)]
    await _cancel(thread, running, *queued)
    assert [await world.model.calls(sent.mark) for sent in queued] == [[], [], []]
    await _is_usable(world, thread)


async def test_a_running_tool_is_cancelled_and_its_processes_die(world: World):
    thread = await world.thread(await world.server())
    await _run_tool(world, thread)
    await _cancel_and_see_it_dead(world, thread)
    await _is_usable(world, thread)


async def test_what_waits_for_a_human_is_cancelled(world: World):
    thread = await world.thread(await world.server())
    sent = await thread.say(script([effect("left"), effect("right")]))
    assert await thread.until_end(sent.run_id) == "interrupted"
    assert (await thread.cancel()).status_code == 200
    assert await thread.pending() == []
    assert (await thread.get("/api/sessions/{id}"))["run_status"] == "idle"
    await _is_usable(world, thread)
    assert world.effects(thread) == ["usable"]


@pytest.mark.parametrize("state", ["model call", "tool"])
async def test_ten_cancels_at_once_are_one(world: World, state: str):
    thread = await world.thread(await world.server())
    if state == "tool":
        await _run_tool(world, thread)
    else:
        await _hold(world, thread)
    replies = await asyncio.gather(*(thread.cancel() for _ in range(10)))
    assert {reply.status_code for reply in replies} == {200}
    await eventually(lambda: _is_dead(), seconds=_DEAD_SECONDS, what="its processes are dead")
    await _is_usable(world, thread)


async def test_a_run_in_another_process_is_cancelled(world: World):
    front, _ = await world.split(workers=1)
    thread = await world.thread(front)
    await _run_tool(world, thread)
    await _cancel_and_see_it_dead(world, thread)
    sent = await _hold(world, thread)
    await _cancel(thread, sent)
    await _is_usable(world, thread)


async def test_a_cancel_that_a_kill_follows_stays_a_cancel(world: World):
    server: Server = await world.server()
    thread = await world.thread(server)
    sent = await _hold(world, thread)
    asking = asyncio.create_task(thread.cancel())
    await asyncio.wait([asking])
    server.kill()
    await server.start()
    assert await thread.until_end(sent.run_id) == "cancelled"
    await _is_usable(world, thread)


async def _hold(world: World, thread: Thread) -> Sent:
    message = script(then="never said", hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    return sent


async def _run_tool(world: World, thread: Thread) -> None:
    sent = await thread.say(script(effect("cut", then=f"(setsid {_ENDLESS} & {_ENDLESS})")))
    assert await thread.until_end(sent.run_id) == "interrupted"
    await thread.approve()
    await world.until_effect(thread, "cut")
    await eventually(_is_alive, seconds=10, what="the command runs")


async def _cancel(thread: Thread, *runs: Sent) -> None:
    began = time.monotonic()
    assert (await thread.cancel()).status_code == 200
    for sent in runs:
        assert await thread.until_end(sent.run_id, seconds=_TERMINAL_SECONDS) == "cancelled"
    assert time.monotonic() - began < _TERMINAL_SECONDS


async def _cancel_and_see_it_dead(world: World, thread: Thread) -> None:
    began = time.monotonic()
    cancelling = asyncio.create_task(thread.cancel())
    await eventually(_is_dead, seconds=_DEAD_SECONDS, what="its processes are dead")
    assert (await cancelling).status_code == 200
    [row] = await world.rows("SELECT run_id FROM runs WHERE thread_id = %s ORDER BY queue_no DESC LIMIT 1", thread.id)
    left = _TERMINAL_SECONDS - (time.monotonic() - began)
    assert await thread.until_end(str(row["run_id"]), seconds=left) == "cancelled"


async def _is_usable(world: World, thread: Thread) -> None:
    await thread.play(list_files(), effect("usable"), then="usable again")
    assert thread.events[-1].data["status"] == "success"
    await check(world, thread)


async def _is_dead() -> bool:
    return processes_with(_ENDLESS) == []


async def _is_alive() -> bool:
    return not await _is_dead()

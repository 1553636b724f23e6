"""Several messages on one thread: in order, one at a time, and by the policy that each asks for."""

import asyncio
from itertools import pairwise

from tests.faults.checkers import check
from tests.faults.scripts import effect, list_files, script
from tests.faults.user import Sent, Thread
from tests.faults.world import World


async def test_ten_messages_at_once_with_two_workers_are_answered_in_order_one_by_one(world: World):
    front, _ = await world.split(workers=2)
    thread = await world.thread(front)
    scripts = [script(list_files(), then=f"answer {number}") for number in range(10)]
    sent = await asyncio.gather(*(thread.try_to_say(item) for item in scripts))
    assert [item for item in sent if not isinstance(item, Sent)] == []
    assert await thread.settle(seconds=60) == "idle"
    await check(world, thread)
    ordered = [item.mark for item in sorted(thread.sent, key=lambda item: item.seq)]
    calls = [call for item in scripts for call in await world.model.calls(item.mark)]
    calls.sort(key=lambda call: call.began)
    assert calls[-1].marks == ordered
    assert [call.mark for call in calls] == [mark for mark in ordered for _ in range(2)]
    overlaps = [(one.mark, two.mark) for one, two in pairwise(calls) if one.ended is None or one.ended > two.began]
    assert overlaps == []


async def test_the_eleventh_message_that_would_wait_is_refused(world: World):
    thread = await world.thread(await world.server())
    held = await _hold(world, thread)
    assert [type(await thread.try_to_say(script())) for _ in range(10)] == [Sent] * 10
    reply = await thread.post("/api/chat/{id}", message="one too many")
    assert (reply.status_code, "retry-after" in reply.headers) == (429, True)
    await world.model.release(held.mark)
    assert await thread.settle(seconds=60) == "idle"
    await check(world, thread)


async def test_reject_refuses_while_a_run_goes_on(world: World):
    thread = await world.thread(await world.server())
    held = await _hold(world, thread)
    assert await thread.try_to_say(script(), strategy="reject") == 409
    await world.model.release(held.mark)
    assert await thread.until_end(held.run_id) == "success"
    await thread.settle()
    assert isinstance(await thread.try_to_say(script(), strategy="reject"), Sent)
    await thread.settle()
    await check(world, thread)


async def test_interrupt_stops_the_run_and_keeps_what_it_knew(world: World):
    thread = await world.thread(await world.server())
    held = await _hold(world, thread)
    message = script(then="instead")
    sent = await thread.say(message, strategy="interrupt")
    assert await thread.until_end(held.run_id) in ("interrupted", "cancelled")
    assert await thread.until_end(sent.run_id) == "success"
    [call] = await world.model.calls(message.mark)
    assert call.marks == [held.mark, message.mark]
    await check(world, thread)


async def test_interrupt_leaves_no_call_without_a_result(world: World):
    thread = await world.thread(await world.server())
    first = await thread.say(script([effect("left", then="sleep 40"), effect("right", then="sleep 40")]))
    assert await thread.until_end(first.run_id) == "interrupted"
    await thread.approve()
    await world.until_effect(thread, "left")
    message = script(then="instead")
    sent = await thread.say(message, strategy="interrupt")
    assert await thread.until_end(sent.run_id) == "success"
    [call] = await world.model.calls(message.mark)
    assert len(call.results) == 2
    await check(world, thread)


async def test_rollback_forgets_the_run_that_it_stops(world: World):
    thread = await world.thread(await world.server())
    kept = script(then="kept")
    await thread.say(kept)
    await thread.settle()
    held = await _hold(world, thread)
    message = script(then="instead")
    sent = await thread.say(message, strategy="rollback")
    assert await thread.until_end(sent.run_id) == "success"
    [call] = await world.model.calls(message.mark)
    assert call.marks == [kept.mark, message.mark]
    assert await thread.until_end(held.run_id) in ("interrupted", "cancelled")


async def test_a_message_to_a_thread_that_waits_for_a_human_is_refused_unless_it_rejects(world: World):
    thread = await world.thread(await world.server())
    first = await thread.say(script([effect("left"), effect("right")]))
    assert await thread.until_end(first.run_id) == "interrupted"
    assert await thread.try_to_say(script()) == 409
    message = script(then="instead")
    sent = await thread.say(message, strategy="reject_and_continue")
    assert await thread.until_end(sent.run_id) == "success"
    [call] = await world.model.calls(message.mark)
    assert len(call.results) == 2
    assert all("was not run" in result for result in call.results), call.results
    told = [event.data["status"] for event in thread.events if event.type == "tool_result"]
    assert told == ["rejected", "rejected"]
    assert world.effects(thread) == []
    await check(world, thread)


async def _hold(world: World, thread: Thread) -> Sent:
    message = script(then="held", hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    return sent

"""kill -9 of the server at the moments that hurt."""

import pytest
from tests.faults.checkers import check, checkpoint
from tests.faults.scripts import effect, list_files, long_sleep, script, words
from tests.faults.waiting import eventually
from tests.faults.world import World, processes_with

_KILLS = 10
_LEASE_SECONDS = 2  # each kill is waited for as long
_CHECKPOINT_TABLES = "checkpoints, checkpoint_blobs, checkpoint_writes"


async def test_a_model_call_that_died_with_its_server_is_made_again(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    await thread.play(list_files(), then="first")
    message = script(then=words(40), hold=True)
    sent = await thread.say(message)
    await world.model.until_asked(message.mark)
    server.kill()
    await server.start()
    await world.model.until_asked(message.mark, times=2)
    await world.model.release(message.mark)
    assert await thread.until_end(sent.run_id) == "success"
    await check(world, thread)
    assert [call.marks.count(message.mark) for call in await world.model.calls(message.mark)] == [1, 1]


async def test_a_stream_that_broke_in_the_middle_of_an_answer_goes_on(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    sent = await thread.say(script(then=words(60), pause=0.05))
    await thread.until(lambda event: "5" in event.data.get("content_delta", ""))
    server.kill()
    await server.start()
    assert await thread.until_end(sent.run_id) == "success"
    complete = await thread.until_type("message_complete")
    assert complete.data["final_content"] == words(60)
    await check(world, thread)


async def test_a_tool_that_died_with_its_server_is_not_run_again(world: World):
    """Ten times on one thread: one effect each, the model is told, and nothing of the command is left."""
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    await thread.play(list_files())
    for number in range(_KILLS):
        name, sleep = f"effect-{number}", long_sleep()
        message = script(effect(name, then=sleep), then=f"told of {name}")
        sent = await thread.say(message)
        assert await thread.until_end(sent.run_id) == "interrupted"
        await thread.approve()
        await world.until_effect(thread, name)
        server.kill()
        await server.start()
        await thread.settle(seconds=30)
        assert world.effects(thread) == [f"effect-{i}" for i in range(number + 1)]
        assert processes_with(sleep) == []
        result = [event for event in thread.events if event.type == "tool_result"][-1]
        assert result.data["status"] == "outcome_unknown"
        shown = (await world.model.calls(message.mark))[-1].results[-1]
        assert "may or may not have taken effect" in shown
    await check(world, thread)


async def test_a_result_that_no_checkpoint_holds_yet_is_replayed(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    message = script(effect("once", then="echo the very output"), then="ok")
    sent = await thread.say(message)
    assert await thread.until_end(sent.run_id) == "interrupted"
    async with world.superuser() as connection, connection.transaction():
        await connection.execute(f"LOCK TABLE {_CHECKPOINT_TABLES} IN SHARE MODE")
        await thread.approve()

        async def stored() -> bool:
            return bool(await world.rows("SELECT FROM tool_calls WHERE thread_id = %s AND state = 'done'", thread.id))

        await eventually(stored, seconds=20, what="the result is in the journal")
        server.kill()
        # A backend that waits for the lock would still write, for a client that is dead.
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'moorage'"
        )
    await server.start()
    assert await thread.settle() == "idle"
    assert world.effects(thread) == ["once"]
    result = (await thread.until_type("tool_result")).data
    assert result["status"] == "success"
    assert "the very output" in result["result"]
    assert "the very output" in str((await checkpoint(world, thread))[-2].content)
    await check(world, thread)


async def test_what_waits_for_a_human_waits_on_under_the_same_id(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    sent = await thread.say(script([effect("left"), effect("right")], then="ok"))
    assert await thread.until_end(sent.run_id) == "interrupted"
    before = await thread.pending()
    server.kill()
    await server.start()
    assert await thread.pending() == before
    assert {item["tool_name"] for item in before} == {"execute"}
    assert await thread.settle() == "idle"
    assert sorted(world.effects(thread)) == ["left", "right"]
    await check(world, thread)


@pytest.mark.parametrize("answer", ["approve", "reject", "edit"])
async def test_a_decision_that_was_acknowledged_survives(world: World, answer: str):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    sent = await thread.say(script(effect("asked"), then="ok"))
    assert await thread.until_end(sent.run_id) == "interrupted"
    [item] = await thread.pending()
    edited = {"edited_action": {"name": "execute", "args": effect("edited")[1]}} if answer == "edit" else {}
    reply = await thread.post(f"/api/approvals/{item['id']}/decision", type=answer, digest=item["digest"], **edited)
    server.kill()
    assert reply.status_code == 200, reply.text
    await server.start()
    assert await thread.settle() == "idle"
    assert world.effects(thread) == {"approve": ["asked"], "reject": [], "edit": ["edited"]}[answer]
    again = await thread.post(f"/api/approvals/{item['id']}/decision", type=answer, digest=item["digest"], **edited)
    assert again.status_code == 409
    if answer != "edit":  # the call that is told is the one that the model made
        await check(world, thread)


async def test_a_run_that_crashes_every_worker_ends_after_three_attempts(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread, other = await world.thread(server), await world.thread(server)
    message = script(then="never said", hold=True)
    sent = await thread.say(message)
    for attempt in (1, 2, 3):
        await world.model.until_asked(message.mark, times=attempt)
        server.kill()
        await server.start()
    assert await thread.until_end(sent.run_id) == "error"
    error = await thread.until_type("error", run_id=sent.run_id)
    assert error.data["code"] == "crashed_repeatedly"
    assert len(await world.model.calls(message.mark)) == 3
    await thread.play(list_files(), then="usable again")
    await other.play(list_files(), then="unaffected")
    await check(world, thread)
    await check(world, other)

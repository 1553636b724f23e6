"""SIGSTOP for longer than the lease: another worker has the run, and the woken one changes nothing."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from tests.faults.checkers import check, checkpoint
from tests.faults.scripts import effect, list_files, long_sleep, script, words
from tests.faults.server import Server
from tests.faults.user import Thread
from tests.faults.waiting import eventually
from tests.faults.world import World, processes_with

from moorage.ids import ThreadId
from moorage.sandboxes.port import StaleClaim

_TAKEN_SECONDS = 30


async def test_a_woken_worker_does_not_finish_the_model_call_of_a_run_it_lost(world: World):
    async with _frozen_owner(world) as (frozen, thread):
        message = script(then=words(30), hold=True)
        sent = await thread.say(message)
        await world.model.until_asked(message.mark)
        other = await _freeze_and_add_another(world, frozen, thread)
        await world.model.until_asked(message.mark, times=2, seconds=_TAKEN_SECONDS)
        await world.model.release(message.mark)
        assert await thread.until_end(sent.run_id) == "success"
        history, state = await thread.messages(), await checkpoint(world, thread)
        frozen.thaw()
        await _until_it_let_go(world, frozen, message.mark)
        assert await thread.messages() == history
        assert await checkpoint(world, thread) == state
        assert other.alive
        await thread.play(list_files(), then="both work again")
        await check(world, thread)


async def test_a_woken_worker_starts_nothing_after_the_tool_that_it_ran(world: World):
    async with _frozen_owner(world) as (frozen, thread):
        sleep = long_sleep()
        first = effect("first", then=sleep)
        message = script(first, effect("second"), then="ok")
        sent = await thread.say(message)
        assert await thread.until_end(sent.run_id) == "interrupted"
        await thread.approve()
        await world.until_effect(thread, "first")
        await _freeze_and_add_another(world, frozen, thread)
        result = await thread.until_type("tool_result", seconds=_TAKEN_SECONDS)
        assert result.data["status"] == "outcome_unknown"
        assert processes_with(sleep) == []
        assert await thread.settle() == "idle"
        await _older_claims_are_refused(world, thread)
        frozen.thaw()
        await frozen.until_ready()
        await thread.play(effect("third"), then="both work again")
        assert world.effects(thread) == ["first", "second", "third"]
        await check(world, thread)


@asynccontextmanager
async def _frozen_owner(world: World) -> AsyncGenerator[tuple[Server, Thread]]:
    """The only server, so that it will own the run, and a thread."""
    server = await world.server()
    yield server, await world.thread(server)


async def _freeze_and_add_another(world: World, frozen: Server, thread: Thread) -> Server:
    [same, other] = await world.servers(2)
    assert same is frozen
    rows = await world.rows("SELECT status FROM runs WHERE thread_id = %s ORDER BY queue_no DESC LIMIT 1", thread.id)
    assert rows == [{"status": "running"}]
    frozen.freeze()
    thread.server = other
    return other


async def _older_claims_are_refused(world: World, thread: Thread) -> None:
    """What the frozen worker would ask of the sandbox, in the name of the claim that it lost."""
    [numbers] = await world.rows("SELECT last_value FROM run_claims")
    async with world.sandboxes() as provider:
        for verb in (provider.open_helper, provider.kill_all, partial(provider.ensure, profile="default")):
            with pytest.raises(StaleClaim):
                await verb(ThreadId(thread.id), fencing_token=numbers["last_value"] - 1)


async def _until_it_let_go(world: World, server: Server, mark: str) -> None:
    """Its call has been answered, and it answers itself."""

    async def answered() -> bool:
        return all(call.ended for call in await world.model.calls(mark))

    await eventually(answered, seconds=20, what="the first call has ended, too")
    await server.until_ready()

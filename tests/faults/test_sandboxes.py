"""Containers die under their commands and between them."""

import time

import pytest
from tests.faults.checkers import check
from tests.faults.scripts import effect, run, script
from tests.faults.user import Event, Thread
from tests.faults.world import World, docker

_NEXT_SECONDS = 15
_DEATHS = {"killed": ("kill",), "removed": ("rm", "--force")}


@pytest.mark.parametrize("death", _DEATHS)
async def test_a_container_that_dies_under_a_command_is_told_and_replaced(world: World, death: str):
    server = await world.server()
    thread = await world.thread(server)
    sent = await thread.say(script(effect("before", then="sleep 50"), then="ok"))
    assert await thread.until_end(sent.run_id) == "interrupted"
    await thread.approve()
    await world.until_effect(thread, "before")
    docker(*_DEATHS[death], world.container(thread))
    result = (await thread.until_type("tool_result", seconds=_NEXT_SECONDS)).data
    assert "sandbox" in result["result"].lower(), result
    assert result["status"] != "success", result
    assert await thread.settle() == "idle"
    await _next_command_works(world, thread)
    assert world.effects(thread) == ["before", "after"]
    await check(world, thread)


@pytest.mark.parametrize("death", _DEATHS)
async def test_a_container_that_died_between_commands_is_not_noticed(world: World, death: str):
    server = await world.server()
    thread = await world.thread(server)
    await thread.play(effect("before"))
    docker(*_DEATHS[death], world.container(thread))
    await _next_command_works(world, thread)
    assert world.effects(thread) == ["before", "after"]
    await check(world, thread)


async def test_a_command_without_memory_or_processes_is_told(world: World):
    server = await world.server(sandbox_memory_mb=128, sandbox_pids=64)
    thread = await world.thread(server)
    hungry = await thread.play(run("python3 -c 'b = bytearray(10**9)'"))
    assert _result(hungry)["status"] == "error"
    assert "memory" in _result(hungry)["result"].lower()
    many = await thread.play(run("for i in $(seq 200); do sleep 30 & done; wait"))
    assert _result(many)["status"] == "error"
    await _next_command_works(world, thread)
    await check(world, thread)


async def test_in_a_full_house_the_model_is_told_and_idle_sandboxes_make_room(world: World):
    server = await world.server(sandbox_max_running=1, sandbox_wait_seconds=1)
    first, second = await world.thread(server), await world.thread(server)
    sent = await first.say(script(effect("long", then="sleep 500"), then="ok"))
    assert await first.until_end(sent.run_id) == "interrupted"
    await first.approve()
    await world.until_effect(first, "long")
    refused = await second.play(effect("refused"))
    assert _result(refused)["status"] == "error"
    assert "as many sandboxes" in str(_result(refused)["result"]).lower()
    assert "Nothing was started" in str(_result(refused)["result"])
    await first.cancel()
    await first.settle()
    await second.play(effect("after"))
    await first.play(effect("again"))
    assert world.effects(second) == ["after"]
    assert world.effects(first) == ["long", "again"]
    await check(world, first)
    await check(world, second)


async def test_a_command_that_fills_the_workspace_is_ended_and_told(world: World):
    server = await world.server(sandbox_disk_mb=16)
    thread = await world.thread(server)
    full = await thread.play(run("for n in $(seq 10000); do head -c 2000000 /dev/zero > big-$n; sleep 0.1; done"))
    assert _result(full)["status"] == "error"
    assert "workspace is full" in str(_result(full)["result"])
    await thread.play(run("rm big-*"))
    await _next_command_works(world, thread)
    await check(world, thread)


async def _next_command_works(world: World, thread: Thread) -> None:
    began = time.monotonic()
    events = await thread.play(effect("after"))
    assert _result(events)["status"] == "success"
    assert time.monotonic() - began < _NEXT_SECONDS


def _result(events: list[Event]) -> dict[str, object]:
    return next(event.data for event in events if event.type == "tool_result")

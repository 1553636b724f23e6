"""Sandboxes while those who keep them die, race, freeze and delete; `python -m tests.chaos --sandboxes` is longer."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from pathlib import Path
from random import Random

import pytest
from tests.faults.checkers import check
from tests.faults.leftovers import Machine, removed_threads_left
from tests.faults.sandbox_storm import open_scene, storm
from tests.faults.scripts import effect, long_sleep, run, script
from tests.faults.server import Server
from tests.faults.user import Thread, persist
from tests.faults.waiting import eventually
from tests.faults.world import World, docker, open_world, processes_with
from tests.uids import own_uids

_SEED = 13  # a workspace is unmounted, a sandbox paused, the worker killed, a helper killed
_UIDS = own_uids(11_000, 12_999)
_OWN_FILE_SYSTEMS = {"sandbox_storage": "auto", "sandbox_uid_range": f"{_UIDS.start}-{_UIDS.stop - 1}"}
_TAKEN_SECONDS = 30


@pytest.fixture(scope="module")
async def own_world(public_tmp_path: Path) -> AsyncGenerator[World]:
    """Of which nothing else is on the machine."""
    async with open_world(public_tmp_path / f"storm-{uuid.uuid4().hex[:8]}") as world:
        yield world


async def test_a_short_storm_loses_nothing_and_leaves_nothing(own_world: World):
    rng = Random(_SEED)  # noqa: S311
    async with open_scene(own_world, "bubblewrap", rng, tenants=4) as scene:
        told: list[str] = []
        aftermath = await storm(scene, faults=4, tell=told.append, restart=True)
        assert aftermath.faults.total() == 4
        assert aftermath.commands["success"], aftermath


async def test_what_dies_while_nobody_uses_it_is_cleared_up(own_world: World):
    own_world.sandbox, machine = "docker", Machine(own_world.folder, _UIDS)
    server = await own_world.server(**_OWN_FILE_SYSTEMS)
    killed, removed = await own_world.thread(server), await own_world.thread(server)
    for thread in (killed, removed):
        await thread.play(effect("before"))
    docker("kill", own_world.container(killed))
    docker("rm", "--force", own_world.container(removed))
    server.kill()
    await server.start()
    await _until_nothing_is_left(machine)
    for thread in (killed, removed):
        await thread.play(run("cat effects.log"))
        assert "before" in str((await _last_result(thread))["result"])
        await _delete(thread)
    await _until_nothing_is_left(machine)


async def test_threads_that_are_deleted_at_once_under_their_commands_leave_nothing(own_world: World):
    own_world.sandbox, machine = "docker", Machine(own_world.folder, _UIDS)
    server = await own_world.server(**_OWN_FILE_SYSTEMS)
    threads = [await own_world.thread(server) for _ in range(10)]
    marker = long_sleep()
    await asyncio.gather(*(_start(thread, f"setsid {marker} & {marker}") for thread in threads))

    async def all_run() -> bool:
        return len({_uid_of(pid) for pid in processes_with(marker.replace(" ", "\0"))} & {*_UIDS}) == len(threads)

    await eventually(all_run, seconds=60, what="all commands run")
    statuses = await asyncio.gather(*(_delete(thread) for thread in threads))
    assert statuses == [204] * len(threads)
    assert list(removed_threads_left(own_world.folder, [thread.id for thread in threads])) == []
    await _until_nothing_is_left(machine)


async def test_servers_that_race_for_a_new_thread_s_sandbox_make_one(world: World):
    servers = await world.servers(2)
    threads = [await world.thread(servers[0]) for _ in range(3)]
    for thread in threads:
        wrote = await asyncio.gather(
            *(_write(thread, number, servers[number % 2]) for number in range(8)), thread.play(effect("raced"))
        )
        assert wrote[:-1] == [201] * 8
        assert len(docker("ps", "-aq", "--filter", f"name={thread.id}").split()) == 1
        assert sorted(path.name for path in (world.workspace(thread) / "in").iterdir()) == [
            str(number) for number in range(8)
        ]
        assert world.effects(thread) == ["raced"]
        await check(world, thread)


async def test_a_woken_worker_leaves_its_successor_s_command_alone(world: World):
    frozen = await world.server()
    thread = await world.thread(frozen)
    steps = (effect("first", then="sleep 4321.5"), effect("second", then="sleep 8 && echo whole >> effects.log"))
    sent = await thread.say(script(*steps, then="ok"))
    assert await thread.until_end(sent.run_id) == "interrupted"
    await thread.approve()
    await world.until_effect(thread, "first")
    [_, other] = await world.servers(2)
    frozen.freeze()
    thread.server = other
    result = await thread.until_type("tool_result", seconds=_TAKEN_SECONDS)
    assert result.data["status"] == "outcome_unknown"

    async def asks() -> bool:
        return bool(await thread.pending())

    await eventually(asks, seconds=_TAKEN_SECONDS, what="the second command asks for approval")
    await thread.approve()
    await world.until_effect(thread, "second")
    frozen.thaw()
    await frozen.until_ready()
    assert await thread.settle() == "idle"
    assert (await _last_result(thread))["status"] == "success"
    assert world.effects(thread) == ["first", "second", "whole"]
    await check(world, thread)


async def _until_nothing_is_left(machine: Machine) -> None:
    async def nothing() -> bool:
        return not await asyncio.to_thread(machine.leftovers)

    await eventually(nothing, seconds=60, what="nothing is left on the machine")


async def _start(thread: Thread, command: str) -> None:
    sent = await thread.say(script(run(command)))
    assert await thread.until_end(sent.run_id) == "interrupted"
    await thread.approve()


async def _delete(thread: Thread) -> int:
    async with thread.user.client(thread.server) as client:
        return (await persist(lambda: client.delete(f"/api/sessions/{thread.id}"))).status_code


async def _write(thread: Thread, number: int, server: Server) -> int:
    async with thread.user.client(server) as client:
        path = f"/api/files/{thread.id}/content?path=in/{number}"
        return (await persist(lambda: client.put(path, content=str(number).encode()))).status_code


async def _last_result(thread: Thread) -> dict[str, object]:
    await thread.catch_up()
    return [event.data for event in thread.events if event.type == "tool_result"][-1]


def _uid_of(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1

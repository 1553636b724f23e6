"""What can happen to sandboxes and to those who keep them; each function leaves the installation whole again."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

from tests.faults.leftovers import Machine
from tests.faults.scripts import run, script
from tests.faults.server import Server
from tests.faults.tenant import Tenant
from tests.faults.user import persist
from tests.faults.waiting import eventually
from tests.faults.world import World

from moorage.errors import AppError
from moorage.runtime import open_sandbox_provider


class Engine(Protocol):
    """A container engine that is nobody else's. Both end it and start it again."""

    def restart(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True)
class Scene:
    """What there is to break. `removed` gets the ids of the threads that are deleted."""

    world: World
    machine: Machine
    servers: Sequence[Server]
    worker: Server
    tenants: Sequence[Tenant]
    rng: Random
    broker: Server | None = None
    engine: Engine | None = None
    removed: list[str] = field(default_factory=list[str])

    def any_tenant(self) -> Tenant:
        return self.rng.choice(self.tenants)

    def container(self) -> str | None:
        """One of those that run now."""
        found = sorted(self.machine.containers())
        return self.rng.choice(found) if found else None

    async def pass_time(self, least: float, most: float) -> None:
        """The random moment."""
        await asyncio.sleep(self.rng.uniform(least, most))


_START_SECONDS = 10

type Fault = Callable[[Scene], Awaitable[None]]


async def _kill(scene: Scene, server: Server) -> None:
    server.kill()
    await scene.pass_time(0, 3)
    await server.start()


async def _freeze(scene: Scene, server: Server) -> None:
    """For longer than its lease: another takes its runs over."""
    server.freeze()
    await asyncio.sleep(scene.world.lease_seconds * 2 + scene.rng.uniform(0, 4))
    server.thaw()


async def kill_server(scene: Scene) -> None:
    await _kill(scene, scene.rng.choice(scene.servers))


async def kill_worker(scene: Scene) -> None:
    await _kill(scene, scene.worker)


async def stop_server(scene: Scene) -> None:
    server = scene.rng.choice(scene.servers)
    server.terminate()
    assert await server.until_ended() == 0
    await server.start()


async def kill_everybody(scene: Scene) -> None:
    everybody = [*scene.servers, scene.worker]
    for server in everybody:
        server.kill()
    for server in everybody:
        server.launch()
    for server in everybody:
        await server.until_ready()


async def restart_everybody(scene: Scene) -> None:
    everybody = [*scene.servers, scene.worker]
    for server in everybody:
        server.terminate()
    for server in everybody:
        assert await server.until_ended() == 0
        server.launch()
    for server in everybody:
        await server.until_ready()


async def freeze_server(scene: Scene) -> None:
    await _freeze(scene, scene.rng.choice(scene.servers))


async def freeze_worker(scene: Scene) -> None:
    await _freeze(scene, scene.worker)


async def kill_broker(scene: Scene) -> None:
    assert scene.broker is not None
    await _kill(scene, scene.broker)


async def freeze_broker(scene: Scene) -> None:
    assert scene.broker is not None
    await _freeze(scene, scene.broker)


async def kill_container(scene: Scene) -> None:
    await _to_container(scene, "kill")


async def remove_container(scene: Scene) -> None:
    await _to_container(scene, "rm", "--force")


async def freeze_container(scene: Scene) -> None:
    """Its processes stand still for some seconds."""
    if name := scene.container():
        await _docker("pause", name)
        await scene.pass_time(1, 6)
        await _docker("unpause", name)


async def kill_helper(scene: Scene) -> None:
    _to_helper(scene, signal.SIGKILL)


async def freeze_helper(scene: Scene) -> None:
    """As an agent may do to its own; it stays so."""
    _to_helper(scene, signal.SIGSTOP)


async def freeze_start(scene: Scene) -> None:
    """What the engine is about to start as a helper, which has the agent's uid already: the agent may do so, too."""
    _to_helper(scene, signal.SIGKILL)
    await asyncio.to_thread(_freeze_next_start, scene.machine)


async def unmount_workspace(scene: Scene) -> None:
    """On the machine, while its sandbox may run or pause."""
    mounts = sorted(scene.machine.mounts())
    if mounts:
        place = str(scene.rng.choice(mounts))
        await asyncio.to_thread(subprocess.run, ["umount", "--lazy", place], check=False, capture_output=True)


async def pause_sandbox(scene: Scene) -> None:
    """By the operator, whatever runs in it."""
    async with open_sandbox_provider(scene.world.settings_of(scene.worker)) as provider:
        running = [info.thread_id for info in await provider.list() if info.running]
        for thread_id in scene.rng.sample(sorted(running), min(2, len(running))):
            with suppress(AppError):
                await provider.pause(thread_id)


async def delete_thread(scene: Scene) -> None:
    """While its command runs."""
    thread = await scene.any_tenant().thread.user.new_thread(scene.rng.choice(scene.servers))
    scene.removed.append(thread.id)
    await thread.say(script(run("echo began > began; sleep 50")), approving=True)

    async def asks_or_ends() -> bool:
        return (await thread.get("/api/sessions/{id}"))["run_status"] != "busy"

    await eventually(asks_or_ends, seconds=60, what="the command asks for approval")
    await thread.approve()
    await scene.pass_time(0, 3)
    async with thread.user.client(thread.server) as client:
        reply = await persist(lambda: client.delete(f"/api/sessions/{thread.id}"))
    assert reply.status_code in (204, 404), f"{reply.status_code} {reply.text}"


async def restart_engine(scene: Scene) -> None:
    assert scene.engine is not None
    await asyncio.to_thread(scene.engine.restart)


async def kill_engine(scene: Scene) -> None:
    assert scene.engine is not None
    await asyncio.to_thread(scene.engine.kill)


def _freeze_next_start(machine: Machine) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        for pid in machine.helpers():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"runc\0init"):
                    os.kill(pid, signal.SIGSTOP)
                    return


def _to_helper(scene: Scene, number: signal.Signals) -> None:
    helpers = scene.machine.helpers()
    if helpers:
        with suppress(ProcessLookupError):
            os.kill(scene.rng.choice(helpers), number)


async def _to_container(scene: Scene, *command: str) -> None:
    if name := scene.container():
        await _docker(*command, name)


async def _docker(*command: str) -> None:
    """It may be gone by now."""
    await asyncio.to_thread(subprocess.run, ["docker", *command], check=False, capture_output=True, timeout=60)


ANYWHERE: Mapping[str, Fault] = {
    "server killed": kill_server,
    "server stopped": stop_server,
    "server frozen": freeze_server,
    "worker killed": kill_worker,
    "worker frozen": freeze_worker,
    "all killed": kill_everybody,
    "helper killed": kill_helper,
    "helper frozen": freeze_helper,
    "workspace unmounted": unmount_workspace,
    "sandbox paused": pause_sandbox,
    "thread deleted": delete_thread,
}
IN_CONTAINERS: Mapping[str, Fault] = {
    "container killed": kill_container,
    "container removed": remove_container,
    "container frozen": freeze_container,
}
WITH_BROKER: Mapping[str, Fault] = {"broker killed": kill_broker, "broker frozen": freeze_broker}
WITH_ENGINE: Mapping[str, Fault] = {"engine restarted": restart_engine}
# Only if asked for: an engine that dies in the middle of a start may itself forget the container that it started.
ON_REQUEST: Mapping[str, Fault] = {"engine killed": kill_engine, "start frozen": freeze_start}


def possible(scene: Scene, *, only: str | None = None) -> dict[str, Fault]:
    """Those that can happen there; or the one of this name."""
    found = dict(ANYWHERE)
    if scene.world.sandbox == "docker":
        found |= IN_CONTAINERS
    if scene.broker is not None:
        found |= WITH_BROKER
    if scene.engine is not None:
        found |= WITH_ENGINE
        found |= {only: ON_REQUEST[only]} if only in ON_REQUEST else {}
    return {only: found[only]} if only else found

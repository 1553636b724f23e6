"""Tenants work while sandboxes, and those who keep them, are broken; then nothing is lost, and nothing is left."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Literal

from tests.faults.checkers import check
from tests.faults.leftovers import Machine, removed_threads_left
from tests.faults.sandbox_faults import Engine, Scene, possible, restart_everybody
from tests.faults.tenant import Tenant, outcomes
from tests.faults.waiting import eventually
from tests.faults.world import World
from tests.uids import own_uids

_USERS = ("alice", "bob")
_UIDS = own_uids(13_000, 14_999)  # processes are found by them
_REST_SECONDS = 180
_NOTHING_LEFT_SECONDS = 120
_IDLE_MINUTES = 0.2
_COMMAND_SECONDS = 15
_QUOTED = 100

type Kind = Literal["docker", "broker", "bubblewrap"]
type Tell = Callable[[str], None]


@dataclass(frozen=True)
class Aftermath:
    """`rested`: seconds from the last fault until all threads rested; `cleared`: from then until nothing was left."""

    faults: Counter[str]
    done: Counter[str]
    commands: Counter[str]
    failures: Counter[str]
    lines: int
    removed: int
    rested: float
    cleared: float

    def __str__(self) -> str:
        return (
            f"{self.faults.total()} faults {dict(self.faults)}; {dict(self.done)}; commands ended "
            f"{dict(self.commands)}, failures told {dict(self.failures)}, "
            f"{self.lines} lines found; {self.removed} threads deleted; all at rest after "
            f"{self.rested:.1f} s, nothing left on the machine {self.cleared:.1f} s later"
        )


@asynccontextmanager
async def open_scene(
    world: World, kind: Kind, rng: Random, *, tenants: int, engine: Engine | None = None
) -> AsyncGenerator[Scene]:
    """Two servers, a worker and a broker if wanted; afterwards they are gone, and whatever a failure left with them."""
    machine = Machine(world.folder, _UIDS)
    world.sandbox = "bubblewrap" if kind == "bubblewrap" else "docker"
    settings = {
        "sandbox_storage": "auto",
        "sandbox_uid_range": f"{_UIDS.start}-{_UIDS[-1]}",
        "sandbox_disk_mb": 64,
        "sandbox_files": 2000,
        "sandbox_shared_disk_mb": 32,
        "sandbox_memory_mb": 256,
        "sandbox_idle_minutes": _IDLE_MINUTES,
        "sandbox_command_seconds": _COMMAND_SECONDS,
        "run_max_attempts": 10,
    }
    try:
        fleet = await world.fleet(servers=2, workers=1, broker=kind == "broker", **settings)
        servers = [server for server in fleet if server.serves]
        users = [await world.user(servers[0], name) for name in _USERS]
        crew = [
            Tenant(await users[number % 2].new_thread(servers[number % 2]), Random(rng.random()))  # noqa: S311
            for number in range(tenants)
        ]
        worker = next(server for server in fleet if server.arguments[0] == "worker")
        broker = next((server for server in fleet if server.arguments[0] == "sandboxd"), None)
        yield Scene(world, machine, servers, worker, crew, rng, broker, engine)
    except BaseException:
        world.dump()
        raise
    finally:
        world.set_right()
        world.reap()
        machine.clear()


async def storm(scene: Scene, *, faults: int, tell: Tell, only: str | None = None, restart: bool = False) -> Aftermath:
    """So many faults at random moments; raises AssertionError for what was lost, doubled or left.

    With `restart` all servers are asked to stop and started again after it, which clears up sooner than their sweeps.
    """
    chosen = possible(scene, only=only)
    names = deal(sorted(chosen), faults, scene.rng)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        work = [group.create_task(tenant.work(over)) for tenant in scene.tenants]
        for number, name in enumerate(names, 1):
            await scene.pass_time(0.3, 3)
            tell(f"fault {number} of {faults}: {name}")
            await chosen[name](scene)
        over.set()
        ended = time.monotonic()
        await asyncio.wait(work)
    rested = time.monotonic()
    tell(f"all at rest after {rested - ended:.1f} s")
    if restart:
        await restart_everybody(scene)
    await _until_nothing_is_left(scene)
    cleared = time.monotonic()
    tell(f"nothing left after {cleared - rested:.1f} s")
    for tenant in scene.tenants:
        await _check(scene, tenant)
    ends = Counter(status for tenant in scene.tenants for status in outcomes(tenant.thread.events).values())
    return Aftermath(
        faults=Counter(names),
        done=sum((tenant.counts for tenant in scene.tenants), Counter[str]()),
        commands=ends,
        failures=_failures(scene),
        lines=sum(tenant.lines for tenant in scene.tenants),
        removed=len(scene.removed),
        rested=rested - ended,
        cleared=cleared - rested,
    )


def deal(names: list[str], count: int, rng: Random) -> list[str]:
    """So many in random order, each as often as the others."""
    dealt: list[str] = []
    while len(dealt) < count:
        dealt += rng.sample(names, len(names))
    return dealt[:count]


async def _until_nothing_is_left(scene: Scene) -> None:
    """Idle sandboxes are stopped, and nobody's are removed, by whoever serves: two minutes must do."""
    left: list[str] = []

    async def nothing() -> bool:
        left[:] = await asyncio.to_thread(scene.machine.leftovers)
        left.extend(removed_threads_left(scene.world.folder, scene.removed))
        return not left

    try:
        await eventually(nothing, seconds=_NOTHING_LEFT_SECONDS, what="nothing is left")
    except AssertionError:
        raise AssertionError("left after two minutes:\n" + "\n".join(left)) from None


def _failures(scene: Scene) -> Counter[str]:
    """What the model was told of commands that did not succeed, without what these had said themselves."""
    results = [event.data for tenant in scene.tenants for event in tenant.thread.events if event.type == "tool_result"]
    return Counter(str(data["result"])[-_QUOTED:].strip() for data in results if data["status"] != "success")


async def _check(scene: Scene, tenant: Tenant) -> None:
    """It can be used, and has all that it ever was told it has."""
    last = await tenant.command(2)
    assert outcomes(tenant.thread.events)[last] == "success", f"{tenant.thread.id} cannot be used"
    await tenant.check()
    await check(scene.world, tenant.thread)

"""One function for each thing that can happen to a running installation; each leaves it whole again."""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.faults.server import Server
from tests.faults.user import Thread
from tests.faults.world import World, docker

_AWAY_SECONDS = 60
_ENGINE = Path(__file__).parents[2] / "scripts" / "docker-engine"


@dataclass(frozen=True)
class Scene:
    """What there is to break."""

    world: World
    servers: Sequence[Server]
    threads: Sequence[Thread]
    rng: Random

    async def pass_time(self, least: float, most: float) -> None:
        """The random moment."""
        await asyncio.sleep(self.rng.uniform(least, most))

    def any_server(self) -> Server:
        return self.rng.choice(self.servers)


type Fault = Callable[[Scene], Awaitable[None]]


async def mixed(scene: Scene, faults: Sequence[Fault]) -> None:
    for fault in faults:
        await scene.pass_time(0.5, 5)
        await fault(scene)


async def kill_one(scene: Scene) -> None:
    server = scene.any_server()
    server.kill()
    await scene.pass_time(0, 3)
    await server.start()


async def kill_all(scene: Scene) -> None:
    for server in scene.servers:
        server.kill()
    for server in scene.servers:
        server.launch()
    for server in scene.servers:
        await server.until_ready()


async def stop_one(scene: Scene) -> None:
    server = scene.any_server()
    server.terminate()
    assert await server.until_ended(seconds=31) == 0
    await server.start()


async def freeze_one(scene: Scene) -> None:
    server = scene.any_server()
    server.freeze()
    await asyncio.sleep(scene.world.lease_seconds * 2 + 10)
    server.thaw()


async def restart_postgres_fast(scene: Scene) -> None:
    await asyncio.to_thread(scene.world.postgres.stop_fast)
    await asyncio.to_thread(scene.world.postgres.start)


async def restart_postgres_immediate(scene: Scene) -> None:
    await asyncio.to_thread(scene.world.postgres.stop_immediate)
    await asyncio.to_thread(scene.world.postgres.start)


async def kill_postgres(scene: Scene) -> None:
    await asyncio.to_thread(scene.world.postgres.kill)
    await asyncio.to_thread(scene.world.postgres.start)


async def postgres_away(scene: Scene) -> None:
    await asyncio.to_thread(scene.world.postgres.stop_fast)
    await _live_without_postgres(scene)
    await asyncio.to_thread(scene.world.postgres.start)


async def freeze_postgres(scene: Scene) -> None:
    scene.world.postgres.freeze()
    await _live_without_postgres(scene)
    scene.world.postgres.thaw()


async def kill_containers(scene: Scene) -> None:
    await _to_containers(scene, "kill")


async def remove_containers(scene: Scene) -> None:
    await _to_containers(scene, "rm", "--force")


async def restart_engine(scene: Scene) -> None:
    await asyncio.to_thread(subprocess.run, [_ENGINE, "stop"], check=True, capture_output=True)
    await scene.pass_time(0, 3)
    await asyncio.to_thread(subprocess.run, [_ENGINE, "start"], check=True, capture_output=True)


async def _live_without_postgres(scene: Scene) -> None:
    await asyncio.sleep(_AWAY_SECONDS)
    for server in scene.servers:
        assert server.alive, f"{server.name} ended"
        assert await server.status_of("/healthz") == 200
        assert await server.status_of("/readyz") == 503


async def _to_containers(scene: Scene, *command: str) -> None:
    """To a third of those that exist."""
    for thread in scene.rng.sample(list(scene.threads), len(scene.threads) // 3):
        name = docker("ps", "-a", "--filter", f"name={thread.id}", "--format", "{{.Names}}").strip()
        if name:
            await asyncio.to_thread(subprocess.run, ["docker", *command, name], check=False, capture_output=True)


FAULTS: Mapping[str, Fault] = {
    "kill-one": kill_one,
    "kill-all": kill_all,
    "stop-one": stop_one,
    "freeze-one": freeze_one,
    "postgres-fast": restart_postgres_fast,
    "postgres-immediate": restart_postgres_immediate,
    "postgres-kill": kill_postgres,
    "postgres-away": postgres_away,
    "postgres-frozen": freeze_postgres,
    "containers-killed": kill_containers,
    "containers-removed": remove_containers,
}
WITH_ENGINE: Mapping[str, Fault] = {"engine": restart_engine}

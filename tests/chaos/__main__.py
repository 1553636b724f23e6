"""`python -m tests.chaos --seed N --minutes M`: random faults against real processes, every thread checked afterwards.

Three storms of kills come first, whatever the time; then rounds of mixed faults until the minutes are over. The same
seed gives the same faults in the same order; the moments depend on the machine. Exit code 0: nothing was lost.

`--sandboxes docker|broker|bubblewrap` breaks sandboxes instead, `--faults` times: containers, helpers, mounts, broker,
servers, workers, and with `--dockerd` an engine of our own. Two minutes later nothing may be left on the machine.
"""

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from random import Random

from tests.chaos.faults import FAULTS, WITH_ENGINE, Scene, mixed
from tests.chaos.sandboxes import break_sandboxes
from tests.faults.storm import kill_again_and_again, rage
from tests.faults.world import World, open_world

_STORMS = 3
_THREADS = 20
_KILLS = 10
_ROUND_THREADS = 10
_UNRULY = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sandbox", choices=["docker", "bubblewrap"], default="docker")
    parser.add_argument("--lease", type=float, default=5, help="seconds; servers in production use 30")
    parser.add_argument("--storms", type=int, default=_STORMS)
    parser.add_argument("--only", help="nothing but this fault, by its name, in the rounds or under the sandboxes")
    parser.add_argument("--sandboxes", choices=["docker", "broker", "bubblewrap"], help="break these, and nothing else")
    parser.add_argument("--faults", type=int, default=50, help="how many, with --sandboxes")
    parser.add_argument(
        "--dockerd",
        action="store_true",
        help="restart the Docker engine, too: with --sandboxes one of its own; else it must be ours alone",
    )
    arguments = parser.parse_args()
    say(f"seed {arguments.seed}: repeat with --seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="moorage-chaos-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        asyncio.run(run(arguments, folder / "world"))
    say("nothing was lost, and nothing was done twice")


async def run(arguments: argparse.Namespace, folder: Path) -> None:
    async with open_world(folder, sandbox=arguments.sandbox, lease_seconds=arguments.lease) as world:
        try:
            if arguments.sandboxes:
                await break_sandboxes(world, arguments, folder.parent, say)
            else:
                await storms(world, arguments)
                await rounds(world, arguments)
        except BaseException:
            say(f"FAILED with seed {arguments.seed}; the servers' logs are in {keep_logs(world, arguments.seed)}")
            raise


async def storms(world: World, arguments: argparse.Namespace) -> None:
    for number in range(arguments.storms):
        rng = Random(arguments.seed + number)  # noqa: S311
        server = await world.server(run_max_attempts=_KILLS)
        threads = [await world.thread(server) for _ in range(_THREADS)]

        async def kills() -> None:
            await kill_again_and_again(server, times=_KILLS, longest_calm=4, rng=rng)  # noqa: B023

        say(f"storm {number + 1}: {_KILLS} kills under {_THREADS} threads")
        say(f"  {await rage(world, threads, kills, rng)}")


async def rounds(world: World, arguments: argparse.Namespace) -> None:
    deadline = time.monotonic() + arguments.minutes * 60
    rng = Random(arguments.seed)  # noqa: S311
    chosen = {**FAULTS, **(WITH_ENGINE if arguments.dockerd else {})}
    if arguments.only:
        chosen = {arguments.only: {**FAULTS, **WITH_ENGINE}[arguments.only]}
    while time.monotonic() < deadline:
        servers = await world.servers(2)
        threads = [await world.thread(servers[number % 2]) for number in range(_ROUND_THREADS)]
        scene = Scene(world, servers, threads, rng)
        names = [rng.choice(list(chosen)) for _ in range(3)]
        say(f"round of {', '.join(names)}")
        disturb = partial(mixed, scene, [chosen[name] for name in names])
        say(f"  {await rage(world, threads, disturb, rng, unruly=rng.random() < _UNRULY)}")
        world.set_right()


def keep_logs(world: World, seed: int) -> Path:
    kept = Path(tempfile.gettempdir()) / f"moorage-chaos-{seed}.log"
    logs = (f"##### {file.name}\n{file.read_text(errors='replace')}\n" for file in sorted(world.folder.glob("*.log")))
    kept.write_text("".join(logs))
    return kept


def say(line: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()

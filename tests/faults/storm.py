"""Many threads talk while a server is killed at random moments; afterwards everything is read back."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from random import Random

from tests.faults.checkers import check
from tests.faults.scripts import Script, effect, list_files, script, words
from tests.faults.server import Server
from tests.faults.user import Thread
from tests.faults.world import LEASE_SECONDS, World

# Lease, the reaper's interval, and 15 seconds.
SETTLED_SECONDS = LEASE_SECONDS + 10 + 15


@dataclass(frozen=True)
class Storm:
    threads: int = 20
    messages: int = 3
    kills: int = 10
    longest_calm: float = 2.5


@dataclass(frozen=True)
class Aftermath:
    """`settled` is the number of seconds from the last restart until all threads rested."""

    acknowledged: int
    ends: Counter[str]
    results: Counter[str]
    settled: float

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} messages acknowledged; runs {dict(self.ends)}; tool results {dict(self.results)}; "
            f"all at rest {self.settled:.1f} s after the last restart"
        )


async def rage(world: World, storm: Storm, rng: Random) -> Aftermath:
    """Raise the storm, and check every thread after it; raises AssertionError."""
    server = await world.server()
    threads = [await world.thread(server) for _ in range(storm.threads)]
    async with asyncio.TaskGroup() as group:
        talks = [group.create_task(_talk(thread, storm.messages, Random(rng.random()))) for thread in threads]  # noqa: S311
        await _kill_again_and_again(server, storm, rng)
        restarted = time.monotonic()
    await asyncio.wait(talks)
    settled = time.monotonic() - restarted
    assert settled < SETTLED_SECONDS + storm.messages * 2, f"it took {settled:.0f} s until all rested"
    for thread in threads:
        await thread.play(list_files(), then="the storm is over")
        await check(world, thread)
    return _aftermath(threads, settled)


async def _kill_again_and_again(server: Server, storm: Storm, rng: Random) -> None:
    for _ in range(storm.kills):
        await asyncio.sleep(rng.uniform(0.1, storm.longest_calm))  # the random moment
        server.kill()
        await server.start()


async def _talk(thread: Thread, messages: int, rng: Random) -> None:
    for _ in range(messages):
        await thread.say(any_script(rng), seconds=120)
        await thread.settle(seconds=180)


def any_script(rng: Random) -> Script:
    def one() -> tuple[str, dict[str, str]]:
        return effect(f"e-{rng.getrandbits(64):x}", then=rng.choice(["true", "sleep 0.3", "sleep 1"]))

    steps = {
        "words": [],
        "list": [list_files()],
        "effect": [one()],
        "effects": [one(), one()],
        "parallel": [[one(), list_files(), one()]],
    }
    return script(*steps[rng.choice(list(steps))], then=words(rng.randint(1, 40)), pause=rng.choice([0, 0.02, 0.05]))


def _aftermath(threads: list[Thread], settled: float) -> Aftermath:
    events = [event for thread in threads for event in thread.events]
    return Aftermath(
        acknowledged=sum(len(thread.sent) for thread in threads),
        ends=Counter(event.data["status"] for event in events if event.type == "run_end"),
        results=Counter(event.data["status"] for event in events if event.type == "tool_result"),
        settled=settled,
    )

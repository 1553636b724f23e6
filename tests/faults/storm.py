"""Many threads talk while something is done to the servers; afterwards everything is read back."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.faults.checkers import check
from tests.faults.scripts import Script, effect, list_files, script, words
from tests.faults.server import Server
from tests.faults.user import Event, Thread, persist
from tests.faults.world import World

_REAPER_SECONDS = 10
_GRACE_SECONDS = 15
_OUTAGE_SECONDS = 240
_QUOTED = 120


@dataclass(frozen=True)
class Aftermath:
    """`settled` is the number of seconds from the end of the disturbance until all threads rested."""

    acknowledged: int
    ends: Counter[str]
    errors: Counter[str]
    results: Counter[str]
    failures: Counter[str]
    settled: float

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} messages acknowledged; runs {dict(self.ends)}, errors {dict(self.errors)}; "
            f"tool results {dict(self.results)}, failures {dict(self.failures)}; "
            f"all at rest after {self.settled:.1f} s"
        )


async def rage(
    world: World,
    threads: Sequence[Thread],
    disturb: Callable[[], Awaitable[None]],
    rng: Random,
    *,
    unruly: bool = False,
) -> Aftermath:
    """Let all threads talk while `disturb` goes on, and check every one of them; raises AssertionError.

    `unruly` users also cancel, reject, and send messages that interrupt or roll back what runs.
    """
    habit = _interfere if unruly else _speak
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        talks = [group.create_task(_talk(thread, over, habit, Random(rng.random()))) for thread in threads]  # noqa: S311
        await disturb()
        over.set()
        ended = time.monotonic()
        await asyncio.wait(talks)
    settled = time.monotonic() - ended
    assert settled < world.lease_seconds + _REAPER_SECONDS + _GRACE_SECONDS, f"at rest only after {settled:.0f} s"
    for thread in threads:
        await thread.play(list_files(), then="the storm is over")
        await check(world, thread)
    aftermath = _aftermath(threads, settled)
    assert set(aftermath.errors) <= {"crashed_repeatedly"}, aftermath
    return aftermath


async def kill_again_and_again(server: Server, *, times: int, longest_calm: float, rng: Random) -> None:
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.1, longest_calm))  # the random moment
        server.kill()
        await server.start()


async def _talk(
    thread: Thread, over: asyncio.Event, habit: Callable[[Thread, Random], Awaitable[None]], rng: Random
) -> None:
    while not over.is_set():
        await habit(thread, rng)
        await thread.settle(seconds=_OUTAGE_SECONDS)


async def _speak(thread: Thread, rng: Random) -> None:
    for _ in range(rng.choice([1, 1, 2])):
        await thread.say(any_script(rng), seconds=_OUTAGE_SECONDS, approving=True)


async def _interfere(thread: Thread, rng: Random) -> None:
    await _speak(thread, rng)
    await asyncio.sleep(rng.uniform(0, 1.5))  # the random moment
    match rng.choice(["wait", "wait", "cancel", "reject", "interrupt", "rollback", "reject_and_continue"]):
        case "wait":
            pass
        case "cancel":
            await persist(thread.cancel)
        case "reject":
            await persist(lambda: thread.post("/api/resume/{id}", action="cancel"))
        case strategy:
            await thread.say(any_script(rng), strategy=strategy, seconds=_OUTAGE_SECONDS, approving=True)


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
        errors=Counter(event.data["code"] for event in events if event.type == "error"),
        results=Counter(event.data["status"] for event in events if event.type == "tool_result"),
        failures=Counter(
            event.data["result"][:_QUOTED] for event in events if event.type == "tool_result" and _failed(event)
        ),
        settled=settled,
    )


def _failed(event: Event) -> bool:
    return event.data["status"] == "error"

"""The short storm; `python -m tests.chaos` has the long ones."""

from random import Random

from tests.faults.storm import kill_again_and_again, rage
from tests.faults.world import World

_SEED = 3
_THREADS = 8
_KILLS = 4


async def test_nothing_is_lost_or_done_twice_while_the_server_is_killed_at_random(world: World):
    world.sandbox = "bubblewrap"
    server = await world.server(run_max_attempts=_KILLS + 1)
    threads = [await world.thread(server) for _ in range(_THREADS)]
    rng = Random(_SEED)  # noqa: S311
    kills = lambda: kill_again_and_again(server, times=_KILLS, longest_calm=2, rng=rng)  # noqa: E731
    aftermath = await rage(world, threads, kills, rng)
    assert set(aftermath.ends) == {"success", "interrupted"}, "with attempts enough, every run gets to its end"

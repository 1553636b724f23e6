"""The short storm; `python -m tests.chaos` has the long ones."""

from random import Random

from tests.faults.storm import Storm, rage
from tests.faults.world import World

_SEED = 3


async def test_nothing_is_lost_or_done_twice_while_the_server_is_killed_at_random(world: World):
    world.sandbox = "bubblewrap"
    await rage(world, Storm(threads=12, messages=2, kills=5), Random(_SEED))  # noqa: S311

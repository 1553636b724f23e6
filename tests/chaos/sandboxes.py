"""The sandbox mode: so many faults of sandboxes and of those who keep them, and what they left behind."""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

from tests.chaos.engine import open_engine
from tests.faults.sandbox_storm import open_scene, storm
from tests.faults.world import World

from moorage.settings import Settings

_TENANTS = 10


async def break_sandboxes(
    world: World, arguments: argparse.Namespace, folder: Path, say: Callable[[str], None]
) -> None:
    with ExitStack() as stack:
        engine = None
        if arguments.dockerd:
            say("starting an engine of our own, and giving it the image")
            image = str(Settings.model_fields["docker_image"].default)
            engine = stack.enter_context(open_engine(folder / "engine", image=image))
        rng = Random(arguments.seed)  # noqa: S311
        async with open_scene(world, arguments.sandboxes, rng, tenants=_TENANTS, engine=engine) as scene:
            say(f"{arguments.faults} faults under {_TENANTS} threads, sandboxes by {arguments.sandboxes}")
            say(f"  {await storm(scene, faults=arguments.faults, tell=say, only=arguments.only)}")

"""Readers that come and go."""

import random

from tests.faults.checkers import check
from tests.faults.scripts import list_files, script, words
from tests.faults.user import Thread
from tests.faults.world import World

_RECONNECTS = 20
_SEED = 11


async def test_twenty_pieces_read_from_two_servers_are_the_whole(world: World):
    servers = await world.servers(2)
    writer = await world.thread(servers[0])
    rng = random.Random(_SEED)  # noqa: S311
    sent = await writer.say(script(list_files(), list_files(), then=words(120), pause=0.02))
    reader = Thread(writer.user, servers[1], writer.id)
    for _ in range(_RECONNECTS):
        reader.server = rng.choice(servers)
        target = reader.seen + rng.randint(1, 3)
        found = await reader.until(lambda event, target=target: event.type == "run_end" or event.id == target)
        if found.type == "run_end":
            break
    assert await reader.until_end(sent.run_id) == "success"
    await writer.catch_up()
    assert reader.events == writer.events
    complete = [event for event in reader.events if event.type == "message_complete"][-1]
    assert complete.data["final_content"] == words(120)
    await check(world, writer)

"""A helper's stream as the engine carries it."""

import asyncio
import socket

from moorage.adapters.docker import open_channel


async def test_closing_waits_for_nothing_that_a_stopped_helper_has_not_taken() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await open_channel(ours)
        sending = asyncio.create_task(channel.send(bytes(4 * 1024 * 1024)))
        await asyncio.sleep(0)

        await channel.close()
        async with asyncio.timeout(30):
            await sending

        assert ours.fileno() == -1

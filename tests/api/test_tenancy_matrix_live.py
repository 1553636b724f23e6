"""Two users follow threads of the same uuid while both of them run: neither hears the other."""

import asyncio

import httpx
import pytest
from tests.api.tenancy.attempts import leaks
from tests.api.tenancy.world import CANARY, SHARED_ID, Json, Tenant, World, run_body, sent

LAST = "the last word of al"
FOLLOWED: dict[str, tuple[str, str, Json | None]] = {
    "events": ("GET", "/api/sessions/al-{}/events", None),
    "runs": ("GET", "/threads/{}/stream", None),
    "v3": ("POST", "/threads/{}/stream/events", {"channels": ["values", "messages", "lifecycle", "tasks", "input"]}),
}


async def ran(one: Tenant, words: str) -> None:
    await sent(one.user.client, "POST", f"/threads/{SHARED_ID}/runs/wait", run_body(words))


async def follow(reply: httpx.Response) -> bytes:
    told = b""
    async with asyncio.timeout(60):
        async for chunk in reply.aiter_bytes():
            told += chunk
            if LAST.encode() in told:
                return told
    return told


@pytest.mark.parametrize("stream", FOLLOWED)
async def test_a_stream_tells_nothing_of_another_users_thread_with_its_uuid(world: World, stream: str) -> None:
    method, path, body = FOLLOWED[stream]
    headers = {"accept": "text/event-stream", "last-event-id": "0"} if stream == "events" else {}
    client = world.al.user.client
    async with client.stream(method, path.format(SHARED_ID), json=body, headers=headers) as reply:
        assert reply.status_code == 200
        heard = asyncio.create_task(follow(reply))
        await asyncio.gather(ran(world.al_ice, f"first {CANARY}"), ran(world.al, "first of al"))
        await ran(world.al_ice, f"second {CANARY}")
        await ran(world.al, LAST)
        told = await heard
    assert LAST.encode() in told
    assert list(leaks(world, told, b"")) == []

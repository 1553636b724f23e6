"""Faults while clients of the LangGraph wire read along: every frame once, and the state that is saved."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from tests.faults.checkers import check_results, checkpoint
from tests.faults.scripts import Script, effect, list_files, script, words
from tests.faults.user import Thread
from tests.faults.waiting import eventually
from tests.faults.world import World

AGENT = "agent"
MODES: Any = ["values", "messages-tuple", "updates", "checkpoints"]
CHANNELS = ["values", "messages", "tools", "lifecycle", "input", "checkpoints", "updates"]
_LEASE_SECONDS = 2


@asynccontextmanager
async def sdk(thread: Thread) -> AsyncGenerator[LangGraphClient]:
    async with thread.user.client(thread.server) as http:
        headers = {"authorization": http.headers["authorization"]}
    async with get_client(url=thread.server.url, api_key=None, headers=headers) as client:
        yield client


def say(message: Script) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": str(message)}]}


def _attempt(frames: list[Any]) -> int:
    """Where the last attempt begins."""
    return max(index for index, frame in enumerate(frames) if frame.event == "metadata")


def spoken(frames: list[Any]) -> str:
    """The text of the last attempt's message chunks."""
    chunks = [frame.data[0] for frame in frames[_attempt(frames) :] if frame.event == "messages"]
    return "".join(chunk["content"] for chunk in chunks if chunk["type"] == "AIMessageChunk")


async def assert_whole(client: LangGraphClient, thread: Thread, run_id: str, read: list[Any]) -> None:
    """What was read is what anybody reads who comes later, each frame once, and leads to what is saved."""
    again = client.runs.join_stream(thread.id, run_id, stream_mode=MODES, last_event_id="-")
    assert [(part.id, part.event, part.data) async for part in again] == [(p.id, p.event, p.data) for p in read]
    places = [tuple(map(int, part.id.split("-"))) for part in read]
    assert places == sorted(set(places))
    state = await client.threads.get_state(thread.id)
    assert [part.data for part in read if part.event == "values"][-1] == state["values"]
    assert read[-1].event == "end"


async def test_a_stream_whose_server_died_goes_on_where_it_was(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    message = script(list_files(), then=words(40), pause=0.05)
    read: list[Any] = []
    run: dict[str, str] = {}
    restarting: asyncio.Task[None] | None = None
    async with asyncio.timeout(60), sdk(thread) as client:
        stream = client.runs.stream(
            thread.id, AGENT, input=say(message), stream_mode=MODES, on_run_created=lambda made: run.update(made)
        )
        async for part in stream:
            read.append(part)
            if restarting is None and "10 " in spoken(read):
                server.kill()
                restarting = asyncio.create_task(server.start())
        assert restarting is not None
        await restarting
        await assert_whole(client, thread, run["run_id"], read)
    assert spoken(read) == words(40)
    assert len([part for part in read[_attempt(read) :] if part.event == "messages"]) > 10, "in pieces, too"
    assert [part.data["attempt"] for part in read if part.event == "metadata"] == [1, 2]
    check_results(await checkpoint(world, thread), waiting=set())


async def test_a_stream_of_one_server_shows_the_run_of_another_that_died(world: World):
    front, [worker] = await world.split(workers=1, run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(front)
    message = script(list_files(), then=words(30), hold=True)
    read: list[Any] = []
    run: dict[str, str] = {}
    async with asyncio.timeout(60), sdk(thread) as client:

        async def follow() -> None:
            async for part in client.runs.stream(
                thread.id, AGENT, input=say(message), stream_mode=MODES, on_run_created=lambda made: run.update(made)
            ):
                read.append(part)

        following = asyncio.create_task(follow())
        await world.model.until_asked(message.mark)
        worker.kill()
        worker.launch()
        await world.model.until_asked(message.mark, times=2)
        await world.model.release(message.mark)
        await following
        await assert_whole(client, thread, run["run_id"], read)
    assert spoken(read).endswith(words(30))


async def test_events_of_a_thread_are_each_read_once_over_the_death_of_the_server(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    message = script(list_files(), then=words(40), pause=0.05)
    start = {"id": 1, "method": "run.start", "params": {"assistant_id": AGENT, "input": say(message)}}
    reply = await thread.post("/threads/{id}/commands", **start)
    assert reply.json()["type"] == "success", reply.text
    read: list[dict[str, Any]] = []
    restarting: asyncio.Task[None] | None = None
    async with asyncio.timeout(60):
        async for event in v3_events(thread):
            read.append(event)
            if restarting is None and len(read) == 25:
                server.kill()
                restarting = asyncio.create_task(server.start())
            if ended(event):
                break
        assert restarting is not None
        await restarting
        again = [event async for event in v3_events(thread, until=read[-1]["seq"])]
    seqs = [event["seq"] for event in read]
    assert seqs == sorted(set(seqs))
    without_states = [event for event in read if event["method"] != "values"]  # of those the last is told again
    assert without_states == [event for event in again if event["method"] != "values"]
    states = [event for event in read if event["method"] == "values"]
    assert states[-1] in again
    assert states[-1]["params"]["data"]["messages"][-1]["content"] == words(40)


async def test_an_answer_over_the_wire_survives_and_its_command_has_one_effect(world: World):
    server = await world.server(run_lease_seconds=_LEASE_SECONDS)
    thread = await world.thread(server)
    message = script(list_files(), [effect("left"), effect("right")], then="ok")
    resume = {"decisions": [{"type": "approve"}, {"type": "approve"}]}
    async with asyncio.timeout(60), sdk(thread) as client:
        asked = await client.runs.wait(thread.id, AGENT, input=say(message))
        assert len(asked["__interrupt__"][0]["value"]["action_requests"]) == 2
        run = await client.runs.create(thread.id, AGENT, command={"resume": resume}, stream_mode=MODES)
        server.kill()
        await server.start()
        values = await client.runs.join(thread.id, run["run_id"])
        assert values == (await client.threads.get_state(thread.id))["values"]
    assert sorted(world.effects(thread)) == ["left", "right"]
    check_results(await checkpoint(world, thread), waiting=set())


def ended(event: dict[str, Any]) -> bool:
    told = event["params"]
    return event["method"] == "lifecycle" and not told["namespace"] and told["data"]["event"] in ("completed", "failed")


async def v3_events(thread: Thread, *, until: int | None = None) -> AsyncGenerator[dict[str, Any]]:
    """The thread's events from the first on, coming back with the last seq whenever the server is gone."""
    since = 0
    while until is None or since < until:
        with suppress(httpx.TransportError):
            async with (
                thread.user.client(thread.server) as client,
                client.stream(
                    "POST", f"/threads/{thread.id}/stream/events", json={"channels": CHANNELS, "since": since}
                ) as reply,
            ):
                if reply.status_code != 200:
                    continue
                async for line in reply.aiter_lines():
                    if line.startswith("data: ") and (event := json.loads(line[6:]))["type"] == "event":
                        since = event["seq"]
                        del event["params"]["timestamp"]  # of the commit or of the transaction
                        yield event
                        if until is not None and since >= until:
                            return
        await eventually(thread.server.is_ready, seconds=30, what="the server is back")

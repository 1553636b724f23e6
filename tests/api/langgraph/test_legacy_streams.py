"""Runs as LangGraph's legacy clients read them: streams that can be come back to, joins, and whole threads."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import orjson
import pytest
from tests.api.harness import NewUser, User

from moorage_api.langgraph import sources

RUN = {"name": "execute", "args": {"command": "echo one"}}
LIST = {"name": "ls", "args": {"path": "/"}}
MODES = ["values", "updates", "messages-tuple", "custom"]

type Frame = tuple[str, Any, str | None]


def said(*calls: Any, then: str = "all done", **more: Any) -> dict[str, Any]:
    script = json.dumps({"calls": list(calls), "then": then, **more})
    return {"assistant_id": "agent", "input": {"messages": [{"type": "human", "content": script}]}}


async def new_thread(user: User) -> str:
    reply = await user.client.post("/threads", json={})
    assert reply.status_code == 200, reply.text
    return reply.json()["thread_id"]


async def frames_of(reply: httpx.Response) -> AsyncIterator[Frame]:
    """Frames as they come, lines and all as the official server writes them."""
    rest = b""
    async for part in reply.aiter_raw():
        *blocks, rest = (rest + part).split(b"\r\n\r\n")
        for block in blocks:
            if block == b": heartbeat":
                yield "heartbeat", None, None
                continue
            name, data, *number = block.decode().split("\r\n")
            yield name.removeprefix("event: "), orjson.loads(data[6:]), number[0][4:] if number else None


async def stream(user: User, method: str, path: str, **request: Any) -> list[Frame]:
    async with asyncio.timeout(60), user.client.stream(method, path, **request) as reply:
        assert reply.status_code == 200, await reply.aread()
        return [frame async for frame in frames_of(reply)]


async def run(user: User, thread: str, body: dict[str, Any], *modes: str) -> list[Frame]:
    return await stream(user, "POST", f"/threads/{thread}/runs/stream", json={**body, "stream_mode": modes or MODES})


def run_of(frames: list[Frame]) -> str:
    return frames[0][1]["run_id"]


def only(frames: list[Frame], name: str) -> list[Any]:
    return [data for found, data, _ in frames if found == name]


async def test_a_stream_tells_where_it_can_be_come_back_to(alice: User) -> None:
    thread = await new_thread(alice)
    path = f"/threads/{thread}/runs"
    async with alice.client.stream("POST", f"{path}/stream", json=said()) as reply:
        frames = [frame async for frame in frames_of(reply)]
    place = f"{path}/{run_of(frames)}"
    headers = {name: reply.headers[name] for name in ("location", "content-location", "cache-control")}
    assert headers == {"location": f"{place}/stream", "content-location": place, "cache-control": "no-store"}
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-accel-buffering"] == "no"


async def test_a_run_is_told_in_the_modes_that_were_asked_for(alice: User) -> None:
    frames = await run(alice, await new_thread(alice), said(LIST, then="one two"))
    assert {name for name, _, _ in frames} == {"metadata", "values", "updates", "messages", "end"}
    assert frames[0][0] == "metadata"
    assert frames[-1][0] == "end"
    text = "".join(chunk["content"] for chunk, _ in only(frames, "messages") if chunk["type"] == "AIMessageChunk")
    assert text == only(frames, "values")[-1]["messages"][-1]["content"] == "one two"


async def test_streamed_messages_have_the_ids_that_they_have_in_the_state(alice: User) -> None:
    frames = await run(alice, await new_thread(alice), said(LIST, then="one two"))
    streamed = dict.fromkeys(chunk["id"] for chunk, _ in only(frames, "messages"))
    assert list(streamed) == [message["id"] for message in only(frames, "values")[-1]["messages"][1:]]


async def test_a_client_that_comes_back_gets_exactly_the_rest(alice: User) -> None:
    thread = await new_thread(alice)
    frames = await run(alice, thread, said(LIST, then="one two three"))
    path = f"/threads/{thread}/runs/{run_of(frames)}/stream"
    for place, (_, _, number) in enumerate(frames[:-1]):
        assert await stream(alice, "GET", path, headers={"last-event-id": str(number)}) == frames[place + 1 :]
    assert await stream(alice, "GET", path, headers={"last-event-id": "-"}) == frames


async def test_two_gated_calls_are_one_interrupt_and_two_decisions(alice: User) -> None:
    thread = await new_thread(alice)
    frames = await run(alice, thread, said([RUN, RUN], then="both"))
    (batch,) = only(frames, "values")[-1]["__interrupt__"]
    assert [each["name"] for each in batch["value"]["action_requests"]] == ["execute", "execute"]
    assert only(frames, "updates")[-1] == {"__interrupt__": [batch]}
    decisions = {"decisions": [{"type": "approve"}, {"type": "reject", "message": "no"}]}
    frames = await run(alice, thread, {"assistant_id": "agent", "input": {}, "command": {"resume": decisions}})
    results = [m for m in only(frames, "values")[-1]["messages"] if m["type"] == "tool"]
    assert [message["status"] for message in results] == ["success", "error"]
    assert only(frames, "custom")[0]["delta"] == "one\n"


async def test_a_malformed_answer_changes_nothing(alice: User) -> None:
    thread = await new_thread(alice)
    await run(alice, thread, said([RUN, RUN]))
    body = {"assistant_id": "agent", "command": {"resume": {"decisions": [{"type": "approve"}]}}}
    reply = await alice.client.post(f"/threads/{thread}/runs/wait", json=body)
    assert reply.status_code == 422
    assert "2 decisions expected" in reply.json()["detail"]
    assert (await alice.client.get(f"/threads/{thread}")).json()["status"] == "interrupted"


async def test_who_waits_gets_the_values_and_what_is_asked(alice: User) -> None:
    thread = await new_thread(alice)
    reply = await alice.client.post(f"/threads/{thread}/runs/wait", json=said(RUN))
    assert (reply.status_code, reply.headers["content-type"]) == (200, "application/json")
    assert [message["type"] for message in reply.json()["messages"]] == ["human", "ai"]
    (batch,) = reply.json()["__interrupt__"]
    assert batch["value"]["action_requests"][0]["name"] == "execute"


async def test_a_run_is_joined_after_its_end(alice: User) -> None:
    thread = await new_thread(alice)
    frames = await run(alice, thread, said(then="first"))
    await run(alice, thread, said(then="second"))
    reply = await alice.client.get(f"/threads/{thread}/runs/{run_of(frames)}/join")
    assert reply.json() == only(frames, "values")[-1]
    assert reply.headers["location"].endswith(f"/runs/{run_of(frames)}/join")


async def test_a_run_of_the_core_api_is_shown_too(alice: User) -> None:
    thread = await new_thread(alice)
    full = thread if thread.startswith("alice-") else f"alice-{thread}"
    await alice.play(full, ("ls", {"path": "/"}), then="looked")
    (found,) = (await alice.client.get(f"/threads/{thread}/runs")).json()
    path = f"/threads/{thread}/runs/{found['run_id']}/stream"
    frames = await stream(alice, "GET", path, params={"stream_mode": MODES})
    assert [list(update) for update in only(frames, "updates")] == [["model"], ["tools"], ["model"]]
    assert only(frames, "values")[-1]["messages"][-1]["content"] == "looked"


async def test_a_threads_stream_tells_of_its_runs_one_after_the_other(new_user: NewUser) -> None:
    bob = await new_user("bob")
    thread = await new_thread(bob)
    first = await run(bob, thread, said(then="first"), "values")
    found: list[Frame] = []
    async with (
        asyncio.timeout(60),
        bob.client.stream("GET", f"/threads/{thread}/stream", headers={"last-event-id": "-"}) as reply,
        aclosing(frames_of(reply)) as frames,
    ):
        second = asyncio.create_task(run(bob, thread, said(then="second"), "values"))
        async for frame in frames:
            found.append(frame)
            if sum("status" in data for data in only(found, "metadata")) == 2:
                break
    runs = [run_of(first), run_of(await second)]
    assert [data["run_id"] for data in only(found, "metadata") if "attempt" in data] == runs
    assert [data for data in only(found, "values") if data["messages"][-1]["content"] == "first"]
    assert "end" not in [name for name, _, _ in found]


async def test_a_client_that_goes_away_stops_its_run_when_it_asked_for_that(alice: User) -> None:
    thread = await new_thread(alice)
    body = {**said(then="word " * 200, pause=0.1), "stream_mode": "messages-tuple", "on_disconnect": "cancel"}
    async with alice.client.stream("POST", f"/threads/{thread}/runs/stream", json=body) as reply:
        async for name, _, _ in frames_of(reply):
            if name == "messages":
                break
    (found,) = (await alice.client.get(f"/threads/{thread}/runs")).json()
    await alice.client.get(f"/threads/{thread}/runs/{found['run_id']}/join")
    assert (await alice.client.get(f"/threads/{thread}/runs/{found['run_id']}")).json()["status"] == "interrupted"


async def test_a_quiet_stream_has_heartbeats(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "HEARTBEAT_SECONDS", 0.05)
    frames = await run(alice, await new_thread(alice), said(then="one two", pause=0.5))
    assert "heartbeat" in [name for name, _, _ in frames]


@pytest.mark.parametrize("number", ["bogus", "1-2-3", str(uuid.UUID(int=0))])
async def test_an_id_that_is_none_is_refused(alice: User, number: str) -> None:
    thread = await new_thread(alice)
    frames = await run(alice, thread, said())
    path = f"/threads/{thread}/runs/{run_of(frames)}/stream"
    assert (await alice.client.get(path, headers={"last-event-id": number})).status_code == 422

"""The v3 protocol over HTTP and WebSocket: commands, a thread's stream, and what it tells those who come late."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest
from tests.api.harness import NewUser, Server, User
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from moorage_api.langgraph.v3_frames import CHANNELS

ALL = list(CHANNELS)
ECHO = {"name": "execute", "args": {"command": "echo hi"}}
WRITE = {"name": "write_file", "args": {"file_path": "/workspace/a.txt", "content": "a"}}
LIST = {"name": "ls", "args": {"path": "/workspace"}}

type Frame = dict[str, Any]
type Until = Callable[[Frame], bool]


def new_id() -> str:
    return str(uuid.uuid4())


def said(*calls: Any, then: str = "done", pause: float = 0) -> dict[str, Any]:
    script = {"calls": list(calls), "then": then, "pause": pause}
    return {"messages": [{"type": "human", "content": orjson.dumps(script).decode()}]}


async def command(user: User, thread_id: str, method: str, **params: Any) -> dict[str, Any]:
    body = {"id": 1, "method": method, "params": params}
    reply = await user.client.post(f"/threads/{thread_id}/commands", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def start(user: User, thread_id: str, *calls: Any, **more: Any) -> dict[str, Any]:
    answer = await command(user, thread_id, "run.start", assistant_id="agent", input=said(*calls), **more)
    assert answer["type"] == "success", answer
    return answer


@asynccontextmanager
async def opened(user: User, thread_id: str, **body: Any) -> AsyncGenerator[httpx.Response]:
    headers = body.pop("headers", {})
    path, wanted = f"/threads/{thread_id}/stream/events", {"channels": ALL, **body}
    async with asyncio.timeout(30), user.client.stream("POST", path, json=wanted, headers=headers) as reply:
        assert reply.status_code == 200, await reply.aread()
        yield reply


async def frames_of(reply: httpx.Response) -> AsyncGenerator[Frame]:
    async for line in reply.aiter_lines():
        if line.startswith("data: "):
            yield orjson.loads(line.removeprefix("data: "))


async def follow(user: User, thread_id: str, until: Until, **body: Any) -> list[Frame]:
    """The frames up to the first that `until` is true of."""
    found: list[Frame] = []
    async with opened(user, thread_id, **body) as reply:
        async for frame in frames_of(reply):
            found.append(frame)
            if until(frame):
                return found
    raise AssertionError("the stream ended")


def phase(name: str) -> Until:
    """Whether a frame tells that the run as a whole is there."""

    def is_phase(frame: Frame) -> bool:
        place, data = frame["params"]["namespace"], frame["params"]["data"]
        return frame["method"] == "lifecycle" and not place and data["event"] == name

    return is_phase


done, paused = phase("completed"), phase("interrupted")


def of(frames: list[Frame], method: str) -> list[Any]:
    return [frame["params"]["data"] for frame in frames if frame["method"] == method]


def ids_but_states(frames: list[Frame]) -> list[str]:
    """The frames' ids, without states: of a run's states who comes later is told the last."""
    return [frame["event_id"] for frame in frames if frame["method"] != "values"]


def questions(frames: list[Frame]) -> dict[str, str]:
    """What is asked: the tools by their interrupts' ids."""
    return {item["interrupt_id"]: item["payload"]["name"] for item in of(frames, "input.requested")}


async def asked(user: User, thread_id: str, *calls: Any) -> list[str]:
    """Have these calls made, and answer the ids of those that wait."""
    await start(user, thread_id, *calls)
    return list(questions(await follow(user, thread_id, paused)))


# Streams --------------------------------------------------------------------------------------------------------------


async def test_a_run_makes_its_thread_and_tells_all_of_itself(alice: User) -> None:
    thread_id = new_id()
    answer = await start(alice, thread_id, LIST)
    frames = await follow(alice, thread_id, done)
    assert set(ALL) - {"input", "custom"} <= {frame["method"] for frame in frames}
    assert frames[0]["event_id"].startswith(f"synth:{answer['result']['run_id']}:")
    assert frames[0]["seq"] > answer["meta"]["applied_through_seq"]
    assert [message["type"] for message in of(frames, "values")[-1]["messages"]] == ["human", "ai", "tool", "ai"]
    assert (await alice.client.get(f"/threads/{thread_id}")).json()["thread_id"] == thread_id


async def test_the_bytes_are_those_that_clients_parse(alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id)
    async with opened(alice, thread_id, channels=["lifecycle", "messages"]) as reply:
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-store"
        text, frames = b"", list[bytes]()
        async for chunk in reply.aiter_raw():
            text += chunk
            frames = [part for part in text.split(b"\r\n\r\n")[:-1] if not part.startswith(b":")]  # heartbeats
            if frames:
                break
    event, data, number = frames[0].split(b"\r\n")
    frame = orjson.loads(data.removeprefix(b"data: "))
    assert (event, number) == (b"event: lifecycle", b"id: %d" % frame["seq"])


async def test_who_comes_back_gets_the_exact_rest(alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id, LIST)
    live = await follow(alice, thread_id, done)
    for place in range(0, len(live) - 1, 5):
        since = live[place]["seq"]
        for how in ({"since": since}, {"headers": {"Last-Event-ID": str(since)}}):
            rest = await follow(alice, thread_id, done, **how)
            missed = [frame for frame in live if frame["seq"] > since]
            assert ids_but_states(rest) == ids_but_states(missed)
            assert of(rest, "values")[-1:] == of(missed, "values")[-1:]


async def test_history_has_the_last_state_of_each_run(alice: User) -> None:
    thread_id = new_id()
    for _ in range(2):
        await start(alice, thread_id, LIST)
        await follow(alice, thread_id, done)
    await start(alice, thread_id)
    ends = 0

    def third(frame: Frame) -> bool:
        nonlocal ends
        ends += done(frame)
        return ends == 3

    await follow(alice, thread_id, third)
    ends = 0
    history = await follow(alice, thread_id, third)
    assert [len(values["messages"]) for values in of(history, "values")] == [4, 8, 10]
    seqs = [frame["seq"] for frame in history]
    assert seqs == sorted(set(seqs))


async def test_a_thread_that_is_not_there_yet_is_waited_for(alice: User) -> None:
    thread_id = new_id()
    async with opened(alice, thread_id) as reply, asyncio.TaskGroup() as group:
        first = group.create_task(anext(frames_of(reply)))
        await start(alice, thread_id)
        assert phase("running")(await first)


async def test_a_stream_says_that_it_lives(alice: User) -> None:
    async with opened(alice, new_id()) as reply:
        async for line in reply.aiter_lines():
            assert line == ": heartbeat"
            return


async def test_only_what_was_asked_for_is_told(alice: User) -> None:
    thread_id = new_id()
    task = {"name": "task", "args": {"subagent_type": "general-purpose", "description": "look"}}
    await start(alice, thread_id, task)
    everything = await follow(alice, thread_id, done)
    root = await follow(alice, thread_id, done, channels=["lifecycle", "messages"], namespaces=[[]], depth=0)
    below = [frame for frame in everything if frame["params"]["namespace"]]
    assert below
    assert {frame["method"] for frame in root} == {"lifecycle", "messages"}
    assert not any(frame["params"]["namespace"] for frame in root)


async def test_runs_of_the_core_api_leave_their_state_too(alice: User) -> None:
    thread_id = await alice.new_session()
    async with opened(alice, thread_id) as reply:
        frames = frames_of(reply)
        await alice.chat(thread_id, "hello")
        found = [await anext(frames)]
        while found[-1]["method"] != "values":
            found.append(await anext(frames))
    assert done(found[-2])
    assert [message["type"] for message in found[-1]["params"]["data"]["messages"]] == ["human", "ai"]


@pytest.mark.parametrize("channels", [[], ["nonsense"], ["values", "custom:"]])
async def test_a_channel_that_there_is_not_is_a_400(alice: User, channels: list[str]) -> None:
    reply = await alice.client.post(f"/threads/{new_id()}/stream/events", json={"channels": channels})
    assert reply.status_code == 400
    assert "channels" in reply.json()["detail"]


async def test_a_thread_of_somebody_else_is_refused(new_user: NewUser) -> None:
    al, al_ice = await new_user("al"), await new_user("al-ice")
    theirs = await al_ice.new_session()
    for path, body in (("commands", {"id": 1, "method": "agent.getTree"}), ("stream/events", {"channels": ["values"]})):
        reply = await al.client.post(f"/threads/{theirs}/{path}", json=body)
        assert reply.status_code == 403
        assert reply.json()["detail"] == f"Access denied to thread {theirs}"


# Approvals ------------------------------------------------------------------------------------------------------------


async def test_each_call_is_asked_for_and_answered_by_itself(alice: User) -> None:
    thread_id = new_id()
    first, second = await asked(alice, thread_id, [ECHO, WRITE])
    await command(alice, thread_id, "input.respond", interrupt_id=first, response={"type": "approve"})
    again = await follow(alice, thread_id, lambda frame: len(of([frame], "input.requested")) > 0, channels=["input"])
    assert questions(again) == {second: "write_file"}
    answers = [{"interrupt_id": second, "namespace": [], "response": {"type": "reject", "message": "no"}}]
    answer = await command(alice, thread_id, "input.respond", responses=answers)
    assert (answer["type"], answer["result"]) == ("success", {})
    values = of(await follow(alice, thread_id, done), "values")[-1]
    tools = {item["name"]: item["content"] for item in values["messages"] if item["type"] == "tool"}
    assert "hi" in tools["execute"]
    assert "not run" in tools["write_file"]


async def test_an_answer_that_fits_nothing_changes_nothing(alice: User) -> None:
    thread_id = new_id()
    [interrupt_id] = await asked(alice, thread_id, ECHO)
    for answer, code in (
        ({"interrupt_id": "0" * 32, "response": {"type": "approve"}}, "no_such_interrupt"),
        ({"interrupt_id": "x", "response": {"type": "approve"}, "strict_resume": True}, "no_such_interrupt"),
        ({"interrupt_id": interrupt_id, "response": {"type": "nonsense"}}, "invalid_argument"),
        ({"interrupt_id": interrupt_id, "response": {"type": "approve"}, "goto": "model"}, "not_supported"),
        ({"response": {"type": "approve"}}, "invalid_argument"),
    ):
        assert (await command(alice, thread_id, "input.respond", **answer))["error"] == code
    taken = [
        await command(alice, thread_id, "input.respond", interrupt_id=interrupt_id, response={"type": "approve"})
        for _ in range(2)
    ]
    assert [answer.get("error") for answer in taken] == [None, "no_such_interrupt"]


async def test_history_asks_for_nothing_that_was_decided(alice: User) -> None:
    thread_id = new_id()
    [interrupt_id] = await asked(alice, thread_id, ECHO)
    await command(alice, thread_id, "input.respond", interrupt_id=interrupt_id, response={"type": "approve"})
    await follow(alice, thread_id, done)
    history = await follow(alice, thread_id, done)
    assert of(history, "input.requested") == []
    assert of(history, "input.answered") == [{"interrupt_ids": [interrupt_id]}]


async def test_a_watcher_is_told_of_what_goes_on_and_not_of_what_went(alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id)
    await follow(alice, thread_id, done)
    [interrupt_id] = await asked(alice, thread_id, ECHO)
    watched = await follow(alice, thread_id, lambda _: True, channels=["lifecycle", "input"])
    assert list(questions(watched)) == [interrupt_id]


async def test_an_input_that_is_no_message_answers_what_waits(alice: User) -> None:
    thread_id = new_id()
    await asked(alice, thread_id, ECHO)
    answer = {"decisions": [{"type": "approve"}]}
    assert (await command(alice, thread_id, "run.start", assistant_id="agent", input=answer))["result"]["run_id"]
    assert "hi" in of(await follow(alice, thread_id, done), "values")[-1]["messages"][2]["content"]


# Commands -------------------------------------------------------------------------------------------------------------


async def test_decisions_that_come_too_late_start_no_run(alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id)
    await follow(alice, thread_id, done)
    late = {"decisions": [{"type": "approve"}]}
    answer = await command(alice, thread_id, "run.start", assistant_id="agent", input=late)
    assert answer["error"] == "no_such_interrupt"


@pytest.mark.parametrize(
    "body", [[], {}, {"method": "run.start"}, {"id": "a", "method": "run.start"}, {"id": 1, "method": 1}]
)
async def test_what_is_no_command_is_a_400(alice: User, body: Any) -> None:
    reply = await alice.client.post(f"/threads/{new_id()}/commands", json=body)
    assert (reply.status_code, reply.json()["error"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("nonsense", {}, "unknown_command"),
        ("state.get", {}, "unknown_command"),
        ("input.inject", {}, "unknown_command"),
        ("subscription.subscribe", {"channels": ["values"]}, "not_supported"),
        ("run.start", {}, "invalid_argument"),
        ("run.start", {"assistant_id": "agent", "nonsense": 1}, "invalid_argument"),
        ("run.start", {"assistant_id": "agent", "input": 1}, "invalid_argument"),
        ("run.start", {"assistant_id": "nobody", "input": {}}, "unknown_error"),
        ("input.respond", {"interrupt_id": "0" * 32, "response": {}}, "no_such_run"),
        ("agent.getTree", {}, "no_such_run"),
    ],
)
async def test_a_command_that_cannot_be_done_says_why(
    alice: User, method: str, params: dict[str, Any], code: str
) -> None:
    answer = await command(alice, new_id(), method, **params)
    assert (answer["type"], answer["id"], answer["error"]) == ("error", 1, code)
    assert answer["message"]


async def test_a_run_that_is_refused_makes_no_thread(alice: User) -> None:
    thread_id = new_id()
    for params in ({"assistant_id": "nobody", "input": {}}, {"assistant_id": "agent", "nonsense": 1}):
        assert (await command(alice, thread_id, "run.start", **params))["type"] == "error"
    assert (await alice.client.get(f"/threads/{thread_id}")).status_code == 404


async def test_a_busy_thread_refuses_a_run_that_would_not_wait(alice: User) -> None:
    thread_id = new_id()
    slow = said(then="one two three four five six seven eight nine ten", pause=0.3)
    await command(alice, thread_id, "run.start", assistant_id="agent", input=slow)
    answer = await command(
        alice, thread_id, "run.start", assistant_id="agent", input=said(), multitaskStrategy="reject"
    )
    assert (answer["error"], answer["reason"]) == ("unknown_error", "thread_busy")
    interrupting = await start(alice, thread_id, multitask_strategy="interrupt")
    last = (await follow(alice, thread_id, done))[-1]
    assert interrupting["result"]["run_id"] in last["event_id"]


async def test_a_run_forks_off_at_a_checkpoint(alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id)
    first = await follow(alice, thread_id, done)
    await start(alice, thread_id, LIST)
    fork = {"configurable": {"checkpoint_id": of(first, "checkpoints")[-1]["id"], "thread_id": thread_id}}
    forked = await start(alice, thread_id, config=fork)
    is_end: Until = lambda frame: done(frame) and forked["result"]["run_id"] in frame["event_id"]  # noqa: E731
    assert len(of(await follow(alice, thread_id, is_end), "values")[-1]["messages"]) == 4


async def test_the_tree_has_the_agent_and_its_sub_agents(alice: User) -> None:
    thread_id = new_id()
    task = {"name": "task", "args": {"subagent_type": "general-purpose", "description": "look"}}
    await start(alice, thread_id, task)
    await follow(alice, thread_id, done)
    tree = (await command(alice, thread_id, "agent.getTree"))["result"]["tree"]
    assert (tree["namespace"], tree["status"]) == ([], "completed")
    assert [child["status"] for child in tree["children"]] == ["completed"]


# WebSocket ------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def socket(server: Server, thread_id: str, query: str = "", **how: Any) -> AsyncGenerator[ClientConnection]:
    url = f"{server.url.replace('http', 'ws', 1)}/threads/{thread_id}/stream/events{query}"
    async with asyncio.timeout(30), connect(url, **how) as found:
        yield found


def headers_of(user: User) -> dict[str, str]:
    return {"authorization": user.client.headers["authorization"]}


async def ask(connection: ClientConnection, number: int, method: str, **params: Any) -> None:
    await connection.send(orjson.dumps({"id": number, "method": method, "params": params}).decode())


async def hear(connection: ClientConnection, until: Until) -> list[Frame]:
    found: list[Frame] = []
    async for text in connection:
        found.append(orjson.loads(text))
        if until(found[-1]):
            return found
    raise AssertionError("closed")


def is_done(frame: Frame) -> bool:
    return frame["type"] == "event" and done(frame)


async def test_everything_goes_over_one_socket(server: Server, alice: User) -> None:
    async with socket(server, new_id(), additional_headers=headers_of(alice)) as connection:
        await ask(connection, 1, "subscription.subscribe", channels=ALL)
        await ask(connection, 2, "run.start", assistant_id="agent", input=said(LIST))
        frames = await hear(connection, is_done)
        assert [frame["id"] for frame in frames if frame["type"] == "success"] == [1, 2]
        events = [frame for frame in frames if frame["type"] == "event"]
        assert [item["tool_name"] for item in of(events, "tools") if item["event"] == "tool-started"] == ["ls"]
        await ask(connection, 3, "subscription.unsubscribe", subscription_id=frames[0]["result"]["subscription_id"])
        await ask(connection, 4, "subscription.unsubscribe", subscription_id="nonsense")
        answers = await hear(connection, lambda frame: frame.get("id") == 4)
        assert [answer.get("error") for answer in answers if "id" in answer] == [None, "no_such_subscription"]


async def test_a_socket_goes_on_where_another_one_stopped(server: Server, alice: User) -> None:
    thread_id = new_id()
    await start(alice, thread_id, LIST)
    frames = await follow(alice, thread_id, done)
    async with socket(server, thread_id, additional_headers=headers_of(alice)) as connection:
        await ask(connection, 1, "subscription.reconnect", channels=ALL, last_event_id=frames[-3]["event_id"])
        rest = await hear(connection, is_done)
    assert rest[0]["result"]["restored"] is True
    assert [frame["event_id"] for frame in rest[1:]] == [frame["event_id"] for frame in frames[-2:]]


async def test_what_is_no_command_is_answered_without_an_id(server: Server, alice: User) -> None:
    async with socket(server, new_id(), additional_headers=headers_of(alice)) as connection:
        for text in ("nonsense", "[]", '{"id": 1}', "[" * 100 + "]" * 100):
            await connection.send(text)
            answer = orjson.loads(await connection.recv())
            assert (answer["type"], answer["error"]) == ("error", "invalid_argument")


async def test_a_frame_of_bytes_is_no_command_and_a_long_one_ends_the_connection(server: Server, alice: User) -> None:
    async with socket(server, new_id(), additional_headers=headers_of(alice)) as connection:
        await connection.send(b"{}")
        assert orjson.loads(await connection.recv())["error"] == "invalid_argument"
        await connection.send("x" * 2 * 1024 * 1024)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1009


async def test_browsers_come_by_subprotocol_or_ticket(server: Server, alice: User) -> None:
    token = headers_of(alice)["authorization"].removeprefix("Bearer ")
    async with socket(server, new_id(), subprotocols=["bearer", token]) as connection:
        assert connection.subprotocol == "bearer"
        await ask(connection, 1, "nonsense")
        assert orjson.loads(await connection.recv())["error"] == "unknown_command"
    ticket = (await alice.client.post("/api/auth/ws-ticket")).json()["ticket"]
    async with socket(server, new_id(), f"?ticket={ticket}") as connection:
        await ask(connection, 1, "nonsense")
        assert orjson.loads(await connection.recv())["error"] == "unknown_command"
    assert await refused(server, f"?ticket={ticket}") == 4401


async def refused(server: Server, query: str = "", *, thread_id: str | None = None, **how: Any) -> int:
    """The code with which a connection is closed, after an error without an id."""
    async with socket(server, thread_id or new_id(), query, **how) as connection:
        answer = orjson.loads(await connection.recv())
        assert (answer["type"], answer["id"]) == ("error", None)
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_who_may_not_is_told_with_the_status_of_http(server: Server, new_user: NewUser) -> None:
    al, al_ice = await new_user("al"), await new_user("al-ice")
    assert await refused(server) == 4401
    assert await refused(server, subprotocols=["bearer", "nonsense"]) == 4401
    assert await refused(server, f"?token={headers_of(al)['authorization']}".replace(" ", "%20")) == 4401
    theirs = await al_ice.new_session()
    assert await refused(server, thread_id=theirs, additional_headers=headers_of(al)) == 4403


async def test_a_page_of_another_origin_gets_no_socket(server: Server, alice: User) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with socket(server, new_id(), origin="https://evil.example", additional_headers=headers_of(alice)):
            pass
    assert refusal.value.response.status_code == 403
    async with socket(server, new_id(), origin=server.url, additional_headers=headers_of(alice)) as connection:
        await ask(connection, 1, "nonsense")
        assert orjson.loads(await connection.recv())["error"] == "unknown_command"


async def test_a_socket_takes_no_commands_of_who_has_logged_out(server: Server, new_user: NewUser) -> None:
    leaver = await new_user("leaver")
    async with socket(server, new_id(), additional_headers=headers_of(leaver)) as connection:
        await ask(connection, 1, "nonsense")
        await connection.recv()
        await leaver.client.post("/api/auth/logout-all")
        await ask(connection, 2, "run.start", assistant_id="agent", input=said())
        assert orjson.loads(await connection.recv())["error"] == "permission_denied"
        with pytest.raises(ConnectionClosed) as closed:
            await connection.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401

"""`client.threads.stream()` of the Python SDK: the third version of the protocol, over SSE and over WebSockets."""

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from tests.clients.conftest import ELSEWHERE, Account
from tests.clients.cutting_proxy import open_cutting_proxy
from tests.clients.script import AGENT, APPROVE, LIST, SLOW, read, say, texts, tool_results, write

ANSWER = "one two three four five"
PER_CALL = "per_call" if ELSEWHERE else AGENT


@pytest.fixture(params=["sse", "websocket"])
def transport(request: pytest.FixtureRequest) -> Any:
    """A WebSocket of this client knows only the headers that are given to the stream itself."""
    return request.param


async def finished(thread: Any) -> Any:
    async with asyncio.timeout(30):
        return await thread.output


async def until_paused(thread: Any) -> list[Any]:
    """Read the states until the agent waits for a human; answers what it asks."""
    async with asyncio.timeout(30):
        async for _ in thread.values:
            pass
    assert thread.interrupted
    return thread.interrupts


async def hear(thread: Any) -> list[tuple[list[str], Any]]:
    """Each message of the root as the words it came in and the whole of it, while the thread runs."""
    listeners: list[asyncio.Task[tuple[list[str], Any]]] = []
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        async for message in thread.messages:
            listeners.append(group.create_task(_hear(message)))
    return [listener.result() for listener in listeners]


async def _hear(message: Any) -> tuple[list[str], Any]:
    return [word async for word in message.text], await message.output


async def until_done(client: LangGraphClient, thread_id: str, assistant: str = AGENT) -> list[Any]:
    """All events of a thread, from the first up to the end of its last run."""
    found: list[Any] = []
    async with asyncio.timeout(30), client.threads.stream(thread_id, assistant_id=assistant) as thread:
        async for event in thread.events:
            found.append(event)
            params = event["params"]
            if event["method"] == "lifecycle" and not params["namespace"] and params["data"]["event"] == "completed":
                return found
    raise AssertionError("the stream ended")


# Runs -----------------------------------------------------------------------------------------------------------------


async def test_a_run_on_a_thread_of_the_clients_own_making(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        started = await thread.run.start(input=say(LIST, then=ANSWER))
        assert started["run_id"]
        values = await finished(thread)
    assert texts(values)[-1] == f"ai: {ANSWER}"
    assert (await client.threads.get(thread.thread_id))["thread_id"] == thread.thread_id
    assert (await client.runs.get(thread.thread_id, started["run_id"]))["status"] == "success"


async def test_values_arrive_state_by_state(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say(LIST, then=ANSWER))
        async with asyncio.timeout(30):
            counts = [len(values.get("messages", [])) async for values in thread.values]
    assert counts == sorted(counts)
    assert counts[-1] == 4


async def test_messages_arrive_word_by_word(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say(then=ANSWER, pause=0.05))
        [(words, output)] = await hear(thread)
    assert "".join(words) == ANSWER
    assert len(words) > 1
    assert [(block["type"], block["text"]) for block in output.content_blocks] == [("text", ANSWER)]


async def test_the_calls_that_a_message_makes_are_whole_in_the_end(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        await thread.run.start(input=say(LIST, then=ANSWER))
        [(_, calling), _] = await hear(thread)
    assert [(call["name"], call["args"]) for call in calling.tool_calls] == [LIST]


async def test_tools_tell_their_start_and_their_result(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say([LIST, read("missing.txt")], then=ANSWER))
        calls: list[Any] = []
        async with asyncio.timeout(30):
            async for call in thread.tool_calls:
                calls.append(call)
    assert sorted((call.name, call.input["path" if call.name == "ls" else "file_path"]) for call in calls) == [
        ("ls", "/workspace"),
        ("read_file", "/workspace/missing.txt"),
    ]
    assert all([await call.output for call in calls])


async def test_projections_may_be_read_side_by_side(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        await thread.run.start(input=say(LIST, then=ANSWER))
        kinds: list[str] = []
        async with asyncio.timeout(30):
            async for kind, _ in thread.interleave_projections(["values", "messages", "tool_calls"]):
                kinds.append(kind)
    assert set(kinds) == {"values", "messages", "tool_calls"}
    assert kinds.count("tool_calls") == 1


async def test_a_sub_agent_is_found_and_heard(client: LangGraphClient):
    job = say(LIST, then="from below")["messages"][0]["content"]
    task = ("task", {"description": job, "subagent_type": "general-purpose"})
    async with client.threads.stream(assistant_id=AGENT) as thread:
        await thread.run.start(input=say(task, then=ANSWER))
        async with asyncio.timeout(30):
            below = [handle async for handle in thread.subgraphs if handle.graph_name == "tools"]
            messages = [message async for message in below[0].messages]
            tools = [call.name async for call in below[0].tool_calls]
            assert await messages[-1].text == "from below"
    assert tools == ["ls"]


async def test_a_run_that_fails_says_so(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say(LIST), config={"recursion_limit": 1})
        with pytest.raises(RuntimeError, match="Run errored"):
            await finished(thread)


async def test_a_command_that_cannot_be_done_is_an_error_of_the_protocol(client: LangGraphClient):
    async with client.threads.stream(assistant_id="nobody") as thread:
        with pytest.raises(RuntimeError, match="Protocol error"):
            await thread.run.start(input=say())


async def test_a_conversation_goes_on_over_several_runs(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say(then="first"))
        await finished(thread)
    async with client.threads.stream(
        thread.thread_id, assistant_id=AGENT, headers=account.headers, transport=transport
    ) as again:
        assert texts(await finished(again))[-1] == "ai: first"
        run = await again.run.start(input=say(then="second"))
        await client.runs.join(thread.thread_id, run["run_id"])
    state = await client.threads.get_state(thread.thread_id)
    assert [text for text in texts(state["values"]) if text.startswith("ai")] == ["ai: first", "ai: second"]


async def test_a_run_may_begin_at_an_older_checkpoint(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        await thread.run.start(input=say(then="first"))
        await finished(thread)
        older = (await client.threads.get_state(thread.thread_id))["checkpoint"]["checkpoint_id"]
        second = await thread.run.start(input=say(then="second"))
        await client.runs.join(thread.thread_id, second["run_id"])
        fork = await thread.run.start(input=say(then="other"), config={"configurable": {"checkpoint_id": older}})
        values: Any = await client.runs.join(thread.thread_id, fork["run_id"])
    assert [text for text in texts(values) if text.startswith("ai")] == ["ai: first", "ai: other"]


async def test_the_graph_is_shown(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        graph = await thread.agent.get_tree()
    assert {"model", "tools"} <= {node["id"] for node in graph["nodes"]}


# Approvals ------------------------------------------------------------------------------------------------------------


async def test_a_gated_call_asks_and_an_answer_goes_on(client: LangGraphClient, account: Account, transport: Any):
    async with client.threads.stream(assistant_id=PER_CALL, headers=account.headers, transport=transport) as thread:
        await thread.run.start(input=say(write(), read(), then="written"))
        asked = await until_paused(thread)
        assert len(asked) == 1
        await thread.run.respond(APPROVE)
        values = await finished(thread)
    assert "from the agent" in tool_results(values)[-1]
    assert texts(values)[-1] == "ai: written"


async def test_a_rejected_call_never_runs(client: LangGraphClient):
    async with client.threads.stream(assistant_id=PER_CALL) as thread:
        await thread.run.start(input=say(write("no.txt"), read("no.txt"), then="so be it"))
        asked = await until_paused(thread)
        await thread.run.respond({"type": "reject", "message": "not now"}, interrupt_id=asked[0]["interrupt_id"])
        values = await finished(thread)
    refused, seen = tool_results(values)
    assert "not now" in refused
    assert "from the agent" not in seen


async def test_each_of_parallel_calls_asks_for_itself(client: LangGraphClient):
    async with client.threads.stream(assistant_id=PER_CALL) as thread:
        await thread.run.start(input=say([write("a.txt"), write("b.txt")], then="written"))
        asked = await until_paused(thread)
        state: Any = await client.threads.get_state(thread.thread_id)
        assert {one["interrupt_id"] for one in asked} == {one["id"] for one in state["interrupts"]}
        assert len({one["interrupt_id"] for one in asked}) == 2


async def test_another_client_finds_what_is_asked_and_answers(
    client: LangGraphClient, account: Account, transport: Any
):
    async with client.threads.stream(assistant_id=PER_CALL) as thread:
        await thread.run.start(input=say(write(), then="written"))
        first = await until_paused(thread)
    async with client.threads.stream(
        thread.thread_id, assistant_id=PER_CALL, headers=account.headers, transport=transport
    ) as again:
        asked = await until_paused(again)
        assert [one["interrupt_id"] for one in asked] == [one["interrupt_id"] for one in first]
        await again.run.respond(APPROVE)
        assert texts(await finished(again))[-1] == "ai: written"


# Streams that break ---------------------------------------------------------------------------------------------------


async def test_a_thread_that_is_not_there_yet_can_be_listened_to(client: LangGraphClient):
    thread_id = str(uuid.uuid4())
    async with client.threads.stream(thread_id, assistant_id=AGENT) as listener:
        stream: Any = listener.events
        first = asyncio.create_task(anext(aiter(stream)))
        async with client.threads.stream(thread_id, assistant_id=AGENT) as thread:
            await thread.run.start(input=say(then=ANSWER))
            async with asyncio.timeout(30):
                assert (await first)["type"] == "event"
            assert texts(await finished(thread))[-1] == f"ai: {ANSWER}"


async def test_events_are_numbered_and_named_once_for_all_readers(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        await thread.run.start(input=say(LIST, then=ANSWER))
        live = {event["event_id"]: event for event in await until_done(client, thread.thread_id)}
    replayed = await until_done(client, thread.thread_id)
    for event in [*live.values(), *replayed]:
        del event["params"]["timestamp"]
    assert [live[event["event_id"]] for event in replayed] == replayed
    for events in (replayed, list(live.values())):
        numbers = [event["seq"] for event in events]
        assert numbers == sorted(set(numbers))


async def test_a_broken_connection_is_mended_without_a_gap_or_a_copy(
    client: LangGraphClient, account: Account, transport: Any
):
    words = [str(number) for number in range(60)]
    async with (
        open_cutting_proxy(account.url) as proxy,
        get_client(url=proxy.url, api_key=None, headers=account.headers) as shaky,
        shaky.threads.stream(assistant_id=AGENT, headers=account.headers, transport=transport) as thread,
    ):
        await thread.run.start(input=say(then=" ".join(words), pause=0.03))
        hearing = asyncio.create_task(hear(thread))
        said = ""
        async with asyncio.timeout(30):
            async for event in thread.subscribe(["messages"]):
                said += event["params"]["data"].get("delta", {}).get("text", "")
                if len(said.split()) >= 10:  # words come together when the server is busy
                    break
        before = proxy.accepted
        proxy.cut()
        [(heard, _)] = await hearing
        assert "".join(heard).split() == words
        assert proxy.accepted > before


async def test_a_legacy_stream_that_broke_goes_on_where_it_was(client: LangGraphClient, account: Account):
    words = [str(number) for number in range(60)]
    thread_id = (await client.threads.create())["thread_id"]
    async with (
        open_cutting_proxy(account.url) as proxy,
        get_client(url=proxy.url, api_key=None, headers=account.headers) as shaky,
        asyncio.timeout(30),
    ):
        heard: list[str] = []
        stream: Any = shaky.runs.stream(
            thread_id,
            AGENT,
            input=say(then=" ".join(words), pause=0.03),
            stream_mode="messages-tuple",
            stream_resumable=True,
        )
        async with aclosing(stream):
            async for part in stream:
                if part.event == "messages":
                    heard.append(part.data[0]["content"])
                    if len(heard) == 10:
                        proxy.cut()
    assert "".join(heard).split() == words


async def test_a_run_goes_on_when_its_client_leaves(client: LangGraphClient):
    async with client.threads.stream(assistant_id=AGENT) as thread:
        run = await thread.run.start(input=SLOW)
        async with asyncio.timeout(30):
            async for _ in thread.messages:
                break
    assert (await client.runs.get(thread.thread_id, run["run_id"]))["status"] == "running"
    await client.runs.cancel(thread.thread_id, run["run_id"], wait=True)
    assert (await client.runs.get(thread.thread_id, run["run_id"]))["status"] == "interrupted"

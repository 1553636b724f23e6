"""`client.runs` of the Python SDK."""

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError, ConflictError, NotFoundError
from tests.clients.script import AGENT, APPROVE, LIST, SLOW, execute, read, resume, say, texts, tool_results, write

ANSWER = "one two three four five"


async def new_thread(client: LangGraphClient) -> str:
    return (await client.threads.create())["thread_id"]


async def parts(stream: Any) -> list[Any]:
    async with asyncio.timeout(60):
        return [part async for part in stream]


async def start_slow(client: LangGraphClient, thread_id: str) -> str:
    """A run that would go on for a minute and has begun to speak."""
    run = await client.runs.create(thread_id, AGENT, input=SLOW, stream_mode="messages-tuple", stream_resumable=True)
    stream: Any = client.runs.join_stream(thread_id, run["run_id"], last_event_id="-")
    async with asyncio.timeout(30), aclosing(stream):
        async for part in stream:
            if part.event == "messages":
                return run["run_id"]
    raise AssertionError("the run ended without a word")


# Streams --------------------------------------------------------------------------------------------------------------

MODES: dict[str, set[str]] = {
    "values": {"values"},
    "updates": {"updates"},
    "messages": {"messages/metadata", "messages/partial", "messages/complete"},
    "messages-tuple": {"messages"},
    "tasks": {"tasks"},
    "checkpoints": {"checkpoints"},
    "debug": {"debug"},
    "events": {"events"},
    "custom": set(),
}


@pytest.mark.parametrize("mode", MODES)
async def test_a_stream_has_the_events_of_its_mode_and_no_others(client: LangGraphClient, mode: Any):
    thread_id = await new_thread(client)
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(LIST, then=ANSWER), stream_mode=mode))
    assert found[0].event == "metadata"
    assert set(found[0].data) >= {"run_id", "attempt"}
    assert {part.event for part in found} - {"metadata", "end"} == MODES[mode]


async def test_values_grow_message_by_message_up_to_the_answer(client: LangGraphClient):
    thread_id = await new_thread(client)
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(LIST, then=ANSWER)))
    states = [part.data["messages"] for part in found if part.event == "values"]
    assert [message["type"] for message in states[-1]] == ["human", "ai", "tool", "ai"]
    assert [len(messages) for messages in states] == [1, 2, 3, 4]
    assert states[-1][-1]["content"] == ANSWER


async def test_several_modes_come_in_one_stream(client: LangGraphClient):
    thread_id = await new_thread(client)
    modes: Any = ["values", "updates", "messages-tuple", "custom"]
    slowly = say(LIST, then=ANSWER, pause=0.05)
    found = await parts(client.runs.stream(thread_id, AGENT, input=slowly, stream_mode=modes))
    assert {"metadata", "values", "updates", "messages"} <= {part.event for part in found}
    chunks = [part.data for part in found if part.event == "messages"]
    said = [chunk["content"] for chunk, about in chunks if about["langgraph_node"] == "model"]
    assert "".join(said) == ANSWER
    assert len([word for word in said if word]) > 1
    assert {chunk["type"] for chunk, _ in chunks} >= {"AIMessageChunk", "tool"}


async def test_messages_of_the_older_mode_are_whole_so_far(client: LangGraphClient):
    thread_id = await new_thread(client)
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(then=ANSWER), stream_mode="messages"))
    partial = [part.data[0]["content"] for part in found if part.event == "messages/partial"]
    assert partial[-1] == ANSWER
    assert all(ANSWER.startswith(text) for text in partial)
    assert partial == sorted(partial, key=len)


async def test_updates_name_the_node_that_made_them(client: LangGraphClient):
    thread_id = await new_thread(client)
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(LIST, then=ANSWER), stream_mode="updates"))
    updates = [part.data for part in found if part.event == "updates"]
    by_node = [(node, update["messages"]) for one in updates for node, update in one.items() if update]
    assert [(node, message["type"]) for node, messages in by_node for message in messages if node != "tools"] == [
        ("model", "ai"),
        ("model", "ai"),
    ]
    assert [messages[0]["type"] for node, messages in by_node if node == "tools"] == ["tool"]


async def test_subgraphs_are_streamed_under_their_namespace(client: LangGraphClient):
    thread_id = await new_thread(client)
    task = (
        "task",
        {"description": say(then="from below")["messages"][0]["content"], "subagent_type": "general-purpose"},
    )
    stream = client.runs.stream(thread_id, AGENT, input=say(task, then=ANSWER), stream_subgraphs=True)
    found = await parts(stream)
    below = [part for part in found if part.event.startswith("values|tools:")]
    assert below
    assert below[-1].data["messages"][-1]["content"] == "from below"
    assert [part for part in found if part.event == "values"][-1].data["messages"][-1]["content"] == ANSWER


async def test_the_second_version_of_streams_reads_the_same_wire(client: LangGraphClient):
    thread_id = await new_thread(client)
    stream = client.runs.stream(thread_id, AGENT, input=say(then=ANSWER), stream_mode=["values"], version="v2")
    found = await parts(stream)
    assert [part["type"] for part in found if part["type"] == "values"]
    assert found[-1]["data"]["messages"][-1]["content"] == ANSWER


async def test_a_stream_tells_its_run_before_its_first_event(client: LangGraphClient):
    thread_id = await new_thread(client)
    created: list[Any] = []
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(), on_run_created=created.append))
    assert created == [{"run_id": found[0].data["run_id"], "thread_id": thread_id}]


async def test_a_run_of_an_unknown_assistant_is_refused(client: LangGraphClient):
    thread_id = await new_thread(client)
    with pytest.raises(APIStatusError) as refused:
        await parts(client.runs.stream(thread_id, "nobody", input=say()))
    assert refused.value.status_code in (404, 422)


async def test_a_run_that_fails_says_why_and_the_next_one_works(client: LangGraphClient):
    thread_id = await new_thread(client)
    limit: Any = {"recursion_limit": 1}
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(LIST), config=limit))
    error = next(part.data for part in found if part.event == "error")
    assert set(error) >= {"error", "message"}
    run = await client.runs.get(thread_id, found[0].data["run_id"])
    assert (run["status"], (await client.threads.get(thread_id))["status"]) == ("error", "error")
    with pytest.raises(Exception, match=error["error"]):
        await client.runs.wait(thread_id, AGENT, input=say(LIST), config=limit)
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(then=ANSWER))
    assert texts(values)[-1] == f"ai: {ANSWER}"


# Wait, create, join ---------------------------------------------------------------------------------------------------


async def test_wait_answers_the_last_values(client: LangGraphClient):
    thread_id = await new_thread(client)
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(LIST, then=ANSWER))
    assert texts(values)[-1] == f"ai: {ANSWER}"
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_a_conversation_goes_on_over_several_runs(client: LangGraphClient):
    thread_id = await new_thread(client)
    await client.runs.wait(thread_id, AGENT, input=say(then="first"))
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(then="second"))
    assert [text for text in texts(values) if text.startswith("ai")] == ["ai: first", "ai: second"]


async def test_a_message_may_be_a_string_or_have_parts_and_keeps_its_id(client: LangGraphClient):
    thread_id = await new_thread(client)
    parted = {
        "type": "human",
        "id": "mine-1",
        "content": [{"type": "text", "text": say(then="read")["messages"][0]["content"]}],
    }
    values: Any = await client.runs.wait(thread_id, AGENT, input={"messages": [parted]})
    assert values["messages"][0]["id"] == "mine-1"
    assert values["messages"][0]["content"] == parted["content"]
    assert values["messages"][-1]["content"] == "read"


async def test_a_background_run_is_joined_listed_and_read(client: LangGraphClient):
    thread_id = await new_thread(client)
    run = await client.runs.create(thread_id, AGENT, input=say(then=ANSWER), metadata={"batch": "7"})
    assert run["thread_id"] == thread_id
    assert run["status"] in ("pending", "running")
    values = await client.runs.join(thread_id, run["run_id"])
    assert texts(values)[-1] == f"ai: {ANSWER}"
    found = await client.runs.get(thread_id, run["run_id"])
    assert (found["status"], found["metadata"]["batch"]) == ("success", "7")
    assert found["multitask_strategy"] == "enqueue"
    assert [one["run_id"] for one in await client.runs.list(thread_id)] == [run["run_id"]]
    assert await client.runs.list(thread_id, status="error") == []
    assert await client.runs.list(thread_id, select=["run_id"]) == [{"run_id": run["run_id"]}]


async def test_runs_are_listed_newest_first_in_pages(client: LangGraphClient):
    thread_id = await new_thread(client)
    ids = [(await client.runs.create(thread_id, AGENT, input=say()))["run_id"] for _ in range(3)]
    await client.runs.join(thread_id, ids[-1])
    assert [one["run_id"] for one in await client.runs.list(thread_id, limit=2)] == [ids[2], ids[1]]
    assert [one["run_id"] for one in await client.runs.list(thread_id, limit=2, offset=2)] == [ids[0]]


async def test_a_run_is_joined_as_a_stream_from_its_start(client: LangGraphClient):
    thread_id = await new_thread(client)
    run = await client.runs.create(
        thread_id, AGENT, input=say(LIST, then=ANSWER), stream_mode=["values"], stream_resumable=True
    )
    stream = client.runs.join_stream(thread_id, run["run_id"], stream_mode="values", last_event_id="-")
    states = [part.data for part in await parts(stream) if part.event == "values"]
    assert [len(state["messages"]) for state in states] == [1, 2, 3, 4]


async def test_a_joined_stream_goes_on_after_the_last_event_seen(client: LangGraphClient):
    thread_id = await new_thread(client)
    whole = await parts(
        client.runs.stream(
            thread_id, AGENT, input=say(LIST, then=ANSWER), stream_mode=["values", "updates"], stream_resumable=True
        )
    )
    run_id = whole[0].data["run_id"]
    middle = whole[len(whole) // 2]
    assert middle.id
    rest = await parts(client.runs.join_stream(thread_id, run_id, last_event_id=middle.id))
    expected = whole[whole.index(middle) + 1 :]
    assert [(part.event, part.data) for part in rest if part.event != "end"] == [
        (part.event, part.data) for part in expected if part.event != "end"
    ]


async def test_a_finished_run_can_be_deleted(client: LangGraphClient):
    thread_id = await new_thread(client)
    run = await client.runs.create(thread_id, AGENT, input=say())
    await client.runs.join(thread_id, run["run_id"])
    assert await client.runs.delete(thread_id, run["run_id"]) is None
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run["run_id"])


async def test_a_run_later_waits_its_seconds(client: LangGraphClient):
    thread_id = await new_thread(client)
    run = await client.runs.create(thread_id, AGENT, input=say(), after_seconds=300)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "pending"
    await client.runs.cancel(thread_id, run["run_id"], wait=True)
    assert (await client.runs.get(thread_id, run["run_id"]))["status"] == "interrupted"


async def test_a_thread_that_is_not_there_is_made_only_when_asked(client: LangGraphClient):
    thread_id = str(uuid.uuid4())
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await client.runs.wait(thread_id, AGENT, input=say())
    await client.runs.wait(thread_id, AGENT, input=say(), if_not_exists="create")
    assert (await client.threads.get(thread_id))["thread_id"] == thread_id


# Stop -----------------------------------------------------------------------------------------------------------------


async def test_a_cancelled_run_is_interrupted_and_its_thread_goes_on(client: LangGraphClient):
    thread_id = await new_thread(client)
    run_id = await start_slow(client, thread_id)
    await client.runs.cancel(thread_id, run_id, wait=True)
    assert (await client.runs.get(thread_id, run_id))["status"] == "interrupted"
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(then=ANSWER))
    assert texts(values)[-1] == f"ai: {ANSWER}"


async def test_many_runs_are_cancelled_at_once(client: LangGraphClient):
    threads = [await new_thread(client) for _ in range(2)]
    runs = [await start_slow(client, thread_id) for thread_id in threads]
    for thread_id, run_id in zip(threads, runs, strict=True):
        await client.runs.cancel_many(thread_id=thread_id, run_ids=[run_id])
    for thread_id, run_id in zip(threads, runs, strict=True):
        await client.runs.join(thread_id, run_id)
        assert (await client.runs.get(thread_id, run_id))["status"] == "interrupted"
    with pytest.raises(NotFoundError):
        await client.runs.cancel_many(thread_id=threads[0], run_ids=[runs[0]])


async def test_a_rolled_back_run_leaves_nothing(client: LangGraphClient):
    thread_id = await new_thread(client)
    await client.runs.wait(thread_id, AGENT, input=say(then="kept"))
    before = (await client.threads.get_state(thread_id))["values"]
    run_id = await start_slow(client, thread_id)
    await client.runs.cancel(thread_id, run_id, action="rollback", wait=True)
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, run_id)
    assert (await client.threads.get_state(thread_id))["values"] == before


async def test_a_run_that_streams_stops_when_its_reader_goes_if_it_was_asked_to(client: LangGraphClient):
    thread_id = await new_thread(client)
    stream: Any = client.runs.stream(thread_id, AGENT, input=SLOW, stream_mode="messages-tuple", on_disconnect="cancel")
    async with aclosing(stream):
        async for part in stream:
            if part.event == "messages":
                break
    run_id = (await client.runs.list(thread_id))[0]["run_id"]
    await client.runs.join(thread_id, run_id)
    assert (await client.runs.get(thread_id, run_id))["status"] == "interrupted"


# A busy thread --------------------------------------------------------------------------------------------------------


async def test_a_busy_thread_refuses_a_run_that_would_not_wait(client: LangGraphClient):
    thread_id = await new_thread(client)
    run_id = await start_slow(client, thread_id)
    with pytest.raises(ConflictError):
        await client.runs.create(thread_id, AGENT, input=say(), multitask_strategy="reject")
    await client.runs.cancel(thread_id, run_id, wait=True)


async def test_runs_on_a_busy_thread_wait_their_turn(client: LangGraphClient):
    thread_id = await new_thread(client)
    first = await client.runs.create(thread_id, AGENT, input=say(then="first " * 10, pause=0.05))
    second = await client.runs.create(thread_id, AGENT, input=say(then="second"))
    assert (await client.runs.get(thread_id, second["run_id"]))["status"] == "pending"
    values: Any = await client.runs.join(thread_id, second["run_id"])
    assert [text for text in texts(values) if text.startswith("ai")] == ["ai: " + "first " * 10, "ai: second"]
    assert (await client.runs.get(thread_id, first["run_id"]))["status"] == "success"


@pytest.mark.parametrize("strategy", ["interrupt", "rollback"])
async def test_a_run_may_take_the_place_of_the_one_before_it(client: LangGraphClient, strategy: Any):
    thread_id = await new_thread(client)
    first = await start_slow(client, thread_id)
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(then="instead"), multitask_strategy=strategy)
    assert texts(values)[-1] == "ai: instead"
    if strategy == "interrupt":
        assert (await client.runs.get(thread_id, first))["status"] == "interrupted"
        return
    assert len([text for text in texts(values) if text.startswith("human")]) == 1
    with pytest.raises(NotFoundError):
        await client.runs.get(thread_id, first)


# Without a thread -----------------------------------------------------------------------------------------------------


async def test_a_run_needs_no_thread(client: LangGraphClient):
    before = await client.threads.count()
    values: Any = await client.runs.wait(None, AGENT, input=say(LIST, then=ANSWER))
    assert texts(values)[-1] == f"ai: {ANSWER}"
    found = await parts(client.runs.stream(None, AGENT, input=say(then=ANSWER)))
    assert found[-1].event in ("values", "end")
    assert [part.data for part in found if part.event == "values"][-1]["messages"][-1]["content"] == ANSWER
    assert await client.threads.count() == before


async def test_a_run_without_a_thread_may_keep_the_thread_it_got(client: LangGraphClient):
    run = await client.runs.create(None, AGENT, input=say(then=ANSWER), on_completion="keep")
    values = await client.runs.join(run["thread_id"], run["run_id"])
    assert texts(values)[-1] == f"ai: {ANSWER}"
    assert (await client.threads.get(run["thread_id"]))["status"] == "idle"


async def test_a_batch_of_runs_starts_at_once(client: LangGraphClient):
    payloads: Any = [{"assistant_id": AGENT, "input": say(then=text), "on_completion": "keep"} for text in ("a", "b")]
    runs = await client.runs.create_batch(payloads)
    values = [await client.runs.join(run["thread_id"], run["run_id"]) for run in runs]
    assert [texts(one)[-1] for one in values] == ["ai: a", "ai: b"]


# Approvals ------------------------------------------------------------------------------------------------------------


async def ask(client: LangGraphClient, *calls: Any, then: str = "done") -> tuple[str, dict[str, Any]]:
    """A thread whose agent waits for a human, and what it asks."""
    thread_id = await new_thread(client)
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(*calls, then=then))
    assert len(values["__interrupt__"]) == 1
    return thread_id, values["__interrupt__"][0]


async def test_a_gated_call_asks_and_an_approval_runs_it(client: LangGraphClient):
    thread_id, asked = await ask(client, write(), read(), then="written")
    assert [one["name"] for one in asked["value"]["action_requests"]] == ["write_file"]
    assert asked["value"]["action_requests"][0]["args"] == write()[1]
    assert asked["value"]["review_configs"] == [
        {"action_name": "write_file", "allowed_decisions": ["approve", "edit", "reject", "respond"]}
    ]
    thread = await client.threads.get(thread_id)
    assert thread["status"] == "interrupted"
    assert [one["id"] for found in thread["interrupts"].values() for one in found] == [asked["id"]]
    values: Any = await client.runs.wait(thread_id, AGENT, command=resume(APPROVE))
    assert "from the agent" in tool_results(values)[-1]
    assert texts(values)[-1] == "ai: written"


async def test_a_stream_shows_what_is_asked_and_the_resumed_stream_goes_on(client: LangGraphClient):
    thread_id = await new_thread(client)
    modes: Any = ["values", "updates"]
    found = await parts(client.runs.stream(thread_id, AGENT, input=say(write(), then="written"), stream_mode=modes))
    assert [part.data for part in found if part.event == "values"][-1]["__interrupt__"]
    assert [part.data for part in found if part.event == "updates" and "__interrupt__" in part.data]
    found = await parts(client.runs.stream(thread_id, AGENT, command=resume(APPROVE), stream_mode=modes))
    states = [part.data for part in found if part.event == "values"]
    assert "__interrupt__" not in states[-1]
    assert texts(states[-1])[-1] == "ai: written"


async def test_an_edited_call_runs_as_edited(client: LangGraphClient):
    thread_id, _ = await ask(client, write(), read(), then="written")
    name, args = write(content="changed\n")
    edit = {"type": "edit", "edited_action": {"name": name, "args": args}}
    values: Any = await client.runs.wait(thread_id, AGENT, command=resume(edit))
    assert "changed" in tool_results(values)[-1]


@pytest.mark.parametrize(
    "decision", [{"type": "reject", "message": "not now"}, {"type": "respond", "message": "not now"}]
)
async def test_a_call_that_was_refused_or_answered_never_runs(client: LangGraphClient, decision: dict[str, Any]):
    thread_id, _ = await ask(client, write(), read(), then="done")
    values: Any = await client.runs.wait(thread_id, AGENT, command=resume(decision))
    first, second = tool_results(values)
    assert "not now" in first
    assert "from the agent" not in second


async def test_parallel_calls_are_asked_in_one_batch_and_answered_by_position(client: LangGraphClient):
    thread_id, asked = await ask(client, [write("a.txt"), write("b.txt")], [read("a.txt"), read("b.txt")])
    assert [one["args"]["file_path"] for one in asked["value"]["action_requests"]] == [
        "/workspace/a.txt",
        "/workspace/b.txt",
    ]
    values: Any = await client.runs.wait(thread_id, AGENT, command=resume(APPROVE, {"type": "reject", "message": "no"}))
    results = tool_results(values)
    assert "from the agent" in results[2]
    assert "from the agent" not in results[3]


async def test_an_answer_may_name_its_interrupt(client: LangGraphClient):
    thread_id, asked = await ask(client, write(), then="written")
    command: Any = {"resume": {asked["id"]: {"decisions": [APPROVE]}}}
    values: Any = await client.runs.wait(thread_id, AGENT, input={}, command=command, strict_resume=True)
    assert texts(values)[-1] == "ai: written"


async def test_what_waits_is_dropped_when_the_client_goes_to_the_end(client: LangGraphClient):
    thread_id, _ = await ask(client, write(), read())
    await client.runs.wait(thread_id, AGENT, input={}, command={"goto": "__end__"})
    state: Any = await client.threads.get_state(thread_id)
    assert (state["next"], state["interrupts"]) == ([], [])
    assert (await client.threads.get(thread_id))["status"] == "idle"
    values: Any = await client.runs.wait(thread_id, AGENT, input=say(read(), then="gone on"))
    assert texts(values)[-1] == "ai: gone on"
    assert "from the agent" not in tool_results(values)[-1]


async def test_a_command_runs_in_the_sandbox_after_approval(client: LangGraphClient):
    thread_id, _ = await ask(client, execute("echo $((6 * 7))"))
    values: Any = await client.runs.wait(thread_id, AGENT, command=resume(APPROVE))
    assert "42" in tool_results(values)[-1]

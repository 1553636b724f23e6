"""`client.threads` of the Python SDK: threads, their state, its history, and the stream of a thread."""

import asyncio
import uuid
from contextlib import aclosing
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import ConflictError, NotFoundError
from tests.clients.script import AGENT, APPROVE, LIST, resume, say, texts, write


async def new_thread(client: LangGraphClient, **metadata: Any) -> str:
    return (await client.threads.create(metadata=metadata))["thread_id"]


async def talk(client: LangGraphClient, thread_id: str, *answers: str) -> None:
    """One run for each answer."""
    for answer in answers:
        await client.runs.wait(thread_id, AGENT, input=say(then=answer))


# Threads --------------------------------------------------------------------------------------------------------------


async def test_a_new_thread_is_idle_and_empty(client: LangGraphClient):
    thread = await client.threads.create(metadata={"topic": "tides"}, graph_id=AGENT)
    assert thread["status"] == "idle"
    assert thread["metadata"] == {"topic": "tides", "graph_id": AGENT}
    assert not thread["values"]
    again = await client.threads.get(thread["thread_id"])
    assert again["created_at"] == thread["created_at"]
    assert not again.get("interrupts")


async def test_a_client_may_name_its_thread_and_say_what_a_second_one_is(client: LangGraphClient):
    thread_id = str(uuid.uuid4())
    first = await client.threads.create(thread_id=thread_id)
    assert first["thread_id"] == thread_id
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=thread_id)
    with pytest.raises(ConflictError):
        await client.threads.create(thread_id=thread_id, if_exists="raise")
    again = await client.threads.create(thread_id=thread_id, if_exists="do_nothing")
    assert (again["thread_id"], again["created_at"]) == (thread_id, first["created_at"])


async def test_metadata_is_merged(client: LangGraphClient):
    thread_id = await new_thread(client, topic="tides", draft=True)
    changed = await client.threads.update(thread_id, metadata={"draft": False})
    assert changed["metadata"] == {"topic": "tides", "draft": False}
    assert await client.threads.update(thread_id, metadata={"stars": 3}, return_minimal=True) is None
    assert (await client.threads.get(thread_id))["metadata"]["stars"] == 3


async def test_a_thread_may_be_given_a_life(client: LangGraphClient):
    thread = await client.threads.create(ttl=60)
    found: Any = await client.threads.get(thread["thread_id"], include=["ttl"])
    assert found["ttl"]["strategy"] == "delete"
    assert found["ttl"]["ttl_minutes"] == 60


async def test_a_deleted_thread_is_gone(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "hello")
    assert await client.threads.delete(thread_id) is None
    with pytest.raises(NotFoundError):
        await client.threads.get(thread_id)
    with pytest.raises(NotFoundError):
        await client.threads.delete(thread_id)


async def test_threads_are_searched_by_metadata_status_and_ids(client: LangGraphClient):
    mark = uuid.uuid4().hex
    ids = [await new_thread(client, mark=mark, number=number) for number in range(3)]
    await client.runs.wait(ids[2], AGENT, input=say(write()))
    every = await client.threads.search(metadata={"mark": mark}, sort_by="created_at", sort_order="asc")
    assert [one["thread_id"] for one in every] == ids
    one = await client.threads.search(metadata={"mark": mark, "number": 1})
    assert [found["thread_id"] for found in one] == [ids[1]]
    waiting = await client.threads.search(metadata={"mark": mark}, status="interrupted")
    assert [found["thread_id"] for found in waiting] == [ids[2]]
    assert waiting[0]["interrupts"]
    both = await client.threads.search(ids=ids[:2])
    assert {found["thread_id"] for found in both} == set(ids[:2])
    assert await client.threads.search(metadata={"mark": "nobody's"}) == []


async def test_the_search_is_paged_and_newest_first(client: LangGraphClient):
    mark = uuid.uuid4().hex
    ids = [await new_thread(client, mark=mark) for _ in range(3)]
    pages = [
        [one["thread_id"] for one in await client.threads.search(metadata={"mark": mark}, limit=2, offset=offset)]
        for offset in (0, 2)
    ]
    assert pages == [[ids[2], ids[1]], [ids[0]]]
    assert await client.threads.count(metadata={"mark": mark}) == 3
    assert await client.threads.count(metadata={"mark": mark}, status="error") == 0


async def test_the_search_answers_only_the_fields_asked_for_and_what_is_extracted(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "hello")
    selected = await client.threads.search(ids=[thread_id], select=["thread_id", "status"])
    assert selected == [{"thread_id": thread_id, "status": "idle"}]
    found: Any = await client.threads.search(ids=[thread_id], extract={"last": "values.messages[-1].content"})
    assert found[0]["extracted"] == {"last": "hello"}


async def test_a_thread_that_ran_says_what_ran_on_it_and_shows_its_values(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "hello")
    thread: Any = await client.threads.get(thread_id)
    assert thread["metadata"]["graph_id"] == AGENT
    assert thread["metadata"]["assistant_id"]
    assert texts(thread["values"])[-1] == "ai: hello"
    found = await client.threads.search(metadata={"assistant_id": thread["metadata"]["assistant_id"]}, ids=[thread_id])
    assert [one["thread_id"] for one in found] == [thread_id]


async def test_a_copy_has_the_state_and_goes_its_own_way(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "shared")
    copy: Any = await client.threads.copy(thread_id)
    assert copy["thread_id"] != thread_id
    await talk(client, copy["thread_id"], "only here")
    assert texts((await client.threads.get_state(copy["thread_id"]))["values"])[-1] == "ai: only here"
    assert texts((await client.threads.get_state(thread_id))["values"])[-1] == "ai: shared"


async def test_threads_are_pruned(client: LangGraphClient):
    ids = [await new_thread(client) for _ in range(2)]
    await talk(client, ids[0], "one", "two")
    assert len(await client.threads.get_history(ids[0], limit=50)) > 4
    assert await client.threads.prune([ids[0]], strategy="keep_latest") == {"pruned_count": 1}
    assert texts((await client.threads.get_state(ids[0]))["values"])[-1] == "ai: two"
    assert len(await client.threads.get_history(ids[0], limit=50)) == 1
    assert await client.threads.prune(ids) == {"pruned_count": 2}
    with pytest.raises(NotFoundError):
        await client.threads.get(ids[1])


# State ----------------------------------------------------------------------------------------------------------------


async def test_the_state_of_a_finished_thread(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "hello")
    state: Any = await client.threads.get_state(thread_id)
    assert [message["type"] for message in state["values"]["messages"]] == ["human", "ai"]
    assert (state["next"], state["tasks"], state["interrupts"]) == ([], [], [])
    assert state["checkpoint"]["thread_id"] == thread_id
    assert state["checkpoint"]["checkpoint_ns"] == ""
    assert state["metadata"]["source"] == "loop"
    assert state["parent_checkpoint"]["checkpoint_id"] != state["checkpoint"]["checkpoint_id"]


async def test_the_state_of_a_thread_that_waits_names_the_task_and_what_it_asks(client: LangGraphClient):
    thread_id = await new_thread(client)
    await client.runs.wait(thread_id, AGENT, input=say(write()))
    state: Any = await client.threads.get_state(thread_id)
    assert len(state["next"]) == 1
    assert [task["name"] for task in state["tasks"]] == state["next"]
    asked = state["tasks"][0]["interrupts"]
    assert asked[0]["value"]["action_requests"][0]["name"] == "write_file"
    assert [one["id"] for one in asked] == [one["id"] for one in state["interrupts"]]


async def test_an_empty_thread_has_an_empty_state(client: LangGraphClient):
    state: Any = await client.threads.get_state(await new_thread(client))
    assert not state["values"]
    assert (state["next"], state["tasks"]) == ([], [])
    with pytest.raises(NotFoundError):
        await client.threads.get_state(str(uuid.uuid4()))


async def test_the_history_is_newest_first_and_each_checkpoint_can_be_read(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "one", "two")
    history: Any = await client.threads.get_history(thread_id, limit=50)
    counts = [len(one["values"].get("messages", [])) for one in history]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], counts[-1]) == (4, 0)
    for older, newer in zip(history[1:], history, strict=False):
        assert newer["parent_checkpoint"]["checkpoint_id"] == older["checkpoint"]["checkpoint_id"]
    middle = history[len(history) // 2]
    by_id: Any = await client.threads.get_state(thread_id, checkpoint_id=middle["checkpoint"]["checkpoint_id"])
    by_name: Any = await client.threads.get_state(thread_id, checkpoint=middle["checkpoint"])
    assert by_id["values"] == by_name["values"] == middle["values"]


async def test_the_history_is_read_in_pages(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "one", "two")
    whole: Any = await client.threads.get_history(thread_id, limit=50)
    first: Any = await client.threads.get_history(thread_id, limit=3)
    rest: Any = await client.threads.get_history(thread_id, limit=50, before=first[-1]["checkpoint"])
    ids = [one["checkpoint"]["checkpoint_id"] for one in [*first, *rest]]
    assert ids == [one["checkpoint"]["checkpoint_id"] for one in whole]
    inputs = await client.threads.get_history(thread_id, limit=50, metadata={"source": "input"})
    assert len(inputs) == 2


async def test_only_the_selected_part_of_the_state_is_sent(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "one")
    select: Any = ["values.messages", "checkpoint"]
    state: Any = await client.threads.get_state(thread_id, select=select)
    assert set(state["values"]) == {"messages"}
    assert state["checkpoint"]["thread_id"] == thread_id
    history: Any = await client.threads.get_history(thread_id, limit=1, select=select)
    assert history[0]["values"] == state["values"]


async def test_a_state_is_updated_by_hand(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "one")
    before: Any = await client.threads.get_state(thread_id)
    said = {"messages": [{"role": "user", "content": "by hand", "id": "hand-1"}]}
    reply: Any = await client.threads.update_state(thread_id, said)
    after: Any = await client.threads.get_state(thread_id)
    assert after["values"]["messages"][-1]["id"] == "hand-1"
    assert after["checkpoint"]["checkpoint_id"] == reply["checkpoint"]["checkpoint_id"]
    assert after["parent_checkpoint"]["checkpoint_id"] == before["checkpoint"]["checkpoint_id"]
    assert after["metadata"]["source"] == "update"
    await client.threads.update_state(thread_id, {"messages": [{"type": "remove", "id": "hand-1", "content": ""}]})
    latest: Any = await client.threads.get_state(thread_id)
    assert latest["values"]["messages"] == before["values"]["messages"]


async def test_a_run_may_begin_at_an_older_checkpoint(client: LangGraphClient):
    thread_id = await new_thread(client)
    await talk(client, thread_id, "one")
    older: Any = await client.threads.get_state(thread_id)
    await talk(client, thread_id, "two")
    values: Any = await client.runs.wait(
        thread_id, AGENT, input=say(then="another two"), checkpoint_id=older["checkpoint"]["checkpoint_id"]
    )
    assert [text for text in texts(values) if text.startswith("ai")] == ["ai: one", "ai: another two"]
    history: Any = await client.threads.get_history(thread_id, limit=50)
    assert [one for one in history if texts({"messages": [], **one["values"]})[-1:] == ["ai: two"]]


# The stream of a thread -----------------------------------------------------------------------------------------------


async def test_a_threads_stream_shows_the_runs_that_come(client: LangGraphClient):
    thread_id = await new_thread(client)
    stream: Any = client.threads.join_stream(thread_id)
    stream = await stream if asyncio.iscoroutine(stream) else stream
    run: asyncio.Task[Any] | None = None
    events: list[str] = []
    async with asyncio.timeout(30), aclosing(stream):
        run = asyncio.create_task(
            client.runs.create(thread_id, AGENT, input=say(LIST), stream_mode=["values"], stream_resumable=True)
        )
        async for part in stream:
            events.append(part.event)
            if part.event == "values" and texts(part.data)[-1] == "ai: done":
                break
    assert "metadata" in events
    await client.runs.join(thread_id, (await run)["run_id"])


async def test_a_threads_stream_replays_what_was(client: LangGraphClient):
    thread_id = await new_thread(client)
    run = await client.runs.create(thread_id, AGENT, input=say(write()), stream_mode=["values"], stream_resumable=True)
    await client.runs.join(thread_id, run["run_id"])
    await client.runs.wait(thread_id, AGENT, command=resume(APPROVE))
    stream: Any = client.threads.join_stream(thread_id, last_event_id="-")
    stream = await stream if asyncio.iscoroutine(stream) else stream
    async with asyncio.timeout(30), aclosing(stream):
        async for part in stream:
            if part.event == "values" and "__interrupt__" in part.data:
                break

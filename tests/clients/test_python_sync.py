"""The Python SDK's client without async: it shares neither its HTTP nor its stream code with the other one."""

import asyncio
import uuid
from typing import Any

import pytest
from langgraph_sdk.client import SyncLangGraphClient
from langgraph_sdk.errors import NotFoundError
from tests.clients.conftest import ELSEWHERE, Account
from tests.clients.script import AGENT, APPROVE, LIST, resume, say, texts, tool_results, write

PER_CALL = "per_call" if ELSEWHERE else AGENT


async def test_runs(sync_client: SyncLangGraphClient):
    def play() -> None:
        runs, threads = sync_client.runs, sync_client.threads
        thread_id = threads.create()["thread_id"]
        found = list(runs.stream(thread_id, AGENT, input=say(LIST, then="streamed"), stream_mode=["values", "updates"]))
        assert {part.event for part in found} >= {"metadata", "values", "updates"}
        assert texts([part.data for part in found if part.event == "values"][-1])[-1] == "ai: streamed"
        run = runs.create(thread_id, AGENT, input=say(then="joined"), stream_mode="values", stream_resumable=True)
        assert texts(runs.join(thread_id, run["run_id"]))[-1] == "ai: joined"
        again = list(runs.join_stream(thread_id, run["run_id"], last_event_id="-"))
        assert texts([part.data for part in again if part.event == "values"][-1])[-1] == "ai: joined"
        assert [one["status"] for one in runs.list(thread_id)] == ["success", "success"]
        runs.delete(thread_id, run["run_id"])
        with pytest.raises(NotFoundError):
            runs.get(thread_id, run["run_id"])

    await asyncio.to_thread(play)


async def test_approvals(sync_client: SyncLangGraphClient):
    def play() -> None:
        thread_id = sync_client.threads.create()["thread_id"]
        asked: Any = sync_client.runs.wait(thread_id, AGENT, input=say(write(), then="written"))
        assert asked["__interrupt__"][0]["value"]["action_requests"][0]["name"] == "write_file"
        values: Any = sync_client.runs.wait(thread_id, AGENT, command=resume(APPROVE))
        assert texts(values)[-1] == "ai: written"

    await asyncio.to_thread(play)


async def test_threads(sync_client: SyncLangGraphClient):
    def play() -> None:
        threads, mark = sync_client.threads, uuid.uuid4().hex
        thread_id = threads.create(metadata={"mark": mark})["thread_id"]
        sync_client.runs.wait(thread_id, AGENT, input=say(then="hello"))
        assert threads.update(thread_id, metadata={"stars": 3})["metadata"]["mark"] == mark
        assert [one["thread_id"] for one in threads.search(metadata={"mark": mark})] == [thread_id]
        assert threads.count(metadata={"mark": mark}) == 1
        state: Any = threads.get_state(thread_id)
        assert texts(state["values"])[-1] == "ai: hello"
        said: Any = {"messages": [{"role": "user", "content": "by hand"}]}
        threads.update_state(thread_id, said)
        latest: Any = threads.get_history(thread_id, limit=2)
        assert len(latest[0]["values"]["messages"]) == len(latest[1]["values"]["messages"]) + 1
        threads.delete(thread_id)
        with pytest.raises(NotFoundError):
            threads.get(thread_id)

    await asyncio.to_thread(play)


async def test_assistants_store_and_crons(sync_client: SyncLangGraphClient):
    def play() -> None:
        made = sync_client.assistants.create(AGENT, name="mine")
        assert sync_client.assistants.get(made["assistant_id"])["name"] == "mine"
        sync_client.assistants.delete(made["assistant_id"])
        shelf = ["clients", uuid.uuid4().hex]
        sync_client.store.put_item(shelf, key="one", value={"n": 1})
        assert sync_client.store.get_item(shelf, key="one")["value"] == {"n": 1}
        cron: Any = sync_client.crons.create(AGENT, schedule="0 3 * * *", input=say())
        assert sync_client.crons.delete(cron["cron_id"]) is None

    await asyncio.to_thread(play)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_streams_of_the_third_version(sync_client: SyncLangGraphClient, account: Account, transport: Any):
    def play() -> None:
        asked: Any = {"assistant_id": PER_CALL, "headers": account.headers, "transport": transport}
        with sync_client.threads.stream(**asked) as thread:
            thread.run.start(input=say(LIST, write(), then="written"))
            assert [call.name for call in thread.tool_calls] == ["ls"]
            assert thread.interrupted
            thread.run.respond(APPROVE)
            values = thread.output
        assert texts(values)[-1] == "ai: written"
        assert len(tool_results(values)) == 2

    await asyncio.wait_for(asyncio.to_thread(play), 60)

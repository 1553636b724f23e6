"""`client.assistants`, `client.store` and `client.crons` of the Python SDK."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import APIStatusError, ConflictError, NotFoundError
from tests.clients.script import AGENT, say, texts

DAILY = "0 3 * * *"


# Assistants -----------------------------------------------------------------------------------------------------------


async def test_each_graph_has_an_assistant_of_the_system(client: LangGraphClient):
    [assistant] = await client.assistants.search(graph_id=AGENT, metadata={"created_by": "system"})
    assert (assistant["graph_id"], assistant["name"]) == (AGENT, AGENT)
    assert await client.assistants.get(assistant["assistant_id"]) == assistant
    assert await client.assistants.get(AGENT) == assistant


async def test_an_assistant_is_made_changed_and_deleted(client: LangGraphClient):
    made = await client.assistants.create(AGENT, name="mine", metadata={"team": "blue"}, description="for tests")
    assert (made["name"], made["version"], made["metadata"]["team"]) == ("mine", 1, "blue")
    changed = await client.assistants.update(made["assistant_id"], name="ours")
    assert (changed["name"], changed["version"]) == ("ours", 2)
    assert await client.assistants.delete(made["assistant_id"]) is None
    with pytest.raises(NotFoundError):
        await client.assistants.get(made["assistant_id"])


async def test_an_assistants_versions_are_kept_and_taken_back(client: LangGraphClient):
    made = await client.assistants.create(AGENT, name="first")
    await client.assistants.update(made["assistant_id"], name="second")
    versions = await client.assistants.get_versions(made["assistant_id"])
    assert [one["version"] for one in versions] == [2, 1]
    back = await client.assistants.set_latest(made["assistant_id"], 1)
    assert back["version"] == 1
    assert (await client.assistants.get(made["assistant_id"]))["name"] == "first"
    await client.assistants.delete(made["assistant_id"])


async def test_an_id_may_be_given_and_taken_once(client: LangGraphClient):
    assistant_id = str(uuid.uuid4())
    await client.assistants.create(AGENT, assistant_id=assistant_id, name="only")
    with pytest.raises(ConflictError):
        await client.assistants.create(AGENT, assistant_id=assistant_id)
    again = await client.assistants.create(AGENT, assistant_id=assistant_id, if_exists="do_nothing", name="other")
    assert again["name"] == "only"
    await client.assistants.delete(assistant_id)


async def test_assistants_are_searched_counted_and_paged(client: LangGraphClient):
    mark = uuid.uuid4().hex
    made = [await client.assistants.create(AGENT, name=f"a{number}", metadata={"mark": mark}) for number in range(3)]
    page = await client.assistants.search(
        metadata={"mark": mark}, limit=2, sort_by="name", sort_order="asc", response_format="object"
    )
    assert [one["name"] for one in page["assistants"]] == ["a0", "a1"]
    assert page["next"] == "2"
    rest = await client.assistants.search(metadata={"mark": mark}, offset=2, sort_by="name", sort_order="asc")
    assert [one["name"] for one in rest] == ["a2"]
    assert await client.assistants.count(metadata={"mark": mark}) == 3
    for one in made:
        await client.assistants.delete(one["assistant_id"])


async def test_an_assistant_tells_its_graph_and_its_schemas(client: LangGraphClient):
    graph = await client.assistants.get_graph(AGENT)
    assert {"model", "tools"} <= {node["id"] for node in graph["nodes"]}
    assert {"source", "target"} <= set(graph["edges"][0])
    schemas: Any = await client.assistants.get_schemas(AGENT)
    assert schemas["graph_id"] == AGENT
    assert "messages" in schemas["input_schema"]["properties"]
    assert isinstance(await client.assistants.get_subgraphs(AGENT), dict)


async def test_a_saved_assistant_runs(client: LangGraphClient):
    made = await client.assistants.create(AGENT, name="mine")
    thread_id = (await client.threads.create())["thread_id"]
    values: Any = await client.runs.wait(thread_id, made["assistant_id"], input=say(then="as saved"))
    assert texts(values)[-1] == "ai: as saved"
    run = (await client.runs.list(thread_id))[0]
    assert run["assistant_id"] == made["assistant_id"]
    await client.assistants.delete(made["assistant_id"])


# Store ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shelf() -> list[str]:
    return ["clients", uuid.uuid4().hex]


async def test_an_item_is_put_read_replaced_and_deleted(client: LangGraphClient, shelf: list[str]):
    await client.store.put_item(shelf, key="one", value={"n": 1})
    first = await client.store.get_item(shelf, key="one")
    assert (first["namespace"], first["key"], first["value"]) == (shelf, "one", {"n": 1})
    await client.store.put_item(shelf, key="one", value={"n": 2})
    second = await client.store.get_item(shelf, key="one")
    assert second["value"] == {"n": 2}
    assert second["updated_at"] > first["updated_at"]
    await client.store.delete_item(shelf, key="one")
    assert await client.store.get_item(shelf, key="one") is None


async def test_items_are_searched_under_a_prefix(client: LangGraphClient, shelf: list[str]):
    for name, kind in (("a", "fish"), ("b", "bird"), ("c", "fish")):
        await client.store.put_item([*shelf, name], key="it", value={"kind": kind})
    every = await client.store.search_items(shelf)
    assert {tuple(item["namespace"]) for item in every["items"]} == {(*shelf, name) for name in "abc"}
    fish = await client.store.search_items(shelf, filter={"kind": "fish"})
    assert {item["namespace"][-1] for item in fish["items"]} == {"a", "c"}
    assert len((await client.store.search_items(shelf, limit=2))["items"]) == 2


async def test_namespaces_are_listed(client: LangGraphClient, shelf: list[str]):
    for name in ("a", "b"):
        await client.store.put_item([*shelf, name, "deep"], key="it", value={})
    found: Any = await client.store.list_namespaces(prefix=shelf, max_depth=3)
    assert sorted(found["namespaces"]) == [[*shelf, "a"], [*shelf, "b"]]
    found = await client.store.list_namespaces(prefix=shelf, suffix=["deep"])
    assert len(found["namespaces"]) == 2


# Crons ----------------------------------------------------------------------------------------------------------------


async def test_a_cron_of_a_thread_is_made_found_changed_and_deleted(client: LangGraphClient):
    thread_id = (await client.threads.create())["thread_id"]
    cron: Any = await client.crons.create_for_thread(
        thread_id, AGENT, schedule=DAILY, input=say(), metadata={"kind": "test"}, timezone="Europe/Berlin"
    )
    assert cron["thread_id"] == thread_id
    assert datetime.fromisoformat(cron["next_run_date"]) > datetime.now(UTC)
    [found] = await client.crons.search(thread_id=thread_id)
    assert (found["cron_id"], found["schedule"], found["metadata"]["kind"]) == (cron["cron_id"], DAILY, "test")
    changed: Any = await client.crons.update(cron["cron_id"], schedule="30 4 * * *", enabled=False)
    assert (changed["schedule"], changed["enabled"]) == ("30 4 * * *", False)
    assert await client.crons.count(thread_id=thread_id) == 1
    assert await client.crons.delete(cron["cron_id"]) is None
    assert await client.crons.search(thread_id=thread_id) == []


async def test_a_cron_needs_no_thread_and_may_end(client: LangGraphClient):
    end = datetime.now(UTC) + timedelta(days=30)
    cron: Any = await client.crons.create(
        AGENT, schedule=DAILY, input=say(), end_time=end, on_run_completed="keep", metadata={"mark": uuid.uuid4().hex}
    )
    assert cron["thread_id"] is None
    assert datetime.fromisoformat(cron["end_time"]) == end
    found = await client.crons.search(metadata={"mark": cron["metadata"]["mark"]})
    assert [one["cron_id"] for one in found] == [cron["cron_id"]]
    await client.crons.delete(cron["cron_id"])


async def test_a_schedule_that_is_none_is_refused(client: LangGraphClient):
    with pytest.raises(APIStatusError) as refused:
        await client.crons.create(AGENT, schedule="now and then", input=say())
    assert refused.value.status_code == 422

"""Crons over HTTP, as the clients of the LangGraph wire call them."""

import asyncio
from typing import Any

import pytest
from tests.api.harness import NewUser, Server, User

from moorage.ids import UserId

SAID = {"messages": [{"role": "user", "content": "good morning"}]}


async def create(user: User, **body: Any) -> dict[str, Any]:
    reply = await user.client.post(
        "/runs/crons", json={"assistant_id": "agent", "schedule": "0 3 * * *", "input": SAID, **body}
    )
    assert reply.status_code == 200, reply.text
    return reply.json()


async def make_due(server: Server, user: User) -> None:
    async with server.runtime.database.tenant_transaction(UserId(user.name)) as connection:
        await connection.execute("UPDATE crons SET next_run_date = date_trunc('minute', now())")
    await server.runtime.crons.fire_due()


async def test_a_cron_is_shown_as_langgraph_shows_it(alice: User) -> None:
    cron = await create(alice, metadata={"m": 1}, timezone="Europe/Berlin", config={"tags": ["t"]})
    assert cron["assistant_id"] != "agent"
    assert (cron["schedule"], cron["timezone"], cron["thread_id"]) == ("0 3 * * *", "Europe/Berlin", None)
    assert (cron["on_run_completed"], cron["enabled"], cron["end_time"]) == ("delete", True, None)
    assert cron["payload"]["input"] == SAID
    assert cron["payload"]["config"] == {"tags": ["t"], "configurable": {"cron_id": cron["cron_id"]}}
    assert cron["metadata"] == {"m": 1}
    assert cron["next_run_date"].endswith(("T01:00:00+00:00", "T02:00:00+00:00"))
    assert (await alice.client.get(f"/runs/crons/{cron['cron_id']}")).json() == cron


async def test_a_cron_changes_and_goes(alice: User) -> None:
    cron = await create(alice, metadata={"m": 1}, end_time="2100-01-01T00:00:00Z")
    body = {"schedule": "0 4 * * *", "enabled": False, "metadata": {"n": 2}, "end_time": None}
    changed = (await alice.client.patch(f"/runs/crons/{cron['cron_id']}", json=body)).json()
    assert (changed["schedule"], changed["enabled"], changed["end_time"]) == ("0 4 * * *", False, None)
    assert changed["metadata"] == {"m": 1, "n": 2}
    assert changed["payload"]["input"] == SAID
    assert (await alice.client.delete(f"/runs/crons/{cron['cron_id']}")).status_code == 204
    for method in ("GET", "PATCH", "DELETE"):
        assert (await alice.client.request(method, f"/runs/crons/{cron['cron_id']}", json={})).status_code == 404


async def test_crons_are_listed_page_by_page(new_user: NewUser) -> None:
    user = await new_user("lister")
    for hour in range(3):
        await create(user, schedule=f"0 {hour} * * *")
    body = {"limit": 2, "select": ["schedule"], "sort_by": "created_at", "sort_order": "asc"}
    reply = await user.client.post("/runs/crons/search", json=body)
    assert reply.json() == [{"schedule": "0 0 * * *"}, {"schedule": "0 1 * * *"}]
    assert (reply.headers["x-pagination-total"], reply.headers["x-pagination-next"]) == ("3", "2")
    reply = await user.client.post("/runs/crons/search", json={"assistant_id": "agent", "offset": 2})
    assert [cron["schedule"] for cron in reply.json()] == ["0 0 * * *"]
    assert "x-pagination-next" not in reply.headers
    assert (await user.client.post("/runs/crons/count", json={})).json() == 3
    assert (await user.client.post("/runs/crons/count", json={"assistant_id": "nope"})).json() == 0


async def test_a_users_crons_are_nobody_elses(new_user: NewUser) -> None:
    al, al_ice = await new_user("al"), await new_user("al-ice")
    cron = await create(al_ice)
    assert (await al.client.post("/runs/crons/search", json={})).json() == []
    assert (await al.client.get(f"/runs/crons/{cron['cron_id']}")).status_code == 404
    thread = await al_ice.new_session()
    body = {"assistant_id": "agent", "schedule": "@daily"}
    assert (await al.client.post(f"/threads/{thread}/runs/crons", json=body)).status_code == 403


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("schedule", {"schedule": "bogus"}),
        ("schedule", {"schedule": "* * * * * *"}),
        ("timezone", {"timezone": "Nowhere"}),
        ("end_time", {"end_time": "2020-01-01T00:00:00Z"}),
        ("end_time", {"end_time": "9999-12-31T23:59:59-12:00"}),
        ("webhook", {"webhook": "/relative"}),
        ("command", {"command": {"resume": True}}),
        ("config", {"config": {"configurable": {"thread_id": "x"}}}),
        ("on_run_completed", {"on_run_completed": "explode"}),
    ],
)
async def test_what_cannot_be_honoured_is_422_and_names_the_field(alice: User, field: str, body: Any) -> None:
    reply = await alice.client.post("/runs/crons", json={"assistant_id": "agent", "schedule": "@daily", **body})
    assert reply.status_code == 422
    assert field in reply.json()["errors"][0]["loc"]


async def test_an_assistant_that_is_not_there_is_404(alice: User) -> None:
    reply = await alice.client.post("/runs/crons", json={"assistant_id": "nope", "schedule": "@daily"})
    assert reply.status_code == 404


async def test_a_cron_on_a_thread_runs_there_and_the_model_answers(server: Server, new_user: NewUser) -> None:
    user = await new_user("threader")
    thread = await user.new_session()
    body = {"assistant_id": "agent", "schedule": "0 0 29 2 *", "input": SAID}
    cron = (await user.client.post(f"/threads/{thread}/runs/crons", json=body)).json()
    assert (cron["thread_id"], cron["on_run_completed"]) == (thread, None)
    await make_due(server, user)
    cron = (await user.client.get(f"/runs/crons/{cron['cron_id']}")).json()
    values = (await user.client.get(f"/threads/{thread}/runs/{cron['last_run_id']}/join")).json()
    assert [message["type"] for message in values["messages"]] == ["human", "ai"]
    run = (await user.client.get(f"/threads/{thread}/runs/{cron['last_run_id']}")).json()
    assert (run["status"], run["metadata"]["cron_id"]) == ("success", cron["cron_id"])


async def test_a_run_on_a_thread_of_its_own_takes_it_along(server: Server, new_user: NewUser) -> None:
    user = await new_user("stateless")
    await create(user, on_run_completed="keep")
    await make_due(server, user)
    async with asyncio.timeout(30):
        while True:
            found = (await user.client.post("/threads/search", json={"status": "idle"})).json()
            if found:
                break
    assert found[0]["metadata"]["cron_id"]
    assert found[0]["values"]["messages"][0]["content"] == "good morning"

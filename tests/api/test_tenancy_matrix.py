"""No operation shows or changes anything of another user, wherever in the request their ids stand."""

import pytest
from tests.api.harness import Server
from tests.api.tenancy.attempts import Attempt, problems
from tests.api.tenancy.matrix import ENDLESS, MATRIX, attempts
from tests.api.tenancy.world import World
from tests.api.test_routes import operations

from moorage_api.app import create_app


async def test_every_operation_has_a_row_in_the_matrix(server: Server) -> None:
    mounted = {item for item in operations(create_app(server.runtime).routes) if not item.startswith("WS ")}
    assert mounted == set(MATRIX)


@pytest.mark.parametrize("operation", MATRIX)
async def test_what_is_another_users_is_neither_shown_nor_changed(world: World, operation: str) -> None:
    before = await world.snapshot()
    found: list[str] = []
    for attempt in attempts(operation, world):
        found += await problems(world, world.al.user.client, attempt, at_most=0.5 if operation in ENDLESS else 30)
    assert found == []
    assert await world.snapshot() == before


async def test_the_matrix_would_notice(world: World) -> None:
    """What al-ice reads of her own is all that al must never read."""
    client = world.al_ice.user.client
    for path in ("/api/sessions", "/assistants/search", "/runs/crons/search", "/store/items/search", "/threads/search"):
        method = "GET" if path.startswith("/api/") else "POST"
        attempt = Attempt(path, method, path, None if method == "GET" else {}, allowed=frozenset({200}))
        assert any("canary" in problem for problem in await problems(world, client, attempt)), path
    before = await world.snapshot()
    await world.al_ice.user.client.put(
        "/store/items", json={"namespace": ["notes"], "key": "b", "value": {"note": "new"}}
    )
    after = await world.snapshot()
    assert {name for name in after if after[name] != before[name]} == {"store_items"}


async def test_after_all_that_her_files_are_as_they_were(world: World) -> None:
    client, secret = world.al_ice.user.client, world.al_ice.secret
    for base in (f"/api/files/{world.al_ice.thread}", "/api/shared"):
        assert [item["name"] for item in (await client.get(base)).json()["items"]] == [secret]
        assert (await client.get(f"{base}/content", params={"path": secret})).text == secret


async def test_of_an_assistants_id_that_both_made_up_each_has_their_own(world: World) -> None:
    her = world.al_ice.assistant
    body = {"assistant_id": her, "graph_id": "agent", "name": "of al", "if_exists": "do_nothing"}
    before = await world.snapshot()
    client = world.al.user.client
    assert (await client.post("/assistants", json=body)).json()["name"] == "of al"
    assert (await client.get(f"/assistants/{her}")).json()["name"] == "of al"
    assert (await client.delete(f"/assistants/{her}", params={"delete_threads": True})).status_code == 204
    assert (await client.get(f"/assistants/{her}")).status_code == 404
    assert await world.snapshot() == before

"""No operation shows or changes anything of another user, wherever in the request their ids stand."""

import pytest
from tests.api.harness import Server
from tests.api.tenancy_attempts import problems
from tests.api.tenancy_matrix import ENDLESS, MATRIX, attempts
from tests.api.tenancy_world import World
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

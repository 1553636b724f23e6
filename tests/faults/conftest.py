"""One world for all fault tests; each test takes the servers that it needs from it, and may leave them running."""

import uuid
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.faults.world import World, open_world

_FAILED = pytest.StashKey[bool]()
_WORLD = pytest.StashKey[World]()


@pytest.fixture(scope="session")
async def whole_world(public_tmp_path: Path) -> AsyncGenerator[World]:
    async with open_world(public_tmp_path / f"faults-{uuid.uuid4().hex[:8]}") as world:
        yield world


@pytest.fixture
async def world(whole_world: World, request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    """With Docker sandboxes."""
    request.node.stash[_WORLD] = whole_world
    whole_world.sandbox = "docker"
    yield whole_world
    whole_world.set_right()
    if request.node.stash.get(_FAILED, False):
        await whole_world.start_over()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """A test that fails shows the ends of its servers' logs."""
    report = yield
    if report.when == "call" and report.failed and (world := item.stash.get(_WORLD, None)):
        item.stash[_FAILED] = True
        report.sections += [(f"log of {name}", text) for name, text in world.logs().items()]
    return report

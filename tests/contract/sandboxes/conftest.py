"""Real sandboxes of both kinds, and those that a broker makes. A missing engine fails these tests, it skips none."""

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from tests.contract.sandboxes.brokered import open_brokered_harbour
from tests.contract.sandboxes.harness import Harbour, open_harbour

from moorage.ids import ThreadId
from moorage.sandboxes.port import CommandResult, Sandbox


def pytest_configure(config: pytest.Config) -> None:
    """Marks that langchain-tests uses when imported, and whose plugins we do not load."""
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: of langchain-tests")


@pytest.fixture(scope="session", params=["docker", "bubblewrap", "broker"])
async def harbour(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Harbour]:
    folder, kind = tmp_path_factory.mktemp("harbour"), request.param
    async with open_brokered_harbour(folder) if kind == "broker" else open_harbour(kind, folder) as harbour:
        yield harbour


@pytest.fixture
async def thread_id(harbour: Harbour) -> AsyncGenerator[ThreadId]:
    thread_id = harbour.new_thread()
    yield thread_id
    await harbour.sandboxes.delete(thread_id)


@pytest.fixture
async def sandbox(harbour: Harbour, thread_id: ThreadId) -> Sandbox:
    return await harbour.sandboxes.acquire(thread_id)


@pytest.fixture
def sh(sandbox: Sandbox) -> Callable[[str], Awaitable[CommandResult]]:
    """Run a command with a time limit of 20 s."""

    async def run(command: str) -> CommandResult:
        return await sandbox.run(command, time_limit=20)

    return run

"""What code in a container can do, once more by the agent's own way: its `execute` tool, in a run of the thread."""

from collections.abc import AsyncGenerator

import pytest
from tests.contract.sandboxes.dock import Dock
from tests.contract.sandboxes.harness import connect
from tests.contract.sandboxes.test_backend import in_run_of, shown_output
from tests.contract.sandboxes.test_docker_isolation import (
    Sh,
    TestFileSystems,
    TestIdentity,
    TestProcessesAndNetwork,
    TestRights,
    TestSystemCalls,
    dock,
    runtime,
    thread_id,
)

from moorage.agent.backend import ThreadSandbox
from moorage.ids import ThreadId
from moorage.sandboxes.port import CommandResult, Outcome
from moorage.sandboxes.service import Sandboxes

# The same checks; what differs is the fixture `sh` below.
__all__ = [
    "TestFileSystems",
    "TestIdentity",
    "TestProcessesAndNetwork",
    "TestRights",
    "TestSystemCalls",
    "dock",
    "runtime",
    "thread_id",
]


@pytest.fixture(scope="module")
async def sh(dock: Dock, thread_id: ThreadId) -> AsyncGenerator[Sh]:
    sandboxes = Sandboxes(dock.provider, connect)
    backend = ThreadSandbox(sandboxes, default_time_limit=30)

    async def run(command: str) -> CommandResult:
        said = await in_run_of(thread_id, shown_output(backend, command))
        return CommandResult(said.exit_code, said.output, said.truncated, Outcome.EXITED, len(said.output))

    yield run
    await sandboxes.close()


async def test_what_is_asked_here_is_asked_through_the_agent_s_backend(dock: Dock, thread_id: ThreadId, sh: Sh) -> None:
    assert (await sh("sleep 60 & echo $$; false")).exit_code == 1
    assert (await dock.run(thread_id, "pgrep -x sleep -u $(id -u)")).output == ""

"""Containers that are killed, removed or frozen by somebody else, while a command runs and between two."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable

import docker
import pytest
from tests.contract.sandboxes.harness import Harbour, eventually, open_harbour

from moorage.ids import ThreadId
from moorage.sandboxes.port import Outcome, Sandbox

_NEXT_SECONDS = 15.0

_HOG = """
import os, time
try:
    while os.fork():
        pass
except OSError:
    open('full', 'w').close()
time.sleep(1000)
"""

type Fault = Callable[[docker.APIClient, str], None]


def kill(engine: docker.APIClient, container: str) -> None:
    engine.kill(container)


def remove(engine: docker.APIClient, container: str) -> None:
    engine.remove_container(container, force=True)


@pytest.fixture(scope="module")
async def harbour(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Harbour]:
    async with open_harbour("docker", tmp_path_factory.mktemp("faults")) as harbour:
        yield harbour


async def strike(harbour: Harbour, thread_id: ThreadId, fault: Fault) -> None:
    engine, name = docker.APIClient(), f"moorage-{harbour.installation}-{thread_id}"
    try:
        await asyncio.to_thread(fault, engine, name)
    finally:
        engine.close()


@pytest.mark.parametrize("fault", [kill, remove])
async def test_a_command_whose_container_goes_says_so_and_the_next_one_works(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox, fault: Fault
) -> None:
    running = asyncio.create_task(sandbox.run("echo kept > note; echo said; sleep 1000", time_limit=60))
    assert await eventually((harbour.path(thread_id) / "note").exists, within=10)
    await strike(harbour, thread_id, fault)
    result = await asyncio.wait_for(running, 5)
    assert (result.outcome, result.output) == (Outcome.LOST, "said\n")
    began = time.monotonic()
    assert (await sandbox.run("cat note", time_limit=10)).output == "kept\n"
    assert time.monotonic() - began < _NEXT_SECONDS


@pytest.mark.parametrize("fault", [kill, remove])
async def test_a_container_that_went_between_two_commands_is_not_noticed(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox, fault: Fault
) -> None:
    await sandbox.run("echo kept > note", time_limit=10)
    await strike(harbour, thread_id, fault)
    began = time.monotonic()
    assert (await sandbox.run("cat note", time_limit=10)).output == "kept\n"
    assert time.monotonic() - began < _NEXT_SECONDS


async def test_several_commands_at_once_all_survive_a_container_that_went(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    await sandbox.run("true", time_limit=10)
    await strike(harbour, thread_id, kill)
    results = await asyncio.gather(*(sandbox.run(f"echo {n}", time_limit=20) for n in range(8)))
    assert [result.output for result in results] == [f"{n}\n" for n in range(8)]


async def test_a_sandbox_out_of_processes_says_so_and_recovers(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    running = asyncio.create_task(sandbox.run(f'python3 -c "{_HOG}"', time_limit=60))
    assert await eventually((harbour.path(thread_id) / "full").exists, within=15)
    refused = await sandbox.run("echo fine", time_limit=10)
    assert refused.exit_code == 126
    assert "ran out of processes" in refused.output
    running.cancel()
    await asyncio.wait([running])
    began = time.monotonic()
    assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"
    assert time.monotonic() - began < _NEXT_SECONDS


async def test_commands_that_kill_what_runs_them_at_once_run_at_most_once(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    """Each makes the sandbox start anew under the others: some are never started."""
    commands = [f"echo {n} >> tally; kill -9 $PPID" for n in range(24)]
    await asyncio.gather(*(sandbox.run(command, time_limit=20) for command in commands), return_exceptions=True)
    tally = (harbour.path(thread_id) / "tally").read_text().split()
    assert len(tally) == len(set(tally)) > 0

"""What another server started in a thread's sandbox, and then died, froze or was too slow."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import pytest
from tests.contract.sandboxes.harness import Harbour, eventually, processes_with

from moorage.ids import ThreadId
from moorage.sandboxes.port import Outcome, Sandbox, fencing_token

_DEAD_SECONDS = 2.0  # as promised
_OLD_CLAIM, _NEW_CLAIM = 7, 8


@pytest.fixture(autouse=True)
def newer_claim() -> Generator[None]:
    """What this process does is in the name of a newer claim than the other server's."""
    previous = fencing_token.set(_NEW_CLAIM)
    yield
    fencing_token.reset(previous)


def a_long_sleep() -> tuple[str, str]:
    """A command with a daemon, and what its two processes can be found by."""
    seconds = f"86400.{secrets.randbelow(10**12):012d}"
    return f"setsid sleep {seconds} & sleep {seconds}", f"sleep\0{seconds}"


@contextmanager
def other_server(harbour: Harbour, thread_id: ThreadId, command: str) -> Generator[subprocess.Popen[str]]:
    """A server of the same installation that runs `command` in the thread's sandbox."""
    arguments = [harbour.kind, harbour.installation, str(harbour.folder), thread_id, str(_OLD_CLAIM), command]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.sandboxes.other_server", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        with process:
            yield process
            process.kill()
    finally:
        process.kill()


async def test_a_frozen_server_s_processes_are_killed_and_files_stay(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    command, marker = a_long_sleep()
    with other_server(harbour, thread_id, f"echo kept > note; {command}") as other:
        assert await eventually(lambda: len(processes_with(marker)) == 2, within=20)
        os.kill(other.pid, signal.SIGSTOP)
        killing = asyncio.create_task(harbour.sandboxes.kill_leftovers(thread_id))
        assert await eventually(lambda: not processes_with(marker), within=_DEAD_SECONDS)
        await killing
        assert processes_with(marker) == []
        assert (await sandbox.run("cat note", time_limit=10)).output == "kept\n"


async def test_a_frozen_server_that_wakes_up_does_not_touch_what_its_successor_runs(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    command, marker = a_long_sleep()
    with other_server(harbour, thread_id, command) as other:
        assert await eventually(lambda: len(processes_with(marker)) == 2, within=20)
        os.kill(other.pid, signal.SIGSTOP)
        await harbour.sandboxes.kill_leftovers(thread_id)
        running = asyncio.create_task(
            sandbox.run("touch began; while [ ! -e go ]; do sleep 0.05; done; echo alive", time_limit=30)
        )
        began = harbour.path(thread_id) / "began"
        assert await eventually(began.exists, within=10)
        os.kill(other.pid, signal.SIGCONT)
        assert (await asyncio.to_thread(other.communicate, timeout=20))[0].strip() == Outcome.LOST
        await sandbox.run("touch go", time_limit=10)
        assert (await running).output == "alive\n"


async def test_a_killed_server_s_processes_do_not_survive_the_takeover(
    harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox
) -> None:
    command, marker = a_long_sleep()
    with other_server(harbour, thread_id, command) as other:
        assert await eventually(lambda: len(processes_with(marker)) == 2, within=20)
        other.kill()
        await harbour.sandboxes.kill_leftovers(thread_id)
        assert await eventually(lambda: not processes_with(marker), within=_DEAD_SECONDS)
        assert (await sandbox.run("echo fine", time_limit=10)).output == "fine\n"


async def test_a_killed_server_s_processes_die_with_it(harbour: Harbour, thread_id: ThreadId) -> None:
    command, marker = a_long_sleep()
    with other_server(harbour, thread_id, command) as other:
        assert await eventually(lambda: len(processes_with(marker)) == 2, within=20)
        other.kill()
        assert await eventually(lambda: not processes_with(marker), within=_DEAD_SECONDS)


async def test_other_threads_go_on(harbour: Harbour, thread_id: ThreadId, sandbox: Sandbox) -> None:
    command, marker = a_long_sleep()
    running = asyncio.create_task(sandbox.run(command, time_limit=60))
    assert await eventually(lambda: len(processes_with(marker)) == 2, within=20)
    bystander = harbour.new_thread()
    await (await harbour.sandboxes.acquire(bystander)).run("true", time_limit=20)
    await harbour.sandboxes.kill_leftovers(bystander)
    await harbour.sandboxes.kill_leftovers(harbour.new_thread())
    assert len(processes_with(marker)) == 2
    await harbour.sandboxes.kill_leftovers(thread_id)
    assert (await running).outcome is Outcome.LOST


async def test_a_sandbox_that_does_not_run_is_not_started(harbour: Harbour, thread_id: ThreadId) -> None:
    await harbour.sandboxes.kill_leftovers(thread_id)
    assert thread_id not in {info.thread_id for info in await harbour.provider.list()}

"""What is bubblewrap's own: no engine keeps its sandboxes, so frozen servers and agents must be seen through."""

import asyncio
import json
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.sandboxes.harness import (
    Harbour,
    eventually,
    new_folders,
    new_installation,
    new_provider,
    processes_with,
)
from tests.contract.sandboxes.harness import open_harbour as open_any_harbour

from moorage.adapters.bubblewrap.leftovers import find_sandboxes, runs
from moorage.ids import ThreadId
from moorage.sandboxes.port import SandboxUnavailable, StaleClaim

_OLD, _NEW = 1, 2
_FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
async def harbour(tmp_path: Path) -> AsyncGenerator[Harbour]:
    async with open_any_harbour("bubblewrap", tmp_path) as harbour:
        yield harbour


def name_of(harbour: Harbour, thread_id: ThreadId) -> str:
    return f"moorage-{harbour.installation}-{thread_id}"


async def frozen_meanwhile(work: Awaitable[object], meanwhile: Callable[[], Awaitable[object]]) -> None:
    """Do `work`, but when it first waits let nothing here go on until `meanwhile` was done elsewhere."""
    waiting = asyncio.ensure_future(work)
    await asyncio.sleep(0)
    elsewhere = threading.Thread(target=lambda: asyncio.run(_all_of(meanwhile)))
    elsewhere.start()
    elsewhere.join()
    await waiting


async def _all_of(work: Callable[[], Awaitable[object]]) -> None:
    await work()


class TestAServerThatWasFrozen:
    async def test_leaves_no_helper_of_a_claim_that_was_taken_over(self, harbour: Harbour) -> None:
        thread_id = harbour.new_thread()
        await harbour.provider.ensure(thread_id, profile="default", fencing_token=_OLD)
        other = new_provider("bubblewrap", harbour.folders, harbour.installation)
        with pytest.raises(StaleClaim):
            await frozen_meanwhile(
                harbour.provider.open_helper(thread_id, fencing_token=_OLD),
                lambda: other.kill_all(thread_id, fencing_token=_NEW),
            )
        assert await eventually(lambda: not runs(name_of(harbour, thread_id)), within=5)

    async def test_kills_nothing_of_the_claim_that_took_over(self, harbour: Harbour) -> None:
        thread_id = harbour.new_thread()
        await harbour.provider.ensure(thread_id, profile="default", fencing_token=_OLD)
        other = new_provider("bubblewrap", harbour.folders, harbour.installation)
        await other.ensure(thread_id, profile="default", fencing_token=_OLD)
        channel = await other.open_helper(thread_id, fencing_token=_OLD)
        with pytest.raises(StaleClaim):
            await frozen_meanwhile(
                harbour.provider.ensure(thread_id, profile="tight", fencing_token=_OLD),
                lambda: other.ensure(thread_id, profile="default", fencing_token=_NEW),
            )
        assert runs(name_of(harbour, thread_id))
        await channel.close()


async def test_an_agent_cannot_pass_for_another_thread_s_sandbox(harbour: Harbour) -> None:
    """A server started as root shows itself so for a moment, before it becomes bwrap."""
    victim = harbour.new_thread("bob")
    step = json.dumps({"argv": [name_of(harbour, victim)]})[1:-1]
    program = "read -r _"
    imitation = f"import os; os.execv('/bin/sh', {[sys.executable, '-c', program, step]!r})"
    sandbox = await harbour.open()
    await sandbox.write_file("/workspace/imitation.py", imitation.encode())
    running = asyncio.create_task(sandbox.run("mkfifo never; exec python3 imitation.py 0<> never", time_limit=20))
    assert await eventually(lambda: len(processes_with(step)) == 1, within=10)
    assert not runs(name_of(harbour, victim))
    running.cancel()


async def test_a_helper_whose_end_is_not_waited_for_ends_all_the_same(tmp_path: Path) -> None:
    installation = new_installation()
    provider = new_provider("bubblewrap", new_folders(tmp_path), installation)
    thread_id = ThreadId("alice-00000000-0000-4000-8000-000000000001")
    await provider.ensure(thread_id, profile="default")
    channel = await provider.open_helper(thread_id)
    await channel.receive()  # it is there
    for process in processes_with(installation):
        os.kill(process, signal.SIGSTOP)
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert await eventually(lambda: not find_sandboxes(f"moorage-{installation}-"), within=5)
    await provider.remove(thread_id, files=True)


@pytest.mark.skipif(not _FREEZER.is_dir(), reason="nothing here keeps a killed process from dying")
async def test_what_does_not_die_is_not_told_as_killed_and_its_files_stay(harbour: Harbour) -> None:
    thread_id = harbour.new_thread()
    sandbox = await harbour.direct(thread_id)
    await sandbox.write_file("/workspace/note", b"kept")
    with frozen(processes_with(harbour.installation)):
        with pytest.raises(SandboxUnavailable, match="did not die"):
            await harbour.provider.remove(thread_id, files=True)
        assert (harbour.path(thread_id) / "note").exists()
    await harbour.provider.remove(thread_id, files=True)
    assert not harbour.path(thread_id).exists()
    await sandbox.close()


@contextmanager
def frozen(processes: Sequence[int]) -> Generator[None]:
    group = _FREEZER / f"moorage-test-{os.getpid()}"
    group.mkdir()
    try:
        for process in processes:
            (group / "cgroup.procs").write_text(str(process))
        (group / "freezer.state").write_text("FROZEN")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        while (group / "cgroup.procs").read_text():
            time.sleep(0.01)
        group.rmdir()

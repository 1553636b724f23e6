"""An agent that stops whatever starts beside it: the engine then waits for a start that never comes to its end."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from tests.contract.sandboxes.dock import Dock, open_dock
from tests.contract.sandboxes.harness import eventually, processes_with

from moorage.adapters.docker.engine import Engine
from moorage.ids import ThreadId
from moorage.sandboxes.port import CommandResult, Outcome

_STARTS = 20
_SILENT_SECONDS = 2
_STOP_ALL = "exec python3 -c 'import os, signal\nwhile True:\n os.kill(-1, signal.SIGSTOP)  # marker-{0}'"


@asynccontextmanager
async def _stopping_all(folder: Path) -> AsyncGenerator[tuple[Dock, ThreadId, str, asyncio.Task[CommandResult]]]:
    """A thread whose agent stops all it can, again and again; what marks its process; and the command that it is.

    Who ran the command empties the sandbox too when it is lost: nothing is to be started before that is over.
    """
    async with open_dock(folder) as dock:
        thread_id = dock.new_thread()
        marker = f"marker-{thread_id}"
        sandbox = await dock.sandbox(thread_id)
        running = asyncio.create_task(sandbox.run(_STOP_ALL.format(thread_id), time_limit=600))
        assert await eventually(lambda: bool(processes_with(marker)), within=20)
        yield dock, thread_id, marker, running
        await asyncio.wait([running])


async def test_all_that_an_agent_runs_is_killed_though_nothing_can_start_beside_it(tmp_path: Path) -> None:
    async with _stopping_all(tmp_path) as (dock, thread_id, marker, running):
        await dock.provider.kill_all(thread_id)
        assert await eventually(lambda: not processes_with(marker), within=10)
        assert (await running).outcome is Outcome.LOST
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"


async def test_a_container_in_which_a_start_is_stopped_half_way_is_killed_and_serves_again(tmp_path: Path) -> None:
    async with _stopping_all(tmp_path) as (dock, thread_id, marker, running):
        deaf = await dock.provider.open_helper(thread_id)  # of another process: it will never say hello
        with starting(dock.container(thread_id), user=dock.folders.identity(thread_id).uid) as start:
            assert await asyncio.to_thread(eventually_deaf, dock.container(thread_id), start)
        await dock.provider.kill_all(thread_id)
        assert not processes_with(marker)
        assert (await running).outcome is Outcome.LOST
        assert (await dock.run(thread_id, "echo fine")).output == "fine\n"
        await deaf.close()


async def test_only_the_stuck_container_is_ended_not_one_whose_name_looks_alike(tmp_path: Path) -> None:
    """A dot in a user's id stands for any sign where the engine looks for a name."""
    async with open_dock(tmp_path) as dock:
        stuck = dock.new_thread("al.ice")
        alike = ThreadId(stuck.replace("al.ice", "al-ice"))
        for thread_id in (stuck, alike):
            await dock.provider.ensure(thread_id, profile="default")
        engine = Engine(connections=1)
        await asyncio.to_thread(engine._kill_from_outside, dock.container(stuck))  # pyright: ignore[reportPrivateUsage]
        engine.close()
        assert not dock.inspect(stuck)["State"]["Running"]
        assert dock.inspect(alike)["State"]["Running"]


@contextmanager
def starting(container: str, *, user: int) -> Generator[Callable[[], None]]:
    """Has the engine start one more process of this user in the container, without waiting for it."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = ["docker", "exec", "--user", str(user), container, "true"]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    yield start
    for process in started:
        process.kill()
        process.wait()


def eventually_deaf(container: str, start: Callable[[], None]) -> bool:
    """Whether the engine has come to say no more about it: some start is stopped half-way, if not the first."""
    for _ in range(_STARTS):
        try:
            subprocess.run(["docker", "inspect", container], capture_output=True, timeout=_SILENT_SECONDS, check=True)
        except subprocess.TimeoutExpired:
            return True
        start()
    return False

"""How many containers may run: counted over all servers, whoever comes at once."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.contract.sandboxes.dock import Dock, new_provider, on_engine, open_dock
from tests.contract.sandboxes.harness import eventually

from moorage.adapters.docker import DockerSandboxes, Limits
from moorage.adapters.docker.locks import Locks
from moorage.ids import ThreadId
from moorage.sandboxes.port import USER_FULL, SandboxesFull, SandboxUnavailable


@pytest.fixture
async def dock(tmp_path: Path) -> AsyncGenerator[Dock]:
    async with open_dock(tmp_path, limits=Limits(running=3, running_per_user=2)) as dock:
        yield dock


async def started(provider: DockerSandboxes, *threads: ThreadId) -> list[ThreadId | str]:
    """The thread, or why not, for each that was asked for at once."""

    async def start(thread_id: ThreadId) -> ThreadId | str:
        try:
            await provider.ensure(thread_id, profile="default")
        except SandboxesFull as error:
            return error.code
        return thread_id

    return list(await asyncio.gather(*map(start, threads)))


async def test_one_user_s_limit_leaves_room_for_others(dock: Dock) -> None:
    mine = [dock.new_thread("alice") for _ in range(4)]
    outcome = await started(dock.provider, *mine)
    assert outcome.count(USER_FULL) == 2
    other = dock.new_thread("bob")
    assert await started(dock.provider, other) == [other]


async def test_the_limit_of_all_holds_for_whoever_comes_at_once(dock: Dock) -> None:
    threads = [dock.new_thread(owner) for owner in ("alice", "bob", "carol", "dave", "erin", "frank")]
    outcome = await started(dock.provider, *threads)
    assert outcome.count("sandboxes_full") == 3
    assert len(await dock.provider.list()) == 3


async def test_two_servers_count_together(dock: Dock) -> None:
    other, _ = new_provider(dock.root, dock.installation, limits=Limits(running=3))
    threads = [dock.new_thread(owner) for owner in ("alice", "bob", "carol", "dave", "erin", "frank")]
    outcomes = await asyncio.gather(started(dock.provider, *threads[:3]), started(other, *threads[3:]))
    assert sum(outcome.count("sandboxes_full") for outcome in outcomes) == 3
    await other.close()


async def test_a_sandbox_that_runs_needs_no_new_room(dock: Dock) -> None:
    mine = [dock.new_thread() for _ in range(2)]
    assert await started(dock.provider, *mine) == mine
    assert await started(dock.provider, *mine) == mine


async def test_what_is_paused_or_has_stopped_takes_no_room(dock: Dock) -> None:
    first, second, third, fourth = (dock.new_thread() for _ in range(4))
    await started(dock.provider, first, second)
    await dock.provider.pause(first)
    assert await started(dock.provider, third) == [third]
    on_engine(lambda engine: engine.kill(dock.container(second)))
    assert await started(dock.provider, fourth) == [fourth]


async def test_a_container_that_cannot_start_takes_no_room(tmp_path: Path) -> None:
    async with open_dock(tmp_path, limits=Limits(running=1)) as dock:
        broken, _ = new_provider(dock.root, dock.installation, workspace_dir="/proc/self")  # runc mounts nothing there
        with pytest.raises(SandboxUnavailable, match="refused"):
            await broken.ensure(dock.new_thread(), profile="default")
        assert dock.containers() == {}
        await broken.close()


async def test_killing_all_succeeds_when_somebody_else_takes_the_room_meanwhile(tmp_path: Path) -> None:
    async with open_dock(tmp_path, limits=Limits(running=1)) as dock:
        unlimited, _ = new_provider(dock.root, dock.installation)
        mine, other = dock.new_thread(), dock.new_thread()
        await dock.provider.ensure(mine, profile="default")
        with Locks(dock.root / "workspaces").alone("room"):
            killing = asyncio.create_task(dock.provider.kill_all(mine))
            assert await eventually(lambda: mine not in dock.containers(), within=20)
            await unlimited.ensure(other, profile="default")
        await killing
        assert list(dock.containers()) == [other]
        await unlimited.close()

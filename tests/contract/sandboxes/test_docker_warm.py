"""Containers that stand ready: whom they are handed to, and that none is left behind."""

import asyncio
import fcntl
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from tests.contract.sandboxes.dock import Dock, new_provider, on_engine, open_dock
from tests.contract.sandboxes.harness import eventually

from moorage.adapters.docker import DockerSandboxes, Limits
from moorage.adapters.folders.locks import locked
from moorage.sandboxes.port import SandboxesFull


@pytest.fixture
async def dock(tmp_path: Path) -> AsyncGenerator[Dock]:
    async with open_dock(tmp_path, warm=1) as dock:
        yield dock


def ready(dock: Dock) -> list[str]:
    return [found["Id"] for name, found in dock.containers().items() if name.startswith("warm-")]


async def filled(dock: Dock, *, size: int = 1) -> list[str]:
    """The ids of those that stand ready, once as many do as should and their maker rests."""
    assert await eventually(lambda: len(ready(dock)) == size and rests(dock.provider), within=20)
    return ready(dock)


def rests(provider: DockerSandboxes) -> bool:
    refilling = provider._refilling  # pyright: ignore[reportPrivateUsage]
    return refilling is None or refilling.done()


async def test_the_next_new_thread_of_a_user_gets_the_one_that_stands_ready(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread())
    [made] = await filled(dock)
    thread_id = dock.new_thread()
    sandbox = await dock.sandbox(thread_id)
    assert dock.inspect(thread_id)["Id"] == made
    agent = dock.folders.identity(thread_id)
    result = await sandbox.run("id -u; id -g; echo mine > note; echo ours > /shared/note; pwd", time_limit=20)
    assert result.output == f"{agent.uid}\n{agent.gid}\n/workspace\n"
    assert (dock.folders.path(thread_id) / "note").read_text() == "mine\n"
    assert (dock.root / "shared" / "alice" / "note").read_text() == "ours\n"


async def test_what_was_handed_over_is_made_again_and_every_one_is_another_agent(dock: Dock) -> None:
    threads = [dock.new_thread() for _ in range(3)]
    for thread_id in threads:
        await dock.sandbox(thread_id)
        await filled(dock)
    assert len({dock.inspect(thread_id)["Id"] for thread_id in threads}) == 3
    assert len({dock.folders.identity(thread_id).uid for thread_id in threads}) == 3


async def test_files_of_a_thread_that_was_given_a_ready_one_outlive_it(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread())
    await filled(dock)
    thread_id = dock.new_thread()
    await (await dock.sandbox(thread_id)).run("echo kept > note", time_limit=20)
    on_engine(lambda engine: engine.kill(dock.container(thread_id)))
    assert (await dock.run(thread_id, "cat note")).output == "kept\n"
    await dock.provider.pause(thread_id)
    assert (await dock.run(thread_id, "cat note")).output == "kept\n"


async def test_a_thread_keeps_what_it_was_given(dock: Dock) -> None:
    """Made for a place of another name, and yet as good as one of its own."""
    await dock.sandbox(dock.new_thread())
    [made] = await filled(dock)
    thread_id = dock.new_thread()
    await dock.sandbox(thread_id)
    await dock.provider.ensure(thread_id, profile="default")
    assert dock.inspect(thread_id)["Id"] == made


async def test_another_user_is_never_given_it(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread("alice"))
    [made] = await filled(dock)
    other = dock.new_thread("bob")
    sandbox = await dock.sandbox(other)
    assert dock.inspect(other)["Id"] != made
    assert (await sandbox.run("ls -A /shared", time_limit=20)).output == ""


async def test_the_user_who_came_last_is_the_one_it_stands_ready_for(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread("alice"))
    [made] = await filled(dock)
    await dock.sandbox(dock.new_thread("bob"))
    assert await eventually(lambda: made not in ready(dock), within=20)
    await filled(dock)
    assert [owner for owner, _ in dock.folders.spares()] == ["bob"]


async def test_a_thread_that_has_files_or_another_profile_is_not_given_one(dock: Dock) -> None:
    old = dock.new_thread()
    await dock.sandbox(old)
    await dock.provider.pause(old)
    [made] = await filled(dock)
    await dock.provider.ensure(old, profile="default")
    other = dock.new_thread()
    await dock.provider.ensure(other, profile="other")
    assert ready(dock) == [made]


@pytest.mark.parametrize("fault", ["kill", "remove_container"])
async def test_one_that_died_while_it_stood_ready_is_noticed_by_nobody(dock: Dock, fault: str) -> None:
    await dock.sandbox(dock.new_thread())
    [made] = await filled(dock)
    options = {"force": True} if fault == "remove_container" else {}
    on_engine(lambda engine: getattr(engine, fault)(made, **options))
    thread_id = dock.new_thread()
    assert (await (await dock.sandbox(thread_id)).run("echo fine", time_limit=20)).output == "fine\n"


async def test_handing_over_counts_as_starting(tmp_path: Path) -> None:
    async with open_dock(tmp_path, warm=1, limits=Limits(running=1)) as dock:
        await dock.sandbox(dock.new_thread())
        await filled(dock)
        with pytest.raises(SandboxesFull):
            await dock.provider.ensure(dock.new_thread(), profile="default")
        await filled(dock)


async def test_none_is_listed_as_a_sandbox_and_all_go_with_their_server(tmp_path: Path) -> None:
    async with open_dock(tmp_path, warm=2) as dock:
        thread_id = dock.new_thread()
        await dock.sandbox(thread_id)
        await filled(dock, size=2)
        assert [info.thread_id for info in await dock.provider.list(folders=True)] == [thread_id]
    assert dock.containers() == {}
    assert dock.folders.spares() == []


async def test_a_killed_server_s_are_removed_by_the_next_and_a_living_one_s_are_not(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread())
    mine = await filled(dock)
    await other_server_dies(dock, lambda: len(ready(dock)) == 2)
    assert len(dock.folders.spares()) == 2
    next_one, _ = new_provider(dock.root, dock.installation)
    await next_one.check()
    await next_one.close()
    assert ready(dock) == mine
    assert len(dock.folders.spares()) == 1


async def test_a_killed_server_s_are_removed_by_one_that_lives_on(dock: Dock) -> None:
    await dock.sandbox(dock.new_thread())
    mine = await filled(dock)
    await other_server_dies(dock, lambda: len(ready(dock)) == 2)
    await dock.provider.ensure(dock.new_thread("bob"), profile="other")
    assert await filled(dock) == mine


async def test_what_a_server_could_not_note_to_the_end_keeps_no_other_from_starting(dock: Dock) -> None:
    """The disk was full."""
    alive = dock.root / "workspaces" / ".alive"
    alive.mkdir(parents=True)
    (alive / "dead").write_text("alice .spare-0123456789abcdef\nali")
    await dock.provider.check()
    assert not (alive / "dead").exists()


async def test_one_that_was_handed_over_while_the_dead_are_buried_is_not_taken_for_theirs(tmp_path: Path) -> None:
    async with open_dock(tmp_path) as dock:
        dying, _ = new_provider(dock.root, dock.installation, warm=1)
        await dying.ensure(dock.new_thread(), profile="default")
        assert await eventually(lambda: len(ready(dock)) == 1 and rests(dying), within=20)
        (dock.root / "workspaces" / ".alive" / "000").write_text("alice .spare-0123456789abcdef\n")
        with locked(dock.root / "workspaces" / ".locks", ".spare-0123456789abcdef"):
            burying = asyncio.create_task(dock.provider.check())
            assert await eventually(lambda: is_locked(dock.root / "workspaces" / ".alive" / "000"), within=30)
            thread_id = dock.new_thread()
            await dying.ensure(thread_id, profile="default")
            await dying.close()
        await burying
        assert dock.inspect(thread_id)["State"]["Running"]


def is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def other_server_dies(dock: Dock, when: Callable[[], bool]) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.contract.sandboxes.dock import new_provider\n"
        "async def main():\n"
        "    provider, _ = new_provider(Path(sys.argv[1]), sys.argv[2], warm=1)\n"
        "    await provider.ensure(sys.argv[3], profile='default')\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())"
    )
    arguments = [program, str(dock.root), dock.installation, dock.new_thread()]
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", *arguments)
    try:
        assert await eventually(when, within=30)
    finally:
        process.kill()
        await process.wait()

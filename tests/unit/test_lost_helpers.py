"""What a helper that was lost has left behind: nothing is started beside it, whatever fails meanwhile."""

import asyncio

import pytest
from tests.unit.helper_stub import StubHelper, report
from tests.unit.toys import DONE, Toys, connect

from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes import waiting
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.port import Bounds, CommandResult, SandboxInfo, SandboxUnavailable
from moorage.sandboxes.service import Sandboxes

THREAD = new_thread_id(UserId("alice"))


async def use(sandboxes: Sandboxes) -> CommandResult:
    return await (await sandboxes.acquire(THREAD)).run("true", time_limit=5)


async def test_it_is_killed_when_the_engine_did_not_answer_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_ENGINE_PAUSE_SECONDS", 0)
    toys, asked = Toys(), list[str]()

    def fail(call: str) -> None:
        asked.append(call)
        if asked == ["kill_all"]:
            raise SandboxUnavailable("no answer", code="no_engine")

    sandboxes = Sandboxes(toys, connect)
    await use(sandboxes)
    toys.helpers[0].lost = True
    toys.fail = fail
    assert await use(sandboxes) == DONE
    assert asked == ["kill_all", "kill_all", "ensure", "open_helper", "true"]


async def test_it_is_killed_though_the_helper_was_cleared_up_before() -> None:
    toys, asked = Toys(), list[str]()
    sandboxes = Sandboxes(toys, connect)
    await use(sandboxes)
    toys.helpers[0].lost = True
    await sandboxes.sweep()
    toys.fail = asked.append
    assert await use(sandboxes) == DONE
    assert asked == ["kill_all", "ensure", "open_helper", "true"]


async def test_it_is_killed_once() -> None:
    toys, asked = Toys(), list[str]()
    sandboxes = Sandboxes(toys, connect)
    await use(sandboxes)
    toys.helpers[0].lost = True
    await sandboxes.kill_leftovers(THREAD)
    toys.fail = asked.append
    await use(sandboxes)
    await sandboxes.release(THREAD)
    await use(sandboxes)
    assert asked == ["ensure", "open_helper", "true", "pause", "ensure", "open_helper", "true"]


async def test_a_helper_whose_command_left_something_that_could_not_be_killed_is_used_no_more() -> None:
    async def kill_all() -> None:
        raise SandboxUnavailable("no answer", code="no_engine")

    helper = StubHelper()
    sandbox = HelperSandbox(THREAD, await helper.open(), bounds=Bounds(), kill_all=kill_all)
    running = asyncio.create_task(sandbox.run("true", time_limit=5))
    await helper.hears(b"G")
    helper.say(report(1, exit_code=0, clean=False))
    assert (await running).exit_code == 0
    assert sandbox.lost
    assert helper.closed


class SlowToys(Toys):
    """Tells what it saw when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen, self.told = asyncio.Event(), asyncio.Event()

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        found = await super().list(folders=folders, thread_id=thread_id)
        self.seen.set()
        await self.told.wait()
        return found


async def test_what_was_started_while_others_were_looked_for_is_not_taken_for_stopped() -> None:
    async def every(threads: object) -> set[ThreadId]:
        return {THREAD}

    toys = SlowToys()
    sandboxes = Sandboxes(toys, connect)
    reconciling = asyncio.create_task(sandboxes.reconcile(every))
    await toys.seen.wait()
    await use(sandboxes)
    toys.told.set()
    await reconciling
    assert sandboxes.is_awake(THREAD)

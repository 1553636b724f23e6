"""The service over sandboxes of a kind that exists in this test only: which it stops, keeps, wakes and waits for."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Literal

import pytest

from moorage.errors import Unavailable
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes import service
from moorage.sandboxes.port import CommandResult, Outcome, SandboxGone, SandboxInfo, SandboxSpec, SandboxUnavailable
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.workspace import Workspaces

DONE = CommandResult(0, "done\n", False, Outcome.EXITED, 5)


class Toys:
    """A provider whose sandboxes are entries in a dictionary: does it run? `fail` is asked before each call."""

    name: Literal["docker"] = "docker"
    isolation_note = None

    def __init__(self) -> None:
        self.running: dict[ThreadId, bool] = {}
        self.fail: Callable[[str], None] = lambda _: None

    async def check(self) -> None: ...

    async def create(self, spec: SandboxSpec) -> str:
        self.fail("create")
        self.running[spec.thread_id] = True
        return spec.thread_id

    async def connect(self, ref: str) -> Any:
        return ToySandbox(self, ThreadId(ref))

    async def pause(self, ref: str) -> None:
        self.fail("pause")
        if ref in self.running:
            self.running[ThreadId(ref)] = False

    async def delete(self, ref: str) -> None:
        self.running.pop(ThreadId(ref), None)

    async def list(self) -> list[SandboxInfo]:
        self.fail("list")
        return [SandboxInfo(thread_id, thread_id, running) for thread_id, running in self.running.items()]

    async def close(self) -> None: ...


class ToySandbox:
    def __init__(self, toys: Toys, thread_id: ThreadId) -> None:
        self._toys = toys
        self.id = thread_id

    async def run(self, command: str, **_: object) -> CommandResult:
        self._toys.fail(command)
        if not self._toys.running.get(self.id):
            raise SandboxGone("gone")
        return DONE


class World:
    """A provider that two servers share, a clock, and the threads that have work."""

    def __init__(self, folder: Path) -> None:
        self.toys = Toys()
        self.now = 0.0
        self.working: set[ThreadId] = set()
        self.answers = True
        self._workspaces = Workspaces(folder / "workspaces", folder / "shared")

    def server(self) -> Sandboxes:
        return Sandboxes(self.toys, self._workspaces, idle_seconds=60, busy=self.busy, clock=lambda: self.now)

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        if not self.answers:
            raise Unavailable("Postgres does not answer")
        return self.working & set(thread_ids)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def thread() -> ThreadId:
    return new_thread_id(UserId("alice"))


async def use(sandboxes: Sandboxes, thread_id: ThreadId) -> CommandResult:
    return await (await sandboxes.acquire(thread_id)).run("true", time_limit=5)


async def every(thread_ids: Collection[ThreadId]) -> set[ThreadId]:
    return set(thread_ids)


async def test_an_idle_sandbox_is_stopped(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.now = 61
    assert await server.sweep() == 1
    assert world.toys.running == {thread: False}


async def test_a_sandbox_that_looks_idle_here_is_kept_while_a_run_uses_it_elsewhere(
    world: World, thread: ThreadId
) -> None:
    server = world.server()
    await use(server, thread)
    world.now, world.working = 61, {thread}
    assert await server.sweep() == 0
    assert world.toys.running == {thread: True}


async def test_the_idle_time_begins_when_the_work_elsewhere_has_ended(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.now, world.working = 61, {thread}
    await server.sweep()
    world.now, world.working = 120, set()
    assert await server.sweep() == 0
    world.now = 122
    assert await server.sweep() == 1


async def test_a_server_that_ends_stops_only_what_no_run_uses(world: World, thread: ThreadId) -> None:
    server, used = world.server(), new_thread_id(UserId("bob"))
    await use(server, thread)
    await use(server, used)
    world.working = {used}
    await server.close()
    assert world.toys.running == {thread: False, used: True}


async def test_a_server_that_ends_without_its_database_stops_nothing(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.answers = False
    await server.close()
    assert world.toys.running == {thread: True}


async def test_what_a_server_left_running_is_adopted_by_the_next_reconciliation(world: World, thread: ThreadId) -> None:
    await use(world.server(), thread)
    successor = world.server()
    await successor.reconcile(every)
    world.now = 61
    assert await successor.sweep() == 1


async def test_reconciling_removes_what_another_server_s_deleted_thread_left(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)

    async def none(_: Collection[ThreadId]) -> set[ThreadId]:
        return set()

    assert await server.reconcile(none) == 1
    assert world.toys.running == {}


async def test_leftovers_of_another_server_are_killed_and_the_next_command_works(
    world: World, thread: ThreadId
) -> None:
    await use(world.server(), thread)
    server = world.server()
    await server.kill_leftovers(thread)
    assert world.toys.running == {thread: False}
    assert await use(server, thread) == DONE


async def test_killing_leftovers_wakes_nothing(world: World, thread: ThreadId) -> None:
    await world.server().kill_leftovers(thread)
    assert world.toys.running == {}


async def test_a_sandbox_that_runs_and_starts_nothing_is_started_anew(world: World, thread: ThreadId) -> None:
    server, paused = world.server(), []

    def fail(call: str) -> None:
        if call == "pause":
            paused.append(call)
        if call == "true" and not paused:
            raise SandboxGone("cannot fork")

    world.toys.fail = fail
    assert await use(server, thread) == DONE


async def test_a_sandbox_that_never_starts_anything_is_said_to_be_gone(world: World, thread: ThreadId) -> None:
    def fail(call: str) -> None:
        if call == "true":
            raise SandboxGone("broken")

    world.toys.fail = fail
    with pytest.raises(SandboxGone):
        await use(world.server(), thread)


class Engine:
    """Does not answer the first so many calls."""

    def __init__(self, silent: int) -> None:
        self.silent = silent

    def __call__(self, _: str) -> None:
        self.silent -= 1
        if self.silent >= 0:
            raise SandboxUnavailable("no answer", code="no_engine")


async def test_an_engine_that_restarts_is_waited_for(
    world: World, thread: ThreadId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ENGINE_PAUSE_SECONDS", 0)
    world.toys.fail = Engine(silent=20)
    assert await use(world.server(), thread) == DONE


async def test_an_engine_that_stays_away_is_told_in_the_end(
    world: World, thread: ThreadId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ENGINE_SECONDS", 0)
    world.toys.fail = Engine(silent=10**9)
    with pytest.raises(SandboxUnavailable):
        await use(world.server(), thread)


async def test_a_refusal_of_the_engine_is_told_at_once(world: World, thread: ThreadId) -> None:
    asked: list[str] = []

    def fail(call: str) -> None:
        asked.append(call)
        raise SandboxUnavailable("The engine refused")

    world.toys.fail = fail
    with pytest.raises(SandboxUnavailable):
        await use(world.server(), thread)
    assert asked == ["create"]

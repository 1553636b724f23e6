"""The service over sandboxes of a kind that exists in tests only: which it stops, keeps, wakes and waits for."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from tests.unit.toys import DONE, Toys, connect

from moorage.errors import Unavailable
from moorage.ids import ThreadId, UserId, new_thread_id, user_place
from moorage.sandboxes import places, waiting
from moorage.sandboxes.place import OpenSandbox
from moorage.sandboxes.places import vanished
from moorage.sandboxes.port import (
    CommandResult,
    SandboxesFull,
    SandboxGone,
    SandboxUnavailable,
    StaleClaim,
    ThreadDeleted,
    fencing_token,
)
from moorage.sandboxes.service import Sandboxes


class World:
    """A provider that two servers share, a clock, and the threads that have work."""

    def __init__(self) -> None:
        self.toys = Toys()
        self.now = 0.0
        self.working: set[ThreadId] = set()
        self.held: set[ThreadId] = set()
        self.used: set[ThreadId] = set()
        self.deleted: set[ThreadId] = set()
        self.answers = True

    def server(self, *, wait_seconds: float = 0) -> Sandboxes:
        return Sandboxes(
            self.toys, connect, idle_seconds=60, wait_seconds=wait_seconds, work=self, clock=lambda: self.now
        )

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        if not self.answers:
            raise Unavailable("Postgres does not answer")
        return self.working & set(thread_ids)

    async def existing(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        return set(thread_ids) - self.deleted

    @asynccontextmanager
    async def hold_idle(self, thread_ids: Collection[ThreadId]) -> AsyncGenerator[set[ThreadId]]:
        self.held = set(thread_ids) - await self.busy(thread_ids) - self.used
        yield self.held
        self.held = set()

    @asynccontextmanager
    async def in_use(self, thread_id: ThreadId) -> AsyncGenerator[None]:
        self.used.add(thread_id)
        try:
            yield
        finally:
            self.used.discard(thread_id)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def thread() -> ThreadId:
    return new_thread_id(UserId("alice"))


async def use(sandboxes: Sandboxes, thread_id: ThreadId, command: str = "true", **options: Any) -> CommandResult:
    return await (await sandboxes.acquire(thread_id, **options)).run(command, time_limit=5)


@contextmanager
def claimed(token: int) -> Generator[None]:
    """In the name of this claim of a run."""
    before = fencing_token.set(token)
    try:
        yield
    finally:
        fencing_token.reset(before)


async def every(thread_ids: Collection[ThreadId]) -> set[ThreadId]:
    return set(thread_ids)


async def none(_: Collection[ThreadId]) -> set[ThreadId]:
    return set()


async def test_who_comes_too_late_does_not_bring_a_deleted_thread_back(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    await server.delete(thread)
    world.deleted.add(thread)
    with pytest.raises(ThreadDeleted):
        await use(server, thread)
    assert await world.toys.list(folders=True) == []


# Helpers --------------------------------------------------------------------------------------------------------------


async def test_commands_of_a_thread_go_through_one_helper(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    await use(server, thread)
    assert len(world.toys.helpers) == 1


async def test_commands_that_come_at_once_open_one_helper(world: World, thread: ThreadId) -> None:
    server = world.server()
    await asyncio.gather(*(use(server, thread) for _ in range(5)))
    assert len(world.toys.helpers) == 1


async def test_a_lost_helper_is_replaced_and_what_it_left_is_killed(world: World, thread: ThreadId) -> None:
    server = world.server()
    asked: list[str] = []
    await use(server, thread)
    world.toys.helpers[0].lost = True
    world.toys.fail = asked.append
    assert await use(server, thread) == DONE
    assert asked == ["kill_all", "ensure", "open_helper", "true"]


async def test_a_sandbox_that_vanished_is_made_again(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.toys.lose(thread)
    assert await use(server, thread) == DONE


async def test_a_file_of_a_thread_that_works_elsewhere_is_reached_without_killing_anything(
    world: World, thread: ThreadId
) -> None:
    worker, front = world.server(), world.server()
    await use(worker, thread)
    await use(front, thread)
    world.working = {thread}
    world.toys.helpers[1].lost = True
    assert await use(front, thread) == DONE
    assert not world.toys.helpers[0].lost


async def test_an_order_that_ended_badly_outside_of_a_run_kills_no_run_s_commands(
    world: World, thread: ThreadId
) -> None:
    worker, front = world.server(), world.server()
    await use(worker, thread)
    await use(front, thread)
    world.working = {thread}
    kill_all = world.toys.helpers[1].kill_all
    assert kill_all is not None
    await kill_all()
    assert world.toys.open_helpers(thread) == 2
    with claimed(7):
        await kill_all()
    assert world.toys.open_helpers(thread) == 0


async def test_another_profile_gives_another_sandbox(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread, profile="small")
    await use(server, thread, profile="large")
    assert world.toys.running == {thread: "large"}
    await use(server, thread)
    assert world.toys.running == {thread: "large"}


async def test_what_is_read_when_a_run_begins_is_read_to_its_end(world: World, thread: ThreadId) -> None:
    server = world.server()

    @asynccontextmanager
    async def reading(sandbox: Any) -> AsyncGenerator[Any]:
        yield sandbox

    async with server.open(thread, reading) as read_through:
        await use(server, thread, profile="default")
        assert not read_through.closed
    assert read_through.closed
    assert world.toys.open_helpers(thread) == 1


async def test_a_thread_that_never_used_a_sandbox_has_no_files(world: World, thread: ThreadId) -> None:
    server = world.server()
    assert not await server.has_files(thread)
    await use(server, thread)
    assert await world.server().has_files(thread)


# Idle sandboxes -------------------------------------------------------------------------------------------------------


async def test_an_idle_sandbox_is_stopped(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.now = 61
    assert await server.sweep() == 1
    assert world.toys.running == {}
    assert world.toys.folders == {thread}


async def test_a_sandbox_that_looks_idle_here_is_kept_while_a_run_uses_it_elsewhere(
    world: World, thread: ThreadId
) -> None:
    server = world.server()
    await use(server, thread)
    world.now, world.working = 61, {thread}
    assert await server.sweep() == 0
    assert thread in world.toys.running


async def test_no_run_can_start_while_its_sandbox_is_being_stopped(world: World, thread: ThreadId) -> None:
    server = world.server()
    held: list[set[ThreadId]] = []
    await use(server, thread)
    world.now = 61
    world.toys.fail = lambda _: held.append(set(world.held))
    await server.sweep()
    assert held == [{thread}]


async def test_a_sandbox_that_looks_idle_here_is_kept_while_files_are_moved_through_it_elsewhere(
    world: World, thread: ThreadId
) -> None:
    here, elsewhere = world.server(), world.server()
    await use(here, thread)

    @asynccontextmanager
    async def download(sandbox: OpenSandbox) -> AsyncGenerator[str]:
        yield sandbox.id

    async with elsewhere.open(thread, download):
        world.now = 61
        assert await here.sweep() == 0
        assert thread in world.toys.running
    world.now = 122
    assert await here.sweep() == 1


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
    assert set(world.toys.running) == {used}
    assert all(helper.closed for helper in world.toys.helpers)


async def test_a_server_that_ends_leaves_what_it_only_knows_of(world: World, thread: ThreadId) -> None:
    await use(world.server(), thread)
    other = world.server()
    await other.reconcile(every)
    await other.close()
    assert thread in world.toys.running


async def test_a_server_that_ends_without_its_database_stops_nothing(world: World, thread: ThreadId) -> None:
    server = world.server()
    await use(server, thread)
    world.answers = False
    await server.close()
    assert thread in world.toys.running


async def test_what_a_server_left_running_is_adopted_by_the_next_reconciliation(world: World, thread: ThreadId) -> None:
    await use(world.server(), thread)
    successor = world.server()
    await successor.reconcile(every)
    world.now = 61
    assert await successor.sweep() == 1


async def test_reconciling_removes_the_sandbox_of_a_vanished_thread_and_leaves_its_files(
    world: World, thread: ThreadId
) -> None:
    server = world.server()
    await use(server, thread)
    assert await server.reconcile(none) == 1
    assert world.toys.running == {}
    assert world.toys.folders == {thread}
    assert [info.thread_id for info in await vanished(world.toys, none)] == [thread]
    assert await vanished(world.toys, every) == []


async def test_reconciling_clears_up_what_stopped_without_being_told_to(world: World, thread: ThreadId) -> None:
    server, works = world.server(), new_thread_id(UserId("bob"))
    for one in (thread, works):
        await use(server, one)
        world.toys.die(one)
    world.working = {works}
    await world.server().reconcile(every)
    assert world.toys.dead == {works}
    world.working = set()
    await world.server().reconcile(every)
    assert world.toys.dead == set()
    assert await use(server, thread) == DONE


@pytest.mark.parametrize("state", ["stuck", "broken"])
async def test_one_that_does_not_stop_keeps_no_other_from_being_stopped(
    world: World, thread: ThreadId, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """An agent may bring its container to where even the engine cannot remove it at once."""
    monkeypatch.setattr(places, "_STOP_SECONDS", 0.05)
    server, others = world.server(), [new_thread_id(UserId("bob")) for _ in range(40)]
    for one in (thread, *others):
        await use(server, one)
    setattr(world.toys, state, {thread})
    world.now = 61
    assert await server.sweep() == len(others)
    assert set(world.toys.running) == {thread}
    world.toys.die(others[0])
    await server.reconcile(every)
    assert world.toys.dead == set()


@pytest.mark.parametrize("state", ["stuck", "broken"])
async def test_one_that_cannot_be_removed_keeps_no_other_from_being_removed(
    world: World, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(places, "_STOP_SECONDS", 0.05)
    threads = [new_thread_id(UserId("bob")) for _ in range(40)]
    for one in threads:
        await use(world.server(), one)
    first = (await world.toys.list())[0].thread_id
    setattr(world.toys, state, {first})
    assert await world.server().reconcile(none) == len(threads) - 1
    assert set(world.toys.running) == {first}


async def test_what_stopped_and_is_in_use_again_is_left_alone(world: World, thread: ThreadId) -> None:
    await use(world.server(), thread)
    world.toys.die(thread)

    async def wake_up(_: Collection[ThreadId]) -> set[ThreadId]:
        await use(world.server(), thread)
        return {thread}

    await world.server().reconcile(wake_up)
    assert thread in world.toys.running


async def test_a_user_s_own_place_is_used_like_a_thread_s(world: World) -> None:
    place = user_place(UserId("alice"))
    server = world.server()
    assert await use(server, place) == DONE
    await server.delete(place)
    assert world.toys.folders == set()


# Claims ---------------------------------------------------------------------------------------------------------------


async def test_leftovers_of_another_server_are_killed_and_the_next_command_works(
    world: World, thread: ThreadId
) -> None:
    await use(world.server(), thread)
    server = world.server()
    await server.kill_leftovers(thread)
    assert world.toys.open_helpers(thread) == 0
    assert await use(server, thread) == DONE


async def test_killing_leftovers_wakes_nothing(world: World, thread: ThreadId) -> None:
    await world.server().kill_leftovers(thread)
    assert world.toys.running == {}


async def test_a_worker_whose_run_was_taken_over_reaches_the_sandbox_no_more(world: World, thread: ThreadId) -> None:
    frozen, other = world.server(), world.server()
    with claimed(1):
        await use(frozen, thread)
    with claimed(2):
        await other.kill_leftovers(thread)
        await use(other, thread)
    with claimed(1), pytest.raises(StaleClaim):
        await use(frozen, thread)
    with claimed(3):
        assert await use(frozen, thread) == DONE


async def test_within_one_process_too_an_older_claim_is_refused(world: World, thread: ThreadId) -> None:
    server = world.server()
    with claimed(2):
        await use(server, thread)
    with claimed(1), pytest.raises(StaleClaim):
        await use(server, thread)
    assert await use(server, thread) == DONE


# Sandboxes that start nothing -----------------------------------------------------------------------------------------


async def test_a_sandbox_that_runs_and_starts_nothing_is_started_anew(world: World, thread: ThreadId) -> None:
    server = world.server()
    paused: list[str] = []

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
    monkeypatch.setattr(waiting, "_ENGINE_PAUSE_SECONDS", 0)
    world.toys.fail = Engine(silent=20)
    assert await use(world.server(), thread) == DONE


async def test_an_engine_that_stays_away_is_told_in_the_end(
    world: World, thread: ThreadId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_ENGINE_SECONDS", 0)
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
    assert asked == ["ensure"]


# A full house ---------------------------------------------------------------------------------------------------------


async def test_a_full_house_has_room_once_the_sandbox_that_was_idle_for_longest_is_stopped(world: World) -> None:
    server, threads = world.server(), [new_thread_id(UserId(f"user{number}")) for number in range(3)]
    world.toys.most = 2
    for world.now, thread in enumerate(threads):
        await use(server, thread)
    assert set(world.toys.running) == set(threads[1:])


async def test_a_user_at_their_own_limit_loses_a_sandbox_of_their_own(world: World, thread: ThreadId) -> None:
    server, other = world.server(), new_thread_id(UserId("bob"))
    world.toys.most_per_user = 1
    await use(server, other)
    world.now = 1
    await use(server, thread)
    world.now = 2
    second = new_thread_id(UserId("alice"))
    await use(server, second)
    assert set(world.toys.running) == {other, second}


async def test_in_a_full_house_nothing_is_stopped_that_works(world: World, thread: ThreadId) -> None:
    server = world.server()
    world.toys.most, world.working = 1, {thread}
    await use(server, thread)
    with pytest.raises(SandboxesFull):
        await use(server, new_thread_id(UserId("bob")))
    assert set(world.toys.running) == {thread}


async def test_in_a_full_house_idle_sandboxes_of_other_servers_make_room_too(world: World, thread: ThreadId) -> None:
    await use(world.server(), thread)
    world.toys.most = 1
    assert await use(world.server(), new_thread_id(UserId("bob"))) == DONE
    assert thread not in world.toys.running


async def test_as_many_are_stopped_as_it_takes_when_more_run_than_may(world: World) -> None:
    for number in range(3):
        await use(world.server(), new_thread_id(UserId(f"user{number}")))
    world.toys.most = 1
    wanted = new_thread_id(UserId("alice"))
    assert await use(world.server(), wanted) == DONE
    assert set(world.toys.running) == {wanted}


async def test_in_a_full_house_what_another_server_stopped_already_makes_no_room(world: World) -> None:
    server, threads = world.server(), [new_thread_id(UserId(f"user{number}")) for number in range(4)]
    world.toys.most = 2
    await use(server, threads[0])
    world.toys.lose(threads[0])
    for world.now, thread in enumerate(threads[1:], start=1):
        await use(server, thread)
    assert set(world.toys.running) == set(threads[2:])


async def test_who_waits_is_served_when_there_is_room(world: World, thread: ThreadId) -> None:
    server = world.server(wait_seconds=30)
    world.toys.most, world.working = 1, {thread}
    await use(server, thread)
    waits = asyncio.create_task(use(server, new_thread_id(UserId("bob"))))
    await until_asked(world.toys, "list")
    world.working = set()
    await server.delete(thread)
    assert await waits == DONE


async def test_who_came_first_is_served_first(world: World, thread: ThreadId) -> None:
    server = world.server(wait_seconds=30)
    served: list[str] = []
    world.toys.most, world.working = 1, {thread}
    await use(server, thread)

    async def wait(name: str) -> None:
        await use(server, new_thread_id(UserId(name)))
        served.append(name)

    async with asyncio.TaskGroup() as group:
        for name in ("bob", "carol", "dave"):
            group.create_task(wait(name))
            await until_asked(world.toys, "list")
        world.working = set()
        await server.release(thread)
    assert served == ["bob", "carol", "dave"]


async def test_nobody_waits_for_another_user_s_limit(world: World, thread: ThreadId) -> None:
    server = world.server(wait_seconds=30)
    world.toys.most_per_user, world.working = 1, {thread}
    await use(server, thread)
    waits = asyncio.create_task(use(server, new_thread_id(UserId("alice"))))
    await until_asked(world.toys, "list")
    assert await use(server, new_thread_id(UserId("bob"))) == DONE
    assert not waits.done()
    await server.close()
    with pytest.raises(SandboxesFull):
        await waits


async def test_who_waits_in_vain_is_told(world: World, thread: ThreadId, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_ROUND_SECONDS", 0.001)
    server = world.server(wait_seconds=0.01)
    world.toys.most, world.working = 1, {thread}
    await use(server, thread)
    with pytest.raises(SandboxesFull):
        await use(server, new_thread_id(UserId("bob")))


async def test_who_stops_waiting_leaves_the_line(world: World, thread: ThreadId) -> None:
    server = world.server(wait_seconds=30)
    world.toys.most, world.working = 1, {thread}
    await use(server, thread)
    waits = asyncio.create_task(use(server, new_thread_id(UserId("bob"))))
    await until_asked(world.toys, "list")
    waits.cancel()
    await asyncio.wait([waits])
    world.working = set()
    await server.release(thread)
    assert await use(server, new_thread_id(UserId("carol"))) == DONE
    assert len(world.toys.running) == 1


async def until_asked(toys: Toys, call: str) -> None:
    """Return when the provider is asked this for the next time."""
    asked, before = asyncio.Event(), toys.fail

    def hear(name: str) -> None:
        if name == call:
            asked.set()
        before(name)

    toys.fail = hear
    async with asyncio.timeout(10):
        await asked.wait()
    toys.fail = before

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, LEASE, QUEUE_LIMIT, Ports, open_ports

from moorage.adapters.postgres.pool import Database
from moorage.approvals import RaisedInterrupt
from moorage.claims import Claim, ClaimLost, StopReason
from moorage.errors import Conflict
from moorage.events import EventType, run_event
from moorage.ids import InterruptId, ThreadId, UserId
from moorage.runs.run import ApprovalPending, BusyPolicy, IdempotencyMismatch, Outcome, QueueFull, RunStatus
from moorage.threads import SessionClosed, ThreadNotFound

DONE = Outcome(RunStatus.SUCCESS)
GONE = timedelta(seconds=-1)


@pytest.fixture(params=["memory", "postgres"])
async def ports(request: pytest.FixtureRequest, database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports(request.param, database) as found:
        yield found


def raised(number: int = 0, **changes: Any) -> RaisedInterrupt:
    values = {
        "id": InterruptId(f"{number:032x}"),
        "call_id": f"call_{number}",
        "tool_name": "execute",
        "tool_input": {"command": "ls"},
        "description": "Run a command in the sandbox",
        "allowed_decisions": ["approve"],
        "args_schema": {},
        "facts": {},
        "agent": "agent",
    }
    return RaisedInterrupt(**{**values, **changes})


async def data_of(ports: Ports, thread_id: ThreadId, kind: EventType) -> list[dict[str, Any]]:
    events = await ports.log.read(thread_id, after=0, limit=1000)
    return [json.loads(event.data) for event in events if event.type is kind]


async def test_a_message_is_stored_before_its_run_can_be_claimed(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    started = await ports.submit(thread_id, "hello")
    assert started.first_seq == 1
    [event] = await data_of(ports, thread_id, EventType.MESSAGE_RECEIVED)
    assert (event["content"], event["run_id"], event["thread_id"]) == ("hello", started.run_id, thread_id)
    [run] = await ports.queue.claim("w", limit=5, lease=LEASE)
    assert (run.claim.run_id, run.claim.thread_id, run.claim.owner_id) == (started.run_id, thread_id, ALICE)
    assert (run.input["content"], run.input["message_id"]) == ("hello", event["message_id"])


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b", "\x00"])
async def test_a_message_with_broken_characters_is_taken_without_them(ports: Ports, bad: str) -> None:
    thread_id = await ports.new_thread()
    await ports.submit(thread_id, bad)
    [run] = await ports.queue.claim("w", limit=1, lease=LEASE)
    [event] = await data_of(ports, thread_id, EventType.MESSAGE_RECEIVED)
    assert run.input["content"] == event["content"] == bad.replace("\x00", "").replace("\ud800", "?")


async def test_a_run_is_claimed_once(ports: Ports) -> None:
    for _ in range(5):
        await ports.submit(await ports.new_thread())
    claims = await asyncio.gather(*(ports.claim(limit=2) for _ in range(10)))
    found = [claim.run_id for some in claims for claim in some]
    found += [claim.run_id for claim in await ports.claim()]
    assert len(found) == len(set(found)) == 5


async def test_a_claim_takes_no_more_than_its_limit_and_the_oldest_first(ports: Ports) -> None:
    threads = [await ports.new_thread() for _ in range(3)]
    started = [await ports.submit(thread_id) for thread_id in threads]
    assert [claim.run_id for claim in await ports.claim(limit=2)] == [run.run_id for run in started[:2]]


async def test_messages_of_one_thread_run_one_at_a_time_in_order(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    started = [(await ports.submit(thread_id, str(number))).run_id for number in range(3)]
    ran: list[str] = []
    for _ in range(3):
        [claim] = await ports.claim()
        assert await ports.claim() == []
        ran.append(claim.run_id)
        await ports.queue.finish(claim, DONE)
    assert ran == started
    assert await ports.claim() == []


async def test_ten_messages_at_once_are_all_there_in_the_order_of_their_answers(ports: Ports) -> None:
    threads = [await ports.new_thread() for _ in range(4)]
    started = await asyncio.gather(*(ports.submit(threads[n % 4], str(n)) for n in range(12)))
    for thread_id in threads:
        received = await ports.log.read(thread_id, after=0, limit=10)
        assert [event.seq for event in received] == [1, 2, 3]
        assert {event.run_id for event in received} < {run.run_id for run in started}


async def test_a_busy_thread_refuses_a_message_that_will_not_wait(ports: Ports) -> None:
    claim = await ports.running()
    with pytest.raises(Conflict) as caught:
        await ports.submit(claim.thread_id, policy=BusyPolicy.REJECT)
    assert caught.value.code == "thread_busy"
    await ports.queue.finish(claim, DONE)
    await ports.submit(claim.thread_id, policy=BusyPolicy.REJECT)


async def test_of_messages_at_once_that_will_not_wait_one_is_taken(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    submits = (ports.submit(thread_id, policy=BusyPolicy.REJECT) for _ in range(8))
    results = await asyncio.gather(*submits, return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 7
    assert len(await ports.events(thread_id)) == 1


async def test_a_queue_is_not_overfilled_by_messages_at_once(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    results = await asyncio.gather(*(ports.submit(thread_id) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, QueueFull) for result in results) == 8 - QUEUE_LIMIT


async def test_a_full_queue_refuses_and_says_when_to_come_back(ports: Ports) -> None:
    claim = await ports.running()
    for _ in range(QUEUE_LIMIT):
        await ports.submit(claim.thread_id)
    with pytest.raises(QueueFull) as caught:
        await ports.submit(claim.thread_id)
    assert caught.value.retry_after
    await ports.submit(await ports.new_thread())


async def test_a_closed_thread_takes_no_message(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    await ports.close_thread(thread_id)
    with pytest.raises(SessionClosed):
        await ports.submit(thread_id)


async def test_nobody_can_write_to_the_thread_of_another_or_to_none(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    for owner, target in ((UserId("bob"), thread_id), (ALICE, ThreadId(f"alice-{'0' * 8}-0000-4000-8000-{'0' * 12}"))):
        with pytest.raises(ThreadNotFound):
            await ports.queue.submit(owner, target, content="x", policy=BusyPolicy.ENQUEUE, idempotency_key=None)


async def test_the_same_key_and_message_answer_with_the_same_run(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    answers = await asyncio.gather(*(ports.submit(thread_id, key="k") for _ in range(5)))
    assert len(set(answers)) == 1
    assert len(await ports.events(thread_id)) == 1


async def test_the_same_key_still_answers_when_the_thread_would_refuse(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    first = await ports.submit(thread_id, key="k")
    await ports.close_thread(thread_id)
    assert await ports.submit(thread_id, key="k") == first


async def test_the_same_key_with_another_message_or_thread_is_refused(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    await ports.submit(thread_id, "one", key="k")
    with pytest.raises(IdempotencyMismatch):
        await ports.submit(thread_id, "two", key="k")
    with pytest.raises(IdempotencyMismatch):
        await ports.submit(await ports.new_thread(), "one", key="k")


async def test_the_same_key_for_two_threads_at_once_starts_one_run(ports: Ports) -> None:
    threads = [await ports.new_thread() for _ in range(4)]
    results = await asyncio.gather(*(ports.submit(thread, key="k") for thread in threads), return_exceptions=True)
    refused = [result for result in results if isinstance(result, IdempotencyMismatch)]
    assert len(refused) == 3, results
    assert len(await ports.claim()) == 1


async def test_the_last_event_of_a_run_is_its_end(ports: Ports) -> None:
    claim = await ports.running()
    error: dict[str, Any] = {"code": "model_unavailable", "detail": "no"}
    await ports.queue.finish(claim, Outcome(RunStatus.ERROR, error=error, usage={"model_calls": 3}))
    assert [kind for _, kind in await ports.events(claim.thread_id)] == ["message_received", "error", "run_end"]
    assert await data_of(ports, claim.thread_id, EventType.ERROR) == [{**error, "run_id": claim.run_id}]
    [end] = await data_of(ports, claim.thread_id, EventType.RUN_END)
    assert end == {"run_id": claim.run_id, "status": "error", "usage": {"model_calls": 3}}


async def test_a_run_ends_once(ports: Ports) -> None:
    claim = await ports.running()
    results = await asyncio.gather(*(ports.queue.finish(claim, DONE) for _ in range(5)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ClaimLost"] * 4 + ["NoneType"]
    assert len(await data_of(ports, claim.thread_id, EventType.RUN_END)) == 1


async def test_only_the_holder_of_the_claim_ends_a_run(ports: Ports) -> None:
    claim = await ports.running()
    for generation in (claim.generation - 1, claim.generation + 1):
        with pytest.raises(ClaimLost):
            await ports.queue.finish(Claim(claim.run_id, claim.thread_id, ALICE, generation), DONE)
    await ports.queue.finish(claim, DONE)


async def test_what_waits_for_approval_blocks_messages(ports: Ports) -> None:
    claim = await ports.running()
    await ports.queue.finish(claim, Outcome(RunStatus.INTERRUPTED, interrupts=[raised(1), raised(2)]))
    [event] = await data_of(ports, claim.thread_id, EventType.INTERRUPT)
    assert [item["call_id"] for item in event["interrupts"]] == ["call_1", "call_2"]
    assert [kind for _, kind in await ports.events(claim.thread_id)][-2:] == ["interrupt", "run_end"]
    with pytest.raises(ApprovalPending):
        await ports.submit(claim.thread_id)


async def test_messages_that_were_queued_wait_for_the_approval(ports: Ports) -> None:
    claim = await ports.running()
    await ports.submit(claim.thread_id)
    await ports.queue.finish(claim, Outcome(RunStatus.INTERRUPTED, interrupts=[raised()]))
    assert await ports.claim() == []


@pytest.mark.parametrize("bad", ["a\x00b", "a\ud800b"])
async def test_an_interrupt_with_broken_characters_is_raised_without_them(ports: Ports, bad: str) -> None:
    claim = await ports.running()
    interrupt = raised(tool_input={"command": bad}, description=bad, call_id=bad, tool_name=bad)
    await ports.queue.finish(claim, Outcome(RunStatus.INTERRUPTED, interrupts=[interrupt]))
    [event] = await data_of(ports, claim.thread_id, EventType.INTERRUPT)
    assert event["interrupts"][0]["call_id"] in ("ab", "a?b")


async def test_a_heartbeat_keeps_the_lease(ports: Ports) -> None:
    claim = await ports.running(lease=GONE)
    assert await ports.queue.heartbeat([claim], lease=LEASE) == {}
    assert await ports.queue.recover_lost(max_attempts=3) == 0
    await ports.queue.finish(claim, DONE)


async def test_a_heartbeat_says_which_claims_are_lost(ports: Ports) -> None:
    held, ended, deleted = [await ports.running() for _ in range(3)]
    old = Claim(held.run_id, held.thread_id, ALICE, held.generation - 1)
    await ports.queue.finish(ended, DONE)
    await ports.delete_thread(deleted.thread_id)
    found = await ports.queue.heartbeat([held, ended, deleted], lease=LEASE)
    assert found == {ended.run_id: StopReason.DELETED, deleted.run_id: StopReason.DELETED}
    assert await ports.queue.heartbeat([old], lease=LEASE) == {old.run_id: StopReason.DELETED}


async def test_each_claim_has_a_greater_fencing_token_than_those_before_it(ports: Ports) -> None:
    lost = await ports.running(lease=GONE)
    await ports.queue.recover_lost(max_attempts=3)
    [again] = await ports.claim()
    await ports.queue.finish(again, DONE)
    await ports.submit(lost.thread_id, "next")
    [later] = await ports.claim()
    tokens = [claim.fencing_token or 0 for claim in (lost, again, later)]
    assert 0 < tokens[0] < tokens[1] < tokens[2]


async def test_a_run_whose_lease_ran_out_is_the_next_workers_and_its_first_one_writes_nothing(ports: Ports) -> None:
    lost = await ports.running(lease=GONE)
    await ports.submit(lost.thread_id, "next")
    assert await ports.queue.recover_lost(max_attempts=3) == 1
    assert await ports.queue.recover_lost(max_attempts=3) == 0
    with pytest.raises(ClaimLost):
        await ports.queue.finish(lost, DONE)
    with pytest.raises(ClaimLost):
        await ports.queue.release(lost)
    [run] = await ports.queue.claim("second", limit=5, lease=LEASE)
    assert (run.claim.run_id, run.claim.generation) == (lost.run_id, lost.generation + 1)
    assert (run.attempt, run.fresh, run.taken_over) == (2, False, True)
    with pytest.raises(ClaimLost):
        await ports.log.append(lost, [run_event(EventType.AGENT_START, {})])
    assert await ports.queue.heartbeat([lost], lease=LEASE) == {lost.run_id: StopReason.DELETED}
    await ports.queue.finish(run.claim, DONE)


async def test_a_run_that_loses_each_of_its_workers_ends_with_a_word_that_says_so(ports: Ports) -> None:
    first = await ports.running(lease=GONE)
    await ports.submit(first.thread_id, "next")
    for _ in range(2):
        await ports.queue.recover_lost(max_attempts=3)
        await ports.claim(lease=GONE)
    await ports.queue.recover_lost(max_attempts=3)
    [error] = await data_of(ports, first.thread_id, EventType.ERROR)
    assert (error["code"], error["run_id"]) == ("crashed_repeatedly", first.run_id)
    [end] = await data_of(ports, first.thread_id, EventType.RUN_END)
    assert (end["run_id"], end["status"]) == (first.run_id, "error")
    [following] = await ports.claim()
    assert following.run_id != first.run_id


async def test_a_lost_run_that_was_to_stop_ends_cancelled(ports: Ports) -> None:
    claim = await ports.running(lease=GONE)
    await ports.queue.request_stop(claim.thread_id, StopReason.CANCELLED)
    assert await ports.queue.recover_lost(max_attempts=3) == 1
    [end] = await data_of(ports, claim.thread_id, EventType.RUN_END)
    assert end["status"] == "cancelled"
    assert await ports.claim() == []


async def test_a_run_that_is_handed_back_is_first_in_line_and_has_lost_no_attempt(ports: Ports) -> None:
    claim = await ports.running()
    await ports.submit(claim.thread_id, "next")
    await ports.queue.release(claim)
    [run] = await ports.queue.claim("second", limit=5, lease=LEASE)
    assert (run.claim.run_id, run.attempt, run.fresh) == (claim.run_id, 1, False)
    assert await ports.claim() == []


async def test_a_run_that_was_to_stop_is_not_handed_back(ports: Ports) -> None:
    claim = await ports.running()
    await ports.queue.request_stop(claim.thread_id, StopReason.CANCELLED)
    await ports.queue.release(claim)
    [end] = await data_of(ports, claim.thread_id, EventType.RUN_END)
    assert end["status"] == "cancelled"


@pytest.mark.parametrize("policy", [BusyPolicy.INTERRUPT, BusyPolicy.ROLLBACK])
async def test_a_message_that_interrupts_stops_the_running_run_and_is_next(ports: Ports, policy: BusyPolicy) -> None:
    claim = await ports.running()
    started = await ports.submit(claim.thread_id, "instead", policy=policy)
    assert started.stops == (claim.run_id,)
    assert await ports.queue.heartbeat([claim], lease=LEASE) == {claim.run_id: StopReason(policy)}
    assert await ports.claim() == []
    await ports.queue.finish(claim, DONE if policy is BusyPolicy.ROLLBACK else Outcome(RunStatus.CANCELLED))
    [end] = await data_of(ports, claim.thread_id, EventType.RUN_END)
    assert (end["status"], end.get("rolled_back", False)) == ("cancelled", policy is BusyPolicy.ROLLBACK)
    assert [found.run_id for found in await ports.claim()] == [started.run_id]


@pytest.mark.parametrize("policy", [BusyPolicy.INTERRUPT, BusyPolicy.ROLLBACK, BusyPolicy.REJECT_AND_CONTINUE])
async def test_on_an_idle_thread_every_policy_just_runs(ports: Ports, policy: BusyPolicy) -> None:
    started = await ports.submit(await ports.new_thread(), policy=policy)
    assert started.stops == ()
    assert [claim.run_id for claim in await ports.claim()] == [started.run_id]


async def test_a_message_can_reject_what_waits_and_go_on(ports: Ports) -> None:
    claim = await ports.running()
    await ports.queue.finish(claim, Outcome(RunStatus.INTERRUPTED, interrupts=[raised()]))
    started = await ports.submit(claim.thread_id, "never mind", policy=BusyPolicy.REJECT_AND_CONTINUE)
    [run] = await ports.queue.claim("w", limit=5, lease=LEASE)
    assert (run.claim.run_id, run.fresh) == (started.run_id, False)


async def test_it_can_be_asked_whether_runs_have_ended(ports: Ports) -> None:
    running, done = [await ports.running() for _ in range(2)]
    await ports.queue.finish(done, DONE)
    assert await ports.queue.have_ended([done.run_id])
    assert not await ports.queue.have_ended([done.run_id, running.run_id])


async def test_a_run_after_a_success_is_fresh_and_after_anything_else_is_not(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    for status, fresh in ((RunStatus.SUCCESS, True), (RunStatus.ERROR, True), (RunStatus.SUCCESS, False)):
        await ports.submit(thread_id)
        [run] = await ports.queue.claim("w", limit=1, lease=LEASE)
        assert run.fresh is fresh
        await ports.queue.finish(run.claim, Outcome(status))


async def test_stopping_a_running_run_tells_its_worker_why(ports: Ports) -> None:
    claim = await ports.running()
    assert await ports.queue.request_stop(claim.thread_id, StopReason.CANCELLED) == [claim.run_id]
    assert await ports.queue.heartbeat([claim], lease=LEASE) == {claim.run_id: StopReason.CANCELLED}


async def test_stopping_ends_what_is_queued_in_order_and_at_once(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    started = [await ports.submit(thread_id) for _ in range(3)]
    assert await ports.queue.request_stop(thread_id, StopReason.CANCELLED) == []
    ends = await data_of(ports, thread_id, EventType.RUN_END)
    assert [(end["run_id"], end["status"]) for end in ends] == [(run.run_id, "cancelled") for run in started]
    assert [seq for seq, _ in await ports.events(thread_id)] == [1, 2, 3, 4, 5, 6]
    assert await ports.claim() == []


async def test_stopping_ends_what_is_queued_behind_a_running_run(ports: Ports) -> None:
    claim = await ports.running()
    queued = [(await ports.submit(claim.thread_id)).run_id for _ in range(2)]
    await ports.queue.request_stop(claim.thread_id, StopReason.CANCELLED)
    assert [end["run_id"] for end in await data_of(ports, claim.thread_id, EventType.RUN_END)] == queued
    await ports.queue.finish(claim, Outcome(RunStatus.CANCELLED))
    assert await ports.claim() == []
    assert [seq for seq, _ in await ports.events(claim.thread_id)] == [1, 2, 3, 4, 5, 6]


async def test_stopping_an_idle_or_unknown_thread_does_nothing(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    assert await ports.queue.request_stop(thread_id, StopReason.CANCELLED) == []
    await ports.delete_thread(thread_id)
    assert await ports.queue.request_stop(thread_id, StopReason.DELETED) == []


async def race(ports: Ports, moment: str, thread_id: ThreadId) -> list[Claim]:
    """Ask to stop while something else happens; answers the claims that are held afterwards."""
    claim = None if moment == "claim" else await ports.running(thread_id)
    for _ in range(QUEUE_LIMIT - 1):
        await ports.submit(thread_id)
    stop = ports.queue.request_stop(thread_id, StopReason.CANCELLED)
    if claim is None:
        claims, _ = await asyncio.gather(ports.claim(), stop)
        return claims
    other = {
        "finish": ports.queue.finish,
        "submit": lambda *_: ports.submit(thread_id, "late"),
        "heartbeat": lambda *_: ports.queue.heartbeat([claim], lease=LEASE),
        "stop": lambda *_: ports.queue.request_stop(thread_id, StopReason.CANCELLED),
    }[moment]
    await asyncio.gather(other(claim, DONE), stop)
    return [] if moment == "finish" else [claim]


@pytest.mark.parametrize("moment", ["claim", "finish", "submit", "heartbeat", "stop"])
async def test_a_stop_at_the_same_moment_loses_nothing(ports: Ports, moment: str) -> None:
    """Whatever a stop races with, each run is either told to stop, ended, or was accepted after the stop."""
    for _ in range(15):
        thread_id = await ports.new_thread()
        for claim in await race(ports, moment, thread_id):
            assert await ports.queue.heartbeat([claim], lease=LEASE) == {claim.run_id: StopReason.CANCELLED}
            await ports.queue.finish(claim, Outcome(RunStatus.CANCELLED))
        for late in await ports.claim():
            assert moment == "submit"
            await ports.queue.finish(late, DONE)
        ends = [end["run_id"] for end in await data_of(ports, thread_id, EventType.RUN_END)]
        received = [item["run_id"] for item in await data_of(ports, thread_id, EventType.MESSAGE_RECEIVED)]
        assert sorted(ends) == sorted(received)
        assert [seq for seq, _ in await ports.events(thread_id)] == list(range(1, len(ends) * 2 + 1))


async def test_one_thread_never_runs_twice_however_many_claim(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    active = most = ran = 0

    async def work() -> None:
        nonlocal active, most, ran
        while ran < 3:
            for claim in await ports.claim(limit=3):
                active += 1
                most = max(most, active)
                await ports.log.read(thread_id, after=0, limit=1)
                active -= 1
                await ports.queue.finish(claim, DONE)
                ran += 1
            await ports.queue.wait_for_work(at_most=0.01)

    for _ in range(3):
        await ports.submit(thread_id)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(work())
    assert (most, ran) == (1, 3)


async def test_a_wake_before_the_wait_is_not_lost(ports: Ports) -> None:
    ports.queue.wake()
    await asyncio.wait_for(ports.queue.wait_for_work(at_most=60), 2)


async def test_a_submit_wakes_who_waits(ports: Ports) -> None:
    thread_id = await ports.new_thread()
    waiting = asyncio.create_task(ports.queue.wait_for_work(at_most=60))
    await ports.submit(thread_id)
    await asyncio.wait_for(waiting, 2)


async def test_an_end_wakes_who_waits_for_the_next_run_of_the_thread(ports: Ports) -> None:
    claim = await ports.running()
    await ports.queue.wait_for_work(at_most=0.01)
    waiting = asyncio.create_task(ports.queue.wait_for_work(at_most=60))
    await ports.queue.finish(claim, DONE)
    await asyncio.wait_for(waiting, 2)


async def test_without_work_the_wait_ends_by_itself(ports: Ports) -> None:
    await asyncio.wait_for(ports.queue.wait_for_work(at_most=0.01), 2)

"""Runs from the message to their end: real Postgres, queue, worker, executor and graph; only the model is scripted."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
import structlog
from langchain_core.exceptions import ContextOverflowError
from tests.conftest import AddUser
from tests.fake_agent import call, calls
from tests.integration.runs_harness import (
    ALICE,
    APPROVE,
    PATIENCE,
    REJECT,
    Harbor,
    code_of,
    end_of,
    open_harbor,
    text_of,
    types,
)

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.snapshots import PostgresSnapshots
from moorage.approvals import Answer, Decision, DecisionType, InterruptDecided, InvalidDecision, NothingPending
from moorage.errors import Conflict
from moorage.rules import Match, Remember
from moorage.runs.run import ApprovalPending, BusyPolicy, IdempotencyMismatch, QueueFull
from moorage.snapshots import NewSnapshot, SnapshotKind
from moorage.threads import SessionClosed, SessionExpired, Thread, ThreadRunStatus

REQUEST = httpx.Request("POST", "http://model/v1")
type Open = Callable[..., AbstractAsyncContextManager[Harbor]]


@pytest.fixture(scope="module", autouse=True)
def _plain_tracebacks() -> Generator[None]:
    """structlog's own default renders the locals of every frame, which takes seconds."""
    structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])
    yield
    structlog.reset_defaults()


@pytest.fixture
async def harbor(database: Database, add_user: AddUser) -> AsyncGenerator[Harbor]:
    """With one worker and this script: `run` executes a command, `two` executes two at once, `list` only reads."""
    script = {
        "run": [calls(execute("ls")), "done"],
        "two": [calls(execute("a", "c1"), execute("b", "c2")), "done"],
        "list": [calls(call("ls", "c1", path="/workspace")), "done"],
    }
    await add_user(ALICE)
    async with open_harbor(database, script) as found:
        yield found


@pytest.fixture
async def open_with(database: Database, add_user: AddUser) -> Open:
    await add_user(ALICE)
    return lambda script, **options: open_harbor(database, script, **options)


def execute(command: str, call_id: str = "c1") -> Any:
    return call("execute", call_id, command=command)


def status_error(status: int, **headers: str) -> openai.APIStatusError:
    reply = httpx.Response(status, request=REQUEST, headers=headers)
    return openai.APIStatusError("the key sk-hunter2 is wrong", response=reply, body=None)


class Gate:
    """A model turn that says when it is reached and waits until it may go on."""

    def __init__(self, text: str = "slow answer") -> None:
        self.reached, self.open, self._text = asyncio.Event(), asyncio.Event(), text

    async def __call__(self) -> str:
        self.reached.set()
        async with asyncio.timeout(PATIENCE):
            await self.open.wait()
        return self._text

    async def wait(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.reached.wait()


async def assert_usable(harbor: Harbor, thread: Thread) -> None:
    """The thread takes a message and answers it, and its log has no gap and one end per run, the last of its events.

    What a run asked may be closed after it has ended: by a decision, and by the rejection that comes of it.
    """
    assert end_of(await harbor.say(thread, "hello")) == "success"
    told = await harbor.everything(thread)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    for run_id in {event.run_id for event in told}:
        kinds = [event.type for event in told if event.run_id == run_id]
        assert kinds.count("run_end") == 1
        closing = kinds[kinds.index("run_end") + 1 :]
        assert set(closing) <= {"decision", "tool_result"}


# From a message to its answer ---------------------------------------------------------------------------------------


async def test_a_message_is_answered(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await harbor.say(thread, "hello")
    assert types(told)[:2] == ["message_received", "agent_start"]
    assert types(told)[-2:] == ["message_complete", "run_end"]
    assert (text_of(told), end_of(told)) == ("ok", "success")
    assert told[-1].data["usage"]["model_calls"] == 1


async def test_the_thread_shows_what_happened(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "\n  hello there \n second line")
    found = await harbor.thread(thread.thread_id)
    assert (found.title, found.run_status) == ("hello there", ThreadRunStatus.IDLE)
    assert (found.message_count, found.turn_count) == (2, 1)
    assert found.last_seq == len(await harbor.everything(thread))


async def test_a_conversation_is_remembered(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "one")
    await harbor.say(thread, "two")
    assert [message.text for message in harbor.agent.model.seen[-1][1:]] == ["one", "ok", "two"]


async def test_messages_are_answered_first_in_first_out(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"first": [gate]}) as harbor:
        thread = await harbor.new_thread()
        started = [await harbor.start(thread, "first")]
        await gate.wait()
        started += [await harbor.start(thread, text) for text in ("second", "third")]
        gate.open.set()
        for run in started:
            assert end_of(await harbor.told(thread, run)) == "success"
        asked = [message.text for message in harbor.agent.model.seen[-1] if message.type == "human"]
        assert asked == ["first", "second", "third"]


async def test_two_workers_never_run_one_thread_twice(open_with: Open) -> None:
    active: list[int] = [0, 0]

    async def turn() -> str:
        active[0] += 1
        active[1] = max(active)
        await harbor.database.ping()
        active[0] -= 1
        return "ok"

    async with open_with({"go": [turn]}, workers=2) as harbor:
        thread = await harbor.new_thread()
        for _ in range(3):
            started = [await harbor.start(thread) for _ in range(3)]
            for run in started:
                assert end_of(await harbor.told(thread, run)) == "success"
        assert active == [0, 1]
        await assert_usable(harbor, thread)


async def test_many_threads_run_side_by_side(harbor: Harbor) -> None:
    threads = [await harbor.new_thread() for _ in range(12)]
    ends = await asyncio.gather(*(harbor.say(thread, "list") for thread in threads))
    assert {end_of(told) for told in ends} == {"success"}


async def test_the_history_is_what_was_said(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "list")
    page = await harbor.threads.messages(thread, limit=10, cursor=None)
    assert [(item.message.role.value, item.message.content) for item in page.items] == [
        ("user", "list"),
        ("assistant", ""),
        ("tool", "No files found"),
        ("assistant", "done"),
    ]
    positions = [item.position for item in page.items]
    assert positions == sorted(set(positions))
    first = await harbor.threads.messages(thread, limit=3, cursor=None)
    rest = await harbor.threads.messages(thread, limit=3, cursor=first.next_cursor)
    assert [*first.items, *rest.items] == page.items


async def test_broken_characters_in_a_message_and_in_an_answer_end_nothing(open_with: Open) -> None:
    async with open_with({"a?b": ["x\x00\udfffy"]}) as harbor:
        thread = await harbor.new_thread()
        told = await harbor.say(thread, "a\ud800b\x00")
        assert (text_of(told), end_of(told)) == ("x?y", "success")
        await assert_usable(harbor, thread)


# What is refused ----------------------------------------------------------------------------------------------------


async def test_a_busy_thread_refuses_who_will_not_wait(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread)
        await gate.wait()
        with pytest.raises(Conflict, match="busy"):
            await harbor.start(thread, "more", policy=BusyPolicy.REJECT)
        gate.open.set()


async def test_a_full_queue_refuses(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread)
        await gate.wait()
        for _ in range(3):
            await harbor.start(thread, "hello")
        with pytest.raises(QueueFull):
            await harbor.start(thread, "hello")
        gate.open.set()


async def test_a_closed_session_refuses(harbor: Harbor) -> None:
    thread = await harbor.threads.close(await harbor.new_thread())
    with pytest.raises(SessionClosed):
        await harbor.start(thread)


async def test_an_expired_session_refuses(open_with: Open) -> None:
    async with open_with({}, life=timedelta(microseconds=1)) as harbor:
        with pytest.raises(SessionExpired):
            await harbor.start(await harbor.new_thread())


async def test_a_repeated_key_attaches_to_its_run_and_runs_nothing_twice(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    first = await harbor.start(thread, "hello", idempotency_key="k")
    await harbor.told(thread, first)
    again = await harbor.start(thread, "hello", idempotency_key="k")
    assert again == first
    assert len(harbor.agent.model.seen) == 1
    with pytest.raises(IdempotencyMismatch):
        await harbor.start(thread, "other", idempotency_key="k")


# Approvals ----------------------------------------------------------------------------------------------------------


async def test_a_run_stops_to_ask_and_an_answer_starts_the_next(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    told = await harbor.say(thread, "run")
    assert types(told)[-3:] == ["tool_call", "interrupt", "run_end"]
    assert end_of(told) == "interrupted"
    assert (await harbor.thread(thread.thread_id)).run_status is ThreadRunStatus.INTERRUPTED
    after = await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
    assert types(after)[:3] == ["decision", "agent_start", "tool_result"]
    assert (harbor.sandbox.ran, text_of(after), end_of(after)) == (["ls"], "done", "success")
    await assert_usable(harbor, thread)


async def test_a_partial_answer_leaves_the_rest_pending(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    asked = [event.data for event in await harbor.say(thread, "two") if event.type == "interrupt"]
    assert [item["call_id"] for item in asked[0]["interrupts"]] == ["c1", "c2"]
    told = await harbor.told(thread, await harbor.answer(thread, c2=APPROVE))
    assert (harbor.sandbox.ran, end_of(told)) == (["b"], "interrupted")
    assert [item.raised.call_id for item in await harbor.approvals.pending(ALICE, thread.thread_id)] == ["c1"]
    told = await harbor.told(thread, await harbor.answer(thread, c1=REJECT))
    assert (harbor.sandbox.ran, text_of(told), end_of(told)) == (["b"], "done", "success")


async def test_of_two_answers_at_once_one_wins_and_the_call_runs_once(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    results = await asyncio.gather(*(harbor.answer(thread, c1=APPROVE) for _ in range(4)), return_exceptions=True)
    [won] = [result for result in results if not isinstance(result, BaseException)]
    assert {type(result) for result in results if result is not won} <= {InterruptDecided, NothingPending}
    assert end_of(await harbor.told(thread, won)) == "success"
    assert harbor.sandbox.ran == ["ls"]
    await assert_usable(harbor, thread)


async def test_answers_to_different_calls_at_once_both_count(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    decided = await asyncio.gather(harbor.answer(thread, c1=APPROVE), harbor.answer(thread, c2=APPROVE))
    ends = {end_of(await harbor.told(thread, run)) for run in decided}
    assert "success" in ends <= {"interrupted", "success"}  # whichever run comes first carries out all that is decided
    assert sorted(harbor.sandbox.ran) == ["a", "b"]
    await assert_usable(harbor, thread)


async def test_a_late_answer_to_what_was_decided_is_refused(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    [waiting] = await harbor.approvals.pending(ALICE, thread.thread_id)
    await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))
    late = Answer(REJECT, interrupt_id=waiting.raised.id)
    with pytest.raises(InterruptDecided):
        await harbor.approvals.answer(ALICE, thread.thread_id, [late], via="test")


async def test_a_malformed_answer_leaves_all_of_them_pending(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    bad = Decision(DecisionType.EDIT, edited_args={"cmd": "b"}, edited_name="execute")
    with pytest.raises(InvalidDecision):
        await harbor.answer(thread, c1=APPROVE, c2=bad)
    assert len(await harbor.approvals.pending(ALICE, thread.thread_id)) == 2
    good = Decision(DecisionType.EDIT, edited_args={"command": "B"}, edited_name="execute")
    await harbor.told(thread, await harbor.answer(thread, c1=APPROVE, c2=good))
    assert sorted(harbor.sandbox.ran) == ["B", "a"]


async def test_a_message_while_an_approval_waits_is_refused(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    with pytest.raises(ApprovalPending):
        await harbor.start(thread)


async def test_a_message_that_was_queued_before_the_pause_waits_for_the_answer(open_with: Open) -> None:
    gate = Gate()

    async def ask() -> Any:
        await gate()
        return calls(execute("ls"))

    async with open_with({"run": [ask, "done"]}) as harbor:
        thread = await harbor.new_thread()
        first = await harbor.start(thread, "run")
        await gate.wait()
        second = await harbor.start(thread, "hello")
        gate.open.set()
        assert end_of(await harbor.told(thread, first)) == "interrupted"
        assert text_of(await harbor.told(thread, await harbor.answer(thread, c1=APPROVE))) == "done"
        assert end_of(await harbor.told(thread, second)) == "success"


async def test_one_answer_for_all_can_be_bound_to_what_was_seen(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    seen = (await harbor.thread(thread.thread_id)).last_seq
    with pytest.raises(InterruptDecided):
        await harbor.approvals.answer_all(ALICE, thread.thread_id, APPROVE, up_to_seq=1, via="test")
    decided = await harbor.approvals.answer_all(ALICE, thread.thread_id, APPROVE, up_to_seq=seen, via="test")
    assert end_of(await harbor.told(thread, decided)) == "success"


async def test_a_nul_in_a_command_is_shown_and_run_without_it(open_with: Open) -> None:
    file = call("write_file", "c2", file_path="/workspace/a\x00b", content="\udfff")
    async with open_with({"run": [calls(execute("l\x00s"), file), "done"]}) as harbor:
        thread = await harbor.new_thread()
        assert end_of(await harbor.say(thread, "run")) == "interrupted"
        assert end_of(await harbor.told(thread, await harbor.answer(thread, c1=APPROVE, c2=APPROVE))) == "success"
        assert harbor.sandbox.ran == ["ls"]


# Cancelling ---------------------------------------------------------------------------------------------------------


async def test_cancelling_a_model_call(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        started = await harbor.start(thread)
        await gate.wait()
        async with asyncio.timeout(5):
            await harbor.cancel(thread)
        assert end_of(await harbor.told(thread, started)) == "cancelled"
        await assert_usable(harbor, thread)


async def test_cancelling_a_command_and_the_model_learns_that_it_did_not_end(harbor: Harbor) -> None:
    harbor.sandbox.hold["ls"] = asyncio.Event()
    thread = await harbor.new_thread()
    await harbor.say(thread, "run")
    decided = await harbor.answer(thread, c1=APPROVE)
    async with asyncio.timeout(PATIENCE):
        await harbor.sandbox.started.wait()
    await harbor.cancel(thread)
    assert end_of(await harbor.told(thread, decided)) == "cancelled"
    await assert_usable(harbor, thread)
    shown = [message for message in harbor.agent.model.seen[-1] if message.type == "tool"]
    assert [message.tool_call_id for message in shown] == ["c1"]  # pyright: ignore[reportAttributeAccessIssue]
    assert harbor.sandbox.ran == ["ls"]


async def test_cancelling_what_waits_for_approval_leaves_the_thread_idle(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "two")
    await harbor.cancel(thread)
    assert (await harbor.thread(thread.thread_id)).run_status is ThreadRunStatus.IDLE
    assert await harbor.approvals.pending(ALICE, thread.thread_id) == []
    with pytest.raises(NothingPending):
        await harbor.answer(thread, c1=APPROVE)
    await assert_usable(harbor, thread)
    shown = {message.tool_call_id for message in harbor.agent.model.seen[-1] if message.type == "tool"}  # pyright: ignore[reportAttributeAccessIssue]
    assert (shown, harbor.sandbox.ran) == ({"c1", "c2"}, [])


async def test_cancelling_ends_what_is_queued_too(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        started = [await harbor.start(thread)]
        await gate.wait()
        started += [await harbor.start(thread, "hello") for _ in range(2)]
        await harbor.cancel(thread)
        assert [end_of(await harbor.told(thread, run)) for run in started] == ["cancelled"] * 3
        assert len(harbor.agent.model.seen) == 1
        await assert_usable(harbor, thread)


async def test_cancelling_an_idle_thread_changes_nothing(harbor: Harbor) -> None:
    thread = await harbor.new_thread()
    await harbor.say(thread, "hello")
    before = await harbor.everything(thread)
    await harbor.cancel(thread)
    assert await harbor.everything(thread) == before


async def test_cancelling_ten_times_at_any_moment_ends_each_run_once(harbor: Harbor) -> None:
    for number in range(12):
        thread = await harbor.new_thread()
        started = await harbor.start(thread, "list")
        for _ in range(number):  # a different moment each time
            await harbor.database.ping()
        async with asyncio.timeout(10):
            await asyncio.gather(*(harbor.cancel(thread) for _ in range(10)))
        assert end_of(await harbor.told(thread, started)) in ("cancelled", "success")
        await assert_usable(harbor, thread)


# Runs that go wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (status_error(401), "model_unauthorized"),
        (status_error(404), "model_not_found"),
        (status_error(429, **{"retry-after": "7"}), "model_rate_limited"),
        (status_error(503), "model_unavailable"),
        (status_error(400), "model_rejected"),
        (openai.APITimeoutError(request=REQUEST), "model_timeout"),
        (openai.APIConnectionError(request=REQUEST), "model_unreachable"),
        (httpx.RemoteProtocolError("cut", request=REQUEST), "model_unreachable"),
        (TimeoutError("no chunk"), "model_timeout"),
        (ContextOverflowError("too long"), "context_overflow"),
        (KeyError("sk-hunter2"), "internal_error"),
    ],
)
async def test_a_model_that_fails_ends_the_run_with_a_code_and_no_secret(
    open_with: Open, error: Exception, code: str
) -> None:
    async with open_with({"go": [error]}) as harbor:
        thread = await harbor.new_thread()
        told = await harbor.say(thread)
        assert (code_of(told), end_of(told)) == (code, "error")
        assert "hunter2" not in str(told)
        assert (await harbor.thread(thread.thread_id)).run_status is ThreadRunStatus.ERROR
        await assert_usable(harbor, thread)


async def test_what_was_said_before_a_failure_is_kept(open_with: Open) -> None:
    turn = calls(call("ls", "c1", path="/workspace"), text="let me look")
    async with open_with({"go": [turn, status_error(500)]}) as harbor:
        told = await harbor.say(await harbor.new_thread())
        assert (text_of(told), end_of(told)) == ("let me look", "error")
        assert types(told)[-3:] == ["tool_result", "error", "run_end"]


async def test_too_many_steps_end_the_run(open_with: Open) -> None:
    async with open_with({"go": [calls(call("ls", "c1", path="/workspace"))]}, max_steps=3) as harbor:
        thread = await harbor.new_thread()
        told = await harbor.say(thread)
        assert (code_of(told), end_of(told)) == ("step_limit", "error")
        assert told[-1].data["usage"]["model_calls"] == 3
        await assert_usable(harbor, thread)


async def test_a_single_step_is_enough_for_a_plain_answer(open_with: Open) -> None:
    async with open_with({}, max_steps=1) as harbor:
        assert end_of(await harbor.say(await harbor.new_thread(), "hello")) == "success"


async def test_a_run_that_takes_too_long_ends_as_timeout(open_with: Open) -> None:
    async with open_with({"go": [Gate()]}, timeout_seconds=0.3) as harbor:
        thread = await harbor.new_thread()
        told = await harbor.say(thread)
        assert (code_of(told), end_of(told)) == ("run_timeout", "timeout")
        assert types(told)[-2:] == ["error", "run_end"]
        await assert_usable(harbor, thread)


async def test_an_outcome_that_cannot_be_stored_ends_the_run_not_the_worker(
    open_with: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moorage.agent.gate.ALLOWED_DECISIONS", ("approve\x00",))  # as if it had slipped through
    async with open_with({"run": [calls(execute("ls"))]}) as harbor:
        thread = await harbor.new_thread()
        told = await harbor.say(thread, "run")
        assert (code_of(told), end_of(told)) == ("internal_error", "error")
        await assert_usable(harbor, thread)


async def test_a_run_whose_thread_is_deleted_under_its_worker_stops(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread)
        await gate.wait()
        await harbor.store.delete(ALICE, thread.thread_id)  # as another server would
        gate.open.set()
        other = await harbor.new_thread()
        await assert_usable(harbor, other)
        async with asyncio.timeout(PATIENCE):
            while harbor.workers[0].active:
                await harbor.queue.wait_for_work(at_most=0.01)
        assert (await harbor.rows_about(thread))["run_events"] == 0


async def test_a_worker_that_stops_hands_its_runs_to_the_next_one_and_leaves_the_queue_alone(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        running = await harbor.start(thread)
        await gate.wait()
        queued = await harbor.start(thread, "hello")
    async with open_with({"go": ["the second time"]}, workers=1) as harbor:
        told = await harbor.told(thread, running)
        assert (text_of(told), end_of(told)) == ("the second time", "success")
        assert end_of(await harbor.told(thread, queued)) == "success"
        assert harbor.cleaned == [thread.thread_id]
        await assert_usable(harbor, thread)


# Deleting -----------------------------------------------------------------------------------------------------------


async def add_snapshot(harbor: Harbor, thread: Thread) -> None:
    new = NewSnapshot(SnapshotKind.REQUEST, "0" * 64, files=0, bytes=0, added_bytes=0, left_out=0, missed=0)
    await PostgresSnapshots(harbor.database).insert(ALICE, thread.thread_id, new)


async def add_cron(harbor: Harbor, thread: Thread) -> None:
    statement = (
        "INSERT INTO crons (cron_id, owner_id, assistant_id, thread_id, schedule, payload, request, policy)"
        " VALUES (gen_random_uuid(), %s, 'agent', %s, '@daily', '{}', '{}', 'enqueue')"
    )
    async with harbor.database.tenant_transaction(thread.owner_id) as connection:
        await connection.execute(statement, [thread.owner_id, thread.thread_id])


async def add_announcement(harbor: Harbor, thread: Thread) -> None:
    """As a copy has it until its row is there, and may keep when its server is killed."""
    statement = "INSERT INTO coming_threads (thread_id, owner_id, until) VALUES (%s, %s, now() + interval '1 minute')"
    async with harbor.database.tenant_transaction(thread.owner_id) as connection:
        await connection.execute(statement, [thread.thread_id, thread.owner_id])


async def add_sandbox_use(harbor: Harbor, thread: Thread) -> None:
    """As a transfer has it that goes on while its thread is deleted."""
    statement = (
        "INSERT INTO sandbox_uses (use_id, thread_id, owner_id, until)"
        " VALUES (gen_random_uuid(), %s, %s, now() + interval '1 minute')"
    )
    async with harbor.database.tenant_transaction(thread.owner_id) as connection:
        await connection.execute(statement, [thread.thread_id, thread.owner_id])


async def test_deleting_a_session_leaves_no_row_in_any_table(harbor: Harbor) -> None:
    thread, other = await harbor.new_thread(), await harbor.new_thread()
    for each in (thread, other):
        await harbor.say(each, "two")
        await harbor.told(each, await harbor.answer(each, c1=replace(APPROVE, remember=Remember(Match.SAME))))
        await add_cron(harbor, each)
        await add_snapshot(harbor, each)
        await add_announcement(harbor, each)
        await add_sandbox_use(harbor, each)
    full = await harbor.rows_about(thread)
    assert all(count > 0 for count in full.values()), full
    await harbor.threads.delete(await harbor.thread(thread.thread_id))
    assert set((await harbor.rows_about(thread)).values()) == {0}
    assert all(count > 0 for count in (await harbor.rows_about(other)).values())
    assert set(harbor.removed) == {thread.thread_id}


async def test_deleting_a_session_stops_its_run_first(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        await harbor.start(thread)
        await gate.wait()
        await harbor.threads.delete(thread)
        assert harbor.workers[0].active == 0
        assert set((await harbor.rows_about(thread)).values()) == {0}


async def test_closing_a_session_stops_its_run_and_keeps_its_history(open_with: Open) -> None:
    gate = Gate()
    async with open_with({"go": [gate]}) as harbor:
        thread = await harbor.new_thread()
        started = await harbor.start(thread)
        await gate.wait()
        await harbor.threads.close(thread)
        assert end_of(await harbor.told(thread, started)) == "cancelled"
        assert len((await harbor.threads.messages(thread, limit=5, cursor=None)).items) == 1

"""Interrupts, their answers, rules and repeated requests, on a real Postgres."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.conftest import AddUser

from moorage.adapters.postgres.approvals import PostgresApprovalStore
from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.interrupts import AskedCall, insert_interrupts, load_decided
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.rules import PostgresRuleBook, active_rules
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.approvals import (
    Answer,
    Approvals,
    Change,
    Decided,
    Decision,
    DecisionType,
    FileChanged,
    Interrupt,
    InterruptDecided,
    InterruptNotFound,
    InterruptStatus,
    InvalidDecision,
    RaisedInterrupt,
    digest_of,
)
from moorage.claims import Claim
from moorage.events import StoredEvent
from moorage.idempotency import RequestKey, request_key
from moorage.ids import InterruptId, RunId, ThreadId, UserId, new_run_id, new_thread_id, result_message_id
from moorage.rules import Effect, InvalidRule, Match, Remember, RuleNotFound
from moorage.runs.run import IdempotencyMismatch
from moorage.threads import NewThread, SessionClosed, SessionExpired, ThreadRunStatus

ALICE, BOB = UserId("alice"), UserId("bob")
APPROVE, REJECT = Decision(DecisionType.APPROVE), Decision(DecisionType.REJECT)
WEEK = timedelta(days=7)
OVER = timedelta(seconds=-1)
SCHEMA = {"type": "object", "properties": {"file_path": {}, "content": {}}, "additionalProperties": False}


def raised(number: int = 0, **changes: Any) -> RaisedInterrupt:
    item = RaisedInterrupt(
        id=InterruptId(f"{number:032x}"),
        call_id=f"call_{number}",
        tool_name="execute",
        tool_input={"command": "git log"},
        description="Run a command in the sandbox",
        allowed_decisions=["approve", "edit", "reject", "respond"],
        args_schema=SCHEMA,
        facts={"sandbox": "docker"},
        agent="agent",
        message_id="ai-1",
        position=number,
        graph_id=f"{number:032x}",
    )
    return replace(item, **changes)


def write(number: int = 0, base: str = "old", **changes: Any) -> RaisedInterrupt:
    args = {"file_path": "/workspace/src/a.txt", "content": "x"}
    return raised(number, tool_name="write_file", tool_input=args, base_file_hash=base, diff="-old\n+x\n", **changes)


class Quay:
    """A store of approvals, and the threads that ask."""

    def __init__(self, database: Database, *, life: timedelta = timedelta(0)) -> None:
        self.database = database
        self.log = PostgresEventLog(database)
        self.woken = 0
        self.store = PostgresApprovalStore(database, self.log, on_decided=self._wake, session_life=life)
        self.threads = PostgresThreadStore(database, session_life=life)
        self.rules = PostgresRuleBook(database)
        self.file = Change("old", "-old\n+x\n", None)
        self.looks = 0
        self.approvals = Approvals(self.store, inspect=self._inspect)

    def _wake(self) -> None:
        self.woken += 1

    async def _inspect(self, thread_id: ThreadId, tool: str, args: dict[str, Any]) -> Change | None:
        self.looks += 1
        return self.file if tool == "write_file" else None

    async def new_thread(self, owner: UserId = ALICE) -> ThreadId:
        thread_id = new_thread_id(owner)
        await self.threads.create(owner, NewThread(thread_id), quota=0)
        return thread_id

    async def ask(
        self, thread_id: ThreadId, *items: RaisedInterrupt, ttl: timedelta = WEEK, run_id: RunId | None = None
    ) -> RunId:
        """Raise these as the run queue does at the end of a run."""
        run_id = run_id or new_run_id()
        owner = UserId(thread_id[:-37])
        async with self.database.system_transaction() as connection:
            bump = "UPDATE threads SET last_seq = last_seq + 1, run_status = 'interrupted' WHERE thread_id = %s"
            await connection.execute(f"{bump} RETURNING last_seq", [thread_id])
            await insert_interrupts(connection, Claim(run_id, thread_id, owner, 1), items, ttl=ttl, seq=1)
        return run_id

    async def answer(self, thread_id: ThreadId, decision: Decision, number: int = 0, **options: Any) -> Decided:
        answer = Answer(decision, interrupt_id=f"{number:032x}")
        return await self.approvals.answer(ALICE, thread_id, [answer], via="test", **options)

    async def find(self, number: int = 0) -> Interrupt:
        return await self.approvals.get(ALICE, f"{number:032x}")

    async def events(self, thread_id: ThreadId) -> list[tuple[StoredEvent, dict[str, Any]]]:
        stored = await self.log.read(thread_id, after=0, limit=100)
        return [(event, json.loads(event.data)) for event in stored]

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        async with self.database.tenant_transaction(ALICE) as connection:
            return await (await connection.execute(sql, list(values))).fetchall()  # pyright: ignore[reportArgumentType]

    async def end_queued_run(self, status: str = "interrupted") -> None:
        await self.rows("UPDATE runs SET status = %s RETURNING run_id", status)

    async def status(self, thread_id: ThreadId) -> ThreadRunStatus:
        found = await self.threads.find(ALICE, thread_id)
        assert found is not None
        return found.run_status


@pytest.fixture
async def quay(database: Database, add_user: AddUser) -> Quay:
    await add_user(ALICE)
    await add_user(BOB)
    return Quay(database)


# Raised ---------------------------------------------------------------------------------------------------------------


async def test_what_was_raised_comes_back_whole(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    item = write(checkpoint_ns="tools:1", parent_call_id="task_1")
    await quay.ask(thread_id, item)
    found = await quay.find()
    assert found.raised == item
    assert found.digest == digest_of(thread_id, item)


async def test_a_question_that_still_waits_stays_the_same_one(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    first = await quay.ask(thread_id, raised())
    await quay.ask(thread_id, raised())
    [found] = await quay.approvals.pending(ALICE, thread_id)
    assert (found.run_id, found.status) == (first, InterruptStatus.PENDING)


async def test_a_call_that_asks_again_gets_a_new_id_and_supersedes_its_first_question(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    await quay.answer(thread_id, APPROVE)
    await quay.end_queued_run()
    await quay.ask(thread_id, write(base="new"))
    [again] = await quay.approvals.pending(ALICE, thread_id)
    first = await quay.find()
    assert again.raised.id != first.raised.id
    assert again.raised.graph_id == first.raised.graph_id
    assert again.digest == digest_of(thread_id, again.raised)
    assert (first.status, first.decision) == (InterruptStatus.SUPERSEDED, {"type": "approve"})


async def test_asking_a_third_time_works_too(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    for _ in range(2):
        [waiting] = await quay.approvals.pending(ALICE, thread_id)
        await quay.answer(thread_id, APPROVE, int(waiting.raised.id, 16))
        await quay.end_queued_run()
        await quay.ask(thread_id, write())
    rows = await quay.rows("SELECT status FROM interrupts ORDER BY created_at")
    assert [row["status"] for row in rows] == ["superseded", "superseded", "pending"]


async def test_an_answer_that_waits_for_its_run_is_not_asked_for_again(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.answer(thread_id, APPROVE)
    await quay.ask(thread_id, raised())  # by a run that was active and did not know of the answer yet
    assert await quay.approvals.pending(ALICE, thread_id) == []
    assert (await quay.find()).status is InterruptStatus.APPROVED


@pytest.mark.parametrize("status", ["rejected", "responded", "cancelled", "expired"])
async def test_what_was_settled_is_not_asked_again(quay: Quay, status: str) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.rows("UPDATE interrupts SET status = %s RETURNING id", status)
    await quay.ask(thread_id, raised())
    assert await quay.approvals.pending(ALICE, thread_id) == []


async def test_two_threads_may_ask_under_the_same_id_of_the_graph(quay: Quay) -> None:
    one, copy = await quay.new_thread(), await quay.new_thread(BOB)
    await quay.ask(one, raised())
    await quay.ask(copy, raised())
    [theirs] = await quay.approvals.pending(BOB, copy)
    [own] = await quay.approvals.pending(ALICE, one)
    assert theirs.raised.id != own.raised.id


async def test_the_gate_finds_what_was_decided_by_the_calls_place(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    run_id = await quay.ask(thread_id, raised(0), raised(1))
    await quay.answer(thread_id, APPROVE, 0)
    async with quay.database.tenant_transaction(ALICE) as connection:
        asked = await load_decided(connection, thread_id, [run_id])
        others = await load_decided(connection, thread_id, [new_run_id()])
    assert [(call.checkpoint_ns, call.message_id, call.position) for call in asked] == [
        ("", "ai-1", 0),
        ("", "ai-1", 1),
    ]
    assert [call.interrupt.status.value for call in asked] == ["approved", "pending"]
    assert isinstance(asked[0], AskedCall)
    assert others == []


# Answered -------------------------------------------------------------------------------------------------------------


async def test_of_twenty_answers_at_once_one_has_an_effect(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    results = await asyncio.gather(*(quay.answer(thread_id, APPROVE) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Decided) for result in results) == 1
    assert sum(isinstance(result, InterruptDecided) for result in results) == 19
    assert len(await quay.rows("SELECT FROM runs")) == 1
    assert [event.type.value for event, _ in await quay.events(thread_id)] == ["decision"]
    assert quay.woken == 1


async def test_one_bad_answer_among_good_ones_changes_nothing(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised(0), raised(1))
    good, bad = Answer(APPROVE, f"{0:032x}"), Answer(Decision(DecisionType.RESPOND), f"{1:032x}")
    with pytest.raises(InvalidDecision):
        await quay.approvals.answer(ALICE, thread_id, [good, bad], via="test")
    assert len(await quay.approvals.pending(ALICE, thread_id)) == 2
    assert await quay.rows("SELECT FROM runs") == []


async def test_another_users_approval_is_not_there(quay: Quay) -> None:
    theirs, own = await quay.new_thread(BOB), await quay.new_thread()
    await quay.ask(theirs, raised(0))
    await quay.ask(own, raised(1))
    with pytest.raises(InterruptNotFound):
        await quay.answer(own, APPROVE, 0)
    assert len(await quay.approvals.pending(BOB, theirs)) == 1


async def test_an_answer_while_a_run_is_active_is_recorded_and_first_in_line(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised(0), raised(1))
    await quay.answer(thread_id, APPROVE, 0)
    await quay.rows("UPDATE runs SET status = 'running' RETURNING run_id")
    second = await quay.answer(thread_id, REJECT, 1)
    rows = await quay.rows("SELECT run_id, priority FROM runs WHERE status = 'queued'")
    assert [(str(row["run_id"]), row["priority"]) for row in rows] == [(second.run_id, 1)]


async def test_a_closed_session_takes_no_answer(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.threads.close(ALICE, thread_id)
    with pytest.raises(SessionClosed):
        await quay.answer(thread_id, APPROVE)


async def test_no_sandbox_starts_for_an_answer_to_a_closed_session(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    await quay.threads.close(ALICE, thread_id)
    with pytest.raises(SessionClosed):
        await quay.answer(thread_id, APPROVE)
    assert quay.looks == 0


async def test_of_many_answers_at_once_one_looks_at_the_file(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    answers = [quay.answer(thread_id, APPROVE) for _ in range(20)]
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert sum(isinstance(result, Decided) for result in results) == 1
    assert sum(isinstance(result, InterruptDecided) for result in results) == 19
    assert quay.looks == 1


async def test_an_expired_session_takes_no_answer(quay: Quay) -> None:
    quay = Quay(quay.database, life=timedelta(hours=1))
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.rows("UPDATE threads SET last_active = now() - interval '2 hours' RETURNING 1")
    with pytest.raises(SessionExpired):
        await quay.answer(thread_id, APPROVE)


# Bound to the file ----------------------------------------------------------------------------------------------------


async def test_a_file_that_changed_is_shown_again_before_it_can_be_approved(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write(facts={"sandbox": "docker", "note": "cut"}))
    before = await quay.find()
    quay.file = Change("newer", "-newer\n+x\n", None)
    with pytest.raises(FileChanged):
        await quay.answer(thread_id, replace(APPROVE, digest=before.digest))
    shown = await quay.find()
    assert (shown.raised.base_file_hash, shown.raised.diff) == ("newer", "-newer\n+x\n")
    assert (shown.status, shown.raised.facts) == (InterruptStatus.PENDING, {"sandbox": "docker"})
    assert shown.digest == digest_of(thread_id, shown.raised) != before.digest
    [(event, data)] = await quay.events(thread_id)
    assert (event.type.value, event.seq, data["interrupts"][0]["digest"]) == ("interrupt", shown.seq, shown.digest)
    assert data["interrupts"][0]["diff"] == "-newer\n+x\n"
    await quay.answer(thread_id, replace(APPROVE, digest=shown.digest))


async def test_a_decision_checked_against_an_older_file_loses(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    seen = await quay.find()
    await quay.store.show_change(ALICE, seen, Change("newer", None, "large"))
    await quay.store.show_change(ALICE, seen, Change("newest", None, None))  # another who saw the first one: too late
    assert (await quay.find()).raised.base_file_hash == "newer"
    stale = Approvals(_Reading(quay.store, seen))  # type: ignore[arg-type]
    with pytest.raises(FileChanged):
        await stale.answer(ALICE, thread_id, [Answer(APPROVE, seen.raised.id)], via="test")


class _Reading:
    """The store as one sees it who has read an interrupt before it was changed."""

    def __init__(self, store: PostgresApprovalStore, seen: Interrupt) -> None:
        self.check_open, self.decide = store.check_open, store.decide
        self._seen = seen

    async def pending(self, owner: UserId, thread_id: ThreadId) -> list[Interrupt]:
        return [self._seen]


@pytest.mark.parametrize(
    "decision",
    [
        REJECT,
        Decision(DecisionType.RESPOND, message="no need"),
        Decision(DecisionType.EDIT, edited_name="write_file", edited_args={"file_path": "/b", "content": ""}),
    ],
)
async def test_a_decision_that_leaves_the_file_alone_does_not_ask_about_it(quay: Quay, decision: Decision) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    quay.file = Change("newer", None, None)
    await quay.answer(thread_id, decision)


async def test_what_was_shown_anew_counts_as_raised_after_what_was_seen(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, write())
    seen = (await quay.find()).seq
    await quay.store.show_change(ALICE, await quay.find(), Change("newer", None, None))
    with pytest.raises(InterruptDecided):
        await quay.approvals.answer_all(ALICE, thread_id, APPROVE, up_to_seq=seen, via="test")


# Closed ---------------------------------------------------------------------------------------------------------------


async def test_cancelling_writes_rejections_for_the_model_and_calls_none(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised(0), raised(1, parent_call_id="task_1", checkpoint_ns="tools:9"))
    await quay.approvals.cancel_pending(ALICE, thread_id)
    sentence = "The user cancelled; this execute call was not run."
    journal = await quay.rows("SELECT * FROM tool_calls ORDER BY position")
    assert [(row["checkpoint_ns"], row["position"], row["state"]) for row in journal] == [
        ("", 0, "done"),
        ("tools:9", 1, "done"),
    ]
    assert journal[0]["result"] == {"content": sentence, "status": "error", "kind": "rejected"}
    told = await quay.events(thread_id)
    assert [event.type.value for event, _ in told] == ["decision", "tool_result"] * 2
    assert (told[0][1]["type"], told[0][1]["decided_via"]) == ("reject", "cancel")
    assert (told[1][1]["status"], told[1][1]["result"]) == ("rejected", sentence)
    [message] = await quay.threads.messages(ALICE, thread_id, limit=10, after=0)
    assert message.message.id == result_message_id(thread_id, "", "ai-1", 0) == told[1][1]["message_id"]
    found = await quay.threads.find(ALICE, thread_id)
    assert found is not None
    assert (found.run_status, found.message_count) == (ThreadRunStatus.IDLE, 1)
    assert await quay.rows("SELECT FROM runs") == []


async def test_a_call_that_is_in_the_journal_keeps_what_stands_there(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.approvals.cancel_pending(ALICE, thread_id)
    await quay.rows("UPDATE tool_calls SET tool = 'first' RETURNING 1")
    await quay.rows("UPDATE interrupts SET status = 'pending' RETURNING 1")
    await quay.approvals.cancel_pending(ALICE, thread_id)
    assert [row["tool"] for row in await quay.rows("SELECT tool FROM tool_calls")] == ["first"]


async def test_what_nobody_decides_in_time_expires_and_the_thread_is_free(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised(), ttl=OVER)
    assert (await quay.find()).status is InterruptStatus.EXPIRED  # before anybody came by
    with pytest.raises(InterruptDecided):
        await quay.answer(thread_id, APPROVE)
    assert await quay.approvals.expire() == 1
    assert await quay.approvals.expire() == 0
    assert await quay.status(thread_id) is ThreadRunStatus.IDLE
    [row] = await quay.rows("SELECT result FROM tool_calls")
    assert row["result"]["content"] == "The user did not decide in time; this execute call was not run."
    decision, result = [data for _, data in await quay.events(thread_id)]
    assert (decision["type"], decision["decided_via"], result["status"]) == ("reject", "expired", "rejected")


async def test_only_what_is_overdue_expires(quay: Quay) -> None:
    thread_id, other = await quay.new_thread(), await quay.new_thread(BOB)
    await quay.ask(thread_id, raised(0), ttl=OVER)
    await quay.ask(thread_id, raised(1))
    await quay.ask(other, raised(2), ttl=OVER)
    assert await quay.approvals.expire() == 2
    assert await quay.status(thread_id) is ThreadRunStatus.INTERRUPTED
    await quay.answer(thread_id, APPROVE, 1)


async def test_a_thread_with_work_stays_busy_when_an_approval_expires(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised(0))
    await quay.ask(thread_id, raised(1), ttl=OVER)
    await quay.answer(thread_id, APPROVE, 0)
    await quay.approvals.expire()
    assert await quay.status(thread_id) is ThreadRunStatus.BUSY


async def test_an_expired_approval_is_listed_as_expired(quay: Quay) -> None:
    await quay.ask(await quay.new_thread(), raised(), ttl=OVER)
    listed = {
        status: len((await quay.approvals.search(ALICE, status=status, thread_id=None, limit=9, cursor=None)).items)
        for status in (InterruptStatus.PENDING, InterruptStatus.EXPIRED)
    }
    assert listed == {InterruptStatus.PENDING: 0, InterruptStatus.EXPIRED: 1}


# Repeated -------------------------------------------------------------------------------------------------------------


async def test_twenty_repetitions_of_a_request_get_one_answer_and_have_one_effect(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    request = request_key("k", thread_id)
    answers = await asyncio.gather(*(quay.answer(thread_id, APPROVE, request=request) for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    assert len(await quay.rows("SELECT FROM runs")) == 1
    await quay.rows("UPDATE interrupts SET status = 'superseded' RETURNING 1")
    assert await quay.answer(thread_id, APPROVE, request=request) == answers[0]


async def test_a_key_is_good_for_one_request_of_one_user(quay: Quay) -> None:
    thread_id, theirs = await quay.new_thread(), await quay.new_thread(BOB)
    await quay.ask(thread_id, raised(0), raised(1))
    await quay.ask(theirs, raised(2))
    await quay.answer(thread_id, APPROVE, 0, request=RequestKey("k", "one"))
    with pytest.raises(IdempotencyMismatch):
        await quay.answer(thread_id, APPROVE, 1, request=RequestKey("k", "other"))
    answer = Answer(APPROVE, interrupt_id=f"{2:032x}")
    await quay.approvals.answer(BOB, theirs, [answer], via="test", request=RequestKey("k", "theirs"))


async def test_a_refused_request_leaves_its_key_free(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    with pytest.raises(InvalidDecision):
        await quay.answer(thread_id, Decision(DecisionType.RESPOND), request=RequestKey("k", "bad"))
    await quay.answer(thread_id, APPROVE, request=RequestKey("k", "good"))


# Remembered -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decision", "effect"), [(APPROVE, Effect.ALLOW), (REJECT, Effect.DENY)])
async def test_an_answer_can_be_remembered(quay: Quay, decision: Decision, effect: Effect) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.answer(thread_id, replace(decision, remember=Remember(Match.PREFIX, prefix="git")))
    async with quay.database.system_transaction() as connection:
        [rule] = await active_rules(connection, thread_id)
    assert (rule.effect, rule.tool, rule.pattern) == (effect, "execute", {"tokens": ["git"]})
    assert (rule.owner_id, rule.interrupt_id) == (ALICE, f"{0:032x}")
    assert rule.expires_at is not None
    assert rule.expires_at - rule.created_at == timedelta(hours=8)


async def test_an_answer_that_is_not_accepted_is_not_remembered(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    remembering = replace(APPROVE, remember=Remember(Match.SAME))
    await asyncio.gather(*(quay.answer(thread_id, remembering) for _ in range(5)), return_exceptions=True)
    assert len(await quay.rules.active(ALICE, thread_id)) == 1


async def test_a_rule_that_does_not_fit_leaves_the_question_open(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    with pytest.raises(InvalidRule):
        await quay.answer(thread_id, replace(APPROVE, remember=Remember(Match.PREFIX, prefix="rm")))
    assert len(await quay.approvals.pending(ALICE, thread_id)) == 1


async def test_rules_are_listed_latest_first_until_they_are_revoked_or_over(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, *(raised(number) for number in range(4)))
    for number in range(4):
        await quay.answer(thread_id, replace(APPROVE, remember=Remember(Match.SAME)), number)
    first = await quay.rules.search(ALICE, thread_id, limit=3, cursor=None)
    rest = await quay.rules.search(ALICE, thread_id, limit=3, cursor=first.next_cursor)
    assert [rule.interrupt_id for rule in [*first.items, *rest.items]] == [f"{number:032x}" for number in (3, 2, 1, 0)]
    await quay.rules.revoke(ALICE, thread_id, rest.items[0].rule_id)
    await quay.rows("UPDATE approval_rules SET expires_at = now() WHERE interrupt_id = %s RETURNING 1", f"{1:032x}")
    assert [rule.interrupt_id for rule in await quay.rules.active(ALICE, thread_id)] == [f"{2:032x}", f"{3:032x}"]
    with pytest.raises(RuleNotFound):
        await quay.rules.revoke(ALICE, thread_id, rest.items[0].rule_id)


async def test_rules_of_another_user_are_not_there(quay: Quay) -> None:
    thread_id = await quay.new_thread()
    await quay.ask(thread_id, raised())
    await quay.answer(thread_id, replace(APPROVE, remember=Remember(Match.SAME)))
    [rule] = await quay.rules.active(ALICE, thread_id)
    assert await quay.rules.active(BOB, thread_id) == []
    with pytest.raises(RuleNotFound):
        await quay.rules.revoke(BOB, thread_id, rule.rule_id)

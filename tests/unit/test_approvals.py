import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.approvals import (
    MAX_ARGUMENT_BYTES,
    MAX_MESSAGE_CHARACTERS,
    Change,
    Decision,
    DecisionType,
    Interrupt,
    InterruptStatus,
    InvalidDecision,
    RaisedInterrupt,
    StaleDigest,
    as_decided,
    check_decision,
    digest_of,
    seen_by_human,
    with_change,
)
from moorage.ids import InterruptId, RunId, ThreadId
from moorage.rules import Match, Remember

THREAD = ThreadId("alice-550e8400-e29b-41d4-a716-446655440000")
SCHEMA = {
    "type": "object",
    "properties": {"command": {"type": "string"}, "timeout": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
    "required": ["command"],
    "additionalProperties": False,
}
RAISED = RaisedInterrupt(
    id=InterruptId("0" * 32),
    call_id="call_1",
    tool_name="execute",
    tool_input={"command": "ls"},
    description="Run a command in the sandbox",
    allowed_decisions=["approve", "edit", "reject", "respond"],
    args_schema=SCHEMA,
    facts={},
    agent="agent",
)
NESTED: Any = 1
for _ in range(300):
    NESTED = [NESTED]
NOW = datetime(2026, 1, 1, tzinfo=UTC)

arguments = st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=4)


def waiting(**changes: Any) -> Interrupt:
    raised = replace(RAISED, **changes)
    return Interrupt(
        raised=raised,
        thread_id=THREAD,
        run_id=RunId("r"),
        status=InterruptStatus.PENDING,
        digest=digest_of(THREAD, raised),
        seq=1,
        created_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )


def edit(args: Any, name: str = "execute") -> Decision:
    return Decision(DecisionType.EDIT, edited_args=args, edited_name=name)


@pytest.mark.parametrize(
    "decision",
    [
        Decision(DecisionType.APPROVE),
        Decision(DecisionType.APPROVE, digest=digest_of(THREAD, RAISED)),
        edit({"command": "ls -l"}),
        edit({"command": "ls -l", "timeout": 5}),
        edit({"command": "ls -l", "timeout": None}),
        Decision(DecisionType.REJECT),
        Decision(DecisionType.REJECT, message="no"),
        Decision(DecisionType.RESPOND, message="the answer is 42"),
        Decision(DecisionType.RESPOND, message="x" * MAX_MESSAGE_CHARACTERS),
        Decision(DecisionType.APPROVE, remember=Remember(Match.SAME)),
        Decision(DecisionType.REJECT, remember=Remember(Match.SAME)),
    ],
)
def test_a_fitting_decision_passes(decision: Decision) -> None:
    check_decision(waiting(), decision)


@pytest.mark.parametrize(
    "decision",
    [
        Decision(DecisionType.EDIT),
        Decision(DecisionType.EDIT, edited_args={"command": "ls"}),
        Decision(DecisionType.EDIT, edited_name="execute"),
        edit({"command": "rm -rf /"}, name="write_file"),
        edit({}),
        edit({"command": 5}),
        edit({"command": ["ls"]}),
        edit({"command": "ls", "timeout": "5"}),
        edit({"command": "ls", "extra": True}),
        edit({"command": "a\x00b"}),
        edit({"command": "a\ud800b"}),
        edit({"command": "ls", "timeout": 10**30}),
        edit({"command": "x" * (MAX_ARGUMENT_BYTES + 1)}),
        replace(edit({"command": "ls"}), message="why"),
        Decision(DecisionType.APPROVE, message="fine"),
        Decision(DecisionType.APPROVE, edited_args={"command": "ls"}),
        Decision(DecisionType.APPROVE, edited_name="execute"),
        Decision(DecisionType.REJECT, edited_args={"command": "ls"}),
        Decision(DecisionType.REJECT, message="x" * (MAX_MESSAGE_CHARACTERS + 1)),
        Decision(DecisionType.RESPOND),
        Decision(DecisionType.RESPOND, message=""),
        edit({"command": "ls", "timeout": float("nan")}),
        edit({"command": "ls", "timeout": float("inf")}),
        edit({"command": NESTED}),
        replace(edit({"command": "ls"}), remember=Remember(Match.SAME)),
        Decision(DecisionType.RESPOND, message="m", remember=Remember(Match.SAME)),
    ],
)
def test_a_malformed_decision_is_refused(decision: Decision) -> None:
    with pytest.raises(InvalidDecision):
        check_decision(waiting(), decision)


@pytest.mark.parametrize("kind", list(DecisionType))
def test_a_kind_that_is_not_allowed_is_refused_and_the_allowed_ones_are_named(kind: DecisionType) -> None:
    others = [str(other) for other in DecisionType if other is not kind]
    with pytest.raises(InvalidDecision, match=", ".join(others)):
        check_decision(waiting(allowed_decisions=others), Decision(kind, message="m"))


def test_a_decision_made_for_something_else_is_stale() -> None:
    with pytest.raises(StaleDigest):
        check_decision(waiting(tool_input={"command": "rm"}), Decision(DecisionType.APPROVE, digest=waiting().digest))


def test_the_refusal_does_not_echo_what_was_given() -> None:
    with pytest.raises(InvalidDecision) as caught:
        check_decision(waiting(), edit({"command": ["hunter2"]}))
    assert "hunter2" not in caught.value.detail
    assert "command" in caught.value.detail


def test_the_digest_is_that_of_the_documented_canonical_json() -> None:
    text = (
        '{"base_hash":null,"id":"00000000000000000000000000000000","thread_id":"' + THREAD + '",'
        '"tool_input":{"command":"echo 你好"},"tool_name":"execute"}'
    )
    found = digest_of(THREAD, replace(RAISED, tool_input={"command": "echo 你好"}))
    assert found == hashlib.sha256(text.encode()).hexdigest()


@given(arguments)
def test_the_digest_does_not_depend_on_the_order_of_keys(args: dict[str, Any]) -> None:
    turned = dict(reversed(list(args.items())))
    assert digest_of(THREAD, replace(RAISED, tool_input=args)) == digest_of(THREAD, replace(RAISED, tool_input=turned))


@given(arguments, arguments)
def test_different_arguments_have_different_digests(one: dict[str, Any], other: dict[str, Any]) -> None:
    digests = {digest_of(THREAD, replace(RAISED, tool_input=args)) for args in (one, other)}
    assert len(digests) == len({json.dumps(args, sort_keys=True) for args in (one, other)})


@pytest.mark.parametrize(
    "changes",
    [{"id": InterruptId("1" * 32)}, {"tool_name": "delete"}, {"tool_input": {}}, {"base_file_hash": "00"}],
)
def test_the_digest_binds_everything_the_human_saw(changes: dict[str, Any]) -> None:
    assert digest_of(THREAD, replace(RAISED, **changes)) != digest_of(THREAD, RAISED)


def test_the_digest_binds_the_thread() -> None:
    assert digest_of(THREAD.replace("alice", "bob"), RAISED) != digest_of(THREAD, RAISED)


def test_a_change_replaces_what_was_shown_of_the_file_and_nothing_else() -> None:
    raised = replace(RAISED, base_file_hash="old", diff="-a", facts={"sandbox": "docker", "note": "cut"})
    found = with_change(raised, Change("new", None, "large"))
    assert found == replace(raised, base_file_hash="new", diff=None, facts={"sandbox": "docker", "note": "large"})
    assert with_change(found, Change("absent", "+a", None)).facts == {"sandbox": "docker"}


def test_a_diff_is_shown_where_there_is_one() -> None:
    assert seen_by_human(waiting(diff="-a\n+b\n"))["diff"] == "-a\n+b\n"
    assert "diff" not in seen_by_human(waiting())


@pytest.mark.parametrize("kind", list(DecisionType))
def test_what_was_decided_is_still_told_when_it_was_superseded(kind: DecisionType) -> None:
    decided = replace(waiting(), status=InterruptStatus.SUPERSEDED, decision={"type": kind.value})
    assert as_decided(decided).status not in (InterruptStatus.SUPERSEDED, InterruptStatus.PENDING)


@given(st.sampled_from(DecisionType), arguments | st.none(), st.none() | st.text(max_size=5), st.none() | st.text())
def test_what_passes_the_check_is_exactly_what_the_gate_understands(
    kind: DecisionType, args: dict[str, Any] | None, name: str | None, message: str | None
) -> None:
    decision = Decision(kind, edited_args=args, edited_name=name, message=message)
    try:
        check_decision(waiting(), decision)
    except InvalidDecision:
        return
    keys = {"approve": set(), "edit": {"args"}, "reject": {"message"}, "respond": {"message"}}[kind]
    assert set(decision.as_resume()) == {"type", *keys}

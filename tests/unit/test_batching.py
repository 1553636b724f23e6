"""Approvals folded into one batched LangGraph interrupt, and its answers unfolded by position."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.approvals import Answer, DecisionType, InterruptDecided, InvalidDecision, NothingPending
from moorage_api.langgraph.batching import batch_id, fold, unfold

ALL = ["approve", "edit", "reject", "respond"]
APPROVE, REJECT = {"type": "approve"}, {"type": "reject", "message": "no"}


def asked(number: int, tool: str = "execute") -> dict[str, Any]:
    return {
        "id": f"{number:032x}",
        "call_id": f"call_{number}",
        "tool_name": tool,
        "tool_input": {"command": f"echo {number}"},
        "description": f"Run echo {number}",
        "allowed_decisions": ALL,
        "facts": {},
        "digest": "d" * 64,
    }


ONE, TWO = [asked(1)], [asked(1), asked(2, "write_file")]

names = st.sampled_from(["execute", "write_file", "task"])
decisions = st.one_of(
    st.just(APPROVE),
    st.builds(lambda text: {"type": "reject", "message": text}, st.text(min_size=1, max_size=5)),
    st.builds(lambda text: {"type": "respond", "message": text}, st.text(min_size=1, max_size=5)),
    st.builds(
        lambda name, args: {"type": "edit", "edited_action": {"name": name, "args": args}},
        names,
        st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    ),
)
waiting = st.lists(names, min_size=1, max_size=6).map(
    lambda tools: [asked(number, tool) for number, tool in enumerate(tools, start=1)]
)
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=40)
    | st.sampled_from(["decisions", "type", "approve"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["decisions", "type", "message", "edited_action", f"{1:032x}"]), inner)
    ),
    max_leaves=12,
)


def written(answer: Answer) -> dict[str, Any]:
    """A decision as a client wrote it."""
    decision = answer.decision
    if decision.type is DecisionType.EDIT:
        return {"type": "edit", "edited_action": {"name": decision.edited_name, "args": decision.edited_args}}
    return {"type": decision.type.value} | ({"message": decision.message} if decision.message else {})


@given(waiting, st.data())
def test_decisions_reach_the_calls_at_their_place(pending: list[dict[str, Any]], data: st.DataObject) -> None:
    folded = fold(pending)
    assert folded is not None
    chosen = data.draw(st.lists(decisions, min_size=len(pending), max_size=len(pending)))
    for resume in ({"decisions": chosen}, {folded["id"]: {"decisions": chosen}}):
        answers = unfold(pending, resume)
        assert [answer.interrupt_id for answer in answers] == [item["id"] for item in pending]
        assert [written(answer) for answer in answers] == chosen
    requests = folded["value"]["action_requests"]
    assert [(each["name"], each["args"]) for each in requests] == [(p["tool_name"], p["tool_input"]) for p in pending]


@given(waiting, anything)
def test_whatever_is_sent_is_an_answer_or_a_refusal(pending: list[dict[str, Any]], resume: object) -> None:
    try:
        answers = unfold(pending, resume)
    except (InvalidDecision, InterruptDecided):
        return
    assert 0 < len(answers) <= len(pending)
    assert {answer.interrupt_id for answer in answers} <= {item["id"] for item in pending}


@given(waiting, st.data())
def test_some_calls_are_answered_by_their_ids(pending: list[dict[str, Any]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from([item["id"] for item in pending]), min_size=1, unique=True))
    resume = {key: data.draw(decisions) for key in chosen}
    assert {answer.interrupt_id: written(answer) for answer in unfold(pending, resume)} == resume


def test_a_batch_has_the_shape_of_langchains_middleware() -> None:
    folded = fold(TWO)
    assert folded is not None
    assert folded["value"] == {
        "action_requests": [
            {"name": "execute", "args": {"command": "echo 1"}, "description": "Run echo 1"},
            {"name": "write_file", "args": {"command": "echo 2"}, "description": "Run echo 2"},
        ],
        "review_configs": [
            {"action_name": "execute", "allowed_decisions": ALL},
            {"action_name": "write_file", "allowed_decisions": ALL},
        ],
    }
    assert len(folded["id"]) == 32


def test_nothing_pending_is_no_interrupt_and_takes_no_answer() -> None:
    assert fold([]) is None
    with pytest.raises(NothingPending):
        unfold([], {"decisions": [APPROVE]})


def test_a_batch_keeps_its_id_and_a_single_approval_its_own() -> None:
    assert batch_id(TWO) == batch_id([dict(item) for item in TWO])
    assert batch_id(TWO) != batch_id(TWO[::-1])
    assert batch_id(ONE) == ONE[0]["id"]


@pytest.mark.parametrize("resume", [APPROVE, {ONE[0]["id"]: APPROVE}, {ONE[0]["id"]: {"decisions": [APPROVE]}}])
def test_one_approval_is_answered_in_any_form(resume: dict[str, Any]) -> None:
    (answer,) = unfold(ONE, resume)
    assert (answer.interrupt_id, answer.decision.type) == (ONE[0]["id"], DecisionType.APPROVE)


def test_one_click_on_two_approvals_never_approves_the_other_call() -> None:
    with pytest.raises(InvalidDecision, match="2 decisions expected, one for each action request in order, 1 given"):
        unfold(TWO, {"decisions": [APPROVE]})


def test_one_rejection_of_two_leaves_the_other_waiting() -> None:
    (answer,) = unfold(TWO, {"decisions": [REJECT]})
    assert (answer.interrupt_id, answer.decision.type) == (TWO[0]["id"], DecisionType.REJECT)


@pytest.mark.parametrize("given_count", [0, 3])
def test_too_many_decisions_or_none_are_refused_with_both_numbers(given_count: int) -> None:
    with pytest.raises(InvalidDecision, match=f"2 decisions expected.*{given_count} given"):
        unfold(TWO, {"decisions": [REJECT] * given_count})


@pytest.mark.parametrize(
    "resume", [None, True, "approve", [], {}, [APPROVE], APPROVE, {"decisions": "approve"}, {"decision": APPROVE}]
)
def test_other_forms_are_refused_with_what_to_send(resume: object) -> None:
    with pytest.raises(InvalidDecision, match=r'send {"decisions": \[...]} with 2 decisions in order'):
        unfold(TWO, resume)


@pytest.mark.parametrize(
    "decision",
    ["approve", {}, {"type": "accept"}, {"type": ["approve"]}, {"type": "edit", "edited_action": {"name": "execute"}}],
)
def test_a_malformed_decision_is_refused_by_its_place(decision: object) -> None:
    with pytest.raises(InvalidDecision, match="decision 2"):
        unfold(TWO, {"decisions": [APPROVE, decision]})


def test_an_answer_to_an_earlier_batch_is_a_conflict() -> None:
    with pytest.raises(InterruptDecided):
        unfold(ONE, {batch_id(TWO): {"decisions": [APPROVE, APPROVE]}})


def test_an_id_that_does_not_wait_is_left_to_the_approvals_to_refuse() -> None:
    (answer,) = unfold(ONE, {"f" * 32: APPROVE})
    assert answer.interrupt_id == "f" * 32

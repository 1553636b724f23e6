"""The approvals of a thread as ONE batched LangGraph interrupt, and its answers call by call again. Pure.

The server asks call by call, and a bad answer touches nothing. Clients of the legacy wire know the batch of langchain's
`HumanInTheLoopMiddleware` only: action requests in an order, and decisions in the same order.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from moorage.approvals import Answer, Decision, DecisionType, InterruptDecided, InvalidDecision, NothingPending

type Pending = Sequence[Mapping[str, Any]]
"""What waits, in the order in which it was asked: items of the `interrupt` event, or of `seen_by_human`."""

_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")
_MAX_NAMED = 5


def fold(pending: Pending) -> dict[str, Any] | None:
    """One interrupt `{"value", "id", "response_schema"}` for all that waits; None when nothing does.

    As in langchain there is a review config per action request, at the same place. The id of a single approval is its
    own; a batch has one that stays while the same approvals wait.
    """
    if not pending:
        return None
    requests = [
        {"name": item["tool_name"], "args": item["tool_input"], "description": item.get("description", "")}
        for item in pending
    ]
    configs = [
        {"action_name": item["tool_name"], "allowed_decisions": list(item["allowed_decisions"])} for item in pending
    ]
    value = {"action_requests": requests, "review_configs": configs}
    return {"value": value, "id": batch_id(pending), "response_schema": None}


def batch_id(pending: Pending) -> str:
    """32 hex digits that name exactly these approvals in this order."""
    if len(pending) == 1:
        return str(pending[0]["id"])
    return hashlib.sha256("\n".join(str(item["id"]) for item in pending).encode()).hexdigest()[:32]


def unfold(pending: Pending, resume: object) -> list[Answer]:
    """The answers in a `command.resume`, addressed to the approvals that they are for.

    Forms: `{"decisions": [...]}`, one for each action request in order; the same under the id of the batch; per call
    `{interrupt_id: decision, ...}`, also for only some of them; and a bare decision when one approval waits.

    A list that is too long is refused, and so is one that is too short, unless it only rejects: then its decisions are
    for the first, and the others go on waiting. Some clients show several cards and send the decision of the one that
    was clicked, without saying which. Taken as the first one's, an approval could run what nobody looked at; a
    rejection runs nothing.

    Raises InvalidDecision with what to send, InterruptDecided when the answer is for another batch than the one that
    waits now, and NothingPending. Whether an id is of a pending approval, and a decision fits its call, is the
    approvals' own check.
    """
    if not pending:
        raise NothingPending("Nothing waits for approval in this thread")
    given = cast("dict[str, Any]", resume) if isinstance(resume, dict) else {}
    if not given:
        raise _wrong_form(pending)
    if (decisions := _batch(given)) is not None:
        return _by_position(pending, decisions)
    if "type" in given and len(pending) == 1:
        return _by_position(pending, [given])
    if len(given) == 1 and (inner := _named_batch(given)) is not None:
        return _of_named_batch(pending, inner, *given)
    if not all(_INTERRUPT_ID.fullmatch(key) for key in given):
        raise _wrong_form(pending)
    return [
        Answer(_decision(_single(item), f"the decision for {key}"), interrupt_id=key) for key, item in given.items()
    ]


def _batch(given: object) -> list[Any] | None:
    """The list in `{"decisions": [...]}`."""
    if not isinstance(given, dict):
        return None
    decisions = cast("dict[str, Any]", given).get("decisions")
    return cast("list[Any]", decisions) if isinstance(decisions, list) else None


def _named_batch(given: Mapping[str, Any]) -> list[Any] | None:
    """The list in `{id: {"decisions": [...]}}`."""
    (key,) = given
    return _batch(given[key]) if _INTERRUPT_ID.fullmatch(key) else None


def _of_named_batch(pending: Pending, decisions: list[Any], named: str) -> list[Answer]:
    if named == batch_id(pending):
        return _by_position(pending, decisions)
    single = [item for item in pending if item["id"] == named]
    if not single:
        raise InterruptDecided("Something else waits for approval now: look again", code="approvals_changed")
    return _by_position(single, decisions)


def _by_position(pending: Pending, decisions: list[Any]) -> list[Answer]:
    if len(decisions) > len(pending) or not decisions:
        raise _wrong_count(pending, decisions)
    read = [_decision(item, f"decision {place}") for place, item in enumerate(decisions, start=1)]
    if len(read) < len(pending) and any(decision.type is not DecisionType.REJECT for decision in read):
        raise _wrong_count(pending, decisions)
    return [Answer(decision, interrupt_id=str(item["id"])) for item, decision in zip(pending, read, strict=False)]


def _single(given: object) -> object:
    """The one decision of `{"decisions": [decision]}`, as some clients send it per call too."""
    decisions = _batch(given)
    return decisions[0] if decisions is not None and len(decisions) == 1 else given


def _decision(given: object, which: str) -> Decision:
    if not isinstance(given, dict):
        raise InvalidDecision(f"{which} is not an object with a type")
    found = cast("dict[str, Any]", given)
    kind, edited, message, digest = (found.get(key) for key in ("type", "edited_action", "message", "digest"))
    if not isinstance(kind, str) or kind not in tuple(DecisionType):
        raise InvalidDecision(f"{which} has no type that is known: {', '.join(DecisionType)}")
    if not isinstance(message, str | None) or not isinstance(digest, str | None):
        raise InvalidDecision(f"{which} has a message or a digest that is no text")
    name, args = _edited(edited, which)
    return Decision(DecisionType(kind), edited_args=args, edited_name=name, message=message or None, digest=digest)


def _edited(given: object, which: str) -> tuple[str | None, dict[str, Any] | None]:
    if given is None:
        return None, None
    action = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    name, args = action.get("name"), action.get("args")
    if not isinstance(name, str) or not isinstance(args, dict):
        raise InvalidDecision(f"{which} has no edited_action with name and args")
    return name, cast("dict[str, Any]", args)


def _wrong_count(pending: Pending, decisions: Sequence[object]) -> InvalidDecision:
    return InvalidDecision(
        f"{len(pending)} decisions expected, one for each action request in order, {len(decisions)} given; "
        + _addressed_form(pending)
    )


def _wrong_form(pending: Pending) -> InvalidDecision:
    count = f"{len(pending)} decision{'s' if len(pending) > 1 else ''}"
    return InvalidDecision(
        f'the answer has no known form: send {{"decisions": [...]}} with {count} in order, each '
        '{"type": "approve" | "edit" | "reject" | "respond", ...}; ' + _addressed_form(pending)
    )


def _addressed_form(pending: Pending) -> str:
    ids = ", ".join(str(item["id"]) for item in pending[:_MAX_NAMED])
    more = ", ..." if len(pending) > _MAX_NAMED else ""
    return f"to answer some of them, send {{interrupt_id: decision}}; pending: {ids}{more}"

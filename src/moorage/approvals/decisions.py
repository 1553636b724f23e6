"""Decisions: a human's answers to interrupts, and what an answer must meet before it touches the graph."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, assert_never, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match  # pyright: ignore[reportUnknownVariableType]

from moorage.approvals.interrupts import Interrupt, InterruptStatus, RaisedInterrupt, is_flagged
from moorage.errors import Conflict, InvalidPayload, NotFound
from moorage.events import encode, survives_encoding
from moorage.ids import RunId
from moorage.rules import NewRule, Remember

MAX_ARGUMENT_BYTES = 256 * 1024
MAX_MESSAGE_CHARACTERS = 10_000


class DecisionType(StrEnum):
    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"


STATUS_AFTER: Mapping[DecisionType, InterruptStatus] = {
    DecisionType.APPROVE: InterruptStatus.APPROVED,
    DecisionType.EDIT: InterruptStatus.EDITED,
    DecisionType.REJECT: InterruptStatus.REJECTED,
    DecisionType.RESPOND: InterruptStatus.RESPONDED,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer to one interrupt. Exactly one of `edited_args` (edit) and `message` (respond, maybe reject) fits."""

    type: DecisionType
    edited_args: dict[str, Any] | None = None
    edited_name: str | None = None
    message: str | None = None
    digest: str | None = None
    remember: Remember | None = None

    def as_resume(self) -> dict[str, Any]:
        """What is decided, as it is stored."""
        match self.type:
            case DecisionType.EDIT:
                return {"type": "edit", "args": self.edited_args}
            case DecisionType.REJECT | DecisionType.RESPOND:
                return {"type": self.type.value, "message": self.message or ""}
            case DecisionType.APPROVE:
                return {"type": "approve"}
        assert_never(self.type)


@dataclass(frozen=True, slots=True)
class Decided:
    """What an accepted answer started."""

    run_id: RunId
    first_seq: int
    interrupts: list[Interrupt]


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision addressed to one interrupt, by its id or by its call id."""

    decision: Decision
    interrupt_id: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedDecision:
    """A decision that fits its interrupt as it was read, and the rule that is to be remembered with it."""

    interrupt: Interrupt
    decision: Decision
    rule: NewRule | None = None


def as_decided(interrupt: Interrupt) -> Interrupt:
    """The interrupt as it was right after its decision, whatever became of it since."""
    kind = (interrupt.decision or {}).get("type")
    return replace(interrupt, status=STATUS_AFTER[DecisionType(kind)]) if kind else interrupt


class InterruptNotFound(NotFound):
    code = "interrupt_not_found"

    def __init__(self) -> None:
        super().__init__("No such approval in this session")


class InterruptDecided(Conflict):
    code = "interrupt_decided"


class NothingPending(Conflict):
    code = "nothing_pending"


class InvalidDecision(InvalidPayload):
    code = "invalid_decision"


class NotRememberable(InvalidPayload):
    code = "not_rememberable"

    def __init__(self) -> None:
        super().__init__("This call has warnings or risks: look at each one like it, and decide without remember")


class StaleDigest(Conflict):
    code = "stale_digest"


class FileChanged(Conflict):
    code = "file_changed"

    def __init__(self) -> None:
        super().__init__("The file has changed since this was asked: look at the new difference and decide again")


def check_decision(interrupt: Interrupt, decision: Decision) -> None:
    """Refuse a decision that does not fit its interrupt, before anything is written.

    Raises InvalidDecision (the answer is malformed), StaleDigest (it is about something else than what waits) or
    NotRememberable.
    """
    if decision.type not in interrupt.raised.allowed_decisions:
        allowed = ", ".join(interrupt.raised.allowed_decisions)
        raise InvalidDecision(f"decision {decision.type.value} is not allowed here; allowed: {allowed}")
    if decision.digest is not None and decision.digest != interrupt.digest:
        raise StaleDigest("What waits for approval is not what this decision was made for: look again")
    if decision.type is DecisionType.EDIT:
        _check_edit(interrupt.raised, decision)
    elif decision.edited_args is not None or decision.edited_name is not None:
        raise InvalidDecision("edited_action belongs to decision type edit only")
    if decision.type is DecisionType.RESPOND and not decision.message:
        raise InvalidDecision("decision respond needs a message")
    if decision.message is not None:
        _check_message(decision)
    if decision.remember is not None and decision.type not in (DecisionType.APPROVE, DecisionType.REJECT):
        raise InvalidDecision("remember belongs to decisions approve and reject only")
    if decision.remember is not None and is_flagged(interrupt.raised):
        raise NotRememberable


def _check_edit(raised: RaisedInterrupt, decision: Decision) -> None:
    if decision.edited_args is None or decision.edited_name is None:
        raise InvalidDecision("decision edit needs edited_action with name and args")
    if decision.edited_name != raised.tool_name:
        raise InvalidDecision("an edit must keep the tool: edited_action.name differs from the tool that asks")
    if not survives_encoding(decision.edited_args):
        raise InvalidDecision("edited arguments hold NUL, broken characters, too large a number or too much nesting")
    if len(encode(decision.edited_args)) > MAX_ARGUMENT_BYTES:
        raise InvalidDecision(f"edited arguments are larger than {MAX_ARGUMENT_BYTES} bytes")
    validator = Draft202012Validator(raised.args_schema)
    problem = cast("ValidationError | None", best_match(validator.iter_errors(decision.edited_args)))  # pyright: ignore[reportUnknownMemberType]
    if problem is not None:
        place = "/".join(str(part) for part in problem.absolute_path) or "args"
        raise InvalidDecision(f"edited arguments do not fit the tool's schema at {place} ({problem.validator})")


def _check_message(decision: Decision) -> None:
    if decision.type in (DecisionType.APPROVE, DecisionType.EDIT):
        raise InvalidDecision("message belongs to decisions reject and respond only")
    if len(decision.message or "") > MAX_MESSAGE_CHARACTERS:
        raise InvalidDecision(f"message is longer than {MAX_MESSAGE_CHARACTERS} characters")

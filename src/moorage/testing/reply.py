"""What a script answers with: a plan that the wire turns into a stream or a body."""

import json
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the raw text on the wire, so it may be wrong. Without an `id` the server makes a unique one."""

    name: str
    arguments: str
    id: str | None = None


class Fault(StrEnum):
    """How the connection misbehaves; the reply's text is what still gets through."""

    NONE = "none"
    SILENT = "silent"
    STALLED = "stalled"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class Reply:
    """One model message. `pause` is the number of seconds before each delta."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    pause: float = 0
    fault: Fault = Fault.NONE


@dataclass(frozen=True, slots=True)
class Failure:
    """An HTTP error instead of a reply. `retry_after` is in seconds."""

    status: int
    kind: str
    code: str | None
    message: str
    param: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Flaky:
    """The failure on the first attempt at a request, the reply on the next."""

    failure: Failure
    reply: Reply


type Answer = Reply | Failure | Flaky


def call(name: str, /, **args: object) -> ToolCall:
    """A well-formed tool call."""
    return ToolCall(name, json.dumps(args, ensure_ascii=False))

"""The journal of tool calls: what makes a side effect happen at most once, whatever happens to the server.

A call is known by its place, not by the id that the model gave it: models repeat `call_1`. What is kept of a call is
JSON: `{"message": {content, status, name, artifact?}, "update"?: {...}, "report": {...}}`; `report` is what readers of
the thread are told. A call that somebody else answered for the tool (a rejection, say) has only a `content`.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, cast

import orjson
from langchain_core.messages import ToolMessage
from langgraph.types import Command

from moorage.approvals import Interrupt
from moorage.events import encode, survives_encoding
from moorage.ids import ThreadId, result_message_id
from moorage.rules import Verdict

type ToolResult = ToolMessage | Command[Any]

_OUTCOME_UNKNOWN = (
    "outcome_unknown: {what} while this ran; it may or may not have taken effect. "
    "Look at the state of things before you do anything again."
)


@dataclass(frozen=True, slots=True)
class CallKey:
    """A call's place: its index in an AI message, in the graph at a namespace ("" is the root)."""

    checkpoint_ns: str
    message_id: str
    position: int

    def result_id(self, thread_id: ThreadId) -> str:
        """The id of the message that holds the call's result, the same in every try."""
        return result_message_id(thread_id, self.checkpoint_ns, self.message_id, self.position)


class CallState(StrEnum):
    STARTED = "started"
    DONE = "done"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal holds of a call. `result` is None while it is only started."""

    key: CallKey
    tool_call_id: str
    tool: str
    state: CallState
    result: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call as it is about to run. `args` are those that run, after a human's edit."""

    key: CallKey
    tool_call_id: str
    tool: str
    args: Mapping[str, Any]


class CallStarted(Exception):
    """The journal says that somebody started this call already: it must not be started again. `entry` is what it has.

    It may be of an earlier turn: a client may go back to a state in which the call was not made yet.
    """

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry


type Resolve = Callable[[str], Awaitable[str | None]]


class Journal(Protocol):
    """The journal as one run sees it: what earlier runs of its turn left behind, and its own writes.

    A turn is a message and all runs that its answers started. Writes raise ClaimLost when the run is another worker's.
    """

    @property
    def thread_id(self) -> ThreadId: ...

    @property
    def told(self) -> frozenset[str]:
        """Ids of the tool results of this turn that readers of the thread were told of before this run was claimed."""
        ...

    def find(self, key: CallKey) -> Entry | None:
        """What was there of this call when the run was claimed."""
        ...

    def asked(self, key: CallKey) -> Interrupt | None:
        """The latest question about this call, as it was when the run was claimed."""
        ...

    async def told_of(self, message_ids: Sequence[str]) -> set[str]:
        """Those of these messages of the root that the thread's history holds."""
        ...

    async def of_messages(self, message_ids: Sequence[str]) -> list[Entry]:
        """What there is of the calls of these AI messages of the root graph, of whichever turn."""
        ...

    async def judge(self, tool: str, args: Mapping[str, Any], *, resolve: Resolve) -> Verdict | None:
        """What the user's remembered rules say now; None when a human must be asked.

        `resolve` answers where a path of the sandbox really leads, None when nobody can say.
        """
        ...

    async def start(self, call: Call) -> float:
        """Commit that the tool starts now; answers until when it may, on the monotonic clock. Raises CallStarted."""
        ...

    async def finish(self, call: Call, state: CallState, result: Mapping[str, Any]) -> None:
        """Commit the call's result, whether it was started or never will be."""
        ...

    async def withdraw(self, call: Call) -> None:
        """Take back `start`: it is certain that nothing ran."""
        ...


def pack(result: ToolResult, report: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's result as JSON, whole; what a Command changes beside its message is kept if JSON can hold it."""
    message = message_of(result)
    kept: dict[str, Any] = {"report": dict(report)}
    if message is not None:
        kept["message"] = {
            "content": message.content,
            "status": message.status,
            "name": message.name,
            "artifact": message.artifact,
        }
    changes = cast("object", result.update) if isinstance(result, Command) else None
    if isinstance(changes, dict):
        update = {key: value for key, value in cast("dict[str, Any]", changes).items() if key != "messages"}
        if survives_encoding(update):
            kept["update"] = update
    return cast("dict[str, Any]", orjson.loads(encode(kept)))


def unpack(result: Mapping[str, Any], *, tool_call_id: str, message_id: str, name: str) -> ToolResult:
    """What `pack` kept, as the result of the call `tool_call_id`, which may have got another id meanwhile."""
    held = result.get("message") or result
    message = ToolMessage(
        held.get("content", ""),
        id=message_id,
        tool_call_id=tool_call_id,
        name=held.get("name") or name,
        status=held.get("status") or "error",
        artifact=held.get("artifact"),
    )
    update = result.get("update")
    return message if update is None else Command(update={**update, "messages": [message]})


def message_of(result: ToolResult) -> ToolMessage | None:
    """The message in a tool's result."""
    if isinstance(result, ToolMessage):
        return result
    update = cast("object", result.update)
    messages: list[Any] = cast("dict[str, Any]", update).get("messages", []) if isinstance(update, dict) else []
    return next((item for item in messages if isinstance(item, ToolMessage)), None)


def unknown_outcome(what: str = "the server restarted") -> dict[str, Any]:
    """The result of a call that was started and never heard of again, because of `what`."""
    content = _OUTCOME_UNKNOWN.format(what=what)
    report = {"status": "outcome_unknown", "result": content, "duration_ms": 0}
    return {"message": {"content": content, "status": "error"}, "report": report}

"""Entering a graph that was left in the middle: by a lost worker, a cancelled run, or a pause that nobody ended.

The state is asked, not guessed. A run whose message is in it already goes on from there; a new message first gives
every call that was left open a result, because no model may see a call without one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langgraph.types import StateSnapshot

from moorage.agent.journal import CallKey, Entry, Journal, unknown_outcome, unpack

_STOPPED = "the run was stopped"
_NEVER_RAN = "This {tool} call was not run: the run ended before it."
_BROKEN_OFF = (
    "This task was broken off: the run ended before its sub-agent did, which may have done a part of it. "
    "Look at the state of things before you do anything again."
)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a thread's graph stands: its messages, and those that finished tasks of an unfinished step left beside it.

    Feeding the graph a new message forgets the latter.
    """

    messages: list[BaseMessage]
    margin: list[BaseMessage]

    @property
    def turn(self) -> list[BaseMessage]:
        """What came after the last message of the user."""
        messages = [*self.messages, *self.margin]
        asked = [index for index, message in enumerate(messages) if isinstance(message, HumanMessage)]
        return messages[asked[-1] + 1 :] if asked else messages

    def open_calls(self) -> list[tuple[AIMessage, int]]:
        """The calls of the last AI message that have no result: the message and the call's position in it."""
        messages = [*self.messages, *(item for item in self.margin if isinstance(item, AIMessage))]
        for index in range(len(messages) - 1, -1, -1):
            message = messages[index]
            if isinstance(message, AIMessage):
                answered = {item.tool_call_id for item in messages[index + 1 :] if isinstance(item, ToolMessage)}
                return [(message, place) for place, call in enumerate(message.tool_calls) if call["id"] not in answered]
        return []


def standing_of(state: StateSnapshot) -> Standing:
    """Read a snapshot of the root graph.

    The results of finished tasks of an unfinished step are shown with the tasks, and may be shown in the values, too.
    """
    written: list[BaseMessage] = []
    for task in state.tasks:
        result = cast("Mapping[str, Any] | None", task.result)
        written += _messages_in(result.get("messages") if isinstance(result, dict) else None)
    beside = {message.id for message in written}
    values = cast("list[BaseMessage]", state.values.get("messages", []))
    return Standing([message for message in values if message.id not in beside], written)


async def settle(standing: Standing, journal: Journal) -> list[BaseMessage]:
    """What must come before a new message: what the state would forget, and a result for every open call.

    A result is the one in the state's margin, else the journal's, else that the call never ran.
    """
    said: list[BaseMessage] = [message for message in standing.margin if isinstance(message, AIMessage)]
    calls = standing.open_calls()
    if not calls:
        return said
    written = {message.tool_call_id: message for message in standing.margin if isinstance(message, ToolMessage)}
    entries = {entry.key: entry for entry in await journal.of_messages([calls[0][0].id or ""])}
    return [*said, *(_result_of(message, position, written, entries, journal) for message, position in calls)]


def reports_of(entries: Iterable[Entry], journal: Journal) -> dict[str, Mapping[str, Any]]:
    """What readers are told of these calls' results, by the result's message id."""
    found: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        result = entry.result or unknown_outcome(_STOPPED)
        rejected = {"status": "rejected", "result": result.get("content", "")}
        found[entry.key.result_id(journal.thread_id)] = result.get("report") or rejected
    return found


def _result_of(
    message: AIMessage,
    position: int,
    written: Mapping[str, ToolMessage],
    entries: Mapping[CallKey, Entry],
    journal: Journal,
) -> ToolMessage:
    call = message.tool_calls[position]
    call_id = str(call["id"])
    if call_id in written:
        return written[call_id]
    key = CallKey("", message.id or "", position)
    result_id = key.result_id(journal.thread_id)
    entry = entries.get(key)
    if entry is None:
        content = _BROKEN_OFF if call["name"] == "task" else _NEVER_RAN.format(tool=call["name"])
        return ToolMessage(content, id=result_id, tool_call_id=call_id, name=call["name"], status="error")
    held = entry.result or unknown_outcome(_STOPPED)
    result = unpack({**held, "update": None}, tool_call_id=call_id, message_id=result_id, name=call["name"])
    return cast("ToolMessage", result)


def _messages_in(value: object) -> Sequence[BaseMessage]:
    if isinstance(value, BaseMessage):
        return [value]
    if not isinstance(value, list):
        return []
    return [item for item in cast("list[object]", value) if isinstance(item, BaseMessage)]

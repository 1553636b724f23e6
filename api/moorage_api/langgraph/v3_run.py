"""A run as the v3 protocol tells it: the messages and tool calls that are open in it, and where they belong. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from moorage.events import EventType
from moorage_api.langgraph.v3_frames import Namespace
from moorage_api.langgraph.v3_messages import OpenMessage
from moorage_api.langgraph.v3_payloads import Data, ai_messages

ROOT: Namespace = ()

type Told = tuple[str, Namespace, Data]
"""Method, namespace and payload of a frame."""


@dataclass(slots=True)
class Call:
    """A tool call that the model made: `place` is its task's namespace, that of its graph one above."""

    call_id: str
    name: str
    args: Data
    scope: Namespace
    place: Namespace
    started: bool = False
    subagent: str | None = None

    def begin(self) -> Iterator[Told]:
        """It runs; told once."""
        if self.started:
            return
        self.started = True
        told = {"event": "tool-started", "tool_call_id": self.call_id, "tool_name": self.name, "input": self.args}
        yield "tools", self.scope, told
        if self.subagent is not None:
            cause = {"type": "toolCall", "tool_call_id": self.call_id}
            yield "lifecycle", self.place, self.phase("started") | {"cause": cause}

    def phase(self, phase: str) -> Data:
        """What is said of the sub-agent that it runs."""
        told = {"event": phase, "namespace": list(self.place), "graph_name": self.subagent}
        return {**told, "trigger_call_id": self.place[-1].partition(":")[2]}


@dataclass(slots=True)
class Run:
    """What of a run later events refer to."""

    agent: str = "agent"
    error: str | None = None
    ended: bool = False
    messages: dict[str | None, OpenMessage] = field(default_factory=dict[str | None, OpenMessage])
    unnamed: dict[str | None, list[Call]] = field(default_factory=dict[str | None, list[Call]])
    calls: dict[str, Call] = field(default_factory=dict[str, Call])
    decided: set[str] = field(default_factory=set[str])
    given: dict[str, Data] = field(default_factory=dict[str, Any])
    recorded: bool = False
    lost: bool = False
    held: tuple[Namespace, Data] | None = None

    def open(self, parent: str | None, message_id: str) -> tuple[OpenMessage, bool]:
        """The message that is being told, and whether it begins now."""
        message = self.messages.get(parent)
        if message is not None and message.id == message_id:
            return message, False
        message = self.messages[parent] = OpenMessage(message_id)
        return message, True

    def before(self, kind: EventType, data: Data) -> Iterator[Told]:
        """Messages that are complete end with the first event that is not one of their own calls."""
        own = {data.get("parent_call_id")} if kind is EventType.TOOL_CALL else set[str | None]()
        for parent, message in list(self.messages.items()):
            ends = message.completed and parent not in own
            replaced = kind in (EventType.CONTENT_STREAM, EventType.MESSAGE_COMPLETE) and (
                parent == data.get("parent_call_id") and message.id != data["message_id"]
            )
            if ends or replaced:
                yield from self.tell(parent, message.finish())
                del self.messages[parent]
            elif kind is EventType.RUN_END:
                yield from self.tell(parent, [message.abandon()])
                del self.messages[parent]
        for parent in list(self.unnamed):
            if parent not in own:
                del self.unnamed[parent]

    def finish_messages(self, data: Data) -> Iterator[Told]:
        """LangGraph's update tells whose calls those without words were, and what a message cost."""
        said = ai_messages(data["data"]) if data["kind"] == "updates" else []
        for parent, calls in list(self.unnamed.items()):
            found = next((item for item in said if _made(item, calls)), None)
            if found is not None:
                message = self.messages[parent] = OpenMessage(found["id"])
                yield from self.tell(parent, [message.start()])
                for call in calls:
                    yield from self.tell(parent, message.call(call.call_id, call.name, call.args, json_text(call.args)))
            del self.unnamed[parent]
        for parent, message in list(self.messages.items()):
            if message.completed:
                _complete(message, said)
                yield from self.tell(parent, message.finish())
                del self.messages[parent]

    def tell(self, parent: str | None, shown: "Iterator[Data] | list[Data]") -> Iterator[Told]:
        place = self.place(parent)
        for item in shown:
            yield "messages", place, item

    def call(self, call_id: str, *, scope: Namespace = ROOT, subagent: str | None = None) -> Call:
        call = self.calls.get(call_id)
        if call is None:
            name = "task" if subagent else ""
            call = self.calls[call_id] = Call(call_id, name, {}, scope, (*scope, f"tools:{call_id}"))
        call.subagent = call.subagent or subagent
        return call

    def scope(self, data: Data) -> Namespace:
        return self.place(data.get("parent_call_id"))

    def place(self, parent: str | None) -> Namespace:
        """The namespace of what a call's sub-agent does; the root's without one."""
        if parent is None:
            return ROOT
        return self.calls[parent].place if parent in self.calls else (f"tools:{parent}",)


def _made(message: Data, calls: list[Call]) -> bool:
    ids = {call.get("id") for call in message.get("tool_calls", ())}
    return all(call.call_id in ids for call in calls)


def _complete(message: OpenMessage, said: list[Data]) -> None:
    found = next((item for item in said if item["id"] == message.id), None)
    if found is not None:
        message.usage = found.get("usage_metadata") or message.usage
        message.metadata = {**message.metadata, **(found.get("response_metadata") or {})}


def json_text(value: Any) -> str:
    return orjson.dumps(value).decode()

"""Messages of a run as they are told: which one is open in each namespace, and when it has been said."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from moorage.events import EventType, StoredEvent
from moorage_api.langgraph.legacy_places import Namespace, Places

_SAYS_MORE = frozenset({EventType.TOOL_CALL, EventType.MESSAGE_COMPLETE})


@dataclass(slots=True)
class Spoken:
    """A message of a model while it is told. `metadata` is what LangGraph says of its place."""

    id: str
    ns: Namespace
    agent: str
    metadata: dict[str, Any]
    text: list[str] = field(default_factory=list[str])
    thinking: list[str] = field(default_factory=list[str])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    usage: dict[str, int] | None = None
    response: dict[str, Any] = field(default_factory=dict[str, Any])
    tail: bytes = b""  # what follows the text in each of its chunks, encoded once

    def as_message(self) -> dict[str, Any]:
        """What was said so far, as LangChain dumps an AI message."""
        thinking = "".join(self.thinking)
        return {
            "content": "".join(self.text),
            "additional_kwargs": {"reasoning_content": thinking} if thinking else {},
            "response_metadata": self.response,
            "type": "ai",
            "name": self.agent if self.ns else None,
            "id": self.id,
            "tool_calls": self.calls,
            "invalid_tool_calls": [],
            "usage_metadata": self.usage,
        }


@dataclass(frozen=True, slots=True)
class Answered:
    """A tool's result: `message` as LangChain dumps it. `ran` is false where a human or a rule forbade the call."""

    ns: Namespace
    call_id: str
    metadata: dict[str, Any]
    message: dict[str, Any]
    given: Any
    ran: bool


class MessageView:
    """One way to show messages. Views with `whole_tree` see sub-agents' too, even where sub-graphs are not shown."""

    whole_tree = False

    def opened(self, message: Spoken, /) -> None: ...

    def delta(self, message: Spoken, text: str, thinking: str, /) -> None: ...

    def called(self, message: Spoken, call: Mapping[str, Any], /) -> None: ...

    def closed(self, message: Spoken, /) -> None: ...

    def answered(self, result: Answered, /) -> None: ...


class MessageReader:
    """Reads a run's messages out of our own events, and tells its views of them in order."""

    def __init__(self, views: Sequence[MessageView], places: Places, *, subgraphs: bool) -> None:
        self._root_views = tuple(views)
        self._deep_views = tuple(view for view in views if subgraphs or view.whole_tree)
        self._places = places
        self._open: dict[Namespace, Spoken] = {}
        self._calls: dict[str, Mapping[str, Any]] = {}
        self._ending: Spoken | None = None

    def read(self, event: StoredEvent) -> None:
        """What this event says of messages. What ends a message is the first event that does not belong to it."""
        if self._ending is not None and event.type not in _SAYS_MORE:
            self._close(self._ending)
        match event.type:
            case EventType.CONTENT_STREAM:
                self._content(orjson.loads(event.data))
            case EventType.MESSAGE_COMPLETE:
                self._complete(orjson.loads(event.data))
            case EventType.TOOL_CALL:
                self._tool_call(orjson.loads(event.data))
            case EventType.TOOL_RESULT:
                self._tool_result(orjson.loads(event.data))
            case _:
                return

    def forget_unfinished(self) -> None:
        """Another attempt of the run begins: what was in the middle of being said is said again."""
        self._open.clear()

    def name_of(self, call_id: str, name: str) -> None:
        """A call that an earlier run announced is of this tool."""
        self._calls.setdefault(call_id, {"name": name, "args": None})

    def tool_of(self, call_id: str) -> str:
        """The tool that this call is of; empty when nobody told."""
        return str(self._calls.get(call_id, {}).get("name", ""))

    def _views(self, ns: Namespace) -> tuple[MessageView, ...]:
        return self._deep_views if ns else self._root_views

    def _content(self, data: dict[str, Any]) -> None:
        ns = self._places.of_parent(data.get("parent_call_id"))
        views = self._views(ns)
        if not views:
            return
        message = self._message(ns, data["message_id"], data["agent"])
        text, thinking = data["content_delta"], data.get("thinking_delta", "")
        message.text.append(text)
        if thinking:
            message.thinking.append(thinking)
        for view in views:
            view.delta(message, text, thinking)

    def _complete(self, data: dict[str, Any]) -> None:
        ns = self._places.of_parent(data.get("parent_call_id"))
        if not (views := self._views(ns)):
            return
        known = self._open.get(ns)
        message = self._next(ns, data["message_id"], data["agent"])
        if message is not known:  # a message that was not streamed
            message.text.append(data["final_content"])
            for view in views:
                view.delta(message, data["final_content"], "")
        about = data["metadata"]
        message.usage = about["usage"] if about["usage"].get("total_tokens") else None
        message.response = {"model_name": about["model"]}

    def _tool_call(self, data: dict[str, Any]) -> None:
        ns = self._places.of_parent(data.get("parent_call_id"))
        call = {"name": data["tool_name"], "args": data["tool_input"], "id": data["call_id"], "type": "tool_call"}
        self._calls[data["call_id"]] = call
        if not (views := self._views(ns)):
            return
        message = self._next(ns, self._message_of_call(ns, data), data["agent"])
        message.calls.append(call)
        for view in views:
            view.called(message, call)

    def _tool_result(self, data: dict[str, Any]) -> None:
        ns = self._places.of_parent(data.get("parent_call_id"))
        if not (views := self._views(ns)):
            return
        call_id, status = data["call_id"], data["status"]
        call = self._calls.get(call_id, {})
        message: dict[str, Any] = {
            "content": data["result"],
            "additional_kwargs": {},
            "response_metadata": {},
            "type": "tool",
            "name": call.get("name"),
            "id": data["message_id"],
            "tool_call_id": call_id,
            "artifact": None,
            "status": "success" if status == "success" else "error",
        }
        metadata = self._places.of_tool(ns, call_id, data["agent"])
        given = data.get("executed_input", call.get("args"))
        result = Answered(ns, call_id, metadata, message, given, ran=status != "rejected")
        for view in views:
            view.answered(result)

    def _message(self, ns: Namespace, message_id: str, agent: str) -> Spoken:
        message = self._open.get(ns)
        if message is None or message.id != message_id:
            message = Spoken(message_id, ns, agent, self._places.of_model(ns, agent))
            self._open[ns] = message
            for view in self._views(ns):
                view.opened(message)
        return message

    def _message_of_call(self, ns: Namespace, data: Mapping[str, Any]) -> str:
        """The message that made this call; events of earlier versions do not name it."""
        if (named := data.get("message_id")) is not None:
            return named
        return self._ending.id if self._ending and self._ending.ns == ns else f"call-{data['call_id']}"

    def _next(self, ns: Namespace, message_id: str, agent: str) -> Spoken:
        """The message that is being finished, after the one before was."""
        message = self._message(ns, message_id, agent)
        if self._ending is not None and self._ending is not message:
            self._close(self._ending)
        self._ending = message
        return message

    def _close(self, message: Spoken) -> None:
        self._ending = None
        for view in self._views(message.ns):
            view.closed(message)

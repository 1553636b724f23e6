"""What LangGraph itself says, as events for clients of its wire: state as it changes, updates, tasks, checkpoints.

State is recorded by what changed in it, because whole states would make a log that grows with its square.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from moorage.agent.wire_json import message_json, to_json
from moorage.events import EventType, RunEvent, run_event

_MESSAGES = "messages"
_UNSET = object()

type Namespace = tuple[str, ...]


class Recorder:
    """Reads the parts of one run in order, beside the reader that makes our own events of them."""

    def __init__(self, kinds: Collection[str]) -> None:
        """`kinds`: of `values`, `updates`, `tasks`, `checkpoints`."""
        self._kinds = frozenset(kinds)
        self._known: dict[Namespace, dict[str, Any]] = {}
        self._from: dict[str, Any] | None = None
        self._fed: set[str | None] = set()

    def begin(self, *, checkpoint_id: str | None, before: Mapping[str, Any] | None, fed: Iterable[BaseMessage]) -> None:
        """The run starts in the state of a checkpoint. Where that was not read, all but what is `fed` belongs to it."""
        self._from = {"from": checkpoint_id}
        if before is not None:
            self._known[()] = dict(before)
        else:
            self._fed = {message.id for message in fed}

    def stands(self) -> Iterator[RunEvent]:
        """The state in which the run began, for one that goes no further."""
        if "values" in self._kinds:
            yield graph_event("values", (), dict(self._from or {}))

    def read(self, part: Mapping[str, Any]) -> Iterator[RunEvent]:
        """What is to be stored of this part; nothing for kinds that nobody asked for."""
        kind, ns, data = part["type"], cast("Namespace", part["ns"]), part["data"]
        if kind == "custom" and self._kinds and isinstance(data, dict) and data.get("kind") == "call":  # pyright: ignore[reportUnknownMemberType]
            yield _call(cast("dict[str, Any]", data))
        if kind not in self._kinds:
            return
        match kind:
            case "values":
                yield from self._values(ns, cast("dict[str, Any]", data))
            case "updates":
                yield from _updates(ns, cast("dict[str, Any]", data))
            case "tasks":
                yield graph_event("tasks", ns, _task(cast("dict[str, Any]", data)))
            case "checkpoints":
                yield graph_event("checkpoints", ns, _checkpoint(cast("dict[str, Any]", data)))
            case _:
                return

    def _values(self, ns: Namespace, values: dict[str, Any]) -> Iterator[RunEvent]:
        known = self._known.get(ns)
        if known is None:
            known = {} if ns or not (self._from or {}).get("from") else self._before(values)
        change, newest = _change(known, values)
        if not ns and self._from is not None:
            change, self._from = {**self._from, **change}, None
        self._known[ns] = values
        if change:
            yield graph_event("values", ns, change, waits_for=newest)

    def _before(self, values: dict[str, Any]) -> dict[str, Any]:
        """The state that the first one was made of by adding the input."""
        messages = [message for message in values.get(_MESSAGES, []) if message.id not in self._fed]
        return {**values, _MESSAGES: messages}


def _change(known: Mapping[str, Any], values: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """What leads from one state to the next, and the message that must be saved before anybody is told."""
    change: dict[str, Any] = {}
    before = cast("list[BaseMessage]", known.get(_MESSAGES, []))
    after = cast("list[BaseMessage]", values.get(_MESSAGES, []))
    newest: str | None = None
    if before is not after:
        old = {message.id: message for message in before}
        changed = [message for message in after if (was := old.get(message.id)) is not message and was != message]
        newest = next((item.id for item in reversed(changed) if isinstance(item, AIMessage | ToolMessage)), None)
        kept = {message.id for message in after}
        gone = [message.id for message in before if message.id not in kept]
        if _in_order(before, after, kept):
            change |= {"messages": [message_json(item) for item in changed]} if changed else {}
            change |= {"gone": gone} if gone else {}
        else:
            change |= {"reset": True, "messages": [message_json(item) for item in after]}
    others = {key: to_json(item) for key, item in values.items() if key != _MESSAGES and known.get(key, _UNSET) != item}
    return (change | {"set": others} if others else change), newest


def _in_order(before: list[BaseMessage], after: list[BaseMessage], kept: set[str | None]) -> bool:
    """Whether what stayed is where it was, and what is new comes last."""
    stayed = [message.id for message in before if message.id in kept]
    return [message.id for message in after[: len(stayed)]] == stayed


def _updates(ns: Namespace, data: dict[str, Any]) -> Iterator[RunEvent]:
    if "__metadata__" in data:  # a step that ran before the pause, replayed
        return
    told = {node: to_json(update) for node, update in data.items() if node != "__interrupt__"}
    if told:
        yield graph_event("updates", ns, told, waits_for=_newest(data))


def _newest(data: dict[str, Any]) -> str | None:
    for update in data.values():
        if isinstance(update, dict):
            messages = cast("dict[str, Any]", update).get(_MESSAGES)
            for message in reversed(cast("list[Any]", messages)) if isinstance(messages, list) else ():
                if isinstance(message, AIMessage | ToolMessage):
                    return message.id
    return None


def _task(data: dict[str, Any]) -> dict[str, Any]:
    """A task without the state that it was given: clients have that already."""
    told = {key: to_json(item) for key, item in data.items() if key not in ("input", "metadata")}
    given = data.get("input")
    if isinstance(given, dict) and "tool_call" in given:
        told["input"] = {"tool_call": to_json(given["tool_call"])}
    elif isinstance(given, list):
        told["input"] = to_json(given)
    return told


def _checkpoint(data: dict[str, Any]) -> dict[str, Any]:
    return {
        "config": _place(data["config"]),
        "metadata": to_json(data["metadata"]),
        "next": list(data["next"]),
        "parent_config": _place(data["parent_config"]),
        "tasks": [
            {key: to_json(item) for key, item in task.items() if key not in ("state", "result")}
            for task in data["tasks"]
        ],
    }


def _place(config: dict[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    kept = ("checkpoint_ns", "checkpoint_id", "checkpoint_map", "thread_id")
    return {"configurable": {key: item for key, item in config["configurable"].items() if key in kept}}


def _call(data: dict[str, Any]) -> RunEvent:
    told = {"call_id": data["call_id"], "name": data.get("tool"), "subagent": data.get("subagent")}
    return graph_event(
        "call", tuple(data["ns"].split("|")), {key: item for key, item in told.items() if item is not None}
    )


def graph_event(kind: str, ns: Namespace, data: Any, *, waits_for: str | None = None) -> RunEvent:
    """One event of LangGraph's own: design/events.md says what the kinds hold."""
    return run_event(EventType.GRAPH, {"kind": kind, "ns": list(ns), "data": data}, waits_for=waits_for)

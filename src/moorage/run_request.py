"""What a client of the LangGraph wire may ask of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Record(StrEnum):
    """What of LangGraph's own streams a run's log keeps beside our events."""

    VALUES = "values"
    UPDATES = "updates"
    TASKS = "tasks"
    CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a client of the LangGraph wire may ask of a run, beside or instead of a message.

    `messages` are LangChain messages in JSON, each with an id; `values` the rest of the graph's input. With neither the
    graph is entered where it stands. `update` and `goto` are those of a LangGraph command; `checkpoint_id` is where the
    run branches off. `interrupt_before` and `interrupt_after` name nodes, "*" all. `context` is what the run changes of
    its assistant's, `thread_metadata` is added to the thread's. `kwargs` is what the client sent, as it is shown. An
    `ephemeral` run takes its thread with it when it ends. With `per_call` the client knows approvals call by call. A
    `state_update` (`{values, as_node?, checkpoint_id?}`) changes the thread's state and runs nothing.
    """

    assistant_id: str | None = None
    messages: tuple[dict[str, Any], ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    update: Mapping[str, Any] | None = None
    goto: tuple[str, ...] = ()
    checkpoint_id: str | None = None
    interrupt_before: tuple[str, ...] = ()
    interrupt_after: tuple[str, ...] = ()
    record: tuple[Record, ...] = ()
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    recursion_limit: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    webhook: str | None = None
    after_seconds: float = 0
    ephemeral: bool = False
    per_call: bool = False
    thread_metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    state_update: Mapping[str, Any] | None = None

    @property
    def adds_input(self) -> bool:
        """Whether it brings something, instead of going on where the graph stands."""
        return bool(self.messages or self.values or self.update or self.goto)

    def for_graph(self) -> dict[str, Any]:
        """The part that the graph is entered with, in JSON; only what was asked for."""
        asked = {
            "messages": list(self.messages),
            "values": dict(self.values),
            "update": dict(self.update) if self.update is not None else None,
            "goto": list(self.goto),
            "checkpoint_id": self.checkpoint_id,
            "interrupt_before": list(self.interrupt_before),
            "interrupt_after": list(self.interrupt_after),
            "context": dict(self.context),
            "record": [kind.value for kind in self.record],
            "recursion_limit": self.recursion_limit,
        }
        return {key: value for key, value in asked.items() if value}

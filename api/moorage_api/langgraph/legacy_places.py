"""Where in the graph something happens: the metadata that LangGraph puts beside each message."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from moorage.ids import RunId
from moorage.run_request import Record

type Namespace = tuple[str, ...]

_LANGGRAPH_VERSION = version("langgraph")


@dataclass(frozen=True, slots=True)
class ShownRun:
    """A run as the wire names it.

    `thread_id` is the thread's wire id. `recorded` says what of LangGraph's own streams the log has of this run, where
    that is known. `metadata` is what the client gave the run, `input` what it fed.
    """

    run_id: RunId
    thread_id: str
    assistant_id: str
    graph_id: str = "agent"
    recorded: frozenset[Record] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input: Any = None


class Places:
    """What is known of namespaces, steps and tasks; what nobody recorded is made up, the same each time."""

    def __init__(self, run: ShownRun) -> None:
        self._run = run
        self._namespace_of_call: dict[str, Namespace] = {}
        self._model_task: dict[Namespace, str] = {}
        self._steps: dict[Namespace, int] = {}
        self._node: dict[Namespace, str] = {}
        self.attempt = 1

    def call_entered(self, call_id: str, ns: Namespace) -> None:
        """The task of a tool call has this namespace."""
        self._namespace_of_call[call_id] = ns

    def task_started(self, ns: Namespace, name: str, task_id: str) -> None:
        if name == "model":
            self._model_task[ns] = task_id

    def of_call(self, call_id: str, parent: Namespace = ()) -> Namespace:
        """The namespace of a call, in which a sub-agent that it starts works."""
        return self._namespace_of_call.get(call_id) or (*parent, f"tools:{call_id}")

    def of_parent(self, parent_call_id: str | None) -> Namespace:
        """The namespace of what the agent that was started by this call does; the root's for None."""
        return self.of_call(parent_call_id) if parent_call_id is not None else ()

    def base(self, agent: str | None = None) -> dict[str, Any]:
        """Metadata of everything in this run."""
        run = self._run
        return {
            **run.metadata,
            "lc_agent_name": agent,
            "created_by": "system",
            "graph_id": run.graph_id,
            "assistant_id": run.assistant_id,
            "run_attempt": self.attempt,
            "langgraph_version": _LANGGRAPH_VERSION,
            "langgraph_host": "self-hosted",
            "thread_id": run.thread_id,
            "run_id": run.run_id,
        }

    def of_model(self, ns: Namespace, agent: str) -> dict[str, Any]:
        """Metadata of a message that the model begins to say."""
        step = self._step(ns, "model", again=True)
        task = self._model_task.pop(ns, None) or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self._run.run_id}{ns}{step}"))
        own = "|".join((*ns, f"model:{task}"))
        return {
            **self.base(agent if ns else None),
            "langgraph_step": step,
            "langgraph_node": "model",
            "langgraph_triggers": ["branch:to:model"],
            "langgraph_path": ["__pregel_pull", "model"],
            "langgraph_checkpoint_ns": own,
            "checkpoint_ns": "|".join(ns) or own,
            "ls_model_type": "chat",
        }

    def of_tool(self, ns: Namespace, call_id: str, agent: str) -> dict[str, Any]:
        """Metadata of a tool's result."""
        return {
            **self.base(agent if ns else None),
            "langgraph_step": self._step(ns, "tools"),
            "langgraph_node": "tools",
            "langgraph_triggers": ["__pregel_push"],
            "langgraph_path": ["__pregel_push", 0, False],
            "langgraph_checkpoint_ns": "|".join(self.of_call(call_id, ns)),
            **({"checkpoint_ns": "|".join(ns)} if ns else {}),
        }

    def _step(self, ns: Namespace, node: str, *, again: bool = False) -> int:
        """The superstep: each message of the model is one, and all results of its calls are the next."""
        if again or self._node.get(ns) != node:
            self._steps[ns] = self._steps.get(ns, 1) + 1
            self._node[ns] = node
        return self._steps[ns]

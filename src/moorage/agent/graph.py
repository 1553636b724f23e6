"""Builds the deep agent of an assistant, and keeps it: one compiled graph serves all threads of a configuration."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from deepagents import create_deep_agent  # pyright: ignore[reportUnknownVariableType]
from deepagents.backends import CompositeBackend
from deepagents.backends.sandbox import BaseSandbox
from deepagents.middleware.filesystem import FilesystemMiddleware
from deepagents.middleware.subagents import GENERAL_PURPOSE_SUBAGENT
from langchain.agents.middleware import TodoListMiddleware
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.language_models import BaseChatModel
from langgraph.graph.state import CompiledStateGraph  # pyright: ignore[reportMissingTypeStubs]

from moorage.agent.context import RunContext
from moorage.agent.gate import Gate, ToolGate
from moorage.agent.guard import ModelGuard
from moorage.assistants import Assistant

type CompiledAgent = CompiledStateGraph[Any, RunContext, Any, Any]

MAX_COMMAND_SECONDS = 600
_CACHE_LIMIT = 256

SYSTEM_PROMPT = """You are an agent that does real work for one user, in a private Linux sandbox that is theirs alone.

- Your working folder is {workspace}; its files stay between messages. Files put into {shared} are seen by all of the \
user's sessions. Use absolute paths with the file tools.
- Tools: ls, read_file, write_file, edit_file, delete, glob and grep work on files; execute runs a shell command in \
{workspace} (it ends after {seconds} s unless you pass a timeout, at most 600 s; what it leaves in the background is \
killed; there is no network); write_todos keeps the plan of longer work; task hands a self-contained piece of work to \
a sub-agent.
- A human reviews each command and each change to a file before it happens, and may change or reject it. Believe the \
tool's result, not your plan: if it says that something else was executed, or that the user rejected it, go on from \
there and do not repeat the call.
- If a result says outcome_unknown, look at the state of things before you do anything again.
- Say what you found and did, not what you would do. Answer in the language in which the user writes."""


class Todos(TodoListMiddleware):
    """The plan tool. The gate keeps it to one call per turn, so the library's check, a node per turn, is not needed."""

    after_model = AgentMiddleware.after_model  # pyright: ignore[reportAssignmentType] -- as if it were not overridden
    aafter_model = AgentMiddleware.aafter_model  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What all agents share. `model` builds a chat model from `provider:name`."""

    backend: BaseSandbox
    gate: Gate
    model: Callable[[str], BaseChatModel]
    default_model: str
    workspace: str = "/workspace"
    shared: str = "/shared"
    command_seconds: int = 60


class Agents:
    """Agents by configuration: building one takes some 20 ms, so each is built once."""

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._cache: dict[Assistant, CompiledAgent] = {}

    def get(self, assistant: Assistant) -> CompiledAgent:
        """The agent of this assistant; raises UnknownModel when its model cannot be had."""
        agent = self._cache.get(assistant)
        if agent is None:
            if len(self._cache) >= _CACHE_LIMIT:
                self._cache.clear()
            agent = self._cache[assistant] = build_agent(assistant, self._parts)
        return agent

    def model_name(self, assistant: Assistant) -> str:
        return assistant.model or self._parts.default_model


def build_agent(assistant: Assistant, parts: AgentParts) -> CompiledAgent:
    """A compiled deep agent whose tools, its sub-agents' too, pass the gate and work in the thread's sandbox."""
    backend = CompositeBackend(default=parts.backend, routes={}, artifacts_root=f"{parts.workspace}/.agent")
    prompt = SYSTEM_PROMPT.format(workspace=parts.workspace, shared=parts.shared, seconds=parts.command_seconds)

    def middleware() -> list[AgentMiddleware[Any, Any]]:
        files = FilesystemMiddleware(backend=backend, max_execute_timeout=MAX_COMMAND_SECONDS)
        return [files, Todos(), ModelGuard(), ToolGate(parts.gate, parts.backend)]

    helper = GENERAL_PURPOSE_SUBAGENT.copy()
    helper["middleware"] = middleware()
    own_prompt = cast("dict[str, Any]", helper).get("system_prompt", "")
    helper["system_prompt"] = f"{own_prompt}\n\n{prompt}".strip()
    agent = create_deep_agent(
        parts.model(assistant.model or parts.default_model),
        system_prompt=f"{assistant.instruction}\n\n{prompt}".strip(),
        middleware=middleware(),
        subagents=[helper],
        backend=backend,
        context_schema=RunContext,
        name=assistant.name,
    )
    return cast("CompiledAgent", agent)

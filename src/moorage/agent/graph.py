"""Builds the deep agent of an assistant, and keeps it: one compiled graph serves all threads of a configuration."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
from moorage.agent.prompt import system_prompt
from moorage.agent.scope import OfferedTools, ToolScope, scope_of
from moorage.assistants import AGENT_TOOLS, SUBAGENT_TOOLS, Assistant, Configuration, SubAgent

type CompiledAgent = CompiledStateGraph[Any, RunContext, Any, Any]

MAX_COMMAND_SECONDS = 600
_CACHE_LIMIT = 64  # of users' agents: one with sub-agents takes up to 2 MB


class Todos(TodoListMiddleware):
    """The plan tool. The gate keeps it to one call per turn, so the library's check, a node per turn, is not needed."""

    after_model = AgentMiddleware.after_model  # pyright: ignore[reportAssignmentType] -- as if it were not overridden
    aafter_model = AgentMiddleware.aafter_model  # pyright: ignore[reportAssignmentType]


@dataclass(frozen=True, slots=True)
class ProfileParts:
    """What belongs to one sandbox profile. `reachable`: the `host:port`s that commands may reach."""

    backend: BaseSandbox
    gate: Gate
    reachable: Sequence[str]


@dataclass(frozen=True, slots=True)
class AgentParts:
    """What all agents share. `model` builds a chat model from `provider:name`.

    `for_profile` makes what differs from one sandbox profile to another; without, what is given serves all.
    """

    backend: BaseSandbox
    gate: Gate
    model: Callable[[str], BaseChatModel]
    default_model: str
    workspace: str = "/workspace"
    shared: str = "/shared"
    command_seconds: int = 60
    allow_auto: bool = False
    reachable: Sequence[str] = ()
    for_profile: Callable[[str], "ProfileParts"] | None = None

    def under(self, profile: str) -> "AgentParts":
        """The same for agents that work in sandboxes of this profile."""
        if self.for_profile is None:
            return self
        own = self.for_profile(profile)
        return replace(self, backend=own.backend, gate=own.gate, reachable=own.reachable)


class Agents:
    """Agents by configuration: building one takes some 20 ms, so each is built once.

    Of users' configurations the latest used are kept, the system's all: no user can push those out.
    """

    def __init__(self, parts: AgentParts) -> None:
        self._parts = parts
        self._system: dict[str, CompiledAgent] = {}
        self._cache: OrderedDict[tuple[str, Configuration], CompiledAgent] = OrderedDict()
        self._building = asyncio.Lock()

    def get(self, assistant: Assistant) -> CompiledAgent:
        """The agent of this assistant; raises UnknownModel when its model cannot be had."""
        agent = self._find(assistant)
        return self._keep(assistant, build_agent(assistant, self._parts)) if agent is None else agent

    async def prepare(self, assistant: Assistant) -> None:
        """Build the agent if need be, beside the event loop and one at a time; raises as `get` does.

        One with sub-agents takes a fifth of a second: nobody's assistants may hold up everybody's runs.
        """
        if self._find(assistant) is not None:
            return
        async with self._building:
            if self._find(assistant) is None:
                self._keep(assistant, await asyncio.to_thread(build_agent, assistant, self._parts))

    def _find(self, assistant: Assistant) -> CompiledAgent | None:
        if assistant.is_system:
            return self._system.get(assistant.graph_id)
        key = assistant.graph_id, assistant.configuration
        if key in self._cache:
            self._cache.move_to_end(key)
        return self._cache.get(key)

    def _keep(self, assistant: Assistant, agent: CompiledAgent) -> CompiledAgent:
        if assistant.is_system:
            return self._system.setdefault(assistant.graph_id, agent)
        if len(self._cache) >= _CACHE_LIMIT:
            self._cache.popitem(last=False)
        return self._cache.setdefault((assistant.graph_id, assistant.configuration), agent)

    def scope(self, assistant: Assistant) -> ToolScope:
        """Which tools the assistant's model is offered, and which of them ask."""
        return scope_of(assistant.configuration, allow_auto=self._parts.allow_auto)

    def check_model(self, name: str) -> None:
        """Raise UnknownModel when this model cannot be had."""
        self._parts.model(name)

    def model_name(self, assistant: Assistant) -> str:
        return assistant.configuration.model or self._parts.default_model


def build_agent(assistant: Assistant, parts: AgentParts) -> CompiledAgent:
    """A compiled deep agent whose tools, its sub-agents' too, pass the gate and work in the thread's sandbox."""
    wanted = assistant.configuration
    parts = parts.under(wanted.sandbox_profile)
    default = parts.model(wanted.model or parts.default_model)
    scope = scope_of(wanted, allow_auto=parts.allow_auto)
    agent = create_deep_agent(
        default,
        system_prompt=_prompt(wanted.instruction, scope, parts),
        middleware=_middleware(scope, AGENT_TOOLS, parts),
        subagents=_subagents(wanted, parts),
        backend=_backend(parts),
        context_schema=RunContext,
        name=assistant.graph_id,
    )
    return cast("CompiledAgent", agent)


def _subagents(wanted: Configuration, parts: AgentParts) -> list[Any]:
    """All have a general-purpose one: deepagents would add one of its own, whose tools pass no gate."""
    named = [_specialist(item, wanted, parts) for item in wanted.subagents]
    if any(item["name"] == GENERAL_PURPOSE_SUBAGENT["name"] for item in named):
        return named
    return [_helper(wanted, parts), *named]


def _helper(wanted: Configuration, parts: AgentParts) -> Any:
    scope = scope_of(wanted, available=SUBAGENT_TOOLS, allow_auto=parts.allow_auto)
    helper = GENERAL_PURPOSE_SUBAGENT.copy()
    helper["middleware"] = _middleware(scope, SUBAGENT_TOOLS, parts)
    helper["system_prompt"] = _prompt(cast("dict[str, Any]", helper).get("system_prompt", ""), scope, parts)
    return helper


def _specialist(agent: SubAgent, wanted: Configuration, parts: AgentParts) -> Any:
    own = wanted if agent.tools is None else replace(wanted, tools=agent.tools)
    scope = scope_of(own, available=SUBAGENT_TOOLS, allow_auto=parts.allow_auto)
    made = {
        "name": agent.name,
        "description": agent.description,
        "system_prompt": _prompt(agent.instruction, scope, parts),
        "middleware": _middleware(scope, SUBAGENT_TOOLS, parts),
    }
    return {**made, "model": parts.model(agent.model)} if agent.model else made


def _middleware(scope: ToolScope, available: frozenset[str], parts: AgentParts) -> list[AgentMiddleware[Any, Any]]:
    files = FilesystemMiddleware(backend=_backend(parts), max_execute_timeout=MAX_COMMAND_SECONDS)
    chosen = [] if scope.offered == available else [OfferedTools(scope.offered)]
    return [files, Todos(), ModelGuard(), *chosen, ToolGate(parts.gate, parts.backend, scope)]


def _backend(parts: AgentParts) -> CompositeBackend:
    return CompositeBackend(default=parts.backend, routes={}, artifacts_root=f"{parts.workspace}/.agent")


def _prompt(instruction: str, scope: ToolScope, parts: AgentParts) -> str:
    shared = system_prompt(
        scope.offered,
        workspace=parts.workspace,
        shared=parts.shared,
        command_seconds=parts.command_seconds,
        reachable=parts.reachable,
    )
    return f"{instruction}\n\n{shared}".strip()

"""Which tools an agent has, and which of them ask."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from langchain.agents.middleware.types import AgentMiddleware, ModelRequest, ModelResponse

from moorage.assistants import AGENT_TOOLS, READ_ONLY_TOOLS, Configuration, ToolApproval


@dataclass(frozen=True, slots=True)
class ToolScope:
    """The tools that an agent is offered, out of those that it could have, and what differs from asking as usual."""

    offered: frozenset[str] = AGENT_TOOLS
    approvals: Mapping[str, ToolApproval] = field(default_factory=dict[str, ToolApproval])

    def refuses(self, tool: str) -> bool:
        """Whether a call must not even be shown to a human. Of tools that nobody has, the model is told elsewhere."""
        return tool in AGENT_TOOLS and (tool not in self.offered or self.approvals.get(tool) is ToolApproval.DENY)

    def asks(self, tool: str) -> bool:
        return self._approval(tool) is not ToolApproval.ALLOW

    def journals(self, tool: str) -> bool:
        """Whether a call does something that must not be done twice."""
        return tool not in READ_ONLY_TOOLS

    def _approval(self, tool: str) -> ToolApproval:
        return self.approvals.get(tool, ToolApproval.ALLOW if tool in READ_ONLY_TOOLS else ToolApproval.ASK)


def scope_of(wanted: Configuration, *, available: frozenset[str] = AGENT_TOOLS, allow_auto: bool = False) -> ToolScope:
    """The scope of an agent that could have the `available` tools.

    What an operator does not permit any more is asked about, whatever an assistant was saved with.
    """
    approvals = {tool: how for tool, how in wanted.approvals if allow_auto or how is not ToolApproval.ALLOW}
    denied = {tool for tool, how in approvals.items() if how is ToolApproval.DENY}
    return ToolScope((available if wanted.tools is None else available & wanted.tools) - denied, approvals)


class OfferedTools(AgentMiddleware[Any, Any]):
    """Offers the model the tools of its scope. All stay known to the graph, so that its shape is always the same.

    This is no wall: the gate refuses calls of the others.
    """

    def __init__(self, offered: frozenset[str]) -> None:
        super().__init__()
        self._offered = offered

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        offered = [tool for tool in request.tools if not isinstance(tool, dict) and tool.name in self._offered]
        return await handler(request.override(tools=cast("list[Any]", offered)))

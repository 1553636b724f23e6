"""What makes one agent differ from another, and the names of the tools that agents have."""

from dataclasses import dataclass
from enum import StrEnum

READ_ONLY_TOOLS = frozenset({"ls", "read_file", "glob", "grep", "write_todos", "task"})
GATED_TOOLS = frozenset({"write_file", "edit_file", "delete", "execute"})
AGENT_TOOLS = READ_ONLY_TOOLS | GATED_TOOLS
SUBAGENT_TOOLS = AGENT_TOOLS - {"task"}


class ToolApproval(StrEnum):
    """What happens when an agent calls a tool: a human is asked, it just runs, or it is refused."""

    ASK = "ask"
    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class SubAgent:
    """Whom an agent can hand work to. What is None is as its parent has it."""

    name: str
    description: str
    instruction: str = ""
    model: str | None = None
    tools: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """How an agent is built. Hashable: the agent is cached under it.

    `model` is `provider:name`, None for the server's default; `tools` None for all. `approvals` are pairs of a tool and
    what differs from the default, by which `GATED_TOOLS` ask; they hold for sub-agents, too.
    """

    model: str | None = None
    instruction: str = ""
    tools: frozenset[str] | None = None
    approvals: frozenset[tuple[str, ToolApproval]] = frozenset()
    subagents: tuple[SubAgent, ...] = ()
    sandbox_profile: str = "default"

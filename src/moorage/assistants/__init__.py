"""Assistants: the saved configurations from which agents are built."""

from moorage.assistants.assistant import (
    SYSTEM_ASSISTANTS,
    Assistant,
    SystemAssistant,
    UnknownAssistant,
    get_assistant,
    wire_assistant_id,
)
from moorage.assistants.configuration import (
    AGENT_TOOLS,
    GATED_TOOLS,
    READ_ONLY_TOOLS,
    SUBAGENT_TOOLS,
    Configuration,
    SubAgent,
    ToolApproval,
)
from moorage.assistants.context import AssistantContext, InvalidContext
from moorage.assistants.graphs import GRAPHS, UnknownGraph
from moorage.assistants.policy import ModelNotAllowed, Policy, UnknownProfile
from moorage.assistants.service import (
    AssistantChange,
    AssistantExists,
    AssistantFilter,
    Assistants,
    AssistantStore,
    Listing,
    NewAssistant,
    VersionNotFound,
)

__all__ = [
    "AGENT_TOOLS",
    "GATED_TOOLS",
    "GRAPHS",
    "READ_ONLY_TOOLS",
    "SUBAGENT_TOOLS",
    "SYSTEM_ASSISTANTS",
    "Assistant",
    "AssistantChange",
    "AssistantContext",
    "AssistantExists",
    "AssistantFilter",
    "AssistantStore",
    "Assistants",
    "Configuration",
    "InvalidContext",
    "Listing",
    "ModelNotAllowed",
    "NewAssistant",
    "Policy",
    "SubAgent",
    "SystemAssistant",
    "ToolApproval",
    "UnknownAssistant",
    "UnknownGraph",
    "UnknownProfile",
    "VersionNotFound",
    "get_assistant",
    "wire_assistant_id",
]

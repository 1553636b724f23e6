"""Assistants: the saved configurations from which agents are built."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moorage.errors import NotFound


class UnknownAssistant(NotFound):
    code = "unknown_assistant"


@dataclass(frozen=True, slots=True)
class Assistant:
    """What makes one agent differ from another. Hashable: the agent built from it is cached under it.

    `model` is `provider:name`, or None for the server's default. `instruction` comes before the shared system prompt.
    """

    assistant_id: str
    name: str
    instruction: str = ""
    model: str | None = None


SYSTEM_ASSISTANTS: Mapping[str, Assistant] = MappingProxyType(
    {
        "agent": Assistant("agent", "agent"),
        "deep": Assistant("deep", "deep", model="scripted:bench"),
    }
)


def get_assistant(assistant_id: str) -> Assistant:
    """The assistant with this id; raises UnknownAssistant, naming those there are."""
    if assistant := SYSTEM_ASSISTANTS.get(assistant_id):
        return assistant
    raise UnknownAssistant(f"No such assistant. There are: {', '.join(SYSTEM_ASSISTANTS)}")

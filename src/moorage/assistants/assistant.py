"""Assistants: saved configurations of the agent. The system's own are the same for everybody."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from moorage.assistants.configuration import Configuration
from moorage.assistants.context import configuration_of
from moorage.assistants.graphs import GRAPHS
from moorage.errors import NotFound, PermissionDenied

_SINCE = datetime(2026, 1, 1, tzinfo=UTC)

# LangGraph Server derives the ids of its own assistants from these, so a client that kept one finds it here.
_GRAPH_NAMESPACE = uuid.UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


class UnknownAssistant(NotFound):
    code = "unknown_assistant"

    def __init__(self) -> None:
        super().__init__(f"No such assistant. There are: {', '.join(SYSTEM_ASSISTANTS)}, and those you saved")


class SystemAssistant(PermissionDenied):
    """Somebody wants to change what belongs to everybody."""

    code = "system_assistant"

    def __init__(self) -> None:
        super().__init__("The system's assistants cannot be changed or deleted: save one of your own")


@dataclass(frozen=True, slots=True)
class Assistant:
    """A version of an assistant. `assistant_id` is a uuid; of the system's own it is the name.

    `context` holds how it differs from its graph; `config` what else LangGraph's config may hold, `tags` and
    `recursion_limit`.
    """

    assistant_id: str
    name: str
    graph_id: str
    description: str | None = None
    context: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    config: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    version: int = 1
    created_at: datetime = _SINCE
    updated_at: datetime = _SINCE

    @property
    def configuration(self) -> Configuration:
        """How its agent is built; raises UnknownGraph or InvalidContext when this server cannot build it any more."""
        return configuration_of(self.graph_id, self.context)

    @property
    def recursion_limit(self) -> int | None:
        return self.config.get("recursion_limit")

    @property
    def is_system(self) -> bool:
        return self.assistant_id in SYSTEM_ASSISTANTS

    @property
    def wire_id(self) -> str:
        """The uuid by which clients of the LangGraph wire know it."""
        return wire_assistant_id(self.assistant_id)

    @property
    def thread_metadata(self) -> dict[str, str]:
        """By what lists of threads find those in which it works."""
        return {"graph_id": self.graph_id, "assistant_id": self.wire_id}


def _system(position: int, graph_id: str) -> Assistant:
    at = _SINCE - timedelta(seconds=position)  # lists show the latest first
    return Assistant(
        graph_id,
        graph_id,
        graph_id,
        description=GRAPHS[graph_id].description,
        metadata={"created_by": "system"},
        created_at=at,
        updated_at=at,
    )


SYSTEM_ASSISTANTS: Mapping[str, Assistant] = MappingProxyType(
    {graph_id: _system(position, graph_id) for position, graph_id in enumerate(GRAPHS)}
)
_WIRE_IDS = {name: str(uuid.uuid5(_GRAPH_NAMESPACE, name)) for name in SYSTEM_ASSISTANTS}
_BY_WIRE_ID = {wire_id: name for name, wire_id in _WIRE_IDS.items()}


def wire_assistant_id(assistant_id: str) -> str:
    """The uuid that the wire shows for a stored assistant id."""
    return _WIRE_IDS.get(assistant_id, assistant_id)


def find_system_assistant(text: str) -> Assistant | None:
    """The system's assistant that a name or a uuid means, if it means one."""
    return SYSTEM_ASSISTANTS.get(_BY_WIRE_ID.get(text, text))


def get_assistant(text: str) -> Assistant:
    """The system's assistant that a name or a uuid means; raises UnknownAssistant, naming those there are."""
    if assistant := find_system_assistant(text):
        return assistant
    raise UnknownAssistant

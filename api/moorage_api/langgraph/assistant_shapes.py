"""How assistants, and what is told of their graphs, look to clients of the LangGraph wire."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel

from moorage.assistants import Assistant

type Json = dict[str, Any]
type Selected = Literal[
    "assistant_id", "graph_id", "name", "description", "config", "context", "created_at", "updated_at", "metadata",
    "version",
]  # fmt: skip


class WireVersion(BaseModel):
    """A version of an assistant. `config.configurable` shows the context once more, under its older name."""

    assistant_id: str
    graph_id: str
    config: Json
    context: Json
    metadata: Json
    name: str
    created_at: datetime
    version: int
    description: str | None


class WireAssistant(WireVersion):
    updated_at: datetime


class SelectedAssistant(BaseModel):
    """An assistant of a list. With `select` only the chosen fields are there."""

    assistant_id: str | None = None
    graph_id: str | None = None
    config: Json | None = None
    context: Json | None = None
    metadata: Json | None = None
    name: str | None = None
    created_at: datetime | None = None
    version: int | None = None
    description: str | None = None
    updated_at: datetime | None = None


class WireNode(BaseModel):
    id: str
    type: str | None = None
    data: Json | None = None
    metadata: Json | None = None


class WireEdge(BaseModel):
    source: str
    target: str
    data: str | None = None
    conditional: bool | None = None


class WireGraph(BaseModel):
    nodes: list[WireNode]
    edges: list[WireEdge]


class WireSchemas(BaseModel):
    """JSON schemas. What may be configured is `context_schema`, also shown under its older name."""

    graph_id: str
    input_schema: Json
    output_schema: Json
    state_schema: Json
    config_schema: Json
    context_schema: Json


def shown_assistant(assistant: Assistant) -> WireAssistant:
    """An assistant as the wire shows it."""
    return WireAssistant(**_fields(assistant), updated_at=assistant.updated_at)


def shown_version(assistant: Assistant) -> WireVersion:
    """A version as the wire shows it."""
    return WireVersion(**_fields(assistant))


def selected_assistant(assistant: Assistant, select: list[Selected] | None) -> SelectedAssistant:
    """Of an assistant what was selected; all of it without a selection."""
    shown: Json = {**_fields(assistant), "updated_at": assistant.updated_at}
    return SelectedAssistant(**{name: value for name, value in shown.items() if not select or name in select})


def _fields(assistant: Assistant) -> Json:
    context = dict(assistant.context)
    return {
        "assistant_id": assistant.wire_id,
        "graph_id": assistant.graph_id,
        "config": {**assistant.config, **({"configurable": context} if context else {})},
        "context": context,
        "metadata": dict(assistant.metadata),
        "name": assistant.name,
        "created_at": assistant.created_at,
        "version": assistant.version,
        "description": assistant.description,
    }

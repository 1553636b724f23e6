"""Assistants on the LangGraph wire: the system's and one's own, their versions, and what their graphs look like."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from moorage.assistants import Assistant, AssistantChange, AssistantContext, AssistantFilter, NewAssistant
from moorage.errors import InvalidInput
from moorage.identity.principal import Scope
from moorage.ids import ThreadId
from moorage.runtime import Runtime
from moorage.threads import ThreadNotFound
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Integer
from moorage_api.langgraph.shapes import PAGINATED

router = APIRouter(prefix="/assistants", tags=["langgraph"])

_UNTITLED = "Untitled"

type Json = dict[str, Any]
type GraphId = Annotated[str, Field(min_length=1, max_length=100)]
type Name = Annotated[str, Field(min_length=1, max_length=200)]
type Description = Annotated[str, Field(max_length=2000)]
type Limit = Annotated[Integer, Field(ge=1, le=1000)]
type Offset = Annotated[Integer, Field(ge=0, le=1_000_000)]
type Selected = Literal[
    "assistant_id", "graph_id", "name", "description", "config", "context", "created_at", "updated_at", "metadata",
    "version",
]  # fmt: skip


class ConfigBody(BaseModel):
    """LangGraph's config. `configurable` is the older name of `context`."""

    model_config = ConfigDict(extra="forbid")
    configurable: AssistantContext | None = None
    tags: Annotated[list[Annotated[str, Field(max_length=100)]], Field(max_length=50)] | None = None
    recursion_limit: Annotated[Integer, Field(ge=1, le=100_000)] | None = None


class AssistantBody(BaseModel):
    """`context` says how the assistant differs from its graph."""

    model_config = ConfigDict(extra="forbid")
    config: ConfigBody | None = None
    context: AssistantContext | None = None
    metadata: Json | None = None
    description: Description | None = None

    def contents(self) -> tuple[Json | None, Json | None]:
        """The context and the rest of the config, as they are stored; None for what was not given."""
        config = _given(self.config) if self.config else None
        configurable = config.pop("configurable", None) if config is not None else None
        context = _given(self.context) if self.context else None
        if context is not None and configurable is not None and context != configurable:
            raise InvalidInput("Give either context or config.configurable, not both", code="two_contexts")
        return configurable if context is None else context, config


class NewAssistantBody(AssistantBody):
    """`assistant_id` may be a uuid of the client's making."""

    graph_id: GraphId
    assistant_id: Annotated[str, Field(max_length=100)] | None = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    name: Name | None = None


class AssistantPatch(AssistantBody):
    """What is left out, or null, stays; `metadata` is added to what there is."""

    graph_id: GraphId | None = None
    name: Name | None = None


class FilterBody(BaseModel):
    """`name` is a part of the assistant's, in any case; `metadata` must be contained in the assistant's."""

    model_config = ConfigDict(extra="forbid")
    graph_id: GraphId | None = None
    name: Annotated[str, Field(max_length=200)] | None = None
    metadata: Json | None = None

    def wanted(self) -> AssistantFilter:
        return AssistantFilter(self.graph_id, self.name, self.metadata)


class SearchBody(FilterBody):
    """Which assistants, how many of them, and in which order; `select` names the fields to show."""

    limit: Limit = 10
    offset: Offset = 0
    sort_by: Literal["assistant_id", "graph_id", "name", "created_at", "updated_at"] | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: Annotated[list[Selected], Field(max_length=20)] | None = None


class VersionsBody(BaseModel):
    """Versions whose `metadata` contains this."""

    model_config = ConfigDict(extra="forbid")
    metadata: Json | None = None
    limit: Limit = 10
    offset: Offset = 0


class LatestBody(BaseModel):
    """The version that is to count."""

    model_config = ConfigDict(extra="forbid")
    version: Annotated[Integer, Field(ge=1, le=1_000_000)]


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


async def _assistant(
    assistant_id: Annotated[str, Path(max_length=100)], runtime: RuntimeDep, principal: PrincipalDep
) -> Assistant:
    return await runtime.assistants.get(principal.user_id, assistant_id)


async def _may_configure(runtime: RuntimeDep, principal: PrincipalDep) -> None:
    """Where assistants may run tools without asking, who configures one answers approvals in advance."""
    if runtime.settings.approvals_allow_auto:
        principal.require(Scope.APPROVE)


type AssistantId = Annotated[str, Path(max_length=100)]
type AssistantDep = Annotated[Assistant, Depends(_assistant)]


@router.post("", dependencies=[Depends(_may_configure)])
async def create_assistant(runtime: RuntimeDep, principal: PrincipalDep, body: NewAssistantBody) -> WireAssistant:
    """Save an assistant. 409 when the id is taken, unless `if_exists` is `do_nothing`."""
    context, config = body.contents()
    new = NewAssistant(
        body.graph_id, body.name or _UNTITLED, body.description, context or {}, config or {}, body.metadata or {}
    )
    saved = await runtime.assistants.create(
        principal.user_id, new, assistant_id=body.assistant_id, if_exists=body.if_exists == "do_nothing"
    )
    return shown_assistant(saved)


@router.post("/search", response_model_exclude_unset=True, responses=PAGINATED)
async def search_assistants(
    runtime: RuntimeDep, principal: PrincipalDep, response: Response, body: SearchBody | None = None
) -> list[SelectedAssistant]:
    """The system's assistants and one's own, latest first. `X-Pagination-Next` is the offset of the next part."""
    wanted = body or SearchBody()
    found = await runtime.assistants.search(
        principal.user_id,
        wanted.wanted(),
        sort_by=wanted.sort_by or "created_at",
        descending=wanted.sort_order != "asc",
        limit=wanted.limit,
        offset=wanted.offset,
    )
    seen = wanted.offset + len(found.items)
    response.headers["X-Pagination-Total"] = str(seen + found.has_more)
    if found.has_more:
        response.headers["X-Pagination-Next"] = str(seen)
    return [_selected(item, wanted.select) for item in found.items]


@router.post("/count")
async def count_assistants(runtime: RuntimeDep, principal: PrincipalDep, body: FilterBody | None = None) -> int:
    """How many there are, the system's included."""
    return await runtime.assistants.count(principal.user_id, (body or FilterBody()).wanted())


@router.get("/{assistant_id}")
async def get_assistant(assistant: AssistantDep) -> WireAssistant:
    """An assistant by its uuid, or one of the system's by its name."""
    return shown_assistant(assistant)


@router.patch("/{assistant_id}", dependencies=[Depends(_may_configure)])
async def change_assistant(
    runtime: RuntimeDep, principal: PrincipalDep, assistant_id: AssistantId, body: AssistantPatch
) -> WireAssistant:
    """Save the next version. The system's assistants cannot be changed: 403."""
    context, config = body.contents()
    change = AssistantChange(body.graph_id, body.name, body.description, context, config, body.metadata)
    return shown_assistant(await runtime.assistants.change(principal.user_id, assistant_id, change))


@router.delete("/{assistant_id}", status_code=204)
async def delete_assistant(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    assistant_id: AssistantId,
    delete_threads: Annotated[bool, Query()] = False,
) -> Response:
    """Remove an assistant with its versions, with `delete_threads` also the threads that were made for it."""

    async def remove(thread_id: ThreadId) -> None:
        with suppress(ThreadNotFound):
            await runtime.threads.delete(await runtime.threads.get(principal, thread_id))

    await runtime.assistants.delete(principal.user_id, assistant_id, remove_thread=remove if delete_threads else None)
    return Response(status_code=204)


@router.get("/{assistant_id}/graph", response_model_exclude_unset=True)
async def get_graph(
    runtime: RuntimeDep,
    assistant: AssistantDep,
    xray: Annotated[str, Query(pattern=r"^(true|True|false|False|[1-9][0-9]?)$")] = "false",
) -> WireGraph:
    """The nodes and edges of the assistant's graph; `xray` opens sub-graphs, a number that many deep."""
    deep = int(xray) if xray.isdigit() else xray.lower() == "true"
    return WireGraph.model_validate(await runtime.graph_views.draw(assistant, xray=deep))


@router.get("/{assistant_id}/schemas")
async def get_schemas(runtime: RuntimeDep, assistant: AssistantDep) -> WireSchemas:
    """What the assistant's graph takes, gives and keeps, and what of it may be configured."""
    return WireSchemas.model_validate(await runtime.graph_views.schemas(assistant))


@router.get("/{assistant_id}/subgraphs")
async def get_subgraphs(
    runtime: RuntimeDep, assistant: AssistantDep, recurse: Annotated[bool, Query()] = False
) -> dict[str, WireSchemas]:
    """The schemas of the graph's sub-graphs by namespace. Sub-agents are none: a tool calls them."""
    return await _subgraphs(runtime, assistant, None, recurse=recurse)


@router.get("/{assistant_id}/subgraphs/{namespace}")
async def get_subgraphs_of_namespace(
    runtime: RuntimeDep,
    assistant: AssistantDep,
    namespace: Annotated[str, Path(max_length=500)],
    recurse: Annotated[bool, Query()] = False,
) -> dict[str, WireSchemas]:
    """The schemas of the graph's sub-graphs in one namespace."""
    return await _subgraphs(runtime, assistant, namespace, recurse=recurse)


@router.post("/{assistant_id}/versions")
async def list_versions(
    runtime: RuntimeDep, principal: PrincipalDep, assistant_id: AssistantId, body: VersionsBody | None = None
) -> list[WireVersion]:
    """The assistant's versions, latest first."""
    wanted = body or VersionsBody()
    found = await runtime.assistants.versions(
        principal.user_id, assistant_id, metadata=wanted.metadata, limit=wanted.limit, offset=wanted.offset
    )
    return [WireVersion(**_fields(item)) for item in found]


@router.post("/{assistant_id}/latest", dependencies=[Depends(_may_configure)])
async def set_latest_version(
    runtime: RuntimeDep, principal: PrincipalDep, assistant_id: AssistantId, body: LatestBody
) -> WireAssistant:
    """Make a version the one that counts, with all that it had. The next change still makes a version of its own."""
    return shown_assistant(await runtime.assistants.set_latest(principal.user_id, assistant_id, body.version))


def shown_assistant(assistant: Assistant) -> WireAssistant:
    return WireAssistant(**_fields(assistant), updated_at=assistant.updated_at)


async def _subgraphs(
    runtime: Runtime, assistant: Assistant, namespace: str | None, *, recurse: bool
) -> dict[str, WireSchemas]:
    found = await runtime.graph_views.subgraphs(assistant, namespace=namespace, recurse=recurse)
    return {name: WireSchemas.model_validate(schemas) for name, schemas in found.items()}


def _selected(assistant: Assistant, select: list[Selected] | None) -> SelectedAssistant:
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


def _given(body: BaseModel) -> Json:
    return body.model_dump(mode="json", exclude_unset=True)

"""Assistants on the LangGraph wire: the system's and one's own, their versions, and what their graphs look like."""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from moorage.assistants import Assistant, AssistantChange, NewAssistant
from moorage.identity.principal import Scope
from moorage.ids import ThreadId
from moorage.runtime import Runtime
from moorage.threads import ThreadNotFound
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.langgraph.assistant_bodies import (
    AssistantPatch,
    FilterBody,
    LatestBody,
    NewAssistantBody,
    SearchBody,
    VersionsBody,
)
from moorage_api.langgraph.assistant_shapes import (
    SelectedAssistant,
    WireAssistant,
    WireGraph,
    WireSchemas,
    WireVersion,
    selected_assistant,
    shown_assistant,
    shown_version,
)
from moorage_api.langgraph.shapes import PAGINATED, pagination

router = APIRouter(prefix="/assistants", tags=["langgraph"])

_UNTITLED = "Untitled"


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
    response.headers.update(pagination(wanted.offset, len(found.items), has_more=found.has_more))
    return [selected_assistant(item, wanted.select) for item in found.items]


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
    return [shown_version(item) for item in found]


@router.post("/{assistant_id}/latest", dependencies=[Depends(_may_configure)])
async def set_latest_version(
    runtime: RuntimeDep, principal: PrincipalDep, assistant_id: AssistantId, body: LatestBody
) -> WireAssistant:
    """Make a version the one that counts, with all that it had. The next change still makes a version of its own."""
    return shown_assistant(await runtime.assistants.set_latest(principal.user_id, assistant_id, body.version))


async def _subgraphs(
    runtime: Runtime, assistant: Assistant, namespace: str | None, *, recurse: bool
) -> dict[str, WireSchemas]:
    found = await runtime.graph_views.subgraphs(assistant, namespace=namespace, recurse=recurse)
    return {name: WireSchemas.model_validate(schemas) for name, schemas in found.items()}

"""Threads on the LangGraph wire."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from moorage.errors import InvalidInput
from moorage.runtime import Runtime
from moorage.thread_lists import SortBy, ThreadFilter, ThreadQuery
from moorage.threads import ExpiryStrategy, IfExists, Thread, ThreadRunStatus, Ttl
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Integer, Number
from moorage_api.langgraph.deps import WireThreadDep
from moorage_api.langgraph.extracts import extracted, steps_of
from moorage_api.langgraph.requests import RefusedField
from moorage_api.langgraph.shapes import (
    PAGINATED,
    WireThread,
    answer,
    pagination,
    selected,
    shown_listed,
    shown_thread,
    shown_ttl,
    task_interrupts,
)
from moorage_api.langgraph.state import change_state

router = APIRouter(prefix="/threads", tags=["langgraph"])

type Json = dict[str, Any]
type Id = Annotated[str, Field(min_length=1, max_length=100)]
type Strategy = Literal["delete", "keep_latest"]
type Minutes = Annotated[Number, Field(gt=0, le=5_256_000)]
type ThreadField = Literal[
    "thread_id", "created_at", "updated_at", "state_updated_at", "metadata", "config", "context", "status", "values",
    "error", "interrupts",
]  # fmt: skip


class TtlBody(BaseModel):
    """The life of a thread: so many minutes after its last activity."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    ttl: Minutes
    strategy: Strategy = "delete"


class Update(BaseModel):
    """A change of the state as if the node `as_node` had made it."""

    model_config = ConfigDict(extra="forbid")
    values: Json | None = None
    command: Any = None
    as_node: Annotated[str, Field(min_length=1, max_length=200)]


class Superstep(BaseModel):
    """A step of a thread's first state: one update."""

    model_config = ConfigDict(extra="forbid")
    updates: Annotated[list[Update], Field(max_length=100)]


class NewThread(BaseModel):
    """`thread_id` may be a uuid that the client made up: the thread is then known by it.

    `supersteps` give it a first state, one update after the other.
    """

    model_config = ConfigDict(extra="forbid")
    thread_id: Id | None = None
    metadata: Json | None = None
    graph_id: Annotated[str | None, Field(max_length=200)] = None
    if_exists: Literal["raise", "do_nothing"] | None = None
    ttl: TtlBody | Minutes | None = None
    supersteps: Annotated[list[Superstep] | None, Field(max_length=100)] = None


class ThreadChange(BaseModel):
    """Metadata to merge, and a new life: minutes alone mean `delete` afterwards."""

    model_config = ConfigDict(extra="forbid")
    metadata: Json | None = None
    ttl: TtlBody | Minutes | None = None


class Filter(BaseModel):
    """Threads whose `metadata` and `values` contain these, in this `status`."""

    model_config = ConfigDict(extra="forbid")
    metadata: Json | None = None
    values: Json | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None


class Search(Filter):
    """`extract` names paths such as `values.messages[-1].content`, whose values come in `extracted`."""

    ids: Annotated[list[Id] | None, Field(max_length=1000)] = None
    limit: Annotated[Integer, Field(ge=1, le=1000)] = 10
    offset: Annotated[Integer, Field(ge=0, le=10_000_000)] = 0
    sort_by: SortBy | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: Annotated[list[ThreadField] | None, Field(max_length=20)] = None
    extract: Annotated[
        dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=500)]] | None, Field(max_length=10)
    ] = None


class Prune(BaseModel):
    """`delete` removes threads; `keep_latest` only what of their history the present does not need."""

    model_config = ConfigDict(extra="forbid")
    thread_ids: Annotated[list[Id], Field(max_length=1000)]
    strategy: Strategy = "delete"


class Pruned(BaseModel):
    pruned_count: int


class StoredRows(BaseModel):
    count: int
    bytes: int


class StoredVersions(BaseModel):
    versions: int
    bytes: int


class StoredValues(StoredRows):
    by_channel: dict[str, StoredVersions]


class Storage(BaseModel):
    """What a thread's checkpoints take up in the database, in bytes as stored."""

    thread_id: str
    total_bytes: int
    checkpoints: StoredRows
    channel_values: StoredValues
    pending_writes: StoredRows


@router.post("", response_model=WireThread)
async def create_thread(runtime: RuntimeDep, principal: PrincipalDep, body: NewThread) -> Response:
    """Open a thread. 409 `thread_exists` unless `if_exists` is `do_nothing`, 429 when the quota is used up."""
    updates = _first_updates(body.supersteps or [])
    metadata = {**(body.metadata or {}), **({"graph_id": body.graph_id} if body.graph_id else {})}
    thread = await runtime.threads.ensure(
        principal,
        body.thread_id,
        metadata=metadata,
        if_exists=IfExists(body.if_exists or IfExists.RAISE),
        ttl=_ttl(body.ttl),
    )
    if updates and not thread.last_seq:
        thread = await _begun(runtime, thread, updates, is_new=body.if_exists != "do_nothing")
    return answer(await _shown(runtime, thread))


@router.post("/search", response_model=list[WireThread], responses=PAGINATED)
async def search_threads(runtime: RuntimeDep, principal: PrincipalDep, body: Search) -> Response:
    """Threads, latest change first. `X-Pagination-Next` is the offset of the next part, if there is one.

    A thread with very many messages shows its first and its last ones here; its state has all.
    """
    paths = {alias: steps_of(path) for alias, path in (body.extract or {}).items()}
    roots = {str(steps[0]) for steps in paths.values()}
    wanted = {*(body.select or ("values", "interrupts")), *roots}
    ids = None if body.ids is None else tuple(runtime.threads.own_id(principal, text) for text in body.ids)
    query = ThreadQuery(
        _filter(body, ids=ids),
        sort_by=body.sort_by or SortBy.UPDATED_AT,
        ascending=body.sort_order == "asc",
        limit=body.limit,
        offset=body.offset,
        with_values="values" in wanted,
        with_pending="interrupts" in wanted,
    )
    page = await runtime.thread_lists.search(principal.user_id, query)
    shown = [shown_listed(item) for item in page.items]
    items = [selected(item, body.select) | ({"extracted": extracted(item, paths)} if paths else {}) for item in shown]
    return answer(items, pagination(body.offset, len(items), has_more=page.has_more))


@router.post("/count")
async def count_threads(runtime: RuntimeDep, principal: PrincipalDep, body: Filter) -> int:
    """How many threads fit the filter."""
    return await runtime.thread_lists.count(principal.user_id, _filter(body))


@router.post("/prune")
async def prune_threads(runtime: RuntimeDep, principal: PrincipalDep, body: Prune) -> Pruned:
    """Remove threads with all that they have, or their past checkpoints. Those that are busy keep their past."""
    pruned = await runtime.threads.prune(principal, body.thread_ids, strategy=ExpiryStrategy(body.strategy))
    return Pruned(pruned_count=pruned)


@router.get("/{thread_id}", response_model=WireThread)
async def get_thread(
    runtime: RuntimeDep, thread: WireThreadDep, include: Annotated[str | None, Query(max_length=100)] = None
) -> Response:
    """A thread with what its graph holds and what waits for approval; with `include=ttl` also when it expires."""
    shown = await _shown(runtime, thread)
    return answer(shown | ({"ttl": shown_ttl(thread)} if "ttl" in (include or "").split(",") else {}))


@router.patch("/{thread_id}", response_model=WireThread, responses={204: {"description": "Changed"}})
async def change_thread(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    body: ThreadChange,
    prefer: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Merge metadata, key by key, and set when the thread expires. `Prefer: return=minimal` is answered with 204."""
    changed = await runtime.threads.change(thread, metadata=body.metadata, ttl=_ttl(body.ttl))
    if "return=minimal" in (prefer or ""):
        return Response(status_code=204)
    return answer(await _shown(runtime, changed))


@router.delete("/{thread_id}", status_code=204)
async def delete_thread(runtime: RuntimeDep, thread: WireThreadDep) -> Response:
    """Remove the thread with its runs, history, checkpoints, sandbox and files."""
    await runtime.threads.delete(thread)
    return Response(status_code=204)


@router.post("/{thread_id}/copy", response_model=WireThread)
async def copy_thread(runtime: RuntimeDep, principal: PrincipalDep, thread: WireThreadDep) -> Response:
    """A new thread with this one's history, state and files; what waits for approval here is not asked there.

    409 `thread_busy` while something runs, 429 when the quota is used up.
    """
    copy = await runtime.copies.copy(thread)
    return answer(await _shown(runtime, await runtime.threads.get(principal, copy.thread_id)))


@router.get("/{thread_id}/storage")
async def get_storage(runtime: RuntimeDep, thread: WireThreadDep) -> Storage:
    """What the thread's checkpoints take up in the database."""
    found = await runtime.thread_lists.storage(thread.owner_id, thread.thread_id)
    parts = (found.checkpoints, found.values, found.writes)
    by_channel = {
        name: StoredVersions(versions=item.count, bytes=item.bytes) for name, item in found.by_channel.items()
    }
    return Storage(
        thread_id=thread.wire_id,
        total_bytes=sum(part.bytes for part in parts),
        checkpoints=StoredRows(count=found.checkpoints.count, bytes=found.checkpoints.bytes),
        channel_values=StoredValues(count=found.values.count, bytes=found.values.bytes, by_channel=by_channel),
        pending_writes=StoredRows(count=found.writes.count, bytes=found.writes.bytes),
    )


async def _shown(runtime: Runtime, thread: Thread) -> Json:
    """The thread as its graph's state has it, which no run has begun to make when nothing ever happened in it."""
    if not thread.last_seq:
        return shown_thread(thread, None, {})
    state = await runtime.states.latest(thread)
    pending = await runtime.approvals.pending(thread.owner_id, thread.thread_id)
    return shown_thread(thread, state.values if state.place else None, task_interrupts(state, thread, pending))


def _first_updates(supersteps: list[Superstep]) -> list[Update]:
    for place, step in enumerate(supersteps):
        if len(step.updates) != 1 or step.updates[0].command is not None:
            raise RefusedField(f"supersteps.{place}", "takes exactly one update, without a command")
    return [step.updates[0] for step in supersteps]


async def _begun(runtime: Runtime, thread: Thread, updates: list[Update], *, is_new: bool) -> Thread:
    """The thread in its first state. One that was made for it goes again when the graph refuses that state."""
    try:
        for update in updates:
            await change_state(runtime, thread, update.values, as_node=update.as_node, checkpoint_id=None)
    except InvalidInput:
        if is_new:
            await runtime.threads.delete(thread)
        raise
    return await runtime.threads.reload(thread)


def _ttl(given: TtlBody | float | None) -> Ttl | None:
    match given:
        case None:
            return None
        case TtlBody():
            return Ttl(given.ttl, ExpiryStrategy(given.strategy))
        case _:
            return Ttl(given)


def _filter(body: Filter, ids: tuple[Any, ...] | None = None) -> ThreadFilter:
    if "messages" in (body.values or {}):
        raise RefusedField("values", "messages cannot be searched for here: GET /api/messages finds their words")
    status = ThreadRunStatus(body.status) if body.status else None
    return ThreadFilter(ids=ids, metadata=body.metadata, values=body.values, status=status)

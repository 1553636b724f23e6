"""The states of a thread's graph on the LangGraph wire: now, at a checkpoint, their history; and changes to them."""

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from moorage.agent.states import HistoryQuery, Place, ThreadState
from moorage.events import encode
from moorage.identity import Principal
from moorage.ids import full_thread_id
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Flag, Integer
from moorage_api.langgraph.deps import WireThreadDep
from moorage_api.langgraph.requests import CheckpointBody, RefusedField, read_state
from moorage_api.langgraph.shapes import WireState, answer, selected, shown_state

router = APIRouter(prefix="/threads/{thread_id}", tags=["langgraph"])

type Json = dict[str, Any]
type CheckpointId = Annotated[str, Field(min_length=1, max_length=100)]
type StateField = (
    Literal[
        "values", "next", "tasks", "metadata", "created_at", "checkpoint", "parent_checkpoint", "interrupts",
        "checkpoint_id", "parent_checkpoint_id",
    ]
    | Annotated[str, Field(pattern=r"^values\..", max_length=200)]
)  # fmt: skip
type Select = Annotated[list[StateField], Field(max_length=50)]


class StateAt(BaseModel):
    """A checkpoint; without its id the latest one in its namespace."""

    model_config = ConfigDict(extra="forbid")
    checkpoint: CheckpointBody
    subgraphs: Flag | None = None
    select: Select | None = None


class History(BaseModel):
    """States before a checkpoint, with this in their metadata; of a sub-graph with `checkpoint.checkpoint_ns`."""

    model_config = ConfigDict(extra="forbid")
    limit: Annotated[Integer | None, Field(ge=1, le=1000)] = None
    before: CheckpointId | CheckpointBody | None = None
    metadata: Json | None = None
    checkpoint: CheckpointBody | None = None
    select: Select | None = None


class StateUpdate(BaseModel):
    """What to change, as if the node `as_node` had returned it, in the latest state or on top of a checkpoint."""

    model_config = ConfigDict(extra="forbid")
    values: Json | None = None
    as_node: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: CheckpointId | None = None


class Saved(BaseModel):
    """Where a state was saved."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str


class UpdatedState(BaseModel):
    """The checkpoint that a change made, under all names by which clients look for it."""

    checkpoint: Saved
    configurable: Saved
    checkpoint_id: str


@router.get("/state", response_model=WireState)
async def get_state(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    subgraphs: bool = False,
    select: Annotated[list[StateField] | None, Query(max_length=50)] = None,
) -> Response:
    """Where the thread's graph stands, and what waits for approval."""
    return await _shown(runtime, thread, await runtime.states.latest(thread, subgraphs=subgraphs), select)


@router.get("/state/{checkpoint_id}", response_model=WireState)
async def get_state_at(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    checkpoint_id: Annotated[str, Path(max_length=100)],
    subgraphs: bool = False,
    select: Annotated[list[StateField] | None, Query(max_length=50)] = None,
) -> Response:
    """The state as a checkpoint has it. 404 `unknown_checkpoint`."""
    state = await runtime.states.at(thread, Place(checkpoint_id), subgraphs=subgraphs)
    return await _shown(runtime, thread, state, select)


@router.post("/state/checkpoint", response_model=WireState)
async def get_state_at_checkpoint(
    runtime: RuntimeDep, principal: PrincipalDep, thread: WireThreadDep, body: StateAt
) -> Response:
    """The state as a checkpoint has it, also one of a sub-graph's. 404 `unknown_checkpoint`."""
    place = _place(body.checkpoint, principal, thread)
    state = await runtime.states.at(thread, place, subgraphs=bool(body.subgraphs))
    return await _shown(runtime, thread, state, body.select)


@router.get("/history", response_model=list[WireState])
async def list_history(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    before: Annotated[str | None, Query(max_length=100)] = None,
) -> Response:
    """The thread's states, newest first."""
    return await _history(runtime, thread, HistoryQuery(before=before or None, limit=limit), None)


@router.post("/history", response_model=list[WireState])
async def search_history(
    runtime: RuntimeDep, principal: PrincipalDep, thread: WireThreadDep, body: History
) -> Response:
    """The thread's states, newest first: the latest by default, or as many as `limit` says."""
    before = body.before
    query = HistoryQuery(
        _place(body.checkpoint, principal, thread),
        before=_place(before, principal, thread).checkpoint_id if isinstance(before, CheckpointBody) else before,
        metadata=body.metadata,
        limit=body.limit or 1,
    )
    return await _history(runtime, thread, query, body.select)


@router.post("/state")
async def update_state(
    runtime: RuntimeDep, principal: PrincipalDep, thread: WireThreadDep, body: StateUpdate
) -> UpdatedState:
    """Change the state. 409 while the thread is busy; 400 or 422 when the graph refuses the change.

    What waits for approval goes on waiting.
    """
    place = _place(body.checkpoint, principal, thread)
    if place.checkpoint_ns:
        raise RefusedField("checkpoint.checkpoint_ns", "only the thread's own graph can be changed")
    made = await change_state(
        runtime, thread, body.values, as_node=body.as_node, checkpoint_id=body.checkpoint_id or place.checkpoint_id
    )
    saved = Saved(thread_id=thread.wire_id, checkpoint_ns="", checkpoint_id=made)
    return UpdatedState(checkpoint=saved, configurable=saved, checkpoint_id=made)


async def change_state(
    runtime: Runtime, thread: Thread, values: Json | None, *, as_node: str | None, checkpoint_id: str | None
) -> str:
    """Change the state as a client says; answers the new checkpoint's id. Raises what is wrong before anything runs."""
    if values is not None:
        values = read_state(values, "values")
    await runtime.states.check_update(thread, values or (), as_node=as_node, checkpoint_id=checkpoint_id)
    return await runtime.runs.update_state(thread, values, as_node=as_node, checkpoint_id=checkpoint_id)


async def _shown(runtime: Runtime, thread: Thread, state: ThreadState, select: Sequence[str] | None) -> Response:
    pending = await runtime.approvals.pending(thread.owner_id, thread.thread_id)
    return answer(selected(shown_state(state, thread, pending), select))


async def _history(
    runtime: Runtime, thread: Thread, query: HistoryQuery, select: Sequence[str] | None
) -> StreamingResponse:
    """One state after the other. What is wrong with the question shows with the first, before the answer begins."""
    pending = await runtime.approvals.pending(thread.owner_id, thread.thread_id)
    states = runtime.states.history(thread, query)
    first = await anext(states, None)

    async def parts() -> AsyncGenerator[bytes]:
        if first is None:
            yield b"[]"
            return
        yield b"[" + encode(selected(shown_state(first, thread, pending), select))
        async for state in states:
            yield b"," + encode(selected(shown_state(state, thread, pending), select))
        yield b"]"

    return StreamingResponse(parts(), media_type="application/json")


def _place(given: CheckpointBody | None, principal: Principal, thread: Thread) -> Place:
    """Where a client points to, which must be in this thread."""
    if given is None:
        return Place()
    if given.thread_id is not None and full_thread_id(principal.user_id, given.thread_id) != thread.thread_id:
        raise RefusedField("checkpoint.thread_id", "is not the thread of the request")
    return Place(given.checkpoint_id or None, given.checkpoint_ns or "")

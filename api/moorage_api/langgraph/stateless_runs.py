"""Runs without a thread of the client's on the LangGraph wire; and those of several threads, to be cancelled."""

import asyncio
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from moorage.errors import NotFound
from moorage.ids import full_thread_id
from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep
from moorage_api.langgraph.deps import LastEventIdHeader, ModesQuery, RunPath
from moorage_api.langgraph.modes import read_modes
from moorage_api.langgraph.requests import RefusedField, RunBody
from moorage_api.langgraph.run_answers import (
    CREATED,
    STREAMED,
    VALUES,
    Action,
    cancel,
    run_awaited,
    run_created,
    run_streamed,
)
from moorage_api.langgraph.run_shapes import STORED_STATUS, WireRun, shown_run
from moorage_api.langgraph.starts import start_batch, start_stateless
from moorage_api.langgraph.streams import Source, run_stream

router = APIRouter(tags=["langgraph"])

MOST_IN_A_BATCH = 100


class NoRunsToCancel(NotFound):
    code = "no_runs"

    def __init__(self) -> None:
        super().__init__("No queued or running run matches")


class CancelBody(BaseModel):
    """Which runs to cancel: those named, or those of a thread or of all threads in a status."""

    model_config = ConfigDict(extra="forbid")
    status: Literal["pending", "running", "all"] | None = None
    thread_id: Annotated[str | None, Field(max_length=100)] = None
    run_ids: Annotated[list[UUID] | None, Field(max_length=1000)] = None


@router.post("/runs", response_model=WireRun, response_model_exclude_unset=True, responses=CREATED)
async def create_stateless_run(runtime: RuntimeDep, principal: PrincipalDep, body: RunBody) -> Response:
    """Start a run on a thread of its own, which goes with it unless `on_completion` is `keep`."""
    return await run_created(runtime, await start_stateless(runtime, principal, body))


@router.post("/runs/stream", response_class=Response, responses=STREAMED)
async def stream_stateless_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, body: RunBody
) -> Response:
    """Start a run on a thread of its own and stream it."""
    return run_streamed(runtime, await start_stateless(runtime, principal, body), recheck, body)


@router.post("/runs/wait", response_class=Response, responses=VALUES)
async def wait_for_stateless_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, body: RunBody
) -> Response:
    """Start a run on a thread of its own and wait for its end."""
    return run_awaited(runtime, await start_stateless(runtime, principal, body), recheck, body)


@router.post("/runs/batch", response_model=list[WireRun], response_model_exclude_unset=True)
async def create_batch(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    body: Annotated[list[RunBody], Field(min_length=1, max_length=MOST_IN_A_BATCH)],
) -> list[dict[str, Any]]:
    """Start several stateless runs, in order; none when one of them is refused."""
    started = await start_batch(runtime, principal, body)
    return [shown_run(item.run, item.thread) for item in started]


@router.post("/runs/cancel", status_code=204)
async def cancel_runs(
    runtime: RuntimeDep, principal: PrincipalDep, body: CancelBody, action: Action = "interrupt"
) -> Response:
    """Cancel runs by id or by status; 404 when none matches."""
    thread = None
    if body.thread_id is not None:
        thread = await runtime.threads.get(principal, full_thread_id(principal.user_id, body.thread_id))
    if body.status is None and body.run_ids is None:
        raise RefusedField("run_ids", "name the runs to cancel here, or send a status: pending, running or all")
    status = None if body.status in (None, "all") else STORED_STATUS[body.status][0]
    run_ids = None if body.run_ids is None else [str(item) for item in body.run_ids]
    found = await runtime.runs.active(principal.user_id, thread=thread, run_ids=run_ids, status=status)
    if not found:
        raise NoRunsToCancel
    await asyncio.gather(*(cancel(runtime, run, action, wait=False) for run in found))
    return Response(status_code=204)


@router.get("/runs/{run_id}/stream", response_class=Response, responses=STREAMED)
async def join_stateless_stream(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    recheck: RecheckDep,
    run_id: RunPath,
    stream_mode: ModesQuery = None,
    last_event_id: LastEventIdHeader = None,
) -> Response:
    """Come back to the stream of a stateless run, for as long as its thread is there."""
    run = await runtime.runs.get_anywhere(principal.user_id, run_id)
    thread = await runtime.threads.get(principal, run.thread_id)
    return run_stream(
        Source(runtime, thread, recheck),
        run,
        modes=read_modes(stream_mode),
        subgraphs=bool(run.kwargs.get("subgraphs")),
        last_event_id=last_event_id,
        stateless=True,
    )

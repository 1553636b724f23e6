"""Runs on the LangGraph wire: created, streamed, waited for, listed, joined, cancelled and forgotten."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from moorage.assistants import wire_assistant_id
from moorage.claims import StopReason
from moorage.errors import NotFound
from moorage.ids import full_thread_id
from moorage.runs.run import Run, RunStatus
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep
from moorage_api.langgraph.deps import WireThreadDep
from moorage_api.langgraph.modes import THREAD_MODES, read_modes
from moorage_api.langgraph.requests import RunBody
from moorage_api.langgraph.starts import StartedRun, start_on, start_stateless, thread_for
from moorage_api.langgraph.streams import Source, run_result, run_stream, thread_stream
from moorage_api.sse import EVENT_STREAM

router = APIRouter(tags=["langgraph"])

MOST_IN_A_BATCH = 100

type WireStatus = Literal["pending", "running", "error", "success", "timeout", "interrupted"]
type ThreadPath = Annotated[str, Path(max_length=100)]
type RunPath = Annotated[str, Path(max_length=100)]
type LastEventIdHeader = Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)]
type ModesQuery = Annotated[list[Annotated[str, Field(max_length=1000)]] | None, Query(max_length=20)]
type Action = Literal["interrupt", "rollback"]
type RunField = Literal[
    "run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata", "kwargs",
    "multitask_strategy", "cancel_reason", "langsmith_session_name",
]  # fmt: skip

_WIRE_STATUS: dict[RunStatus, WireStatus] = {
    RunStatus.QUEUED: "pending",
    RunStatus.RUNNING: "running",
    RunStatus.INTERRUPTED: "interrupted",
    RunStatus.SUCCESS: "success",
    RunStatus.ERROR: "error",
    RunStatus.TIMEOUT: "timeout",
    RunStatus.CANCELLED: "interrupted",
}
_STORED_STATUS: dict[WireStatus, tuple[RunStatus, ...]] = {
    "pending": (RunStatus.QUEUED,),
    "running": (RunStatus.RUNNING,),
    "error": (RunStatus.ERROR,),
    "success": (RunStatus.SUCCESS,),
    "timeout": (RunStatus.TIMEOUT,),
    "interrupted": (RunStatus.INTERRUPTED, RunStatus.CANCELLED),
}
_PLACE = {"Content-Location": {"description": "The run", "schema": {"type": "string"}}}
_PLACES = {**_PLACE, "Location": {"description": "Where to come back to it", "schema": {"type": "string"}}}
_CREATED: dict[int | str, dict[str, Any]] = {200: {"headers": _PLACE}}
_STREAMED: dict[int | str, dict[str, Any]] = {200: {**EVENT_STREAM[200], "headers": _PLACES}}
_VALUES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The final values, or `__error__`",
        "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
        "headers": _PLACES,
    }
}
_CANCELLED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It has ended", "headers": _PLACES},
    202: {"description": "It was told to end"},
}


class NoRunsToCancel(NotFound):
    code = "no_runs"

    def __init__(self) -> None:
        super().__init__("No queued or running run matches")


class WireRun(BaseModel):
    """A run as LangGraph's clients know it; of a selection only what was selected."""

    run_id: str | None = None
    thread_id: str | None = None
    assistant_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    status: WireStatus | None = None
    metadata: dict[str, Any] | None = None
    kwargs: dict[str, Any] | None = None
    multitask_strategy: str | None = None
    cancel_reason: str | None = None
    langsmith_session_name: None = None


class CancelBody(BaseModel):
    """Which runs to cancel: those named, or those of a thread or of all threads in a status."""

    model_config = ConfigDict(extra="forbid")
    status: Literal["pending", "running", "all"] | None = None
    thread_id: Annotated[str | None, Field(max_length=100)] = None
    run_ids: Annotated[list[UUID] | None, Field(max_length=1000)] = None


@router.post("/threads/{thread_id}/runs", response_model=WireRun, response_model_exclude_unset=True, responses=_CREATED)
async def create_run(runtime: RuntimeDep, principal: PrincipalDep, thread_id: ThreadPath, body: RunBody) -> Response:
    """Start a run in the background, or with `command.resume` answer what waits for approval and go on."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return await _created(runtime, await start_on(runtime, principal, thread, body))


@router.post("/threads/{thread_id}/runs/stream", response_class=Response, responses=_STREAMED)
async def stream_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, thread_id: ThreadPath, body: RunBody
) -> Response:
    """Start a run as above and stream it, in the modes of `stream_mode`, to its end."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return _streamed(runtime, await start_on(runtime, principal, thread, body), recheck, body)


@router.post("/threads/{thread_id}/runs/wait", response_class=Response, responses=_VALUES)
async def wait_for_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, thread_id: ThreadPath, body: RunBody
) -> Response:
    """Start a run as above; the answer is the values that it ends with, or `__error__`, when it has ended."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return _awaited(runtime, await start_on(runtime, principal, thread, body), recheck, body)


@router.get("/threads/{thread_id}/runs", response_model=list[WireRun], response_model_exclude_unset=True)
async def list_runs(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 10,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    status: WireStatus | None = None,
    select: Annotated[list[RunField] | None, Query(max_length=20)] = None,
) -> list[dict[str, Any]]:
    """The thread's runs, newest first."""
    wanted = _STORED_STATUS[status] if status else ()
    found = await runtime.runs.search(thread, statuses=wanted, limit=limit, offset=offset)
    return [shown_run(run, thread, select) for run in found]


@router.get("/threads/{thread_id}/runs/{run_id}", response_model=WireRun, response_model_exclude_unset=True)
async def get_run(runtime: RuntimeDep, thread: WireThreadDep, run_id: RunPath) -> dict[str, Any]:
    """A run and how it stands."""
    return shown_run(await runtime.runs.get(thread, run_id), thread)


@router.delete("/threads/{thread_id}/runs/{run_id}", status_code=204)
async def delete_run(runtime: RuntimeDep, thread: WireThreadDep, run_id: RunPath) -> Response:
    """Forget a run that has ended. What it did to the thread stays."""
    await runtime.runs.delete(await runtime.runs.get(thread, run_id), thread)
    return Response(status_code=204)


@router.get("/threads/{thread_id}/runs/{run_id}/join", response_class=Response, responses=_VALUES)
async def join_run(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    recheck: RecheckDep,
    run_id: RunPath,
    cancel_on_disconnect: bool = False,
) -> Response:
    """Wait for a run's end; answers with the values that it ended with, or with `__error__`."""
    run = await runtime.runs.get(thread, run_id)
    return run_result(
        Source(runtime, thread, recheck), run, on_disconnect=_stopper(runtime, run, wanted=cancel_on_disconnect)
    )


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response_class=Response, responses=_STREAMED)
async def join_run_stream(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    recheck: RecheckDep,
    run_id: RunPath,
    stream_mode: ModesQuery = None,
    cancel_on_disconnect: bool = False,
    last_event_id: LastEventIdHeader = None,
) -> Response:
    """Stream a run from its first event, or after the given one: what is stored, then live."""
    run = await runtime.runs.get(thread, run_id)
    return run_stream(
        Source(runtime, thread, recheck),
        run,
        modes=read_modes(stream_mode),
        subgraphs=bool(run.kwargs.get("subgraphs")),
        last_event_id=last_event_id,
        on_disconnect=_stopper(runtime, run, wanted=cancel_on_disconnect),
    )


@router.get("/threads/{thread_id}/stream", response_class=Response, responses=EVENT_STREAM)
async def join_thread_stream(
    runtime: RuntimeDep,
    thread: WireThreadDep,
    recheck: RecheckDep,
    stream_mode: ModesQuery = None,
    last_event_id: LastEventIdHeader = None,
) -> Response:
    """Stream all runs of the thread as they come; never ends by itself."""
    modes = read_modes(stream_mode, known=THREAD_MODES) or ("run_modes",)
    return thread_stream(Source(runtime, thread, recheck), modes=modes, last_event_id=last_event_id)


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response_model=dict[str, Any], responses=_CANCELLED)
async def cancel_run(
    runtime: RuntimeDep, thread: WireThreadDep, run_id: RunPath, wait: bool = False, action: Action = "interrupt"
) -> Response:
    """End a run: `interrupt` keeps what it did, `rollback` undoes it and forgets the run. 202, or 200 with `wait`."""
    run = await runtime.runs.get(thread, run_id)
    await _cancel(runtime, run, action, wait=wait)
    if not wait:
        return Response(status_code=202)
    place = f"/threads/{thread.wire_id}/runs/{run.run_id}"
    return JSONResponse({}, headers={"Location": f"{place}/join", "Content-Location": place})


@router.post("/runs", response_model=WireRun, response_model_exclude_unset=True, responses=_CREATED)
async def create_stateless_run(runtime: RuntimeDep, principal: PrincipalDep, body: RunBody) -> Response:
    """Start a run on a thread of its own, which goes with it unless `on_completion` is `keep`."""
    return await _created(runtime, await start_stateless(runtime, principal, body))


@router.post("/runs/stream", response_class=Response, responses=_STREAMED)
async def stream_stateless_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, body: RunBody
) -> Response:
    """Start a run on a thread of its own and stream it."""
    return _streamed(runtime, await start_stateless(runtime, principal, body), recheck, body)


@router.post("/runs/wait", response_class=Response, responses=_VALUES)
async def wait_for_stateless_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, body: RunBody
) -> Response:
    """Start a run on a thread of its own and wait for its end."""
    return _awaited(runtime, await start_stateless(runtime, principal, body), recheck, body)


@router.post("/runs/batch", response_model=list[WireRun], response_model_exclude_unset=True)
async def create_batch(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    body: Annotated[list[RunBody], Field(min_length=1, max_length=MOST_IN_A_BATCH)],
) -> list[dict[str, Any]]:
    """Start several stateless runs, in order. The first that is refused is the answer; those before it run."""
    started = [await start_stateless(runtime, principal, item) for item in body]
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
        raise NoRunsToCancel
    status = None if body.status in (None, "all") else _STORED_STATUS[body.status][0]
    run_ids = None if body.run_ids is None else [str(item) for item in body.run_ids]
    found = await runtime.runs.active(principal.user_id, thread=thread, run_ids=run_ids, status=status)
    if not found:
        raise NoRunsToCancel
    await asyncio.gather(*(_cancel(runtime, run, action, wait=False) for run in found))
    return Response(status_code=204)


@router.get("/runs/{run_id}/stream", response_class=Response, responses=_STREAMED)
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


async def _created(runtime: Runtime, started: StartedRun) -> Response:
    run = await runtime.runs.get(started.thread, started.run.run_id)
    place = f"/runs/{run.run_id}" if started.stateless else f"/threads/{started.thread.wire_id}/runs/{run.run_id}"
    return JSONResponse(shown_run(run, started.thread), headers={"Content-Location": place})


def _streamed(runtime: Runtime, started: StartedRun, recheck: RecheckDep, body: RunBody) -> Response:
    return run_stream(
        Source(runtime, started.thread, recheck),
        started.run,
        modes=body.modes,
        subgraphs=body.stream_subgraphs,
        on_disconnect=_stopper(runtime, started.run, wanted=body.on_disconnect == "cancel"),
        stateless=started.stateless,
    )


def _awaited(runtime: Runtime, started: StartedRun, recheck: RecheckDep, body: RunBody) -> Response:
    return run_result(
        Source(runtime, started.thread, recheck),
        started.run,
        on_disconnect=_stopper(runtime, started.run, wanted=body.on_disconnect == "cancel"),
        stateless=started.stateless,
    )


def _stopper(runtime: Runtime, run: Run, *, wanted: bool) -> Callable[[], Awaitable[None]] | None:
    """What ends the run when its client goes away before it does."""

    async def stop() -> None:
        await runtime.runs.stop_run(run, wait=False)

    return stop if wanted else None


async def _cancel(runtime: Runtime, run: Run, action: Action, *, wait: bool) -> None:
    reason = StopReason.CANCELLED if action == "interrupt" else StopReason.ROLLBACK
    await runtime.runs.stop_run(run, reason, wait=wait)


def shown_run(run: Run, thread: Thread, select: list[RunField] | None = None) -> dict[str, Any]:
    """A run as the wire shows it; `select` names the fields to show."""
    shown: dict[RunField, Any] = {
        "run_id": run.run_id,
        "thread_id": thread.wire_id,
        "assistant_id": wire_assistant_id(run.assistant_id),
        "created_at": run.created_at.isoformat(),
        "updated_at": run.updated_at.isoformat(),
        "status": _WIRE_STATUS[run.status],
        "metadata": run.metadata,
        "kwargs": run.kwargs,
        "multitask_strategy": run.multitask_strategy,
        "langsmith_session_name": None,
    }
    if run.status is RunStatus.CANCELLED:
        shown["cancel_reason"] = run.cancel_reason or StopReason.CANCELLED.value
    return {key: value for key, value in shown.items() if select is None or key in select}

"""A thread's runs on the LangGraph wire: created, streamed, waited for, listed, joined, cancelled and forgotten."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse

from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep
from moorage_api.langgraph.deps import LastEventIdHeader, ModesQuery, RunPath, ThreadPath, WireThreadDep
from moorage_api.langgraph.modes import THREAD_MODES, read_modes
from moorage_api.langgraph.requests import RunBody
from moorage_api.langgraph.run_answers import (
    CANCELLED,
    CREATED,
    STREAMED,
    VALUES,
    Action,
    cancel,
    run_awaited,
    run_created,
    run_streamed,
    stopper,
)
from moorage_api.langgraph.run_shapes import STORED_STATUS, RunField, WireRun, WireStatus, shown_run
from moorage_api.langgraph.starts import start_on, thread_for
from moorage_api.langgraph.streams import Source, run_result, run_stream, thread_stream
from moorage_api.sse import EVENT_STREAM

router = APIRouter(tags=["langgraph"])


@router.post("/threads/{thread_id}/runs", response_model=WireRun, response_model_exclude_unset=True, responses=CREATED)
async def create_run(runtime: RuntimeDep, principal: PrincipalDep, thread_id: ThreadPath, body: RunBody) -> Response:
    """Start a run in the background, or with `command.resume` answer what waits for approval and go on."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return await run_created(runtime, await start_on(runtime, principal, thread, body))


@router.post("/threads/{thread_id}/runs/stream", response_class=Response, responses=STREAMED)
async def stream_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, thread_id: ThreadPath, body: RunBody
) -> Response:
    """Start a run as above and stream it, in the modes of `stream_mode`, to its end."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return run_streamed(runtime, await start_on(runtime, principal, thread, body), recheck, body)


@router.post("/threads/{thread_id}/runs/wait", response_class=Response, responses=VALUES)
async def wait_for_run(
    runtime: RuntimeDep, principal: PrincipalDep, recheck: RecheckDep, thread_id: ThreadPath, body: RunBody
) -> Response:
    """Start a run as above; the answer is the values that it ends with, or `__error__`, when it has ended."""
    thread = await thread_for(runtime, principal, thread_id, body)
    return run_awaited(runtime, await start_on(runtime, principal, thread, body), recheck, body)


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
    wanted = STORED_STATUS[status] if status else ()
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


@router.get("/threads/{thread_id}/runs/{run_id}/join", response_class=Response, responses=VALUES)
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
        Source(runtime, thread, recheck), run, on_disconnect=stopper(runtime, run, wanted=cancel_on_disconnect)
    )


@router.get("/threads/{thread_id}/runs/{run_id}/stream", response_class=Response, responses=STREAMED)
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
        on_disconnect=stopper(runtime, run, wanted=cancel_on_disconnect),
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


@router.post("/threads/{thread_id}/runs/{run_id}/cancel", response_model=dict[str, Any], responses=CANCELLED)
async def cancel_run(
    runtime: RuntimeDep, thread: WireThreadDep, run_id: RunPath, wait: bool = False, action: Action = "interrupt"
) -> Response:
    """End a run: `interrupt` keeps what it did, `rollback` undoes it and forgets the run. 202, or 200 with `wait`."""
    run = await runtime.runs.get(thread, run_id)
    await cancel(runtime, run, action, wait=wait)
    if not wait:
        return Response(status_code=202)
    place = f"/threads/{thread.wire_id}/runs/{run.run_id}"
    return JSONResponse({}, headers={"Location": f"{place}/join", "Content-Location": place})

"""What is answered to who starts a run or ends one: the run, its stream, or what it came to."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from fastapi import Response
from fastapi.responses import JSONResponse

from moorage.claims import StopReason
from moorage.runs.run import Run
from moorage.runtime import Runtime
from moorage_api.langgraph.requests import RunBody
from moorage_api.langgraph.run_shapes import shown_run
from moorage_api.langgraph.starts import StartedRun
from moorage_api.langgraph.streams import Source, run_result, run_stream
from moorage_api.sse import EVENT_STREAM, Recheck

type Action = Literal["interrupt", "rollback"]

_PLACE = {"Content-Location": {"description": "The run", "schema": {"type": "string"}}}
_PLACES = {**_PLACE, "Location": {"description": "Where to come back to it", "schema": {"type": "string"}}}
CREATED: dict[int | str, dict[str, Any]] = {200: {"headers": _PLACE}}
STREAMED: dict[int | str, dict[str, Any]] = {200: {**EVENT_STREAM[200], "headers": _PLACES}}
VALUES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The final values, or `__error__`",
        "content": {"application/json": {"schema": {"type": "object", "additionalProperties": True}}},
        "headers": _PLACES,
    }
}
CANCELLED: dict[int | str, dict[str, Any]] = {
    200: {"description": "It has ended", "headers": _PLACES},
    202: {"description": "It was told to end"},
}


async def run_created(runtime: Runtime, started: StartedRun) -> Response:
    """The run, and where it is."""
    run = await runtime.runs.get(started.thread, started.run.run_id)
    place = f"/runs/{run.run_id}" if started.stateless else f"/threads/{started.thread.wire_id}/runs/{run.run_id}"
    return JSONResponse(shown_run(run, started.thread), headers={"Content-Location": place})


def run_streamed(runtime: Runtime, started: StartedRun, recheck: Recheck, body: RunBody) -> Response:
    """Its frames, up to its end."""
    return run_stream(
        Source(runtime, started.thread, recheck),
        started.run,
        modes=body.modes,
        subgraphs=body.stream_subgraphs,
        on_disconnect=stopper(runtime, started.run, wanted=body.on_disconnect == "cancel"),
        stateless=started.stateless,
    )


def run_awaited(runtime: Runtime, started: StartedRun, recheck: Recheck, body: RunBody) -> Response:
    """What it ends with, once it has ended."""
    return run_result(
        Source(runtime, started.thread, recheck),
        started.run,
        on_disconnect=stopper(runtime, started.run, wanted=body.on_disconnect == "cancel"),
        stateless=started.stateless,
    )


def stopper(runtime: Runtime, run: Run, *, wanted: bool) -> Callable[[], Awaitable[None]] | None:
    """What ends the run when its client goes away before it does."""

    async def stop() -> None:
        await runtime.runs.stop_run(run, wait=False)

    return stop if wanted else None


async def cancel(runtime: Runtime, run: Run, action: Action, *, wait: bool) -> None:
    """End this run and keep what it did, or take it back; with `wait` it has ended when this returns."""
    reason = StopReason.CANCELLED if action == "interrupt" else StopReason.ROLLBACK
    await runtime.runs.stop_run(run, reason, wait=wait)

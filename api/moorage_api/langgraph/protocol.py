"""The v3 protocol of LangGraph's clients: commands, and the stream of a thread, over HTTP and over WebSocket.

Source: the CDDL published as `@langchain/protocol` 0.0.21, and what the clients that use it read.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Path, WebSocket
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, WithJsonSchema
from sse_starlette.sse import EventSourceResponse

from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep
from moorage_api.langgraph.v3_commands import MAX_ID, METHOD_LIMIT, Command, Commands, read_command
from moorage_api.langgraph.v3_frames import Frame
from moorage_api.langgraph.v3_socket import serve_socket
from moorage_api.langgraph.v3_stream import subscribed
from moorage_api.langgraph.v3_subscription import EventStreamBody
from moorage_api.sse import EVENT_STREAM, Allowed, Recheck

router = APIRouter(tags=["langgraph"])

_HEARTBEAT = b": heartbeat\r\n\r\n"

_ENVELOPE = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "minimum": 0, "maximum": MAX_ID},
        "method": {"type": "string", "maxLength": METHOD_LIMIT, "examples": ["run.start", "input.respond"]},
        "params": {"type": "object"},
    },
    "required": ["id", "method"],
}

type ThreadPath = Annotated[str, Path(max_length=100)]
type Envelope = Annotated[Any, Body(), WithJsonSchema(_ENVELOPE)]


class CommandReply(BaseModel):
    """`success` with a result, or `error` with a code of the protocol and words for people."""

    model_config = ConfigDict(extra="allow")
    type: Literal["success", "error"]
    id: int | None
    result: dict[str, Any] | None = None
    error: str | None = None
    message: str | None = None


@router.post("/threads/{thread_id}/commands", responses={200: {"model": CommandReply}, 400: {"model": CommandReply}})
async def command(runtime: RuntimeDep, principal: PrincipalDep, thread_id: ThreadPath, body: Envelope) -> JSONResponse:
    """`run.start`, `input.respond` or `agent.getTree` on a thread; the first makes it if it is not there."""
    commands = Commands(runtime, principal, thread_id)
    asked = read_command(body)
    if isinstance(asked, Command):
        return JSONResponse(await commands.answer(asked))
    return JSONResponse(asked, 400)


@router.post("/threads/{thread_id}/stream/events", response_class=EventSourceResponse, responses=EVENT_STREAM)
async def stream_events(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    recheck: RecheckDep,
    thread_id: ThreadPath,
    body: EventStreamBody,
    last_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> EventSourceResponse:
    """What was kept of the thread's history, then what happens. Never ends by itself; the thread may come later."""
    own_id = runtime.threads.own_id(principal, thread_id)
    frames = subscribed(runtime, principal, own_id, body.subscription(last_id))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_lines(frames, recheck), ping=0, headers=headers)


async def _lines(batches: AsyncGenerator[list[Frame]], recheck: Recheck) -> AsyncIterator[bytes]:
    allowed = Allowed(recheck)
    async with aclosing(batches):
        async for batch in batches:
            if not await allowed.still():
                return  # the client comes back, and is told why it may not
            yield b"".join(frame.sse() for frame in batch) or _HEARTBEAT


@router.websocket("/threads/{thread_id}/stream/events")
async def socket(websocket: WebSocket, thread_id: ThreadPath) -> None:
    """Commands in, answers and events out."""
    await serve_socket(websocket, thread_id)

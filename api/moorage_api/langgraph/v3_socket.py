"""A WebSocket of the v3 protocol: each frame in is a command; frames out are answers and the events subscribed to.

Source: what the Python and JavaScript clients send and expect. A connection that is refused after it was accepted is
closed with 4000 plus the HTTP status, because browsers cannot read the status of a refused upgrade; before that it
gets an `error` without an id.
"""

import asyncio
import uuid
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack, aclosing, suppress
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.websockets import WebSocketState

from moorage.errors import AppError, Unauthenticated
from moorage.identity import Principal, Scope
from moorage.runtime import Runtime
from moorage.telemetry import get_logger
from moorage_api.body_guard import MAX_BYTES, refusal_of
from moorage_api.errors import status_of
from moorage_api.langgraph.v3_commands import Command, Commands, Done, Refused, answered, read_command, refusal
from moorage_api.langgraph.v3_stream import subscribed
from moorage_api.langgraph.v3_subscription import EventStreamBody, Subscription
from moorage_api.open_streams import OpenStreams
from moorage_api.sse import RECHECK_SECONDS, Allowed

_MAX_SUBSCRIPTIONS = 64
_SERVER_STOPS = 1012
_LAST_WORDS_SECONDS = 3.0
_BEARER = "bearer"

log = get_logger(__name__)


async def serve_socket(websocket: WebSocket, thread_id: str) -> None:
    """Serve one connection to its end. A page of another origin gets no connection at all."""
    runtime: Runtime = websocket.app.state.runtime
    if not _is_allowed_origin(websocket, runtime.settings.cors_origins):
        await websocket.close(1008)  # before it is accepted: the upgrade is answered with 403
        return
    offered = websocket.scope.get("subprotocols", [])
    await websocket.accept(subprotocol=_BEARER if _BEARER in offered else None)
    try:
        principal = await _principal(runtime, websocket)
        principal.require(Scope.READ)
        with websocket.app.state.open_streams.one(principal.user_id):
            await _Connection(websocket, runtime, principal, thread_id).serve()
    except WebSocketDisconnect:
        return
    except AppError as error:
        await _end(websocket, error)
    # Broad, because this is the edge: `ErrorEdge` serves HTTP alone, and uvicorn would cut the connection without a
    # code that the client could read, and log it without the request's id.
    except Exception as error:
        log.error("unhandled_error", path=websocket.url.path, exc_info=error)
        await _close(websocket, 1011)


def _is_allowed_origin(websocket: WebSocket, allowed: tuple[str, ...]) -> bool:
    """Programs send no origin; browsers always do, and a page of ours has the host that it calls."""
    origin = websocket.headers.get("origin")
    if origin is None or origin in allowed:
        return True
    return urlsplit(origin).netloc == websocket.headers.get("host")


async def _principal(runtime: Runtime, websocket: WebSocket) -> Principal:
    """Whoever the headers, the subprotocol or the ticket prove; raises Unauthenticated."""
    scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == _BEARER and token:
        return await runtime.identity.authenticate(token.strip())
    if key := websocket.headers.get("x-api-key"):
        return await runtime.identity.keys.principal(key)
    match websocket.scope.get("subprotocols", []):
        case ["bearer", str(token), *_]:
            return await runtime.identity.authenticate(token)
        case _:
            pass
    if ticket := websocket.query_params.get("ticket"):
        return await runtime.identity.redeem_ticket(ticket)
    raise Unauthenticated(
        "Send a bearer token or an API key in a header, the subprotocols bearer, <token>, or ?ticket="
    )


class _Connection:
    """One client on one thread."""

    def __init__(self, websocket: WebSocket, runtime: Runtime, principal: Principal, thread_id: str) -> None:
        self._websocket = websocket
        self._runtime = runtime
        self._principal = principal
        self._commands = Commands(runtime, principal, thread_id)
        self._subscriptions: dict[str, asyncio.Task[None]] = {}
        self._streams: OpenStreams = websocket.app.state.open_streams
        self._allowed = Allowed(lambda: runtime.identity.recheck(principal))
        self._turn = asyncio.Lock()

    async def serve(self) -> None:
        """Until the client goes or must go, or the server stops."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                while True:
                    given = await self._receive()
                    await self._send(orjson.dumps(await self._answer(given, group)))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _watch(self) -> None:
        """End the connection when its user may not read any more, also one that is silent or does not read."""
        while True:
            await asyncio.sleep(RECHECK_SECONDS)
            if not await self._allowed.still():
                raise Unauthenticated("Log in again")

    async def _receive(self) -> str | None:
        """The next frame's text, None for one of bytes."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"])
        return message.get("text")

    async def _answer(self, given: str | None, group: asyncio.TaskGroup) -> dict[str, Any]:
        if given is None:
            return refusal(None, "invalid_argument", "Commands are text")
        refused = refusal_of(given.encode() if len(given) <= MAX_BYTES else None, is_json=True)
        if refused is not None:
            return refusal(None, "invalid_argument", refused[1])
        command = read_command(orjson.loads(given or "null"))
        if not isinstance(command, Command):
            return command
        await self._runtime.identity.recheck(self._principal)
        match command.method:
            case "subscription.subscribe" | "subscription.reconnect":
                return await answered(command.id, lambda: self._subscribe(command, group))
            case "subscription.unsubscribe":
                return await answered(command.id, lambda: self._unsubscribe(command.params))
            case _:
                return await self._commands.answer(command)

    async def _subscribe(self, command: Command, group: asyncio.TaskGroup) -> Done:
        if len(self._subscriptions) >= _MAX_SUBSCRIPTIONS:
            raise Refused("invalid_argument", f"A connection has {_MAX_SUBSCRIPTIONS} subscriptions at most.")
        subscription = _subscription(command.params)
        subscription_id = str(uuid.uuid4())
        streams = ExitStack()
        streams.enter_context(self._streams.one(self._principal.user_id))
        task = self._subscriptions[subscription_id] = group.create_task(self._tell(subscription))
        task.add_done_callback(lambda _: streams.close())
        if command.method == "subscription.reconnect":
            return Done({"restored": True, "subscription_id": subscription_id}, subscription.since or 0)
        return Done({"subscription_id": subscription_id, "replayed_events": 0}, subscription.since or 0)

    async def _unsubscribe(self, params: Mapping[str, Any]) -> Done:
        task = self._subscriptions.pop(str(params.get("subscription_id")), None)
        if task is None:
            raise Refused("no_such_subscription", "Unknown subscription")
        task.cancel()
        await asyncio.wait([task])
        return Done({}, 0)

    async def _tell(self, subscription: Subscription) -> None:
        frames = subscribed(self._runtime, self._principal, self._commands.thread_id, subscription)
        async with aclosing(frames):
            async for batch in frames:
                for frame in batch:
                    await self._send(frame.body())
        await _close(self._websocket, _SERVER_STOPS)

    async def _send(self, body: bytes) -> None:
        async with self._turn:
            await self._websocket.send_text(body.decode())


def _subscription(params: Mapping[str, Any]) -> Subscription:
    try:
        body = EventStreamBody.model_validate(params)
    except ValidationError:
        raise Refused("invalid_argument", "A subscription takes channels, namespaces, depth and since.") from None
    last_id = params.get("last_event_id")
    return body.subscription(last_id.rpartition(".")[2].rpartition(":")[2] if isinstance(last_id, str) else None)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    """Of several tasks that fail at once one reason is enough; that the client went is the least of them."""
    found: list[BaseException] = [
        _first(error) if isinstance(error, BaseExceptionGroup) else error  # pyright: ignore[reportUnknownArgumentType]
        for error in errors.exceptions
    ]
    return next((error for error in found if not isinstance(error, WebSocketDisconnect)), found[0])


async def _end(websocket: WebSocket, error: AppError) -> None:
    if websocket.application_state is WebSocketState.CONNECTED:
        code = "permission_denied" if status_of(error) in (401, 403) else "unknown_error"
        told = orjson.dumps(refusal(None, code, error.detail, reason=error.code)).decode()
        await _unless_it_does_not_read(websocket.send_text(told))
    await _close(websocket, 4000 + status_of(error))


async def _close(websocket: WebSocket, code: int) -> None:
    if websocket.application_state is not WebSocketState.DISCONNECTED:
        await _unless_it_does_not_read(websocket.close(code))


async def _unless_it_does_not_read(sending: Coroutine[Any, Any, None]) -> None:
    """A client that takes nothing is not waited for: the server cuts a connection that its application left."""
    with suppress(TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await sending

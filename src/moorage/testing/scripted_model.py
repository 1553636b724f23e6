"""An OpenAI-compatible HTTP server whose model follows a script: no key, no network, the same answer every time.

It stands behind `LLM_MODEL=scripted:<name>` and behind the tests, so that the provider code in use is the real one. Any
other OpenAI client can use it, too: `uvicorn --factory moorage.testing:create_app`.
"""

import asyncio
import hashlib
import json
import math
import socket
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import uvicorn
from pydantic import ValidationError

from moorage.testing.conversation import ChatRequest, read_conversation
from moorage.testing.reply import Answer, Failure, Fault, Flaky, Reply
from moorage.testing.scripts import SCRIPTS, answer
from moorage.testing.wire import (
    Head,
    closing_events,
    completion_body,
    delta_events,
    error_body,
    estimate_tokens,
    pieces,
)

type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_DELTAS_BEFORE_FAULT = 4
_REMEMBERED_FAILURES = 1024
_SHUTTING_DOWN = Failure(503, "server_error", None, "The scripted model is shutting down.")


class ScriptedModel:
    """The ASGI app: `POST /v1/chat/completions` and `GET /v1/models`."""

    def __init__(self) -> None:
        self._attempts = _Attempts()
        self._watching: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        match scope["method"], scope["path"]:
            case "GET", "/v1/models":
                await _send_json(send, 200, _models())
            case "POST", "/v1/chat/completions":
                await self._complete(receive, send)
            case method, path:
                await _send_failure(send, Failure(404, "invalid_request_error", None, f"Unknown URL: {method} {path}"))

    def hang_up(self) -> None:
        """End the answers that are waiting: without this a stalled one would outlive its server."""
        for watching in self._watching:
            watching.cancel()

    async def _complete(self, receive: Receive, send: Send) -> None:
        body = await _read_body(receive)
        try:
            request = ChatRequest.model_validate_json(body)
        except ValidationError as error:
            where = ".".join(str(step) for step in error.errors()[0]["loc"])
            message = f"The request is not a chat completion: {where} {error.errors()[0]['msg']}".strip()
            await _send_failure(send, Failure(400, "invalid_request_error", None, message, param=where or None))
            return
        match self._attempts.settle(request, answer(request.model, read_conversation(request))):
            case Failure() as failure:
                await _send_failure(send, failure)
            case Reply() as reply:
                await self._speak(request, _with_call_ids(reply), receive, send)

    async def _speak(self, request: ChatRequest, reply: Reply, receive: Receive, send: Send) -> None:
        head = Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), request.model)
        prompt_tokens = estimate_tokens(request.characters)
        if request.stream:
            content_type, parts = b"text/event-stream", list(delta_events(reply, head))
            ending = list(closing_events(reply, head, prompt_tokens, with_usage=request.wants_usage))
        else:
            body = json.dumps(completion_body(reply, head, prompt_tokens)).encode()
            content_type, parts, ending = b"application/json", [body[:64]], [body[64:]]
            reply = replace(reply, pause=reply.pause * len(pieces(reply.text)))
        gone = asyncio.create_task(_until_disconnect(receive))
        self._watching.add(gone)
        try:
            await _send_reply(send, reply, content_type, parts=parts, ending=ending, gone=gone)
        finally:
            self._watching.discard(gone)
            gone.cancel()


class _Attempts:
    """The only thing kept between requests: which requests of a flaky script have failed once.

    An attempt does not show in the messages, and the OpenAI client's retry header only counts that client's own
    retries, not those of a middleware around it. So every second attempt at the same messages is let through.
    """

    def __init__(self) -> None:
        self._failed: OrderedDict[str, None] = OrderedDict()

    def settle(self, request: ChatRequest, planned: Answer) -> Reply | Failure:
        if not isinstance(planned, Flaky):
            return planned
        key = hashlib.sha256(request.model_dump_json(include={"model", "messages"}).encode()).hexdigest()
        if key in self._failed:
            del self._failed[key]
            return planned.reply
        self._failed[key] = None
        if len(self._failed) > _REMEMBERED_FAILURES:
            self._failed.popitem(last=False)
        return planned.failure


def create_app() -> ScriptedModel:
    """The scripted model as an ASGI app, for any ASGI server or for httpx's ASGITransport."""
    return ScriptedModel()


@asynccontextmanager
async def serve_scripted_model(host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[str]:
    """The scripted model over HTTP in this event loop; yields its base URL, such as `http://127.0.0.1:40123/v1`.

    Port 0 takes a free one. Leaves the process's signal handlers and logging alone, and ends open answers on exit.
    """
    app = create_app()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listener:
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none", timeout_graceful_shutdown=1)
        config.load()
        server = uvicorn.Server(config)
        # Server.serve() would take over the signal handlers and offers no moment at which it is known to listen.
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        ticking = asyncio.create_task(server.main_loop())
        try:
            shown = f"[{host}]" if family is socket.AF_INET6 else host
            yield f"http://{shown}:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            await ticking
            app.hang_up()
            await server.shutdown(sockets=[listener])


async def _send_reply(
    send: Send,
    reply: Reply,
    content_type: bytes,
    *,
    parts: list[bytes],
    ending: list[bytes],
    gone: asyncio.Task[None],
) -> None:
    if reply.fault is Fault.SILENT:
        await asyncio.wait({gone})
        await _send_failure(send, _SHUTTING_DOWN)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
    for part in parts if reply.fault is Fault.NONE else parts[:_DELTAS_BEFORE_FAULT]:
        if await _is_gone(gone, within=reply.pause):
            break
        await _send_part(send, part)
    match reply.fault:
        case Fault.CUT:
            return
        case Fault.STALLED:
            await asyncio.wait({gone})
        case _ if not gone.done():
            await _send_part(send, b"".join(ending))
        case _:
            pass
    await send({"type": "http.response.body", "body": b""})


async def _is_gone(gone: asyncio.Task[None], *, within: float) -> bool:
    """Whether the client left, after `within` seconds; lets other tasks run in any case."""
    if within > 0:
        await asyncio.wait({gone}, timeout=within)
    else:
        await asyncio.sleep(0)
    return gone.done()


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _send_failure(send: Send, failure: Failure) -> None:
    headers: list[tuple[bytes, bytes]] = []
    if failure.retry_after is not None:
        # `retry-after` counts whole seconds, so the exact pause stands beside it, as OpenAI's own service does.
        headers = [
            (b"retry-after", str(math.ceil(failure.retry_after)).encode()),
            (b"retry-after-ms", str(round(failure.retry_after * 1000)).encode()),
        ]
    await _send_json(send, failure.status, error_body(failure), headers)


async def _send_json(send: Send, status: int, body: object, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    all_headers = [(b"content-type", b"application/json"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def _send_part(send: Send, part: bytes) -> None:
    await send({"type": "http.response.body", "body": part, "more_body": True})


def _with_call_ids(reply: Reply) -> Reply:
    calls = (call if call.id else replace(call, id=f"call_{uuid.uuid4().hex[:24]}") for call in reply.calls)
    return replace(reply, calls=tuple(calls))


def _models() -> dict[str, Any]:
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "moorage", "description": description}
        for name, description in SCRIPTS.items()
    ]
    return {"object": "list", "data": models}

"""The scripted model as a process of its own, which outlives the servers that ask it and remembers what it was asked.

Prints its base URL, and ends when its standard input does. A message with `"hold": true` is not answered until
`POST /release?mark=...`; `GET /calls` tells every call so far.
"""

import asyncio
import json
import re
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from moorage.testing import create_app

type Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
type Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_MARK = re.compile(r'"mark": ?"([^"]+)"')
_HOLD = re.compile(r'"hold": ?true')


class RecordedModel:
    """The scripted model, with a record of what it was shown."""

    def __init__(self) -> None:
        self._model = create_app()
        self._calls: list[dict[str, Any]] = []
        self._released: dict[str, asyncio.Event] = {}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        match scope["type"], scope["method"], scope["path"]:
            case "http", "GET", "/calls":
                await _answer(send, self._calls)
            case "http", "POST", "/release":
                self._gate(parse_qs(scope["query_string"].decode())["mark"][0]).set()
                await _answer(send, {})
            case "http", "POST", _:
                await self._complete(scope, receive, send)
            case _:
                await self._model(scope, receive, send)

    async def _complete(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        body = await _read(receive)
        call = _describe(json.loads(body))
        self._calls.append(call)
        rest = asyncio.create_task(receive())  # the disconnect
        try:
            if call["held"]:
                gate = asyncio.create_task(self._gate(call["mark"]).wait())
                await asyncio.wait([gate, rest], return_when=asyncio.FIRST_COMPLETED)
                gate.cancel()
            await self._model(scope, _replay(body, rest), _noting(send, call))
        finally:
            rest.cancel()
            call["ended"] = time.monotonic()

    def _gate(self, mark: str) -> asyncio.Event:
        return self._released.setdefault(mark, asyncio.Event())


def _describe(request: dict[str, Any]) -> dict[str, Any]:
    """`marks` are those of all user messages in order, `results` all tool results: what the model was shown."""
    messages = request["messages"]
    users = [_text(message) for message in messages if message["role"] == "user"]
    marks = [found[1] for text in users if (found := _MARK.search(text))]
    return {
        "mark": marks[-1] if marks else "",
        "marks": marks,
        "results": [_text(message) for message in messages if message["role"] == "tool"],
        "held": bool(users and _HOLD.search(users[-1])),
        "began": time.monotonic(),
        "ended": None,
        "complete": False,
    }


def _text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _noting(send: Send, call: dict[str, Any]) -> Send:
    async def noted(message: MutableMapping[str, Any]) -> None:
        await send(message)
        if message["type"] == "http.response.body" and b"[DONE]" in message.get("body", b""):
            call["complete"] = True

    return noted


def _replay(body: bytes, rest: "asyncio.Task[MutableMapping[str, Any]]") -> Receive:
    given = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await asyncio.shield(rest)

    return receive


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: Send, content: object) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})


async def _main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(RecordedModel(), log_config=None, lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(_main())

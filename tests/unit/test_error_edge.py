"""What a client hears of a request that the server gives up."""

import asyncio
from typing import Any

import orjson
from starlette.types import Message, Receive, Scope, Send

from moorage_api.errors import ErrorEdge

_SCOPE: dict[str, Any] = {"type": "http", "method": "PUT", "path": "/", "headers": [], "state": {"request_id": "r-1"}}


async def _given_up(*, answered: bool) -> list[Message]:
    """What was sent for a request that is cancelled, as a server that stops does after a while."""
    sent: list[Message] = []
    waiting = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if answered:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        waiting.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    task = asyncio.create_task(ErrorEdge(app)(dict(_SCOPE), receive, send))
    await waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert not task.cancelled()
    assert task.exception() is None
    return sent


async def test_a_request_that_a_stopping_server_gives_up_is_to_be_tried_again() -> None:
    start, body = await _given_up(answered=False)
    assert start["status"] == 503
    assert b"retry-after" in dict(start["headers"])
    assert orjson.loads(body["body"])["code"] == "server_stopping"


async def test_an_answer_that_had_begun_is_cut() -> None:
    assert [message["type"] for message in await _given_up(answered=True)] == ["http.response.start"]

"""Refuses hostile bodies before anything else reads them: too large, or JSON that is too deep or not allowed."""

import re
from typing import Any

import orjson
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage_api.errors import problem
from moorage_api.openai.errors import error_body

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32


class _ClientGone(Exception):
    """The rest of the body will not come."""


class BodyGuard:
    """Pure ASGI. Reads each body once, checks it, and hands the same bytes on.

    FastAPI reads a body whole, of any type and before it asks who is calling; so all are limited here. Only requests
    to paths that match `streamed` as a whole pass untouched: their routes read, and count, piece by piece.
    """

    def __init__(self, app: ASGIApp, *, streamed: str) -> None:
        self._app = app
        self._streamed = re.compile(streamed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(scope) or self._is_streamed(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await _read(receive)
        except _ClientGone:
            return
        refusal = refusal_of(body, is_json=_is_json(scope))
        if refusal is not None:
            await _refused(scope, *refusal)(scope, receive, send)
            return
        await self._app(scope, _replay(body or b"", receive), send)

    def _is_streamed(self, scope: Scope) -> bool:
        return self._streamed.fullmatch(scope["path"]) is not None


def _refused(scope: Scope, status: int, detail: str, code: str) -> JSONResponse:
    if scope["path"].startswith("/v1/"):
        return JSONResponse(error_body(detail, status, code=code), status)
    request_id = getattr(Request(scope).state, "request_id", "-")
    return problem(status, detail=detail, code=code, request_id=request_id)


def _has_body(scope: Scope) -> bool:
    """HTTP/1.1 (RFC 9112, 6.3): a request has one if and only if it says so."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _is_json(scope: Scope) -> bool:
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    media_type = content_type.partition(b";")[0].strip().lower()
    return media_type == b"application/json" or media_type.endswith(b"+json")


async def _read(receive: Receive) -> bytes | None:
    """The body, or None when it is longer than it may be."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise _ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def refusal_of(body: bytes | None, *, is_json: bool) -> tuple[int, str, str] | None:
    """Status, detail and code for a body that nobody is to read, None for all others; None for a body is too long."""
    if body is None:
        return 413, f"The body is larger than {MAX_BYTES} bytes", "body_too_large"
    if not body or not is_json:
        return None
    try:
        value = orjson.loads(body)  # strict: no NaN, no infinity, no lone surrogates, nothing a thousand levels deep
    except orjson.JSONDecodeError:
        return 422, "The body is not valid JSON", "invalid_json"
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        return 422, f"The JSON is nested deeper than {MAX_DEPTH} levels", "json_too_deep"
    if b"\\u0000" in body and _has_nul(value):
        return 422, "The JSON holds a NUL character", "invalid_json"
    return None


def _is_too_deep(value: Any) -> bool:
    """Level by level: before anyone is known, a megabyte may cost some milliseconds, not a loop over its bytes."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for part in level for item in _items(part) if type(item) is dict or type(item) is list]
        if not level:
            return False
    return True


def _items(part: Any) -> Any:
    return part.values() if type(part) is dict else part  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return _has_nul(list(value)) or _has_nul(list(value.values()))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, list) and any(map(_has_nul, value))  # pyright: ignore[reportUnknownArgumentType]


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

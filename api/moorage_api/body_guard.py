"""Refuses hostile JSON before anything else reads it: too large, too deep, or not what JSON allows."""

import orjson
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage_api.errors import problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32


class BodyGuard:
    """Pure ASGI. Reads a JSON body once, checks it, and hands the same bytes on; other bodies pass untouched."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_json(scope):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        refusal = _refusal(body)
        if refusal is not None:
            status, detail, code = refusal
            request_id = getattr(Request(scope).state, "request_id", "-")
            await problem(status, detail=detail, code=code, request_id=request_id)(scope, receive, send)
            return
        await self._app(scope, _replay(body or b"", receive), send)


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
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _refusal(body: bytes | None) -> tuple[int, str, str] | None:
    if body is None:
        return 413, f"The body is larger than {MAX_BYTES} bytes", "body_too_large"
    if not body:
        return None
    if _depth(body) > MAX_DEPTH:
        return 422, f"The JSON is nested deeper than {MAX_DEPTH} levels", "json_too_deep"
    try:
        value = orjson.loads(body)  # strict: no NaN, no lone surrogates, nothing out of range
    except orjson.JSONDecodeError:
        return 422, "The body is not valid JSON", "invalid_json"
    if (b"\\u0000" in body and _has_nul(value)) or (b"e" in body and _has_infinite(value)):
        return 422, "The JSON holds a NUL character or a number that is out of range", "invalid_json"
    return None


def _depth(body: bytes) -> int:
    """The deepest nesting, counted without parsing, so that the parser is never asked to go there."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in body if body.count(b"[") + body.count(b"{") > MAX_DEPTH else b"":
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            deepest = max(deepest, depth)
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return deepest


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\x00" in value
        case dict():
            return any(_has_nul(key) or _has_nul(item) for key, item in value.items())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case list():
            return any(_has_nul(item) for item in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return False


def _has_infinite(value: object) -> bool:
    match value:
        case float():
            return value in (float("inf"), float("-inf"))
        case dict():
            return any(_has_infinite(item) for item in value.values())  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case list():
            return any(_has_infinite(item) for item in value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return False


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again

"""Around each request: its id, one log line, and the headers that browsers need to stay safe."""

import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.telemetry import get_logger

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET_PATHS = frozenset({"/healthz", "/readyz"})
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # the same address shows each user their own, and a key is in no standard header
}
_DOCS_PATHS = ("/docs", "/redoc")
_API_POLICY = "default-src 'none'; frame-ancestors 'none'"

log = get_logger("moorage.http")


class RequestContext:
    """Pure ASGI, so that a stream passes through without a task or a copy of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), scope["path"], request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            finally:
                if scope["path"] not in _QUIET_PATHS:
                    milliseconds = round((time.monotonic() - started) * 1000, 1)
                    log.info("request", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One line at the end of a connection, without its query: a ticket may be in there."""
        request_id, started = _request_id(scope), time.monotonic()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send)
            finally:
                milliseconds = round((time.monotonic() - started) * 1000, 1)
                log.info("socket", path=scope["path"], ms=milliseconds)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(text := value.decode("latin-1")):
            return text
    return uuid.uuid4().hex


def _add_headers(headers: MutableHeaders, path: str, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if not path.startswith(_DOCS_PATHS):
        headers.setdefault("Content-Security-Policy", _API_POLICY)

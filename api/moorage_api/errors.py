"""The one table from domain errors to HTTP: RFC 9457 problem details, never an echo of the input."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moorage.errors import (
    AppError,
    Conflict,
    Gone,
    InvalidInput,
    InvalidPayload,
    LimitExceeded,
    NotBuilt,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from moorage.sandboxes.port import PathError
from moorage.telemetry import get_logger

_STATUS: Sequence[tuple[type[AppError], int]] = (
    (InvalidPayload, 422),
    (InvalidInput, 400),
    (Unauthenticated, 401),
    (PermissionDenied, 403),
    (NotFound, 404),
    (Conflict, 409),
    (Gone, 410),
    (LimitExceeded, 429),
    (Unavailable, 503),
    (NotBuilt, 501),
)
# Of paths: what is wrong with one is the caller's to know, and has nothing to do with who may call.
_PATH_STATUS = {
    "file_not_found": 404,
    "is_directory": 409,
    "not_a_directory": 409,
    "not_empty": 409,
    "file_exists": 409,
    "permission_denied": 409,
    "file_too_large": 413,
    "no_space": 507,
}
_CODES = {404: "not_found", 405: "method_not_allowed", 416: "no_such_part"}
_GIVEN_UP = "The server stopped while it worked on this, which may or may not have taken effect: try again in a moment"
_MAX_FIELD_ERRORS = 20
_FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_MESSAGES = {"union_tag_invalid": "Input tag is not one of those expected"}  # pydantic's own repeats the input

log = get_logger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Every way a request can fail, answered in one shape."""
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unknown)
    app.add_middleware(ErrorEdge)


class ErrorEdge:
    """Answers and logs what nobody expected, once.

    The handler for `Exception` alone would not do: Starlette calls it outside all other middleware, where the request
    id and the security headers are gone, and raises again, so that uvicorn logs the same error once more.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return  # in the middle of its own request: nobody is left to be answered
        except asyncio.CancelledError:  # the server stops, and has waited for this request for long enough
            log.warning("request_given_up", path=scope["path"])
            if not started:
                await (await _app_error(Request(scope), Unavailable(_GIVEN_UP, code="server_stopping")))(
                    scope, receive, send
                )
        except Exception as error:  # noqa: BLE001 -- the edge
            response = await _unknown(Request(scope), error)
            if not started:  # else the server cuts the connection, and the client sees that the answer is not whole
                await response(scope, receive, send)


def field_errors(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pydantic's errors without what was given: neither values, nor names that are more than names, nor thousands."""
    return [
        {
            "loc": [_shown(part) for part in error["loc"]],
            "msg": _MESSAGES.get(error["type"], error["msg"]),
            "type": error["type"],
        }
        for error in list(errors)[:_MAX_FIELD_ERRORS]
    ]


def _shown(part: object) -> object:
    return part if isinstance(part, int) or _FIELD_NAME.fullmatch(str(part)) else "?"


def status_of(error: AppError) -> int:
    if isinstance(error, PathError):
        return _PATH_STATUS.get(error.code, 422)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(
    status: int,
    *,
    detail: str,
    code: str,
    request_id: str,
    errors: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, dict(headers or {}), media_type="application/problem+json")


def _request_id(request: Request) -> str:
    return getattr(request.state, "request_id", "-")


async def _app_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AppError)  # noqa: S101 -- registered for it
    status = status_of(error)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    elif status == 503:
        headers["Retry-After"] = "2"
    errors = error.errors if isinstance(error, InvalidPayload) else ()
    return problem(
        status, detail=error.detail, code=error.code, request_id=_request_id(request), errors=errors, headers=headers
    )


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- registered for it
    return problem(
        422,
        detail="The request does not have the form that is expected: see errors",
        code="invalid_request",
        request_id=_request_id(request),
        errors=field_errors(error.errors()),
    )


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 -- registered for it
    code = _CODES.get(error.status_code, "http_error")
    detail = "There is nothing at this address" if error.status_code == 404 else error.detail
    return problem(error.status_code, detail=detail, code=code, request_id=_request_id(request), headers=error.headers)


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    log.error("unhandled_error", path=request.url.path, exc_info=error)
    return problem(
        500,
        detail="Something went wrong inside the server; its log has more under this request id",
        code="internal_error",
        request_id=_request_id(request),
    )

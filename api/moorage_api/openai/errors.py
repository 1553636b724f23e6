"""Errors as OpenAI's clients read them: `{"error": {message, type, code, param}}`."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, override

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from moorage.errors import AppError
from moorage_api.errors import field_errors, status_of

_TYPES = {401: "authentication_error", 403: "permission_error", 409: "conflict_error", 429: "rate_limit_error"}
_RUN_STATUS = {
    "unauthorized": 401,
    "model_rate_limited": 429,
    "sandbox_unavailable": 503,
    "run_timeout": 504,
    "model_timeout": 504,
}
_NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients repeat 409, 429 and 5xx by themselves, unless told not to


class RunFailed(Exception):
    """A run ended with an error, after its message was accepted: repeating the request would send it twice."""

    def __init__(self, code: str, detail: str, *, thread_id: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.thread_id = thread_id


class OpenAIRoute(APIRoute):
    """A route whose errors have OpenAI's shape."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return _invalid(error)
            except AppError as error:
                return _refused(error)
            except RunFailed as error:
                headers = {**_NO_RETRY, "X-Thread-Id": error.thread_id}
                return JSONResponse(failed_chunk(error), _run_status(error.code), headers)

        return answer


def error_body(message: str, status: int, *, code: str | None, param: str | None = None) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def failed_chunk(error: RunFailed) -> dict[str, Any]:
    """What a stream says when it cannot go on; clients raise it."""
    return error_body(error.detail, _run_status(error.code), code=error.code)


def _run_status(code: str) -> int:
    return _RUN_STATUS.get(code, 502 if code.startswith("model_") else 500)


def _invalid(error: RequestValidationError) -> JSONResponse:
    """The first thing that is wrong, by the name of its parameter."""
    first, *_ = field_errors(error.errors())
    path = [str(part) for part in first["loc"] if part not in ("body", "header", "path", "query")]
    param = ".".join(path) or None
    code = {"extra_forbidden": "unknown_parameter"}.get(first["type"], first["type"])
    message = first["msg"] if param is None else f"{param}: {first['msg']}"
    return JSONResponse(error_body(message, 400, code=code, param=param), 400)


def _refused(error: AppError) -> JSONResponse:
    status = status_of(error)
    headers: dict[str, str] = dict(_NO_RETRY) if status == 409 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None or status == 503:
        headers["Retry-After"] = str(error.retry_after or 2)
    param = "model" if error.code == "unknown_assistant" else None
    code = "model_not_found" if error.code == "unknown_assistant" else error.code
    return JSONResponse(error_body(error.detail, status, code=code, param=param), status, headers)


_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "code", "param"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        }
    },
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"application/json": {"schema": dict(_SCHEMA)}}}
    for status, what in (
        (400, "A parameter is wrong, unknown or not supported"),
        (401, "No valid token or API key"),
        (403, "Another user's thread, or a scope that the key lacks"),
        (404, "No such model or thread"),
        (409, "The thread waits for an approval, or is closed"),
        (410, "The thread has expired"),
        (413, "The body is too large"),
        (422, "The body is no JSON, or hostile"),
        (429, "A quota is used up"),
        (500, "The run failed"),
        (502, "The model failed"),
        (503, "The server is stopping, or lacks something"),
        (504, "The run took too long"),
    )
}

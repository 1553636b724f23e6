"""The server's description of itself: what FastAPI derives from the routes, and what they all have in common.

How a request is refused is said here once: which statuses, in which shape, with which headers. Routes declare what is
their own; what a route declares for a status stands.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from moorage_api.event_shapes import event_schemas

type Json = dict[str, Any]

_REFERENCE = "#/components/{}/{}"
_RETRY_AFTER: Json = {"Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}}}
_CHALLENGE: Json = {"WWW-Authenticate": {"schema": {"type": "string"}}}

# Status, name, description, headers.
_REFUSALS: tuple[tuple[str, str, str, Json], ...] = (
    ("400", "BadRequest", "What is asked makes no sense", {}),
    ("401", "Unauthenticated", "No valid token or API key", _CHALLENGE),
    ("403", "Forbidden", "Not the caller's own, or not for this caller", {}),
    ("404", "NotFound", "There is no such thing", {}),
    ("409", "Conflict", "Not in the state that things are in", {}),
    ("410", "Gone", "It was there", {}),
    ("413", "TooLarge", "The body is too large", {}),
    ("422", "Invalid", "The request does not have the form that is described here", {}),
    ("429", "LimitExceeded", "A quota or a limit is used up", _RETRY_AFTER),
    ("503", "Unavailable", "The server is stopping, or lacks something for now", _RETRY_AFTER),
)
_OF_CALLERS = frozenset({"401", "403", "503"})
_OF_INPUT = frozenset({"400", "403", "404", "409", "410", "422", "429", "503"})
_OF_BODIES = frozenset({"401", "413"})
_DERIVED = ("HTTPValidationError", "ValidationError")  # FastAPI's own, which nobody is ever sent


class FieldError(BaseModel):
    """Where in the request something is wrong, and what."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(BaseModel):
    """Why a request was refused (RFC 9457). `code` is for programs, `detail` for people; it never echoes the input."""

    model_config = ConfigDict(extra="forbid")
    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldError] = []


def describe_refusals(app: FastAPI) -> None:
    """Have the application's OpenAPI document say of each operation how it refuses, and what events look like."""
    derive = app.openapi

    def described() -> Json:
        if app.openapi_schema is None:
            _describe(derive())
        return derive()

    app.openapi = described


def _describe(document: Json) -> None:
    components: Json = document["components"]
    schemas: Json = components["schemas"]
    for name in _DERIVED:
        schemas.pop(name, None)
    template = _REFERENCE.format("schemas", "{model}")
    schemas["Problem"] = Problem.model_json_schema(ref_template=template)
    schemas.update(schemas["Problem"].pop("$defs"))
    schemas.update(event_schemas())
    components["responses"] = {name: _refusal(text, headers) for _, name, text, headers in _REFUSALS}
    for operation in _operations(document):
        _add_refusals(operation)


def _refusal(description: str, headers: Json) -> Json:
    content = {"application/problem+json": {"schema": {"$ref": _REFERENCE.format("schemas", "Problem")}}}
    return {"description": description, "content": content} | ({"headers": headers} if headers else {})


def _operations(document: Json) -> Iterator[Json]:
    for path in document["paths"].values():
        yield from path.values()


def _add_refusals(operation: Json) -> None:
    responses: Json = operation["responses"]
    if _is_derived(responses.get("422")):
        del responses["422"]
    refused = _statuses(operation)
    for status, name, _, _ in _REFUSALS:
        if status in refused:
            responses.setdefault(status, {"$ref": _REFERENCE.format("responses", name)})


def _is_derived(response: Json | None) -> bool:
    return response is not None and _DERIVED[0] in str(response)


def _statuses(operation: Json) -> frozenset[str]:
    """With which statuses the operation may refuse, by who may call it and by what it takes."""
    found = _OF_CALLERS if "security" in operation else frozenset[str]()
    if "requestBody" in operation:
        found |= _OF_INPUT | _OF_BODIES
    return found | _OF_INPUT if operation.get("parameters") else found

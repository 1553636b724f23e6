"""Every way a request can fail, in one shape: RFC 9457 problem details that repeat nothing of what was sent."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Annotated, Any, Literal

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Discriminator
from tests.api.harness import NewUser, Server

from moorage.errors import (
    AppError,
    Conflict,
    Gone,
    InvalidInput,
    InvalidPayload,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from moorage_api.body_guard import MAX_BYTES, MAX_DEPTH, BodyGuard
from moorage_api.errors import install_error_handlers
from moorage_api.request_context import RequestContext
from moorage_api.server import bind

SECRET = "hunter2-marker"
JSON = {"content-type": "application/json"}


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel, extra="forbid"):
    pet: Annotated[Cat | Dog, Discriminator("kind")] | None = None
    ages: list[int] = []


def make_app(error: Exception | None = None) -> FastAPI:
    """A small application inside the same layers as the whole one."""
    app = FastAPI()
    install_error_handlers(app)
    app.add_middleware(BodyGuard, streamed="/upload")
    app.add_middleware(RequestContext)

    @app.get("/fail")
    async def fail() -> None:
        if error is not None:
            raise error

    @app.get("/break-off")
    async def break_off() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            raise RuntimeError(SECRET)

        return StreamingResponse(parts())

    @app.post("/pets")
    async def pets(pet: Pet) -> Pet:
        return pet

    @app.post("/size")
    @app.post("/upload")
    async def size(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@asynccontextmanager
async def served(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    """Over real HTTP, where an answer can break off."""
    listener = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, loop="none", lifespan="off", log_config=None, access_log=False))
    server.capture_signals = nullcontext  # the tests' process keeps its own
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
def app() -> FastAPI:
    return make_app()


@pytest.fixture
async def client(app: FastAPI) -> AsyncGenerator[httpx.AsyncClient]:
    async with client_of(app) as found:
        yield found


def check_problem(reply: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    body = reply.json()
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(body) - {"errors"} == {"type", "title", "status", "detail", "code", "request_id"}
    assert body["status"] == status
    assert isinstance(body["detail"], str)
    assert body["request_id"] == reply.headers["x-request-id"]
    assert code is None or body["code"] == code
    assert SECRET not in reply.text
    return body


# The table ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidInput, 400),
        (InvalidPayload, 422),
        (Unauthenticated, 401),
        (PermissionDenied, 403),
        (NotFound, 404),
        (Conflict, 409),
        (Gone, 410),
        (LimitExceeded, 429),
        (Unavailable, 503),
    ],
)
async def test_each_kind_of_error_has_its_status(kind: type[AppError], status: int) -> None:
    leaf = type("Leaf", (kind,), {"code": "leaf"})
    async with client_of(make_app(leaf("One sentence."))) as client:
        body = check_problem(await client.get("/fail"), status, "leaf")
    assert body["detail"] == "One sentence."


async def test_the_fields_of_a_wrong_payload_are_named() -> None:
    errors = [{"loc": ["body", "name"], "msg": "too long", "type": "long"}]
    async with client_of(make_app(InvalidPayload("No.", errors=errors))) as client:
        assert check_problem(await client.get("/fail"), 422)["errors"] == errors


async def test_who_is_not_known_is_told_how_to_become_so() -> None:
    async with client_of(make_app(Unauthenticated("Who are you?"))) as client:
        assert (await client.get("/fail")).headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("error", [LimitExceeded("Slow.", retry_after=7), Unavailable("Down.", retry_after=7)])
async def test_when_waiting_helps_it_says_how_long(error: AppError) -> None:
    async with client_of(make_app(error)) as client:
        assert (await client.get("/fail")).headers["retry-after"] == "7"


async def test_an_address_where_nothing_is_is_a_problem_too(client: httpx.AsyncClient) -> None:
    check_problem(await client.get(f"/{SECRET}"), 404, "not_found")


async def test_a_wrong_method_is_a_problem_that_names_the_right_one(client: httpx.AsyncClient) -> None:
    reply = await client.delete("/pets")
    check_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "POST"


# What nobody expected -------------------------------------------------------------------------------------------


async def test_an_unknown_error_is_a_500_without_a_word_of_the_inside() -> None:
    async with client_of(make_app(RuntimeError(SECRET))) as client:
        reply = await client.get("/fail")
    body = check_problem(reply, 500, "internal_error")
    assert "RuntimeError" not in str(body)
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_an_unknown_error_is_logged_once_with_the_request_id(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(make_app(RuntimeError(SECRET))) as client:
        request_id = (await client.get("/fail")).headers["x-request-id"]
    logged = "".join(capfd.readouterr()) + caplog.text
    lines = [line for line in logged.splitlines() if "unhandled_error" in line]
    assert len(lines) == 1
    assert request_id in lines[0]
    assert logged.count(f"RuntimeError: {SECRET}") == 1
    assert "Exception in ASGI application" not in logged


async def test_an_answer_that_breaks_off_is_seen_to_be_broken(app: FastAPI) -> None:
    async with served(app) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/break-off")
        assert (await client.post("/pets", json={})).status_code == 200


# Payloads -------------------------------------------------------------------------------------------------------


async def test_a_wrong_field_is_named_and_its_value_is_not_repeated(client: httpx.AsyncClient) -> None:
    body = check_problem(await client.post("/pets", json={"ages": [1, SECRET]}), 422, "invalid_request")
    [error] = body["errors"]
    assert set(error) == {"loc", "msg", "type"}
    assert error["loc"] == ["body", "ages", 1]


async def test_an_unknown_field_is_named_when_it_is_a_name(client: httpx.AsyncClient) -> None:
    body = check_problem(await client.post("/pets", json={"colour": SECRET}), 422)
    assert body["errors"][0]["loc"] == ["body", "colour"]


@pytest.mark.parametrize("name", [f"<script>{SECRET}", SECRET * 20, f"{SECRET}\n", "", f" {SECRET}"])
async def test_what_is_no_name_is_not_repeated(client: httpx.AsyncClient, name: str) -> None:
    body = check_problem(await client.post("/pets", json={name: 1}), 422)
    assert body["errors"][0]["loc"] == ["body", "?"]


async def test_a_tag_is_not_repeated(client: httpx.AsyncClient) -> None:
    body = check_problem(await client.post("/pets", json={"pet": {"kind": SECRET}}), 422)
    assert body["errors"][0]["type"] == "union_tag_invalid"


async def test_thousands_of_wrong_fields_make_a_short_answer(client: httpx.AsyncClient) -> None:
    reply = await client.post("/pets", json={"ages": ["x"] * 50_000})
    assert len(check_problem(reply, 422)["errors"]) == 20


# Hostile bodies -------------------------------------------------------------------------------------------------

HOSTILE = {
    "cut": b'{"username":"hunter2-marker',
    "no JSON": b"hunter2-marker",
    "NaN": b'{"username":NaN,"x":"hunter2-marker"}',
    "Infinity": b'{"username":-Infinity}',
    "too big a float": b'{"username":1e999}',
    "too big a float, in capitals": b'{"username":-1E999}',
    "too long an integer": b'{"username":' + b"9" * 5000 + b"}",
    "a lone surrogate": b'{"username":"\\ud800hunter2-marker"}',
    "an encoded surrogate": b'{"username":"\xed\xa0\x80"}',
    "NUL": b'{"username":"\\u0000hunter2-marker"}',
    "NUL in a key": b'{"\\u0000":"hunter2-marker"}',
    "NUL deep inside": b'{"a":[{"b":["\\u0000"]}]}',
    "a raw NUL": b'{"username":"\x00"}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"username":"hunter2-marker"}'.encode("utf-16"),
    "Latin-1": b'{"username":"\xe4"}',
    "too deep": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "deep objects": b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1),
    "endlessly deep": b"[" * 500_000,
    "two values": b"{}{}",
    "a comment": b"{} // hunter2-marker",
    "another kind": b'"hunter2-marker"',
    "null": b"null",
    "a list": b"[]",
}
ROUTES = ["auth/register", "auth/login", "auth/setup", "auth/password", "sessions", "chat/{own}", "resume/{own}"]


@pytest.mark.parametrize("route", ROUTES)
async def test_no_body_makes_a_route_fail_in_another_way(server: Server, new_user: NewUser, route: str) -> None:
    alice = await new_user("alice")
    path = "/api/" + route.format(own=await alice.new_session())
    for name, content in HOSTILE.items():
        if (route, name) == ("sessions", "null"):  # its body is optional
            continue
        reply = await alice.client.post(path, content=content, headers=JSON)
        assert 400 <= reply.status_code < 500, (name, reply.text)
        check_problem(reply, reply.status_code)


@pytest.mark.parametrize("name", sorted(set(HOSTILE) - {"another kind", "null", "a list"}))
async def test_hostile_json_is_refused_before_any_route_sees_it(client: httpx.AsyncClient, name: str) -> None:
    check_problem(await client.post("/size", content=HOSTILE[name], headers=JSON), 422)


@pytest.mark.parametrize("media_type", ["application/json", "Application/JSON; charset=utf-8", "application/x+json"])
async def test_json_is_known_by_its_type_however_written(client: httpx.AsyncClient, media_type: str) -> None:
    reply = await client.post("/size", content=b"NaN", headers={"content-type": media_type})
    check_problem(reply, 422, "invalid_json")


@pytest.mark.parametrize(
    "value",
    ["[](){}" * 20_000, "\\", '"', "\U0001f511", "\u007f\u0080", ["[["] * 100, [[]] * 100, 1e308, -0.0, 10**300],
)
async def test_good_json_arrives_as_it_was_sent(client: httpx.AsyncClient, value: object) -> None:
    content = json.dumps(value).encode()
    reply = await client.post("/size", content=content, headers=JSON)
    assert reply.json() == len(content)


async def test_the_depth_that_is_allowed_is_allowed(client: httpx.AsyncClient) -> None:
    content = b'{"a":[' * (MAX_DEPTH // 2) + b"]}" * (MAX_DEPTH // 2)
    assert (await client.post("/size", content=content, headers=JSON)).status_code == 200
    check_problem(await client.post("/size", content=b"[%s]" % content, headers=JSON), 422, "json_too_deep")


@pytest.mark.parametrize("media_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_body_over_a_megabyte_is_refused_whatever_it_is(client: httpx.AsyncClient, media_type: str) -> None:
    headers = {"content-type": media_type}
    largest = b'"%s"' % (b"x" * (MAX_BYTES - 2))
    assert (await client.post("/size", content=largest, headers=headers)).json() == MAX_BYTES
    check_problem(await client.post("/size", content=largest + b" ", headers=headers), 413, "body_too_large")


async def test_an_endless_body_is_refused_long_before_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 65536
            yield b"x" * 65536

    check_problem(await client.post("/size", content=endless()), 413, "body_too_large")
    assert sent <= 2 * MAX_BYTES


async def test_where_bodies_are_files_nobody_looks_into_them(client: httpx.AsyncClient) -> None:
    for headers in (JSON, {"content-type": "video/mp4"}):
        upload = await client.post("/upload", content=b"x" * 3 * MAX_BYTES, headers=headers)
        assert upload.json() == 3 * MAX_BYTES
    check_problem(await client.post("/upload/", content=b"NaN", headers=JSON), 422)


async def test_a_client_that_goes_away_in_its_body_starts_nothing(
    app: FastAPI, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(app) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"POST /pets HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{}")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await client.get("/fail")).status_code == 200
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "unhandled_error" not in logged
    assert "Traceback" not in logged

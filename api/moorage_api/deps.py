"""What endpoints ask for: the runtime, the principal, a thread of theirs. 401, 403 and 404 are decided here.

No dependency holds a database connection: one would stay open for the whole of a stream. All are coroutines: FastAPI
sends each plain function through a thread.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import APIKeyHeader, OAuth2PasswordBearer

from moorage.errors import Unauthenticated
from moorage.identity import Principal
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.scopes import check_scope

_ENDINGS = ("/cancel", "/close")
_bearer = OAuth2PasswordBearer(tokenUrl="/api/auth/login", auto_error=False)
_api_key = APIKeyHeader(name="x-api-key", auto_error=False)


async def _runtime(request: Request) -> Runtime:
    return request.app.state.runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


async def refuse_new_work(request: Request, runtime: RuntimeDep) -> None:
    """For routers whose POSTs start something, unless their path says that they end something."""
    if request.method == "POST" and not request.url.path.endswith(_ENDINGS):
        runtime.check_accepting()


async def _principal(
    request: Request,
    runtime: RuntimeDep,
    token: Annotated[str | None, Depends(_bearer)],
    api_key: Annotated[str | None, Depends(_api_key)],
) -> Principal:
    """Whoever the bearer token proves, or, without one, the API key, if it may do what this route does."""
    if token is not None:
        principal = await runtime.identity.authenticate(token)
    elif api_key:
        principal = await runtime.identity.keys.principal(api_key)
    else:
        raise Unauthenticated(
            "Log in first and send the access token as `Authorization: Bearer ...`, or an API key as `x-api-key`"
        )
    check_scope(principal, request)
    return principal


PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _thread(
    thread_id: Annotated[str, Path(max_length=100)], runtime: RuntimeDep, principal: PrincipalDep
) -> Thread:
    """The caller's own thread. Everything else is refused here, before the first byte of an answer."""
    return await runtime.threads.get(principal, thread_id)


ThreadDep = Annotated[Thread, Depends(_thread)]


async def _recheck(
    request: Request, runtime: RuntimeDep, principal: PrincipalDep
) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """Whether the reader may still read. Whoever asks for this streams: it counts until the last byte is out."""
    with request.app.state.open_streams.one(principal.user_id):
        yield lambda: runtime.identity.recheck(principal)


RecheckDep = Annotated[Callable[[], Awaitable[object]], Depends(_recheck)]


def protected_docs(app: FastAPI) -> None:
    """Serve the API's description to logged-in callers only."""

    async def openapi(_principal: PrincipalDep) -> JSONResponse:
        return JSONResponse(app.openapi())

    async def docs(_principal: PrincipalDep) -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Moorage")

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)

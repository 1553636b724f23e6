"""What endpoints ask for: the runtime, the principal, a thread of theirs. 401, 403 and 404 are decided here.

No dependency holds a database connection: one would stay open for the whole of a stream. All are coroutines: FastAPI
sends each plain function through a thread.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import OAuth2PasswordBearer

from moorage.errors import Unauthenticated
from moorage.identity import Principal
from moorage.runtime import Runtime
from moorage.threads import Thread

_ENDINGS = ("/cancel", "/close")
_bearer = OAuth2PasswordBearer(tokenUrl="/api/auth/login", auto_error=False)


async def _runtime(request: Request) -> Runtime:
    return request.app.state.runtime


RuntimeDep = Annotated[Runtime, Depends(_runtime)]


async def refuse_new_work(request: Request, runtime: RuntimeDep) -> None:
    """For routers whose POSTs start something, unless their path says that they end something."""
    if request.method == "POST" and not request.url.path.endswith(_ENDINGS):
        runtime.check_accepting()


async def _token(token: Annotated[str | None, Depends(_bearer)]) -> str:
    if token is None:
        raise Unauthenticated("Log in first and send the access token as `Authorization: Bearer ...`")
    return token


TokenDep = Annotated[str, Depends(_token)]


async def _principal(runtime: RuntimeDep, token: TokenDep) -> Principal:
    return await runtime.identity.authenticate(token)


PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _thread(thread_id: str, runtime: RuntimeDep, principal: PrincipalDep) -> Thread:
    """The caller's own thread. Everything else is refused here, before the first byte of an answer."""
    return await runtime.threads.get(principal, thread_id)


ThreadDep = Annotated[Thread, Depends(_thread)]


async def _recheck(runtime: RuntimeDep, token: TokenDep) -> Callable[[], Awaitable[object]]:
    return lambda: runtime.identity.authenticate(token)


RecheckDep = Annotated[Callable[[], Awaitable[object]], Depends(_recheck)]


def protected_docs(app: FastAPI) -> None:
    """Serve the API's description to logged-in callers only."""

    async def openapi(_principal: PrincipalDep) -> JSONResponse:
        return JSONResponse(app.openapi())

    async def docs(_principal: PrincipalDep) -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Moorage")

    app.add_api_route("/openapi.json", openapi, include_in_schema=False)
    app.add_api_route("/docs", docs, include_in_schema=False)

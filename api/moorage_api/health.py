"""Whether the server lives, whether it can work, and what it is."""

import platform
from importlib.metadata import version
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from moorage.errors import AppError
from moorage_api.deps import RuntimeDep

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process answers. No I/O."""
    return {"status": "ok"}


class Readiness(BaseModel):
    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not now"}})
async def readyz(runtime: RuntimeDep) -> JSONResponse:
    """Work can be taken: the database answers, and nobody has asked this process to stop. Else 503.

    `worker` says whether this process executes runs (`ok`), leaves them to others (`none`) or ends them (`draining`);
    `disk` whether there is room for new workspaces, without which all others go on.
    """
    checks = {"database": "ok", "worker": runtime.worker_state, "disk": await runtime.disk_state()}
    try:
        await runtime.check_ready()
    except AppError as error:
        checks["database"] = error.detail
    if checks["database"] == "ok" and not runtime.draining:
        return JSONResponse({"status": "ok", "checks": checks})
    body = {"status": "unavailable", "checks": checks}
    return JSONResponse(body, status_code=503, headers={"Retry-After": "2"})


@router.get("/ok")
async def ok() -> dict[str, bool]:
    return {"ok": True}


class Flags(BaseModel):
    """What clients of the LangGraph wire may ask for."""

    assistants: bool
    crons: bool
    langsmith: bool
    strict_resume: bool


class Host(BaseModel):
    python: str


class Info(BaseModel):
    """`sandbox_note` says what to know of this kind of sandbox; `runtime` is the engine's, for its containers."""

    name: Literal["moorage"]
    version: str
    langgraph_py_version: str
    sandbox: str
    sandbox_note: str | None
    runtime: str
    model: str
    registration: Literal["open", "closed"]
    flags: Flags
    host: Host


@router.get("/info")
async def info(runtime: RuntimeDep) -> Info:
    """What this server is: version, sandbox, model, who may register; `flags` are for clients of the LangGraph wire."""
    return Info(
        name="moorage",
        version=version("moorage"),
        langgraph_py_version=version("langgraph"),
        sandbox=runtime.sandbox_kind,
        sandbox_note=runtime.sandbox_note,
        runtime=runtime.settings.sandbox_runtime or "default",
        model=runtime.model_name,
        registration="open" if runtime.settings.registration_open else "closed",
        flags=Flags(assistants=True, crons=True, langsmith=False, strict_resume=True),
        host=Host(python=platform.python_version()),
    )

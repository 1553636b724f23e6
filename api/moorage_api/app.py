"""The ASGI application over a runtime: middleware, routers, error handlers."""

from importlib.metadata import version
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from moorage.runtime import Runtime
from moorage_api import (
    admin,
    approvals,
    auth,
    chat,
    copies,
    files,
    health,
    keys,
    messages,
    rules,
    sessions,
    shared_files,
    snapshots,
    tools,
    web_ui,
    webhooks,
)
from moorage_api.body_guard import BodyGuard
from moorage_api.deps import protected_docs, refuse_new_work
from moorage_api.errors import install_error_handlers
from moorage_api.langgraph import assistants, crons, protocol, refused, runs, state, stateless_runs, store, threads
from moorage_api.open_streams import OpenStreams
from moorage_api.openai import chat as openai_chat
from moorage_api.openai import models as openai_models
from moorage_api.openapi import describe_refusals
from moorage_api.request_context import RequestContext

_ALLOWED_HEADERS = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-Range", "Last-Event-ID", "Range", "X-API-Key",
    "X-Auth-Scheme", "X-Request-ID", "X-Thread-Id",
)  # fmt: skip
_EXPOSED_HEADERS = (
    "Accept-Ranges", "Content-Disposition", "Content-Location", "Content-Range", "ETag", "Location", "Retry-After",
    "X-Pagination-Next", "X-Pagination-Total", "X-Request-ID", "X-Thread-Id",
)  # fmt: skip


_CORE = (sessions, copies, snapshots, chat, approvals, rules, tools, messages, files, shared_files)
_OPENAI = (openai_chat, openai_models)
_LANGGRAPH = (assistants, threads, state, runs, stateless_runs, crons, store, refused)


def create_app(runtime: Runtime, *, web_folder: Path = web_ui.WEB_FOLDER) -> FastAPI:
    """The application that serves `runtime`, and the web UI that was built into `web_folder`, if one was.

    Opening and closing the runtime is the caller's.
    """
    open_docs = runtime.settings.is_loopback
    app = FastAPI(
        title="Moorage",
        version=version("moorage"),
        description="Agents that do real work, in a sandbox per conversation, with a human's approval.",
        docs_url="/docs" if open_docs else None,
        openapi_url="/openapi.json" if open_docs else None,
        redoc_url=None,
    )
    app.state.runtime = runtime
    app.state.open_streams = OpenStreams(runtime.settings.quota_open_streams)
    app.state.web_ui = web_ui.WebUi(web_folder)
    for module in (web_ui, auth, keys, webhooks, health, protocol, admin):
        app.include_router(module.router)
    for module in (*_CORE, *_OPENAI, *_LANGGRAPH):
        app.include_router(module.router, dependencies=[Depends(refuse_new_work)])
    if not open_docs:
        protected_docs(app)
    install_error_handlers(app)
    describe_refusals(app)
    app.add_middleware(BodyGuard, streamed=files.STREAMED)
    if runtime.settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(runtime.settings.cors_origins),
            allow_credentials=True,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=list(_ALLOWED_HEADERS),
            expose_headers=list(_EXPOSED_HEADERS),
        )
    app.add_middleware(RequestContext)
    return app

"""What `moorage doctor` looks at. Each check tries the real thing, and says what to do when it does not work."""

import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import httpx

from moorage.adapters.embedded_postgres import find_running_embedded_postgres, open_embedded_postgres
from moorage.cli.api_client import ApiClient, ApiProblem, Unreachable
from moorage.errors import AppError
from moorage.runtime import SandboxKind, open_sandbox_kind
from moorage.runtime.checks import (
    MODEL_FIX,
    SHORTCOMINGS_FIX,
    WEAK_FIX,
    Finding,
    Status,
    check_disk,
    check_model,
    check_revision,
    check_secrets,
    existing,
)
from moorage.settings import Settings
from moorage_api.server import bind

_PYTHON = (3, 12)
_SANDBOX_SECONDS = 60.0
_DATABASE_FIX = "see that Postgres runs and that DATABASE_URL names it, with its user and password"

type Check = Callable[[Settings], Awaitable[Finding]]


async def run_checks(settings: Settings, *, call_model: bool, tell: Callable[[Finding], None]) -> None:
    """All checks that need settings, in the order in which a start would meet them."""

    async def model(settings: Settings) -> Finding:
        return await check_model(settings, call=call_model)

    checks: list[tuple[str, Check, str | None]] = [
        ("secrets", check_secrets, "run this as the user who runs the server"),
        ("database", check_database, _DATABASE_FIX if settings.database_url else "see DATA_DIR, or set DATABASE_URL"),
        ("sandbox", check_sandbox, None),  # its errors say what to do
        ("model", model, MODEL_FIX),
        ("disk", check_disk, "correct DATA_DIR and WORKSPACE_ROOT"),
        ("port", check_port, "set PORT to a free one"),
    ]
    for name, check, fix in checks:
        try:
            finding = await check(settings)
        except AppError as error:
            finding = Finding(name, Status.FAIL, error.detail, fix)
        except OSError as error:
            finding = Finding(name, Status.FAIL, f"{error.filename}: {error.strerror}", fix)
        tell(finding)


def check_python() -> Finding:
    version = platform.python_version()
    if sys.version_info >= _PYTHON:
        return Finding("python", Status.OK, version)
    return Finding("python", Status.FAIL, f"{version} is too old", "install Python 3.12 or later")


async def check_database(settings: Settings) -> Finding:
    if settings.database_url is not None:
        return await check_revision(settings.database_url.get_secret_value(), "DATABASE_URL")
    running = await asyncio.to_thread(find_running_embedded_postgres, settings.data_dir)
    if running is not None:
        return await check_revision(running, "the embedded Postgres of a running server")
    _try_writing(settings.data_dir)
    began = time.monotonic()
    with _public_folder() as folder:
        async with open_embedded_postgres(folder):
            seconds = time.monotonic() - began
    detail = f"an embedded Postgres starts here in {seconds:.1f} s, and {settings.data_dir.resolve()} can be written"
    return Finding("database", Status.OK, detail)


async def check_sandbox(settings: Settings) -> Finding:
    """Run a command in a sandbox made for it."""
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(_SANDBOX_SECONDS),
            open_sandbox_kind(settings, installation="doctor") as kind,
        ):
            seconds = time.monotonic() - began
    except TimeoutError:
        detail = f"no sandbox ran `true` within {_SANDBOX_SECONDS:.0f} s"
        return Finding("sandbox", Status.FAIL, detail, "see whether `docker info` answers; restart the engine")
    detail = f"{_described(settings, kind)}: ran `true` in {seconds:.1f} s"
    if not kind.shortcomings:
        return Finding("sandbox", Status.OK, detail)
    lacks = "; ".join(f"{lack.name}: {lack.detail}" for lack in kind.shortcomings)
    fix = SHORTCOMINGS_FIX if kind.provider.isolation_note is None else WEAK_FIX
    return Finding("sandbox", Status.WARN, f"{detail}; {lacks}", fix)


def _described(settings: Settings, kind: SandboxKind) -> str:
    if settings.sandbox_broker is not None:
        return f"{kind.provider.name}, by the broker at {settings.sandbox_broker}"
    runtime = f", runtime {settings.sandbox_runtime or 'default'}" if kind.provider.name == "docker" else ""
    return f"{kind.provider.name}{runtime}, storage {kind.storage}"


async def check_port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        with bind(settings.host, settings.port):
            return Finding("port", Status.OK, f"{where} is free")
    except AppError:
        if await asyncio.to_thread(_is_moorage, settings):
            return Finding("port", Status.OK, f"{where}: a Moorage server answers there already")
        raise


def _is_moorage(settings: Settings) -> bool:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        with ApiClient(f"http://{host}:{settings.port}") as client:
            return client.info().get("name") == "moorage"
    except (ApiProblem, Unreachable, httpx.InvalidURL):
        return False


@contextmanager
def _public_folder() -> Generator[Path]:
    """A temporary folder that others may enter: started by root, Postgres runs as another user."""
    with tempfile.TemporaryDirectory(prefix="moorage-doctor-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


def _try_writing(folder: Path) -> None:
    """Raise OSError when no file can be made in `folder`, or in what would become its parent."""
    with tempfile.TemporaryFile(dir=existing(folder)):
        return

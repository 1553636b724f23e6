"""What `moorage doctor` looks at. Each check tries the real thing, and says what to do when it does not work."""

import asyncio
import platform
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import httpx

from moorage.adapters.embedded_postgres import find_running_embedded_postgres, open_embedded_postgres
from moorage.adapters.postgres.migrate import current_revision, head_revision
from moorage.agent.failures import problem_of
from moorage.agent.models import SCRIPTED, build_model
from moorage.cli.api_client import ApiClient, ApiProblem, Unreachable
from moorage.errors import AppError
from moorage.runtime import SandboxKind, default_model, model_config, open_sandbox_kind
from moorage.settings import Settings
from moorage_api.server import bind

_PYTHON = (3, 12)
_LOW_DISK_BYTES = 1024**3
_SANDBOX_SECONDS = 60.0
_MODEL_SECONDS = 60.0
_DATABASE_FIX = "see that Postgres runs and that DATABASE_URL names it, with its user and password"
_WEAK_FIX = "install Docker and build the image with scripts/sandbox-image, then set SANDBOX=docker"
_SHORTCOMINGS_FIX = "repair what is named, or accept it; with SANDBOX_STRICT=1 the server would not start"
_MODEL_FIX = "correct LLM_MODEL, LLM_API_KEY and LLM_BASE_URL"
_GROUP_AND_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; `fix` is what to do about it."""

    name: str
    status: Status
    detail: str
    fix: str | None = None


type Check = Callable[[Settings], Awaitable[Finding]]


async def run_checks(settings: Settings, *, call_model: bool, tell: Callable[[Finding], None]) -> None:
    """All checks that need settings, in the order in which a start would meet them."""

    async def model(settings: Settings) -> Finding:
        return await check_model(settings, call=call_model)

    checks: list[tuple[str, Check, str | None]] = [
        ("secrets", check_secrets, "run this as the user who runs the server"),
        ("database", check_database, _DATABASE_FIX if settings.database_url else "see DATA_DIR, or set DATABASE_URL"),
        ("sandbox", check_sandbox, None),  # its errors say what to do
        ("model", model, _MODEL_FIX),
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


async def check_secrets(settings: Settings) -> Finding:
    """Whether there is a signing key, and whether others on this machine can read what is secret."""
    key_file = settings.data_dir / "secret_key"
    for path in (key_file, Path(".env")):
        if path.exists() and path.stat().st_mode & _GROUP_AND_OTHERS:
            status = Status.FAIL if path == key_file else Status.WARN
            return Finding("secrets", status, f"{path} can be read by other users", f"chmod 600 {path}")
    if settings.secret_key is not None:
        return Finding("secrets", Status.OK, "SECRET_KEY is set")
    if key_file.exists():
        return Finding("secrets", Status.OK, f"{key_file} holds a generated key, for this user only")
    return Finding("secrets", Status.OK, f"no SECRET_KEY: the first start generates {key_file}")


async def check_database(settings: Settings) -> Finding:
    if settings.database_url is not None:
        return await _check_revision(settings.database_url.get_secret_value(), "DATABASE_URL")
    running = await asyncio.to_thread(find_running_embedded_postgres, settings.data_dir)
    if running is not None:
        return await _check_revision(running, "the embedded Postgres of a running server")
    _try_writing(settings.data_dir)
    began = time.monotonic()
    with _public_folder() as folder:
        async with open_embedded_postgres(folder):
            seconds = time.monotonic() - began
    detail = f"an embedded Postgres starts here in {seconds:.1f} s, and {settings.data_dir.resolve()} can be written"
    return Finding("database", Status.OK, detail)


async def _check_revision(url: str, where: str) -> Finding:
    found, wanted = await asyncio.to_thread(current_revision, url), head_revision()
    if found == wanted:
        return Finding("database", Status.OK, f"{where} answers, at revision {found}")
    detail = f"{where} answers, but is at revision {found or 'none'} instead of {wanted}"
    return Finding("database", Status.FAIL, detail, "run `moorage migrate`, with this version of the program")


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
    fix = _SHORTCOMINGS_FIX if kind.provider.isolation_note is None else _WEAK_FIX
    return Finding("sandbox", Status.WARN, f"{detail}; {lacks}", fix)


def _described(settings: Settings, kind: SandboxKind) -> str:
    if settings.sandbox_broker is not None:
        return f"{kind.provider.name}, by the broker at {settings.sandbox_broker}"
    runtime = f", runtime {settings.sandbox_runtime or 'default'}" if kind.provider.name == "docker" else ""
    return f"{kind.provider.name}{runtime}, storage {kind.storage}"


async def check_model(settings: Settings, *, call: bool) -> Finding:
    """Build the model and, if asked to, have it answer one word."""
    name = default_model(settings)
    if name.partition(":")[0] == SCRIPTED:
        detail = f"{name}: it plays a script and thinks nothing"
        return Finding("model", Status.OK, detail, "for a real one set LLM_MODEL=provider:name and LLM_API_KEY")
    model = build_model(name, model_config(settings, scripted_base_url=None))
    if not call:
        return Finding("model", Status.OK, f"{name}: configured, not called (--model-call asks it for one word)")
    began = time.monotonic()
    asked = asyncio.ensure_future(model.ainvoke("Answer with the word: ready"))
    await asyncio.wait([asked], timeout=_MODEL_SECONDS)
    if not asked.done():
        asked.cancel()
        return Finding("model", Status.FAIL, f"{name} does not answer within {_MODEL_SECONDS:.0f} s", _MODEL_FIX)
    error = asked.exception()  # of whichever provider's making
    if error is not None:
        problem = problem_of(error)
        detail = str(problem["detail"]) if problem else type(error).__name__
        return Finding("model", Status.FAIL, f"{name}: {detail}", _MODEL_FIX)
    return Finding("model", Status.OK, f"{name} answers, in {time.monotonic() - began:.1f} s")


async def check_disk(settings: Settings) -> Finding:
    free = {path: _free_bytes(path) for path in (settings.data_dir, settings.workspace_root)}
    shown = ", ".join(f"{path} {size / 1024**3:.1f} GiB free" for path, size in free.items())
    if min(free.values()) >= _LOW_DISK_BYTES:
        return Finding("disk", Status.OK, shown)
    return Finding("disk", Status.WARN, shown, "free some space, or set DATA_DIR and WORKSPACE_ROOT to another disk")


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
    with tempfile.TemporaryFile(dir=_existing(folder)):
        return


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(_existing(path)).free


def _existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)

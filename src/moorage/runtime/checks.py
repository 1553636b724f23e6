"""What can be checked beside a running server as well as in it; `moorage doctor` has more."""

import asyncio
import shutil
import stat
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from moorage.adapters.postgres.migrate import current_revision, head_revision
from moorage.agent.failures import problem_of
from moorage.agent.models import SCRIPTED, build_model
from moorage.runtime.models import default_model, model_config
from moorage.settings import Settings

_LOW_DISK_BYTES = 1024**3
_MODEL_SECONDS = 60.0
WEAK_FIX = "install Docker and build the image with scripts/sandbox-image, then set SANDBOX=docker"
SHORTCOMINGS_FIX = "repair what is named, or accept it; with SANDBOX_STRICT=1 the server would not start"
MODEL_FIX = "correct LLM_MODEL, LLM_API_KEY and LLM_BASE_URL"
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


async def check_revision(url: str, where: str) -> Finding:
    """Whether the database is as this version of the program needs it."""
    found, wanted = await asyncio.to_thread(current_revision, url), head_revision()
    if found == wanted:
        return Finding("database", Status.OK, f"{where} answers, at revision {found}")
    detail = f"{where} answers, but is at revision {found or 'none'} instead of {wanted}"
    return Finding("database", Status.FAIL, detail, "run `moorage migrate`, with this version of the program")


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
        return Finding("model", Status.FAIL, f"{name} does not answer within {_MODEL_SECONDS:.0f} s", MODEL_FIX)
    error = asked.exception()  # of whichever provider's making
    if error is not None:
        problem = problem_of(error)
        detail = str(problem["detail"]) if problem else type(error).__name__
        return Finding("model", Status.FAIL, f"{name}: {detail}", MODEL_FIX)
    return Finding("model", Status.OK, f"{name} answers, in {time.monotonic() - began:.1f} s")


async def check_disk(settings: Settings) -> Finding:
    """How much room is left where the server writes."""
    free = {path: _free_bytes(path) for path in (settings.data_dir, settings.workspace_root)}
    shown = ", ".join(f"{path} {size / 1024**3:.1f} GiB free" for path, size in free.items())
    if min(free.values()) >= _LOW_DISK_BYTES:
        return Finding("disk", Status.OK, shown)
    return Finding("disk", Status.WARN, shown, "free some space, or set DATA_DIR and WORKSPACE_ROOT to another disk")


def _free_bytes(path: Path) -> int:
    return shutil.disk_usage(existing(path)).free


def existing(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    path = path.resolve()
    return path if path.exists() else existing(path.parent)

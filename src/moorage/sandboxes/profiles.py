"""What a sandbox may use: profiles that the operator defines and an assistant names."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from moorage.errors import InvalidInput
from moorage.settings import Settings

DEFAULT_PROFILE = "default"

_NAME = re.compile(r"[a-z0-9-]{1,32}")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_TARGET = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}:([0-9]{{1,5}})")
_MOST_MIB = 1024 * 1024 * 16
_TMP_MB = 256
_SETTINGS = {"image": "DOCKER_IMAGE", "max_files": "SANDBOX_FILES", "profile": "SANDBOX_NETWORK"}


@dataclass(frozen=True, slots=True)
class SandboxProfile:
    """The bounds of one kind of sandbox.

    `disk_mb` and `max_files` bound the whole workspace, `file_mb` one file. `network`: "none", or "allowlist" for the
    `allow`ed `host:port`s only; a host may begin with `*.` for all names below it.
    """

    name: str = DEFAULT_PROFILE
    image: str = "moorage-sandbox:dev"
    cpus: float = 1.0
    memory_mb: int = 1024
    pids: int = 256
    disk_mb: int = 1024
    max_files: int = 100_000
    file_mb: int = 1024
    tmp_mb: int = _TMP_MB
    network: Literal["none", "allowlist"] = "none"
    allow: tuple[str, ...] = ()


def load_profiles(settings: Settings) -> dict[str, SandboxProfile]:
    """The profiles by name: `default` from SANDBOX_* and DOCKER_IMAGE, the others from the file SANDBOX_PROFILES.

    That is TOML, with a table `[profiles.<name>]` each; what one leaves out is as in `default`. Raises InvalidInput,
    saying where, for anything that cannot be meant.
    """
    default = _default(settings)
    profiles = {DEFAULT_PROFILE: _checked(default, DEFAULT_PROFILE, None)}
    if settings.sandbox_profiles is None:
        return profiles
    path = settings.sandbox_profiles
    for name, table in _tables(path).items():
        place = f"SANDBOX_PROFILES: {path}: profile {name!r}"
        if not _NAME.fullmatch(name):
            raise InvalidInput(f"{place}: a name is 1 to 32 of a-z, 0-9 and -", code="settings")
        if name == DEFAULT_PROFILE:
            raise InvalidInput(f"{place}: this one is made of the settings SANDBOX_*, change those", code="settings")
        merged: dict[str, Any] = default | table
        if table.get("allow") and merged["network"] == "none":
            raise InvalidInput(f'{place}: allow means nothing without network = "allowlist"', code="settings")
        profiles[name] = _checked(merged, name, place)
    return profiles


def _default(settings: Settings) -> dict[str, Any]:
    return {
        "image": settings.docker_image,
        "cpus": settings.sandbox_cpus,
        "memory_mb": settings.sandbox_memory_mb,
        "pids": settings.sandbox_pids,
        "disk_mb": settings.sandbox_disk_mb,
        "max_files": settings.sandbox_files,
        "network": settings.sandbox_network,
        "allow": list(settings.sandbox_allow),
    }


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInput(f"SANDBOX_PROFILES: cannot read {path}: {error.strerror}", code="settings") from None
    except ValueError as error:  # of TOML, and of UTF-8
        raise InvalidInput(f"SANDBOX_PROFILES: {path} is not TOML: {error}", code="settings") from None
    try:
        return _File.model_validate(document).profiles
    except ValidationError:
        raise InvalidInput(
            f"SANDBOX_PROFILES: {path} may hold tables [profiles.<name>] only", code="settings"
        ) from None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    profiles: dict[str, dict[str, Any]] = {}


class _Table(BaseModel):
    """The fields of a profile as they may be written."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    image: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$")]
    cpus: Annotated[float, Field(ge=0.01, le=1024)]
    memory_mb: Annotated[int, Field(ge=64, le=_MOST_MIB)]
    pids: Annotated[int, Field(ge=16, le=1_000_000)]
    disk_mb: Annotated[int, Field(ge=16, le=_MOST_MIB)]
    max_files: Annotated[int, Field(ge=100, le=100_000_000)]
    file_mb: Annotated[int, Field(ge=1, le=_MOST_MIB)] | None = None
    tmp_mb: Annotated[int, Field(ge=1, le=_MOST_MIB)] = _TMP_MB
    network: Literal["none", "allowlist"]
    allow: list[str]

    @field_validator("allow")
    @classmethod
    def _targets(cls, value: list[str]) -> list[str]:
        targets = [target.lower() for target in value]
        for target in targets:
            found = _TARGET.fullmatch(target)
            if found is None or not 0 < int(found[1]) < 65536:
                raise ValueError(f"must be host:port, or *.host:port for all names below, not {target!r}")
        return targets

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.network == "allowlist" and not self.allow:
            raise ValueError("network = allowlist needs at least one host:port in allow")
        return self


def _checked(table: dict[str, Any], name: str, place: str | None) -> SandboxProfile:
    """`place`: where the file says so; None: the settings do."""
    try:
        read = _Table.model_validate(table)
    except ValidationError as error:
        faults = "; ".join(
            _fault(item["loc"], item["type"], item["msg"], of_file=place is not None)
            for item in error.errors(include_input=False, include_url=False)
        )
        raise InvalidInput(f"{place}: {faults}" if place else faults, code="settings") from None
    return SandboxProfile(
        name=name,
        image=read.image,
        cpus=read.cpus,
        memory_mb=read.memory_mb,
        pids=read.pids,
        disk_mb=read.disk_mb,
        max_files=read.max_files,
        file_mb=min(read.file_mb or read.disk_mb, read.disk_mb),
        tmp_mb=read.tmp_mb,
        network=read.network,
        allow=tuple(read.allow) if read.network == "allowlist" else (),
    )


def _fault(loc: tuple[int | str, ...], kind: str, said: str, *, of_file: bool) -> str:
    key = str(loc[0]) if loc else "profile"
    if kind == "extra_forbidden":
        return f"{key}: there is no such key; there are {', '.join(_Table.model_fields)}"
    return f"{key if of_file else _SETTINGS.get(key, f'SANDBOX_{key.upper()}')}: {said.removeprefix('Value error, ')}"

"""Every setting of the server, read once from the environment and `.env`, checked before anything starts."""

import os
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from moorage.errors import InvalidInput
from moorage.webhooks import AllowList

_PREFIXES = (
    "APPROVALS_",
    "AUTH_",
    "LLM_",
    "QUOTA_",
    "RUN_",
    "SANDBOX_",
    "SESSION_",
    "SNAPSHOT_",
    "STORE_",
    "WEBHOOK_",
    "ZHIPUAI_",
)
_FOREIGN_PREFIXES = ("POSTGRES_", "COMPOSE_")
_FROM_FILES = ("SECRET_KEY", "DATABASE_URL", "DATABASE_ADMIN_URL", "LLM_API_KEY", "WEBHOOK_SECRET", "ZHIPUAI_API_KEY")
_SAMPLE_KEYS = ("change", "example", "secret-key", "secret_key", "your-", "your_", "password", "sample", "insecure")
_MIN_KEY_BYTES = 32
_MIN_KEY_SYMBOLS = 10


class SettingsError(InvalidInput):
    """The server must not start with these settings; `detail` says which and what to do."""

    code = "settings"


class Settings(BaseModel):
    """The settings, by their environment names in lower case. Times are in the unit that the name says."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    data_dir: Path = Path("data")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    cors_origins: tuple[str, ...] = ()

    database_url: SecretStr | None = None
    database_admin_url: SecretStr | None = None

    secret_key: SecretStr | None = None
    access_token_expire_hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24
    auth_registration: Literal["open", "closed"] | None = None

    workspace_root: Path = Path("workspaces")
    shared_dir: Path = Path("shared_files")

    llm_model: str | None = None
    llm_allowed_models: tuple[str, ...] = ()
    llm_api_key: SecretStr | None = None
    llm_base_url: str | None = None
    llm_context_tokens: Annotated[int, Field(ge=1000)] = 80_000
    llm_timeout_seconds: Annotated[float, Field(gt=0)] = 120
    llm_max_retries: Annotated[int, Field(ge=0, le=10)] = 3
    zhipuai_api_key: SecretStr | None = None
    zhipuai_api_base: str = "https://open.bigmodel.cn/api/paas/v4/"

    approvals_allow_auto: bool = False

    run_max_steps: Annotated[int, Field(ge=1, le=1000)] = 100
    run_timeout_seconds: Annotated[float, Field(gt=0)] = 3600
    run_token_budget: Annotated[int, Field(ge=0)] = 0
    run_concurrency: Annotated[int, Field(ge=1, le=10_000)] = 1000
    run_concurrency_per_user: Annotated[int, Field(ge=0)] = 0
    run_concurrency_total: Annotated[int, Field(ge=0)] = 0
    run_queue_per_thread: Annotated[int, Field(ge=0)] = 10
    run_approval_ttl_hours: Annotated[float, Field(gt=0)] = 168
    run_lease_seconds: Annotated[float, Field(ge=2, le=600)] = 30
    run_max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    run_event_retention_days: Annotated[float, Field(ge=0)] = 30
    run_crons_per_user: Annotated[int, Field(ge=0)] = 100

    quota_active_sessions: Annotated[int, Field(ge=0)] = 10
    quota_open_streams: Annotated[int, Field(ge=0)] = 500
    session_life_hours: Annotated[float, Field(ge=0)] = 24
    store_max_items: Annotated[int, Field(ge=0)] = 100_000

    snapshot_each_run: bool = False
    snapshot_user_mb: Annotated[int, Field(ge=0)] = 10_240

    webhook_secret: SecretStr | None = None
    webhook_allow: tuple[str, ...] = ()

    sandbox: Literal["auto", "docker", "bubblewrap"] = "auto"
    docker_image: str = "moorage-sandbox:dev"
    container_workspace_dir: str = "/workspace"
    container_shared_dir: str = "/shared"
    sandbox_host_workspace_root: str | None = None
    sandbox_host_shared_dir: str | None = None
    sandbox_runtime: str | None = None
    sandbox_allow_weak: bool = False
    sandbox_strict: bool = False
    sandbox_broker: Path | None = None
    sandbox_broker_uids: tuple[Annotated[int, Field(ge=0, lt=2**32 - 1)], ...] = ()
    sandbox_profiles: Path | None = None
    sandbox_storage: Literal["auto", "loop", "quota", "watch"] = "auto"
    sandbox_uid_range: str = "200000-265535"
    sandbox_warm: Annotated[int, Field(ge=0, le=100)] = 0
    sandbox_max_running: Annotated[int, Field(ge=0)] = 0
    sandbox_max_running_per_user: Annotated[int, Field(ge=0)] = 0
    sandbox_wait_seconds: Annotated[float, Field(ge=0, le=600)] = 60
    sandbox_network: Literal["none", "allowlist"] = "none"
    sandbox_allow: tuple[str, ...] = ()
    sandbox_packages_dir: Path | None = None
    sandbox_disk_mb: Annotated[int, Field(ge=16)] = 1024
    sandbox_files: Annotated[int, Field(ge=100)] = 100_000
    sandbox_shared_disk_mb: Annotated[int, Field(ge=16)] = 1024
    sandbox_cpus: Annotated[float, Field(gt=0)] = 1.0
    sandbox_memory_mb: Annotated[int, Field(ge=64)] = 1024
    sandbox_pids: Annotated[int, Field(ge=16)] = 256
    sandbox_command_seconds: Annotated[int, Field(ge=1, le=600)] = 60
    sandbox_idle_minutes: Annotated[float, Field(gt=0)] = 15

    @field_validator(
        "cors_origins", "llm_allowed_models", "webhook_allow", "sandbox_allow", "sandbox_broker_uids", mode="before"
    )
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _exact_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin in ("*", "null") or "://" not in origin or origin.count("/") != 2:
                raise ValueError(f"must be exact origins such as https://app.example.org, not {origin!r}")
        return value

    @field_validator("llm_allowed_models")
    @classmethod
    def _named_models(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for model in value:
            provider, _, name = model.partition(":")
            if not provider or not name or "*" in provider:
                raise ValueError(f"must be provider:name or provider:*, not {model!r}")
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _hosts_and_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        AllowList.of(value)
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < _MIN_KEY_BYTES:
            raise ValueError(f"must be at least {_MIN_KEY_BYTES} bytes long")
        return value

    @field_validator("container_workspace_dir", "container_shared_dir")
    @classmethod
    def _absolute(cls, value: str) -> str:
        path = value.rstrip("/")
        if not path.startswith("/"):
            raise ValueError("must be an absolute path below /")
        return path

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def registration_open(self) -> bool:
        return self.auth_registration == "open" if self.auth_registration else self.is_loopback

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.is_loopback and self.auth_registration is None:
            raise ValueError(
                f"HOST={self.host} can be reached from outside, so say who may register: set AUTH_REGISTRATION=closed "
                "(accounts are made with `moorage user create`) or AUTH_REGISTRATION=open"
            )
        if not self.is_loopback and self.secret_key is None:
            raise ValueError(
                f"HOST={self.host} can be reached from outside, so a signing key is needed: set SECRET_KEY to the "
                'output of `python -c "import secrets; print(secrets.token_urlsafe(48))"`'
            )
        if self.secret_key is not None:
            _refuse_weak_key(self.secret_key.get_secret_value())
        if self.sandbox == "bubblewrap" and not self.is_loopback and not self.sandbox_allow_weak:
            raise ValueError(
                "SANDBOX=bubblewrap is for demos and single-user machines: use SANDBOX=docker, or set "
                "SANDBOX_ALLOW_WEAK=1 if every user of this server may be trusted with the machine"
            )
        _refuse_contradictions(self)
        return self


def load_settings(
    environment: Mapping[str, str] | None = None,
    *,
    env_file: Path | None = Path(".env"),
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """The settings from `env_file`, stronger from `environment` (default: the process's), strongest from `overrides`.

    Raises SettingsError for an unknown key, a bad value or an impossible combination; secrets are never shown.
    """
    process = dict(os.environ if environment is None else environment)
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in _FROM_FILES}
    from_file = {key.upper(): value or "" for key, value in dotenv_values(env_file).items()} if env_file else {}
    unknown = [key for key in from_file if key not in known and not key.startswith(_FOREIGN_PREFIXES)]
    unknown += [key for key in process if key.startswith(_PREFIXES) and key not in known]
    if unknown:
        raise SettingsError(f"unknown settings: {', '.join(sorted(unknown))}. The known ones are in .env.example")
    merged = {**from_file, **{key: value for key, value in process.items() if key in known}}
    values = {key.lower(): value for key, value in _read_files(merged).items() if value != "" and key in known}
    try:
        return Settings.model_validate({**values, **(overrides or {})})
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


def _read_files(values: dict[str, str]) -> dict[str, str]:
    for name in _FROM_FILES:
        path = values.pop(f"{name}_FILE", "")
        if not path:
            continue
        if values.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set: keep one")
        try:
            values[name] = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE: cannot read {path}: {type(error).__name__}") from None
        if not values[name]:
            raise SettingsError(f"{name}_FILE: {path} is empty")
    return values


def _explain(error: ValidationError) -> str:
    lines: list[str] = []
    for item in error.errors(include_input=False, include_url=False):
        name = str(item["loc"][0]).upper() if item["loc"] else ""
        text = item["msg"].removeprefix("Value error, ")
        lines.append(f"{name}: {text}" if name else text)
    return "; ".join(lines)


def _refuse_contradictions(settings: Settings) -> None:
    """What is asked of sandboxes that the kind of sandbox chosen cannot do, or would silently not do."""
    if settings.sandbox == "bubblewrap":
        of_engines = {
            "SANDBOX_BROKER": settings.sandbox_broker,
            "SANDBOX_RUNTIME": settings.sandbox_runtime,
            "SANDBOX_WARM": settings.sandbox_warm,
            "SANDBOX_MAX_RUNNING": settings.sandbox_max_running,
            "SANDBOX_MAX_RUNNING_PER_USER": settings.sandbox_max_running_per_user,
            "SANDBOX_PACKAGES_DIR": settings.sandbox_packages_dir,
        }
        for name, value in of_engines.items():
            if value:
                raise ValueError(f"{name} is for containers, and SANDBOX=bubblewrap has none: take out one of them")
    if settings.sandbox_network == "none" and settings.sandbox_allow:
        raise ValueError("SANDBOX_ALLOW means nothing without SANDBOX_NETWORK=allowlist: set it, or take both out")
    if settings.sandbox_network == "allowlist" and not settings.sandbox_allow:
        raise ValueError("SANDBOX_NETWORK=allowlist needs SANDBOX_ALLOW: at least one host:port")
    if settings.sandbox_broker_uids and settings.sandbox_broker is None:
        raise ValueError("SANDBOX_BROKER_UIDS means nothing without SANDBOX_BROKER: set it, or take both out")


def _refuse_weak_key(key: str) -> None:
    lowered = key.lower()
    if len(key.encode()) < _MIN_KEY_BYTES:
        raise ValueError(f"SECRET_KEY must be at least {_MIN_KEY_BYTES} bytes long")
    if len(set(key)) < _MIN_KEY_SYMBOLS or any(word in lowered for word in _SAMPLE_KEYS):
        raise ValueError(
            "SECRET_KEY looks like a sample or is too regular: set it to the output of "
            '`python -c "import secrets; print(secrets.token_urlsafe(48))"`'
        )

"""Opens everything a process needs, in order, and closes it in reverse. The only place that picks adapters."""

from moorage.runtime.assembly import open_runtime
from moorage.runtime.database import open_identity, open_postgres
from moorage.runtime.intake import ServerStopping, WorkerState
from moorage.runtime.models import default_model, model_config
from moorage.runtime.providers import SandboxKind, open_sandbox_kind, open_sandbox_provider
from moorage.runtime.runtime import Runtime

__all__ = [
    "Runtime",
    "SandboxKind",
    "ServerStopping",
    "WorkerState",
    "default_model",
    "model_config",
    "open_identity",
    "open_postgres",
    "open_runtime",
    "open_sandbox_kind",
    "open_sandbox_provider",
]

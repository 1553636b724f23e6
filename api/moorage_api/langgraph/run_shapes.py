"""How runs look to clients of the LangGraph wire."""

from typing import Any, Literal

from pydantic import BaseModel

from moorage.assistants import wire_assistant_id
from moorage.claims import StopReason
from moorage.runs.run import Run, RunStatus
from moorage.threads import Thread

type WireStatus = Literal["pending", "running", "error", "success", "timeout", "interrupted"]
type RunField = Literal[
    "run_id", "thread_id", "assistant_id", "created_at", "updated_at", "status", "metadata", "kwargs",
    "multitask_strategy", "cancel_reason", "langsmith_session_name",
]  # fmt: skip


_WIRE_STATUS: dict[RunStatus, WireStatus] = {
    RunStatus.QUEUED: "pending",
    RunStatus.RUNNING: "running",
    RunStatus.INTERRUPTED: "interrupted",
    RunStatus.SUCCESS: "success",
    RunStatus.ERROR: "error",
    RunStatus.TIMEOUT: "timeout",
    RunStatus.CANCELLED: "interrupted",
}
STORED_STATUS: dict[WireStatus, tuple[RunStatus, ...]] = {
    "pending": (RunStatus.QUEUED,),
    "running": (RunStatus.RUNNING,),
    "error": (RunStatus.ERROR,),
    "success": (RunStatus.SUCCESS,),
    "timeout": (RunStatus.TIMEOUT,),
    "interrupted": (RunStatus.INTERRUPTED, RunStatus.CANCELLED),
}


class WireRun(BaseModel):
    """A run as LangGraph's clients know it; of a selection only what was selected."""

    run_id: str | None = None
    thread_id: str | None = None
    assistant_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    status: WireStatus | None = None
    metadata: dict[str, Any] | None = None
    kwargs: dict[str, Any] | None = None
    multitask_strategy: str | None = None
    cancel_reason: str | None = None
    langsmith_session_name: None = None


def shown_run(run: Run, thread: Thread, select: list[RunField] | None = None) -> dict[str, Any]:
    """A run as the wire shows it; `select` names the fields to show."""
    shown: dict[RunField, Any] = {
        "run_id": run.run_id,
        "thread_id": thread.wire_id,
        "assistant_id": wire_assistant_id(run.assistant_id),
        "created_at": run.created_at.isoformat(),
        "updated_at": run.updated_at.isoformat(),
        "status": _WIRE_STATUS[run.status],
        "metadata": run.metadata,
        "kwargs": run.kwargs,
        "multitask_strategy": run.multitask_strategy,
        "langsmith_session_name": None,
    }
    if run.status is RunStatus.CANCELLED:
        shown["cancel_reason"] = run.cancel_reason or StopReason.CANCELLED.value
    return {key: value for key, value in shown.items() if select is None or key in select}

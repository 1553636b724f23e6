"""Copying a session."""

from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from moorage.idempotency import request_key
from moorage.threads import TITLE_LIMIT
from moorage_api.approvals import IdempotencyKey, asked
from moorage_api.deps import RuntimeDep, ThreadDep
from moorage_api.downloads import WRITTEN

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


class NewCopy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[str | None, Field(max_length=TITLE_LIMIT)] = None
    checkpoint_id: Annotated[str | None, Field(min_length=1, max_length=100)] = None


class CopiedSession(BaseModel):
    """`files`: those the original has now (`current`), those of a snapshot of it, or none."""

    thread_id: str
    files: Literal["current", "snapshot", "none"]


@router.post("/{thread_id}/copy", status_code=201, responses=WRITTEN)
async def copy_session(
    runtime: RuntimeDep, thread: ThreadDep, body: NewCopy | None = None, idempotency_key: IdempotencyKey = None
) -> CopiedSession:
    """A new session with this one's history, state and files. What waits for approval here is not asked there.

    With `checkpoint_id`, with those it had at that checkpoint: the files of the newest snapshot at it or before it, and
    none without any. 404 `unknown_checkpoint`, 409 `thread_busy` while something runs, 429 when the quota of active
    sessions is used up.
    """
    wanted = body or NewCopy()
    request = request_key(idempotency_key, "copy", thread.thread_id, asked(wanted))
    copy = await runtime.copies.copy(thread, title=wanted.title, checkpoint_id=wanted.checkpoint_id, request=request)
    return CopiedSession(thread_id=copy.thread_id, files=copy.files.value)

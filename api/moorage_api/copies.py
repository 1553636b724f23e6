"""Copying a session."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from moorage.idempotency import request_key
from moorage.threads import TITLE_LIMIT
from moorage_api.approvals import IdempotencyKey, asked
from moorage_api.deps import RuntimeDep, ThreadDep

router = APIRouter(prefix="/api/sessions", tags=["sessions"])


class NewCopy(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Annotated[str | None, Field(max_length=TITLE_LIMIT)] = None


class CopiedSession(BaseModel):
    thread_id: str


@router.post("/{thread_id}/copy", status_code=201)
async def copy_session(
    runtime: RuntimeDep, thread: ThreadDep, body: NewCopy | None = None, idempotency_key: IdempotencyKey = None
) -> CopiedSession:
    """A new session with this one's history, state and files. What waits for approval here is not asked there.

    409 `thread_busy` while something runs, 429 when the quota of active sessions is used up.
    """
    wanted = body or NewCopy()
    request = request_key(idempotency_key, "copy", thread.thread_id, asked(wanted))
    return CopiedSession(thread_id=await runtime.copies.copy(thread, title=wanted.title, request=request))

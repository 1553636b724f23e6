"""Approvals: what waits for a human, and the human's answers, one by one or together."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from moorage.approvals import Answer, Decision, DecisionType, InterruptStatus
from moorage.idempotency import request_key
from moorage.rules import DEFAULT_LIFETIME, LONGEST_LIFETIME, Match, Remember
from moorage_api.approval_shapes import Approval, shown_approval
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Integer
from moorage_api.prepared import Prepared

router = APIRouter(prefix="/api/approvals", tags=["approvals"])

type InterruptId = Annotated[str, Path(max_length=1000)]
type IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
"""Repeating a request with its key gives the same answer and has no second effect; with another body it is a 422."""


class EditedAction(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(max_length=200)]
    args: dict[str, Any]


class RememberBody(BaseModel):
    """Answer calls like this one in the same way from now on, within this session, without asking.

    `same`: the same command, or the same arguments. `prefix`: commands that begin with these words of the one that
    asked. `path`: changes by the same tool to this file, or below this folder.
    """

    model_config = ConfigDict(extra="forbid")
    match: Literal["same", "prefix", "path"]
    prefix: Annotated[str | None, Field(min_length=1, max_length=10_000)] = None
    path: Annotated[str | None, Field(min_length=1, max_length=4096)] = None
    expires_in_seconds: Annotated[Integer, Field(ge=1, le=int(LONGEST_LIFETIME.total_seconds()))] = int(
        DEFAULT_LIFETIME.total_seconds()
    )

    def remember(self) -> Remember:
        return Remember(Match(self.match), self.prefix, self.path, timedelta(seconds=self.expires_in_seconds))


class DecisionBody(BaseModel):
    """One decision. `edit` needs `edited_action`, `respond` needs `message`, `reject` may have one.

    `approve` and `reject` may say what to `remember`. With the `digest` that was shown, a decision holds for nothing
    else than what was seen.
    """

    model_config = ConfigDict(extra="forbid")
    type: Literal["approve", "edit", "reject", "respond"]
    edited_action: EditedAction | None = None
    message: Annotated[str | None, Field(max_length=10_000)] = None
    digest: Annotated[str | None, Field(max_length=64)] = None
    remember: RememberBody | None = None

    def decision(self) -> Decision:
        edited = self.edited_action
        return Decision(
            DecisionType(self.type),
            edited_args=edited.args if edited else None,
            edited_name=edited.name if edited else None,
            message=self.message,
            digest=self.digest,
            remember=self.remember.remember() if self.remember else None,
        )


class ApprovalList(BaseModel):
    items: list[Approval]
    next_cursor: str | None


class Decided(BaseModel):
    success: Literal[True] = True
    run_id: str
    approval: Approval


@router.get("", response_model=ApprovalList)
async def list_approvals(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    status: InterruptStatus | None = None,
    thread_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Prepared:
    """One's own approvals over all sessions, latest first."""
    if thread_id is not None:
        await runtime.threads.get(principal, thread_id)
    page = await runtime.approvals.search(
        principal.user_id, status=status, thread_id=thread_id, limit=limit, cursor=cursor
    )
    return Prepared({"items": [shown_approval(item) for item in page.items], "next_cursor": page.next_cursor})


@router.get("/{interrupt_id}", response_model=Approval)
async def get_approval(runtime: RuntimeDep, principal: PrincipalDep, interrupt_id: InterruptId) -> Prepared:
    return Prepared(shown_approval(await runtime.approvals.get(principal.user_id, interrupt_id)))


@router.post("/{interrupt_id}/decision", response_model=Decided)
async def decide(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    interrupt_id: InterruptId,
    body: DecisionBody,
    idempotency_key: IdempotencyKey = None,
) -> Prepared:
    """Answer one approval. 409 when it is decided or expired already, 422 when the answer does not fit it.

    409 `file_changed`: the file is not what was shown any more; the approval now shows, and is bound to, the new one.
    """
    interrupt = await runtime.approvals.get(principal.user_id, interrupt_id)
    answer = Answer(body.decision(), interrupt_id=interrupt_id)
    request = request_key(idempotency_key, "decision", interrupt_id, asked(body))
    decided = await runtime.approvals.answer(
        principal.user_id, interrupt.thread_id, [answer], via="api", request=request
    )
    approval = shown_approval(decided.interrupts[0])
    return Prepared({"success": True, "run_id": decided.run_id, "approval": approval})


def asked(body: BaseModel) -> dict[str, Any]:
    """A body as it was sent: what makes two requests the same."""
    return body.model_dump(mode="json", exclude_unset=True)

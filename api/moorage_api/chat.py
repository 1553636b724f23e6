"""Chat: a message starts a run, and the same connection reads its events; resume answers what the run asked."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sse_starlette.sse import EventSourceResponse

from moorage.approvals import Answer, Decided, Decision, DecisionType
from moorage.idempotency import RequestKey, request_key
from moorage.ids import RunId
from moorage.runs.run import BusyPolicy
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.approvals import DecisionBody, IdempotencyKey, asked
from moorage_api.deps import RecheckDep, RuntimeDep, ThreadDep
from moorage_api.event_shapes import SESSION_EVENTS
from moorage_api.json_types import Integer
from moorage_api.sse import HEARTBEAT_SECONDS, event_stream

router = APIRouter(prefix="/api", tags=["chat"])

MESSAGE_LIMIT = 100_000


class ChatMessage(BaseModel):
    """What the user says.

    A busy session queues it (`enqueue`), refuses it with 409 (`reject`), or stops what runs for it, keeping what that
    did (`interrupt`) or undoing it (`rollback`). One that waits for an approval refuses it with 409, but for
    `reject_and_continue`, which rejects what is pending first.
    """

    model_config = ConfigDict(extra="forbid")
    message: Annotated[str, Field(min_length=1, max_length=MESSAGE_LIMIT)]
    multitask_strategy: BusyPolicy = BusyPolicy.ENQUEUE


class AddressedDecision(DecisionBody):
    """A decision with the approval it is for, by the id of the interrupt or of the tool call."""

    interrupt_id: Annotated[str | None, Field(max_length=100)] = None
    call_id: Annotated[str | None, Field(max_length=200)] = None

    @model_validator(mode="after")
    def _addressed(self) -> Self:
        if self.interrupt_id is None and self.call_id is None:
            raise ValueError("each decision needs interrupt_id or call_id")
        return self


class ResumeBody(BaseModel):
    """Either `action` for all that is pending, or `decisions` call by call."""

    model_config = ConfigDict(extra="forbid")
    action: Literal["continue", "cancel"] | None = None
    up_to_seq: Annotated[Integer | None, Field(ge=0)] = None
    decisions: Annotated[list[AddressedDecision] | None, Field(min_length=1, max_length=100)] = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.action is None) == (self.decisions is None):
            raise ValueError("send either action or decisions")
        if self.up_to_seq is not None and self.action is None:
            raise ValueError("up_to_seq belongs to action")
        return self


class Resumed(BaseModel):
    success: Literal[True] = True
    message: str
    run_id: str


@router.post("/chat/{thread_id}", response_class=EventSourceResponse, responses=SESSION_EVENTS)
async def chat(
    runtime: RuntimeDep,
    thread: ThreadDep,
    recheck: RecheckDep,
    body: ChatMessage,
    idempotency_key: IdempotencyKey = None,
) -> EventSourceResponse:
    """Send a message and read its run's events, until the run ends. Going away does not stop the run."""
    started = await runtime.runs.start(
        thread,
        body.message,
        policy=body.multitask_strategy,
        idempotency_key=idempotency_key,
    )
    return _run_stream(runtime, thread, started.run_id, started.first_seq, recheck)


@router.post("/resume/{thread_id}", response_model=Resumed, responses=SESSION_EVENTS)
async def resume(
    request: Request,
    runtime: RuntimeDep,
    thread: ThreadDep,
    recheck: RecheckDep,
    body: ResumeBody,
    idempotency_key: IdempotencyKey = None,
) -> Resumed | EventSourceResponse:
    """Answer what is pending. With `Accept: text/event-stream` the answer is the continued run's stream."""
    repeated = request_key(idempotency_key, "resume", thread.thread_id, asked(body))
    decided = await _decide(runtime, thread, body, repeated)
    if "text/event-stream" in request.headers.get("accept", ""):
        return _run_stream(runtime, thread, decided.run_id, decided.first_seq, recheck)
    count = len(decided.interrupts)
    return Resumed(message=f"{count} decision{'s' if count != 1 else ''} accepted", run_id=decided.run_id)


async def _decide(runtime: Runtime, thread: Thread, body: ResumeBody, request: RequestKey | None) -> Decided:
    if body.decisions is not None:
        answers = [Answer(item.decision(), item.interrupt_id, item.call_id) for item in body.decisions]
        return await runtime.approvals.answer(thread.owner_id, thread.thread_id, answers, via="resume", request=request)
    kind = DecisionType.APPROVE if body.action == "continue" else DecisionType.REJECT
    return await runtime.approvals.answer_all(
        thread.owner_id, thread.thread_id, Decision(kind), up_to_seq=body.up_to_seq, via="resume", request=request
    )


def _run_stream(
    runtime: Runtime, thread: Thread, run_id: RunId, first_seq: int, recheck: RecheckDep
) -> EventSourceResponse:
    after = first_seq - 1
    batches = runtime.event_log.follow(thread.thread_id, after=after, idle=HEARTBEAT_SECONDS)
    return event_stream(batches, after=after, recheck=recheck, run_id=run_id)

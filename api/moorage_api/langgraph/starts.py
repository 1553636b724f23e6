"""How a run of the wire starts: on a thread that is there or made for it, with input or as the answer to approvals."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from moorage.agent.states import Place
from moorage.approvals import seen_by_human
from moorage.assistants import Assistant
from moorage.identity import Principal, Scope
from moorage.ids import RunId, full_thread_id
from moorage.run_request import RunRequest
from moorage.runs.run import Run, RunKind, RunStatus
from moorage.runtime import Runtime
from moorage.threads import IfExists, Thread
from moorage.webhooks import AllowList, refuse_private
from moorage_api.langgraph.batching import unfold
from moorage_api.langgraph.modes import records_for
from moorage_api.langgraph.requests import RefusedField, RunBody, RunPayload, run_context, run_request

VIA = "langgraph"


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that was accepted, its thread, and whether the thread was made for it alone."""

    thread: Thread
    run: Run
    stateless: bool = False


async def thread_for(runtime: Runtime, principal: Principal, thread_id: str, body: RunBody) -> Thread:
    """The thread that a run is to be created on; it is made when the body says so."""
    if body.if_not_exists == "reject":
        return await runtime.threads.get(principal, full_thread_id(principal.user_id, thread_id))
    return await runtime.threads.ensure(principal, thread_id, if_exists=IfExists.DO_NOTHING)


async def start_on(
    runtime: Runtime, principal: Principal, thread: Thread, body: RunBody, *, per_call: bool = False
) -> StartedRun:
    """Start a run on this thread: with input, or, when the command resumes, as the answer to what waits.

    `per_call`: the client knows approvals call by call.
    """
    assistant = await assistant_for(runtime, principal, body)
    request = run_request(
        body,
        record=records_for(body.modes),
        principal=principal,
        thread=thread,
        assistant_id=assistant.assistant_id,
        thread_metadata=assistant.thread_metadata,
        after_seconds=body.after_seconds,
        per_call=per_call,
    )
    return StartedRun(thread, await start_request(runtime, principal, thread, body, request))


async def start_stateless(runtime: Runtime, principal: Principal, body: RunBody) -> StartedRun:
    """Start a run on a thread of its own, which goes with it unless the body keeps it."""
    return await _start_alone(runtime, principal, body, await _stateless_request(runtime, principal, body))


async def start_batch(runtime: Runtime, principal: Principal, bodies: Sequence[RunBody]) -> list[StartedRun]:
    """Start several stateless runs, in order; none when what one of them asks is refused."""
    requests = [await _stateless_request(runtime, principal, body) for body in bodies]
    return [
        await _start_alone(runtime, principal, body, request) for body, request in zip(bodies, requests, strict=True)
    ]


async def _stateless_request(runtime: Runtime, principal: Principal, body: RunBody) -> RunRequest:
    """What a stateless run is asked. All that can be refused is, before there is a thread."""
    if body.resumes:
        principal.require(Scope.APPROVE)
        raise RefusedField("command.resume", "a run without a thread has nothing to resume")
    assistant = await assistant_for(runtime, principal, body)
    request = run_request(
        body,
        record=records_for(body.modes),
        principal=principal,
        assistant_id=assistant.assistant_id,
        thread_metadata=assistant.thread_metadata,
        ephemeral=body.on_completion != "keep",
        after_seconds=body.after_seconds,
    )
    check_target(runtime, request)
    return request


async def _start_alone(runtime: Runtime, principal: Principal, body: RunBody, request: RunRequest) -> StartedRun:
    thread = await runtime.threads.ensure(principal, None, is_temporary=request.ephemeral)
    return StartedRun(thread, await start_request(runtime, principal, thread, body, request), stateless=True)


def check_target(runtime: Runtime, request: RunRequest) -> None:
    """Raise WebhookRefused for a webhook that could never be called."""
    if request.webhook is not None:
        refuse_private(request.webhook, AllowList.of(runtime.settings.webhook_allow))


async def start_request(
    runtime: Runtime, principal: Principal, thread: Thread, body: RunBody, request: RunRequest
) -> Run:
    """Start what was asked of a thread that is there."""
    check_target(runtime, request)
    if request.checkpoint_id is not None:
        await runtime.states.at(thread, Place(request.checkpoint_id))
    if body.resumes and body.command is not None:
        principal.require(Scope.APPROVE)
        pending = await runtime.approvals.pending(thread.owner_id, thread.thread_id)
        answers = unfold([seen_by_human(item) for item in pending], body.command.resume)
        decided = await runtime.approvals.answer(thread.owner_id, thread.thread_id, answers, via=VIA, run=request)
        return _as_run(thread, decided.run_id, decided.first_seq, body, request, RunKind.RESUME)
    started = await runtime.runs.start(thread, None, policy=body.policy, request=request)
    return _as_run(thread, started.run_id, started.first_seq, body, request, RunKind.MESSAGE)


async def assistant_for(runtime: Runtime, principal: Principal, body: RunPayload) -> Assistant:
    """Who runs; raises what is wrong with it, or with what the body changes of it."""
    assistant = await runtime.assistants.get(principal.user_id, body.assistant_id)
    if context := run_context(body):
        if "approvals" in context:
            principal.require(Scope.APPROVE)
        runtime.assistants.overridden(assistant, context)
    return assistant


def _as_run(thread: Thread, run_id: str, first_seq: int, body: RunBody, request: RunRequest, kind: RunKind) -> Run:
    now = datetime.now(UTC)
    return Run(
        run_id=RunId(run_id),
        thread_id=thread.thread_id,
        assistant_id=request.assistant_id or thread.assistant_id,
        kind=kind,
        status=RunStatus.QUEUED,
        first_seq=first_seq,
        metadata=dict(request.metadata),
        kwargs=dict(request.kwargs),
        multitask_strategy=body.multitask_strategy,
        cancel_reason=None,
        error=None,
        created_at=now,
        updated_at=now,
    )

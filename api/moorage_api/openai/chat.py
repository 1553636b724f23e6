"""`POST /v1/chat/completions`: a message to a thread, and its run as a chat completion, whole or in chunks."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel
from sse_starlette.sse import EventSourceResponse
from starlette.requests import ClientDisconnect

from moorage.approvals import seen_by_human
from moorage.events import EventType, StoredEvent
from moorage.identity import Principal
from moorage.ids import owner_of
from moorage.run_request import RunRequest
from moorage.runs.run import ApprovalPending, Started
from moorage.runtime import Runtime
from moorage.threads import EventsForgotten, IfExists, ReaderLagged, Thread
from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep
from moorage_api.openai.errors import ERRORS, OpenAIRoute, RunFailed, failed_chunk
from moorage_api.openai.models import find_model
from moorage_api.openai.request import ChatRequest, newly_said, whole_conversation
from moorage_api.openai.turn import Piece, Turn, Usage
from moorage_api.openai.wording import approval_needed, still_waiting
from moorage_api.sse import EVENT_STREAM, HEARTBEAT_SECONDS, Allowed, Recheck

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=ERRORS)

type ThreadHeader = Annotated[str | None, Header(alias="X-Thread-Id", min_length=1, max_length=100)]


class AnswerMessage(BaseModel):
    """`reasoning_content` tells the steps that led to the answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    reasoning_content: str | None = None
    refusal: None = None


class Choice(BaseModel):
    index: Literal[0] = 0
    message: AnswerMessage
    finish_reason: Literal["stop"] = "stop"
    logprobs: None = None


class CompletionUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; with `stream`, chunks of it as server-sent events",
        "headers": {"X-Thread-Id": {"description": "The thread, to go on in", "schema": {"type": "string"}}},
        "content": EVENT_STREAM[200]["content"],
    }
}


@router.post("/chat/completions", response_model=ChatCompletion, responses=_STREAM)
async def complete(
    request: Request,
    runtime: RuntimeDep,
    principal: PrincipalDep,
    recheck: RecheckDep,
    body: ChatRequest,
    thread_id: ThreadHeader = None,
) -> Response:
    """Say something to a thread and read what the agent answers. Going away does not stop the run.

    Without `X-Thread-Id` a thread is made, and the whole list of messages is its beginning. The answer's `X-Thread-Id`
    names it: with that, only what the user said after the last answer is new. A uuid of the client's own names a thread
    that is made at its first use.

    When a tool waits for approval, the answer says so and ends. Until that is decided, more messages get a 409.
    """
    said = newly_said(body.messages)
    assistant = await find_model(runtime, principal, body.model)
    thread = await _thread(runtime, principal, thread_id, assistant.assistant_id)
    base_url = str(request.base_url).rstrip("/")
    started = await _start(runtime, thread, body, said, assistant_id=assistant.assistant_id, base_url=base_url)
    answer = Answer(runtime, thread, started, recheck, model=body.model, base_url=base_url)
    headers = {"X-Thread-Id": thread.wire_id, "Cache-Control": "no-store"}
    if body.ignored:
        headers["X-Ignored-Parameters"] = ", ".join(body.ignored)
    if body.stream:
        return EventSourceResponse(answer.chunks(with_usage=body.wants_usage), ping=0, headers=headers)
    completion = await answer.whole(is_gone=request.is_disconnected)
    return JSONResponse(completion.model_dump(), headers=headers)


async def _thread(runtime: Runtime, principal: Principal, thread_id: str | None, assistant_id: str) -> Thread:
    """The thread that is named, made if its uuid is the client's own; without a name, a new one."""
    if thread_id is not None and owner_of(thread_id) is not None:
        return await runtime.threads.get(principal, thread_id)
    return await runtime.threads.ensure(principal, thread_id, if_exists=IfExists.DO_NOTHING, assistant_id=assistant_id)


async def _start(
    runtime: Runtime, thread: Thread, body: ChatRequest, said: str, *, assistant_id: str, base_url: str
) -> Started:
    conversation = whole_conversation(body.messages) if thread.message_count == 0 else ()
    metadata = body.metadata or {}
    if len(conversation) > 1:
        content, asked = None, RunRequest(assistant_id=assistant_id, messages=conversation, metadata=metadata)
    else:
        content, asked = said, RunRequest(assistant_id=assistant_id, metadata=metadata)
    try:
        return await runtime.runs.start(thread, content, policy=body.multitask_strategy, request=asked)
    except ApprovalPending:
        pending = [seen_by_human(item) for item in await runtime.approvals.pending(thread.owner_id, thread.thread_id)]
        detail = still_waiting(pending, base_url=base_url, thread_id=thread.thread_id)
        raise ApprovalPending(detail) from None


class Answer:
    """One run, read as a chat completion."""

    def __init__(
        self, runtime: Runtime, thread: Thread, started: Started, recheck: Recheck, *, model: str, base_url: str
    ) -> None:
        self._thread = thread
        self._started = started
        self._follow = runtime.event_log.follow
        self._allowed = Allowed(recheck)
        self._base_url = base_url
        self._turn = Turn()
        self._id = f"chatcmpl-{started.run_id}"
        self._created = int(time.time())
        self._model = model

    async def whole(self, *, is_gone: Callable[[], Awaitable[bool]]) -> ChatCompletion:
        """The answer once the run has ended; raises RunFailed, or ClientDisconnect when nobody waits any more."""
        reasoning: list[str] = []
        async with aclosing(self._pieces()) as batches:
            async for pieces in batches:
                if not pieces and await is_gone():
                    raise ClientDisconnect
                reasoning += [piece.reasoning for piece in pieces]
        message = AnswerMessage(content=self._turn.text, reasoning_content="".join(reasoning).strip() or None)
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[Choice(message=message)],
            usage=CompletionUsage(**self._usage()),
        )

    async def chunks(self, *, with_usage: bool) -> AsyncGenerator[bytes]:
        """Frames of `data: {chunk}`, closed by `data: [DONE]`; comments in quiet times."""
        extra = {"usage": None} if with_usage else {}
        try:
            yield self._chunk({"role": "assistant", "content": ""}, **extra)
            async with aclosing(self._pieces()) as batches:
                async for pieces in batches:
                    deltas = [delta for piece in pieces if (delta := _delta(piece))]
                    yield b"".join(self._chunk(delta, **extra) for delta in deltas) or b": heartbeat\n\n"
            yield self._chunk({}, finish_reason="stop", **extra)
            if with_usage:
                yield self._frame({"choices": [], "usage": self._usage()})
        except RunFailed as error:
            yield _data(failed_chunk(error))
        yield b"data: [DONE]\n\n"

    async def _pieces(self) -> AsyncGenerator[list[Piece]]:
        """What the run says, batch by batch, to its end; nothing in quiet times. Raises RunFailed."""
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                yield [self._turn.read(event) for event in batch]
        if self._turn.error is not None:
            raise self._failed(*self._turn.error)
        if self._turn.interrupts:
            words = approval_needed(self._turn.interrupts, base_url=self._base_url, thread_id=self._thread.thread_id)
            yield [self._turn.add(words)]

    async def _batches(self) -> AsyncGenerator[list[StoredEvent]]:
        run_id = self._started.run_id
        log = self._follow(self._thread.thread_id, after=self._started.first_seq - 1, idle=HEARTBEAT_SECONDS)
        async with aclosing(log):
            try:
                async for batch in log:
                    if not await self._allowed.still():
                        raise self._failed("unauthorized", "The token or key is not valid any more. The run goes on")
                    yield [event for event in batch if event.run_id == run_id]
                    if any(event.run_id == run_id and event.type is EventType.RUN_END for event in batch):
                        return
            except (ReaderLagged, EventsForgotten) as error:
                raise self._failed(error.code, "The stream could not keep up. The run goes on in its thread") from None
        raise self._failed("server_restart", "The server restarts. The run goes on in its thread")

    def _failed(self, code: str, detail: str) -> RunFailed:
        return RunFailed(code, detail, thread_id=self._thread.wire_id)

    def _usage(self) -> dict[str, int]:
        usage = self._turn.usage or Usage(0, 0)
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }

    def _chunk(self, delta: dict[str, str], *, finish_reason: str | None = None, **extra: None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._frame({"choices": [choice], **extra})

    def _frame(self, fields: dict[str, Any]) -> bytes:
        named = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return _data({**named, **fields})


def _delta(piece: Piece) -> dict[str, str]:
    told = {"reasoning_content": piece.reasoning, "content": piece.content}
    return {name: text for name, text in told.items() if text}


def _data(fields: dict[str, Any]) -> bytes:
    return b"data: %s\n\n" % orjson.dumps(fields)

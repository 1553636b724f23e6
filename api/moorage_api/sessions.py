"""Sessions: the core API's word for threads."""

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sse_starlette.sse import EventSourceResponse

from moorage.idempotency import request_key
from moorage.runtime import Runtime
from moorage.threads import TITLE_LIMIT, SessionChanges, SessionFilter, SessionStatus, Thread, ThreadRunStatus
from moorage_api.approval_shapes import PendingApproval, shown_pending
from moorage_api.approvals import IdempotencyKey, asked
from moorage_api.deps import PrincipalDep, RecheckDep, RuntimeDep, ThreadDep
from moorage_api.event_shapes import SESSION_EVENTS
from moorage_api.file_shapes import File, shown_file
from moorage_api.json_types import Flag
from moorage_api.message_shapes import Message, shown_message
from moorage_api.messages import MessageList
from moorage_api.prepared import Prepared
from moorage_api.sse import HEARTBEAT_SECONDS, event_stream, last_event_id

router = APIRouter(prefix="/api/sessions", tags=["sessions"])

type Title = Annotated[str, Field(max_length=TITLE_LIMIT)]
type Limit = Annotated[int, Query(ge=1, le=100)]


class NewSession(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: Title = ""
    assistant_id: Annotated[str, Field(max_length=100)] = "agent"


class SessionChange(BaseModel):
    """What to change, at least one thing; what is left out stays. None of it counts as activity.

    An archived session is not in the list, unless that asks for those, until the next message brings it back.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})
    title: Title | None = None
    pinned: Flag | None = None
    archived: Flag | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.title is None and self.pinned is None and self.archived is None:
            raise ValueError("name title, pinned or archived")
        return self


class CreatedSession(BaseModel):
    thread_id: str


class Session(BaseModel):
    """A session as its owner sees it. Times are RFC 3339 in UTC. `pending_count`: how many approvals wait."""

    thread_id: str
    title: str
    assistant_id: str
    status: Literal["active", "closed", "expired"]
    run_status: Literal["idle", "busy", "interrupted", "error"]
    message_count: int
    turn_count: int
    last_seq: int
    pinned: bool
    archived: bool
    pending_count: int
    created_at: str
    last_active: str


class KeptFailure(BaseModel):
    """A document that was not kept; an empty path stands for all of them. `code` says why."""

    path: str
    code: str


class ClosedSession(Session):
    """`kept`: the workspace's documents, as they now are in the shared folder."""

    kept: list[File]
    not_kept: list[KeptFailure]


class SessionList(BaseModel):
    items: list[Session]
    next_cursor: str | None
    total: int


class SessionState(BaseModel):
    """One snapshot: whoever follows the events after `last_seq` misses nothing and sees nothing twice."""

    thread: Session
    messages: list[Message]
    pending: list[PendingApproval]
    last_seq: int


@router.post("", status_code=201)
async def create_session(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    body: NewSession | None = None,
    idempotency_key: IdempotencyKey = None,
) -> CreatedSession:
    """Open a session. 429 when the quota of active sessions is used up."""
    wanted = body or NewSession()
    assistant = await runtime.assistants.get(principal.user_id, wanted.assistant_id)
    request = request_key(idempotency_key, "session", asked(wanted))
    thread_id = await runtime.threads.create(
        principal,
        title=wanted.title,
        assistant_id=assistant.assistant_id,
        metadata=assistant.thread_metadata,
        request=request,
    )
    return CreatedSession(thread_id=thread_id)


@router.get("")
async def list_sessions(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    limit: Limit = 20,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    q: Annotated[str | None, Query(max_length=TITLE_LIMIT)] = None,
    archived: bool = False,
    pinned: bool | None = None,
    run_status: ThreadRunStatus | None = None,
) -> SessionList:
    """Sessions, latest activity first; `q` searches in titles. `total` counts all that the filters let through."""
    where = SessionFilter(query=q, archived=archived, pinned=pinned, run_status=run_status)
    page = await runtime.threads.search(principal, where, limit=limit, cursor=cursor, offset=offset)
    return SessionList(
        items=[shown_session(thread) for thread in page.items], next_cursor=page.next_cursor, total=page.total or 0
    )


@router.get("/{thread_id}")
async def get_session(thread: ThreadDep) -> Session:
    return shown_session(thread)


@router.patch("/{thread_id}")
async def change_session(runtime: RuntimeDep, thread: ThreadDep, body: SessionChange) -> Session:
    """Name, pin or archive a session."""
    changes = SessionChanges(title=body.title, pinned=body.pinned, archived=body.archived)
    return shown_session(await runtime.threads.amend(thread, changes))


@router.post("/{thread_id}/close")
async def close_session(runtime: RuntimeDep, thread: ThreadDep) -> ClosedSession:
    """Stop what runs and take no more messages; history and files stay.

    At the first time, the workspace's documents (.pdf .xlsx .pptx .docx) are copied to `outputs/` of the shared folder.
    """
    closed = await runtime.threads.close(thread)
    found = await runtime.files.keep_documents(thread.thread_id) if thread.status is not SessionStatus.CLOSED else None
    return ClosedSession(
        **shown_session(closed).model_dump(),
        kept=[shown_file(item) for item in found.kept] if found else [],
        not_kept=[KeptFailure(path=item.path, code=item.code) for item in found.left_out] if found else [],
    )


@router.delete("/{thread_id}", status_code=204)
async def delete_session(runtime: RuntimeDep, thread: ThreadDep) -> Response:
    """Remove the session with its history, checkpoints, sandbox and files."""
    await runtime.threads.delete(thread)
    return Response(status_code=204)


@router.post("/{thread_id}/cancel")
async def cancel_session(runtime: RuntimeDep, thread: ThreadDep) -> Session:
    """Stop what runs, what is queued, and what waits for approval; the session goes on with the next message.

    What waits goes first, so that no answer starts anything while the runs stop, and again with what those asked last.
    """
    await runtime.approvals.cancel_pending(thread.owner_id, thread.thread_id)
    await runtime.runs.stop(thread.thread_id)
    await runtime.approvals.cancel_pending(thread.owner_id, thread.thread_id)
    return shown_session(await runtime.threads.reload(thread))


@router.get("/{thread_id}/messages", response_model=MessageList)
async def list_messages(
    runtime: RuntimeDep,
    thread: ThreadDep,
    limit: Limit = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Prepared:
    """The session's messages, oldest first."""
    page = await runtime.threads.messages(thread, limit=limit, cursor=cursor)
    return Prepared({"items": [shown_message(item) for item in page.items], "next_cursor": page.next_cursor})


@router.get("/{thread_id}/state", response_model=SessionState)
async def get_state(runtime: RuntimeDep, thread: ThreadDep) -> Prepared:
    """The session, its latest 1000 messages and what waits for approval, as of `last_seq`."""
    snapshot = await runtime.threads.snapshot(thread)
    return Prepared(
        {
            "thread": shown_session(snapshot.thread).model_dump(),
            "messages": [shown_message(item) for item in snapshot.messages],
            "pending": [shown_pending(item) for item in snapshot.pending],
            "last_seq": snapshot.thread.last_seq,
        }
    )


@router.get("/{thread_id}/events", response_class=EventSourceResponse, responses=SESSION_EVENTS)
async def follow_events(
    runtime: RuntimeDep,
    thread: ThreadDep,
    recheck: RecheckDep,
    after: Annotated[str | None, Query(max_length=100)] = None,
    last_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> EventSourceResponse:
    """All events of the session after a seq: the stored ones, then live. Never ends by itself."""
    return follow(runtime, thread, after=last_event_id(last_id, after), recheck=recheck)


def follow(runtime: Runtime, thread: Thread, *, after: int, recheck: RecheckDep) -> EventSourceResponse:
    batches = runtime.event_log.follow(thread.thread_id, after=after, idle=HEARTBEAT_SECONDS)
    return event_stream(batches, after=after, recheck=recheck)


def shown_session(thread: Thread) -> Session:
    return Session(
        thread_id=thread.thread_id,
        title=thread.title,
        assistant_id=thread.assistant_id,
        status=thread.status.value,
        run_status=thread.run_status.value,
        message_count=thread.message_count,
        turn_count=thread.turn_count,
        last_seq=thread.last_seq,
        pinned=thread.pinned,
        archived=thread.archived,
        pending_count=thread.pending_count,
        created_at=thread.created_at.isoformat(),
        last_active=thread.last_active.isoformat(),
    )

"""Messages: searching in all of one's own, and a session's as a file."""

import re
import unicodedata
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RuntimeDep, ThreadDep
from moorage_api.markdown import head, section
from moorage_api.message_shapes import Message, shown_message
from moorage_api.prepared import Prepared

router = APIRouter(prefix="/api", tags=["messages"])

_MEDIA_TYPES = {"markdown": "text/markdown; charset=utf-8", "json": "application/json"}
_ENDINGS = {"markdown": "md", "json": "json"}
_NAME_BYTES = 150  # what file systems take is 255
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows, with any ending
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file",
        "content": {
            "text/markdown": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


class MessageList(BaseModel):
    items: list[Message]
    next_cursor: str | None


class FoundMessage(BaseModel):
    """A message with the session that it is in; `snippet` is the part of it around what was searched for."""

    thread_id: str
    title: str
    message: Message
    snippet: str


class FoundMessageList(BaseModel):
    items: list[FoundMessage]
    next_cursor: str | None


@router.get("/messages", response_model=FoundMessageList)
async def search_messages(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    q: Annotated[str, Query(min_length=1, max_length=400)],
    thread_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Prepared:
    """One's own messages that hold these words, newest first. `"a phrase"`, `OR` and `-without` work."""
    page = await runtime.threads.search_messages(principal, query=q, thread_id=thread_id, limit=limit, cursor=cursor)
    items = [
        {
            "thread_id": found.thread_id,
            "title": found.title,
            "message": shown_message(found.message),
            "snippet": found.snippet,
        }
        for found in page.items
    ]
    return Prepared({"items": items, "next_cursor": page.next_cursor})


@router.get("/sessions/{thread_id}/export", response_class=StreamingResponse, responses=_FILE)
async def export_messages(
    runtime: RuntimeDep, thread: ThreadDep, format: Literal["markdown", "json"] = "markdown"
) -> StreamingResponse:
    """The session's messages as a file to keep."""
    parts = _as_json(runtime, thread) if format == "json" else _as_markdown(runtime, thread)
    disposition = attachment(thread.title or thread.thread_id, _ENDINGS[format])
    headers = {"Content-Disposition": disposition, "Cache-Control": "no-store"}
    return StreamingResponse(parts, media_type=_MEDIA_TYPES[format], headers=headers)


def attachment(title: str, ending: str) -> str:
    """A Content-Disposition whose file names (RFC 6266) hold nothing that a file system or a human could misread."""
    visible = "".join(" " if unicodedata.category(char)[0] in "CZ" else char for char in title)
    name = re.sub(r'[\s/\\:*?"<>|]+', "-", visible).encode()[:_NAME_BYTES].decode(errors="ignore")
    name = name.strip("-. ") or "session"
    name = f"session-{name}" if _DEVICES.fullmatch(name) else name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "session"
    return f"attachment; filename=\"{plain}.{ending}\"; filename*=UTF-8''{quote(name, safe='')}.{ending}"


async def _as_json(runtime: Runtime, thread: Thread) -> AsyncIterator[bytes]:
    about = {
        "thread_id": thread.thread_id,
        "title": thread.title,
        "assistant_id": thread.assistant_id,
        "created_at": thread.created_at.isoformat(),
        "last_active": thread.last_active.isoformat(),
    }
    yield b'{"thread":%s,"messages":[' % orjson.dumps(about)
    separator = b"\n"
    async for part in runtime.threads.all_messages(thread):
        yield separator + b",\n".join(orjson.dumps(shown_message(item)) for item in part)
        separator = b",\n"
    yield b"\n]}\n"


async def _as_markdown(runtime: Runtime, thread: Thread) -> AsyncIterator[bytes]:
    yield head(thread).encode()
    async for part in runtime.threads.all_messages(thread):
        yield "".join(line for item in part for line in section(item)).encode()

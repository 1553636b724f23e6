"""How threads and their states look to clients of the LangGraph wire (LangGraph Server 0.16.7, `ThreadState` and
`Thread` of its clients)."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel

from moorage.agent.states import Place, TaskState, ThreadState
from moorage.approvals import Interrupt, seen_by_human
from moorage.events import Role, encode
from moorage.thread_lists import ListedThread
from moorage.threads import HistoryMessage, Thread
from moorage_api.langgraph.batching import fold
from moorage_api.langgraph.legacy import error_body
from moorage_api.langgraph.v3_payloads import approval

type Json = dict[str, Any]


class WireInterrupt(BaseModel):
    id: str
    value: Any
    response_schema: Json | None = None


class WireTtl(BaseModel):
    strategy: Literal["delete", "keep_latest"]
    ttl_minutes: float
    expires_at: str


class WireThread(BaseModel):
    """A thread. With `select` only the chosen fields are there; `ttl` only with `include=ttl`."""

    thread_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    state_updated_at: str | None = None
    metadata: Json | None = None
    status: Literal["idle", "busy", "interrupted", "error"] | None = None
    config: Json | None = None
    values: Json | None = None
    error: Json | None = None
    interrupts: dict[str, list[WireInterrupt]] | None = None
    ttl: WireTtl | None = None
    extracted: Json | None = None


class WireCheckpoint(BaseModel):
    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str | None = None
    checkpoint_map: dict[str, str] | None = None


class WireTask(BaseModel):
    id: str
    name: str
    path: list[Any]
    error: str | None
    interrupts: list[WireInterrupt]
    checkpoint: WireCheckpoint | None
    state: Json | None
    result: Any


class WireState(BaseModel):
    """A state of a thread's graph. With `select` only the chosen fields are there."""

    values: Json | None = None
    next: list[str] | None = None
    tasks: list[WireTask] | None = None
    metadata: Json | None = None
    created_at: str | None = None
    checkpoint: WireCheckpoint | None = None
    parent_checkpoint: WireCheckpoint | None = None
    interrupts: list[WireInterrupt] | None = None
    checkpoint_id: str | None = None
    parent_checkpoint_id: str | None = None


PAGINATED: dict[int | str, dict[str, Any]] = {
    200: {
        "headers": {
            "X-Pagination-Total": {"description": "How many there are at least", "schema": {"type": "integer"}},
            "X-Pagination-Next": {"description": "The offset of the next part, if any", "schema": {"type": "integer"}},
        }
    }
}
"""How the API's description shows the headers of a list."""


def pagination(offset: int, shown: int, *, has_more: bool) -> dict[str, str]:
    """The headers of a part of a list, as LangGraph's server counts: up to here, and one more if there is more."""
    seen = offset + shown
    if not has_more:
        return {"X-Pagination-Total": str(seen)}
    return {"X-Pagination-Total": str(seen + 1), "X-Pagination-Next": str(seen)}


def answer(content: Any, headers: Mapping[str, str] | None = None) -> Response:
    """JSON as it is: it was built from what the models above describe, and may be large."""
    return Response(encode(content), headers=dict(headers or {}), media_type="application/json")


def shown_thread(thread: Thread, values: Json | None, interrupts: Mapping[str, list[Json]]) -> Json:
    """A thread with what it holds and what it waits for, by task."""
    return {
        "thread_id": thread.wire_id,
        "created_at": thread.created_at.isoformat(),
        "updated_at": thread.updated_at.isoformat(),
        "state_updated_at": (thread.state_updated_at or thread.created_at).isoformat(),
        "metadata": thread.metadata,
        "status": thread.run_status.value,
        "config": {} if values is None else {"configurable": {}},
        "values": values,
        "error": error_body(thread.error) if thread.error else None,
        "interrupts": interrupts,
    }


def shown_ttl(thread: Thread) -> Json | None:
    if thread.ttl is None or thread.expires_at is None:
        return None
    return {
        "strategy": thread.ttl.strategy.value,
        "ttl_minutes": thread.ttl.minutes,
        "expires_at": thread.expires_at.isoformat(),
    }


def shown_listed(item: ListedThread) -> Json:
    """A thread of a list, with what is kept of its values beside the graph's state."""
    thread = item.thread
    values = {**item.values, "messages": shown_messages(item.messages)}
    return shown_thread(
        thread, values if thread.last_seq else None, _by_task(None, shown_pending(thread, item.pending))
    )


def shown_pending(thread: Thread, pending: Sequence[Interrupt]) -> list[Json]:
    """The approvals of a thread as its client knows them: call by call, or all in one batch."""
    items = [seen_by_human(item) for item in pending]
    if thread.per_call:
        asked = [(item["id"], approval(item)) for item in items]
        return [
            {"id": item_id, "value": value, "response_schema": value["response_schema"]} for item_id, value in asked
        ]
    batch = fold(items)
    return [{"id": batch["id"], "value": batch["value"]}] if batch else []


def task_interrupts(state: ThreadState, thread: Thread, pending: Sequence[Interrupt]) -> dict[str, list[Json]]:
    """What a thread in this state waits for, by the task that shows it."""
    return _by_task(_asking(state), shown_pending(thread, pending))


def _by_task(task_id: str | None, shown: list[Json]) -> dict[str, list[Json]]:
    return {task_id or str(uuid.UUID(shown[0]["id"])): shown} if shown else {}


def shown_state(state: ThreadState, thread: Thread, pending: Sequence[Interrupt]) -> Json:
    """A state; the latest one of the thread's own graph with what waits for approval NOW, whatever its tasks asked.

    The task that shows it comes last: clients of the legacy wire look at the last task only.
    """
    is_current = state.is_latest and state.place is not None and not state.place.checkpoint_ns
    asked = shown_pending(thread, pending) if is_current else []
    shows = _asking(state) if asked else None
    tasks = sorted(state.tasks, key=lambda task: task.id == shows)
    return {
        "values": state.values,
        "next": state.next,
        "tasks": [_task(task, thread, asked if task.id == shows else []) for task in tasks],
        "metadata": _metadata(state, thread),
        "created_at": state.created_at,
        "checkpoint": _checkpoint(state.place, thread),
        "parent_checkpoint": _checkpoint(state.parent, thread),
        "interrupts": asked,
        "checkpoint_id": state.place and state.place.checkpoint_id,
        "parent_checkpoint_id": state.parent and state.parent.checkpoint_id,
    }


def selected(shown: Json, select: Sequence[str] | None) -> Json:
    """Only the fields named in `select`; `values.<key>` stands for one of the values. None: all."""
    if not select:
        return shown
    chosen = {name: shown[name] for name in shown if name in select}
    keys = [name.removeprefix("values.") for name in select if name.startswith("values.")]
    if keys and "values" not in chosen:
        values: Json = shown["values"] or {}
        chosen["values"] = {key: values[key] for key in keys if key in values}
    return chosen


def shown_messages(messages: Sequence[HistoryMessage]) -> list[Json]:
    """A thread's messages as LangChain dumps them, as far as their history tells."""
    names: dict[str, str] = {}
    shown: list[Json] = []
    for item in messages:
        names.update((call["call_id"], call["tool_name"]) for call in item.message.tool_calls or ())
        shown.append(_message(item, names))
    return shown


def _message(item: HistoryMessage, tools: Mapping[str, str]) -> Json:
    message = item.message
    shown: Json = {"content": message.content, "additional_kwargs": {}, "response_metadata": {}}
    match message.role:
        case Role.USER:
            return {**shown, "type": "human", "name": None, "id": message.id}
        case Role.ASSISTANT:
            calls = [
                {"name": call["tool_name"], "args": call["tool_input"], "id": call["call_id"], "type": "tool_call"}
                for call in message.tool_calls or ()
            ]
            told = {"tool_calls": calls, "invalid_tool_calls": [], "usage_metadata": message.usage}
            return {**shown, "type": "ai", "name": None, "id": message.id, **told}
        case Role.TOOL:
            tool = tools.get(message.call_id or "")
            told = {"tool_call_id": message.call_id, "artifact": None, "status": "success"}
            return {**shown, "type": "tool", "name": tool, "id": message.id, **told}


def _asking(state: ThreadState) -> str | None:
    """The last task that stopped to ask, or is still to do: a change of the state forgets that it asked already."""
    asking = [task for task in state.tasks if task.asks] or [task for task in state.tasks if task.result is None]
    return asking[-1].id if asking else None


def _task(task: TaskState, thread: Thread, interrupts: list[Json]) -> Json:
    return {
        "id": task.id,
        "name": task.name,
        "path": task.path,
        "error": task.error,
        "interrupts": interrupts,
        "checkpoint": _checkpoint(task.inner, thread),
        "state": shown_state(task.state, thread, []) if task.state else None,
        "result": task.result,
    }


def _metadata(state: ThreadState, thread: Thread) -> Json | None:
    if state.metadata is None:
        return None
    return {**state.metadata, "thread_id": thread.wire_id}


def _checkpoint(place: Place | None, thread: Thread) -> Json | None:
    if place is None:
        return None
    shown: Json = {"thread_id": thread.wire_id, "checkpoint_ns": place.checkpoint_ns}
    if place.checkpoint_id is not None:
        shown["checkpoint_id"] = place.checkpoint_id
    if place.checkpoint_map:
        shown["checkpoint_map"] = dict(place.checkpoint_map)
    return shown

"""Crons of the LangGraph wire: runs that start at set times, on a thread or each on a new one."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moorage.assistants import UnknownAssistant, wire_assistant_id
from moorage.crons import (
    LONGEST_SCHEDULE,
    Cron,
    CronChange,
    CronFilter,
    CronSort,
    NewCron,
    OnRunCompleted,
    check_schedule,
)
from moorage.errors import InvalidPayload
from moorage.identity import Principal
from moorage.ids import ThreadId, full_thread_id
from moorage.run_request import RunRequest
from moorage.runs.run import BusyPolicy
from moorage.runtime import Runtime
from moorage.threads import Thread
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.errors import field_errors
from moorage_api.json_types import Flag, Integer, Moment
from moorage_api.langgraph.deps import WireThreadDep
from moorage_api.langgraph.modes import records_for
from moorage_api.langgraph.requests import (
    ConfigBody,
    JsonObject,
    Nodes,
    RefusedField,
    RunPayload,
    StreamModes,
    run_request,
)
from moorage_api.langgraph.shapes import answer, pagination
from moorage_api.langgraph.starts import assistant_for, check_target

router = APIRouter(tags=["langgraph"])

_RESTARTING = ("schedule", "timezone", "end_time", "enabled")

type ScheduleText = Annotated[str, Field(max_length=LONGEST_SCHEDULE)]
type ZoneName = Annotated[str, Field(max_length=100)]
type CronPath = Annotated[str, Path(max_length=100)]
type Id = Annotated[str, Field(max_length=200)]
type CronField = Literal[
    "cron_id", "assistant_id", "thread_id", "user_id", "end_time", "schedule", "timezone", "payload", "next_run_date",
    "metadata", "on_run_completed", "enabled", "created_at", "updated_at", "now", "disabled_reason", "last_error",
    "last_run_date", "last_run_id",
]  # fmt: skip


class CronBody(RunPayload):
    """When and what. Five fields: minute, hour, day of the month, month, day of the week; a minute is the finest grain.

    `timezone` is an IANA name, UTC by default. On a thread its runs go on with it; else each run gets a thread of its
    own, which goes with the run unless `on_run_completed` is `keep`.
    """

    schedule: ScheduleText
    timezone: ZoneName | None = None
    end_time: Moment | None = None
    enabled: Flag = True
    on_run_completed: Literal["delete", "keep"] | None = None


class CronPatch(BaseModel):
    """What is to change. Metadata is merged, key by key; null takes back what was given."""

    model_config = ConfigDict(extra="forbid")
    schedule: ScheduleText | None = None
    timezone: ZoneName | None = None
    end_time: Moment | None = None
    enabled: Flag | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    input: Any = None
    metadata: JsonObject | None = None
    config: ConfigBody | None = None
    context: JsonObject | None = None
    webhook: Annotated[str | None, Field(max_length=2000)] = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    multitask_strategy: Literal["reject", "rollback", "interrupt", "enqueue"] | None = None
    stream_mode: StreamModes | None = None
    stream_subgraphs: Flag | None = None
    stream_resumable: Flag | None = None
    durability: Literal["sync", "async", "exit"] | None = None


class CronCount(BaseModel):
    """Which crons are meant; `metadata` must be contained in theirs."""

    model_config = ConfigDict(extra="forbid")
    assistant_id: Id | None = None
    thread_id: Id | None = None
    enabled: Flag | None = None
    metadata: JsonObject | None = None


class CronSearch(CronCount):
    """Which crons, how many of them, and in which order."""

    limit: Annotated[Integer, Field(ge=1, le=1000)] = 10
    offset: Annotated[Integer, Field(ge=0, le=10_000_000)] = 0
    sort_by: CronSort | None = None
    sort_order: Literal["asc", "desc"] | None = None
    select: Annotated[list[CronField] | None, Field(max_length=30)] = None


class WireCron(BaseModel):
    """A cron. With `select` only the chosen fields are there.

    `disabled_reason` says why the server gave it up, `last_error` why the last run did not start.
    """

    cron_id: str | None = None
    assistant_id: str | None = None
    thread_id: str | None = None
    user_id: str | None = None
    end_time: str | None = None
    schedule: str | None = None
    timezone: str | None = None
    payload: dict[str, Any] | None = None
    next_run_date: str | None = None
    metadata: dict[str, Any] | None = None
    on_run_completed: Literal["delete", "keep"] | None = None
    enabled: bool | None = None
    created_at: str | None = None
    updated_at: str | None = None
    now: str | None = None
    disabled_reason: str | None = None
    last_error: str | None = None
    last_run_date: str | None = None
    last_run_id: str | None = None


@router.post("/threads/{thread_id}/runs/crons", response_model=WireCron)
async def create_thread_cron(
    runtime: RuntimeDep, principal: PrincipalDep, thread: WireThreadDep, body: CronBody
) -> Response:
    """Start runs on this thread at set times, as if the user had sent the input then."""
    return await _create(runtime, principal, body, thread)


@router.post("/runs/crons", response_model=WireCron)
async def create_cron(runtime: RuntimeDep, principal: PrincipalDep, body: CronBody) -> Response:
    """Start runs at set times, each on a thread of its own."""
    return await _create(runtime, principal, body, None)


@router.post("/runs/crons/search", response_model=list[WireCron])
async def search_crons(runtime: RuntimeDep, principal: PrincipalDep, body: CronSearch) -> Response:
    """The caller's crons, the latest first unless told otherwise."""
    found = await runtime.crons.search(
        principal.user_id,
        await _filter(runtime, principal, body),
        sort_by=body.sort_by or CronSort.CREATED_AT,
        ascending=body.sort_order == "asc",
        limit=body.limit + 1,
        offset=body.offset,
    )
    shown = [_selected(cron, body.select) for cron in found[: body.limit]]
    return answer(shown, pagination(body.offset, len(shown), has_more=len(found) > body.limit))


@router.post("/runs/crons/count")
async def count_crons(runtime: RuntimeDep, principal: PrincipalDep, body: CronCount) -> int:
    """How many crons fit the filter."""
    return await runtime.crons.count(principal.user_id, await _filter(runtime, principal, body))


@router.get("/runs/crons/{cron_id}", response_model=WireCron)
async def get_cron(runtime: RuntimeDep, principal: PrincipalDep, cron_id: CronPath) -> Response:
    """A cron, when it comes next, and how its last run went."""
    return answer(_shown(await runtime.crons.get(principal.user_id, cron_id)))


@router.patch("/runs/crons/{cron_id}", response_model=WireCron)
async def change_cron(runtime: RuntimeDep, principal: PrincipalDep, cron_id: CronPath, body: CronPatch) -> Response:
    """Change a cron. Another time, or enabling it again, counts from now on."""
    cron = await runtime.crons.get(principal.user_id, cron_id)
    given = body.model_dump(mode="json", exclude_unset=True)
    whole = _merged(cron, given)
    thread = await runtime.threads.get(principal, cron.thread_id) if cron.thread_id else None
    new = await _new_cron(runtime, principal, whole, thread)
    restarts = any(name in given for name in _RESTARTING)
    return answer(_shown(await runtime.crons.change(cron, CronChange(new, restarts=restarts))))


@router.delete("/runs/crons/{cron_id}", status_code=204)
async def delete_cron(runtime: RuntimeDep, principal: PrincipalDep, cron_id: CronPath) -> Response:
    """Start no more runs; those that it started stay."""
    await runtime.crons.delete(principal.user_id, cron_id)
    return Response(status_code=204)


async def _create(runtime: Runtime, principal: Principal, body: CronBody, thread: Thread | None) -> Response:
    new = await _new_cron(runtime, principal, body, thread)
    return answer(_shown(await runtime.crons.create(principal.user_id, new)))


async def _new_cron(runtime: Runtime, principal: Principal, body: CronBody, thread: Thread | None) -> NewCron:
    """What the body asks, checked as that of a run is; raises InvalidPayload, naming the field."""
    if thread is not None and body.on_run_completed is not None:
        raise RefusedField("on_run_completed", "belongs to crons without a thread: this one's stays")
    if body.command is not None or body.checkpoint is not None or body.checkpoint_id is not None:
        raise RefusedField("command" if body.command else "checkpoint_id", "is not for runs that come again and again")
    assistant = await assistant_for(runtime, principal, body)
    request = _request(body, principal, thread, assistant.assistant_id, assistant.thread_metadata)
    check_target(runtime, request)
    if request.checkpoint_id is not None:
        raise RefusedField("config.configurable.checkpoint_id", "is not for runs that come again and again")
    payload = body.model_dump(mode="json", exclude_unset=True) | {"assistant_id": assistant.wire_id}
    on_completed = None if thread else OnRunCompleted(body.on_run_completed or "delete")
    return NewCron(
        assistant_id=assistant.assistant_id,
        schedule=check_schedule(body.schedule, body.timezone, body.end_time),
        payload={name: value for name, value in payload.items() if value is not None},
        request=request,
        policy=BusyPolicy(body.multitask_strategy),
        metadata=body.metadata or {},
        thread_id=thread.thread_id if thread else None,
        on_run_completed=on_completed,
        enabled=body.enabled,
    )


def _request(
    body: CronBody, principal: Principal, thread: Thread | None, assistant_id: str, metadata: dict[str, str]
) -> RunRequest:
    """What each run is started with: the part of the body that is a run's."""
    given = body.model_dump(exclude_unset=True, include=set(RunPayload.model_fields))
    payload = RunPayload.model_validate(given)
    modes = payload.stream_mode or ["values"]
    return run_request(
        payload,
        record=records_for([modes] if isinstance(modes, str) else modes),
        principal=principal,
        thread=thread,
        assistant_id=assistant_id,
        thread_metadata=metadata,
    )


def _merged(cron: Cron, given: dict[str, Any]) -> CronBody:
    whole = {**cron.payload, "metadata": cron.metadata, **given}
    whole["metadata"] = {**cron.metadata, **(given.get("metadata") or {})}
    try:
        return CronBody.model_validate({name: value for name, value in whole.items() if value is not None})
    except ValidationError as error:
        errors = field_errors({**item, "loc": ("body", *item["loc"])} for item in error.errors())
        raise InvalidPayload("With these changes it is no cron any more: see errors", errors=errors) from None


async def _filter(runtime: Runtime, principal: Principal, body: CronCount) -> CronFilter:
    assistant_id, thread_id = body.assistant_id, None
    if assistant_id is not None:
        with suppress(UnknownAssistant):  # whose crons may still be there, given up
            assistant_id = (await runtime.assistants.get(principal.user_id, assistant_id)).assistant_id
    if body.thread_id is not None:
        thread_id = ThreadId(full_thread_id(principal.user_id, body.thread_id))
    return CronFilter(assistant_id=assistant_id, thread_id=thread_id, enabled=body.enabled, metadata=body.metadata)


def _selected(cron: Cron, select: list[CronField] | None) -> dict[str, Any]:
    shown = _shown(cron) | {"now": datetime.now(UTC).isoformat()}
    return {name: shown[name] for name in select} if select else {k: v for k, v in shown.items() if k != "now"}


def _shown(cron: Cron) -> dict[str, Any]:
    config: dict[str, Any] = cron.payload.get("config") or {}
    configurable: dict[str, Any] = config.get("configurable") or {}
    return {
        "cron_id": cron.cron_id,
        "assistant_id": wire_assistant_id(cron.assistant_id),
        "thread_id": cron.wire_thread_id,
        "user_id": cron.owner_id,
        "end_time": _iso(cron.schedule.end_time),
        "schedule": cron.schedule.expression,
        "timezone": cron.schedule.timezone,
        "payload": {**cron.payload, "config": {**config, "configurable": {**configurable, "cron_id": cron.cron_id}}},
        "next_run_date": _iso(cron.next_run_date),
        "metadata": cron.metadata,
        "on_run_completed": cron.on_run_completed,
        "enabled": cron.enabled,
        "created_at": _iso(cron.created_at),
        "updated_at": _iso(cron.updated_at),
        "disabled_reason": cron.disabled_reason,
        "last_error": cron.last_error,
        "last_run_date": _iso(cron.last_run_date),
        "last_run_id": cron.last_run_id,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None

"""From the body with which a LangGraph client creates a run to what the run is asked: honoured or refused by name."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from moorage.agent.wire_json import read_messages
from moorage.errors import InvalidPayload
from moorage.identity import Principal
from moorage.ids import full_thread_id
from moorage.run_request import Record, RunRequest
from moorage.runs.run import BusyPolicy
from moorage.threads import Thread
from moorage.webhooks import check_webhook
from moorage_api.json_types import Flag, Integer, Number

# Of a configurable: where a run stands. The server alone says that; what else is in it is the assistant's context.
PLACES = frozenset({"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map", "run_id", "user_id", "tags"})
LONGEST_DELAY_SECONDS = 365 * 24 * 3600

type JsonObject = dict[str, Any]
type Name = Annotated[str, Field(min_length=1, max_length=200)]
type Nodes = Literal["*"] | Annotated[list[Name], Field(max_length=100)]
type StreamMode = Literal[
    "values", "messages", "messages-tuple", "updates", "events", "tasks", "checkpoints", "debug", "custom", "tools",
]  # fmt: skip
type StreamModes = StreamMode | Annotated[list[StreamMode], Field(max_length=20)]


class RefusedField(InvalidPayload):
    """A field that cannot be honoured as it is."""

    code = "field_refused"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(
            f"{field}: {reason}", errors=[{"loc": ["body", *field.split(".")], "msg": reason, "type": "refused"}]
        )


class CheckpointBody(BaseModel):
    """Where a run branches off, or a state is read."""

    model_config = ConfigDict(extra="forbid")
    thread_id: Annotated[str | None, Field(max_length=100)] = None
    checkpoint_ns: Annotated[str | None, Field(max_length=2000)] = None
    checkpoint_id: Annotated[str | None, Field(max_length=100)] = None
    checkpoint_map: dict[str, str] | None = None


class CommandBody(BaseModel):
    """A LangGraph command. With `resume` it answers what waits for approval, and nothing else."""

    model_config = ConfigDict(extra="forbid")
    resume: Any = None
    update: JsonObject | list[tuple[str, Any]] | None = None
    goto: Any = None


class ConfigBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tags: Annotated[list[Name] | None, Field(max_length=100)] = None
    recursion_limit: Annotated[Integer | None, Field(ge=1, le=100_000)] = None
    configurable: JsonObject | None = None


class RunPayload(BaseModel):
    """What a run is asked, wherever it runs: the fields that runs, stateless runs and crons share."""

    model_config = ConfigDict(extra="forbid")
    assistant_id: Name
    input: JsonObject | None = None
    command: CommandBody | None = None
    config: ConfigBody | None = None
    context: JsonObject | None = None
    metadata: JsonObject | None = None
    checkpoint: CheckpointBody | None = None
    checkpoint_id: Annotated[str | None, Field(max_length=100)] = None
    interrupt_before: Nodes | None = None
    interrupt_after: Nodes | None = None
    webhook: Annotated[str | None, Field(max_length=2000)] = None
    stream_mode: StreamModes | None = None
    stream_subgraphs: Flag = False
    stream_resumable: Flag = False
    multitask_strategy: Literal["reject", "rollback", "interrupt", "enqueue"] = "enqueue"
    durability: Literal["sync", "async", "exit"] | None = None
    checkpoint_during: Flag | None = None
    feedback_keys: list[Name] | None = None
    strict_resume: Flag | None = None
    langsmith_tracer: JsonObject | None = None

    @property
    def modes(self) -> list[str]:
        given = self.stream_mode or ["values"]
        return [given] if isinstance(given, str) else list(dict.fromkeys(given))


class RunBody(RunPayload):
    """The body of a run's creation. `assistantId` is what the JavaScript client sends a second time in a batch."""

    assistantId: Annotated[str | None, Field(max_length=200)] = None

    if_not_exists: Literal["create", "reject"] = "reject"
    on_disconnect: Literal["cancel", "continue"] = "continue"
    on_completion: Literal["delete", "keep"] | None = None
    after_seconds: Annotated[Number, Field(ge=0, le=LONGEST_DELAY_SECONDS)] = 0

    @property
    def policy(self) -> BusyPolicy:
        return BusyPolicy(self.multitask_strategy)

    @property
    def resumes(self) -> bool:
        return self.command is not None and self.command.resume is not None


def run_request(
    body: RunPayload,
    *,
    record: Iterable[Record],
    principal: Principal,
    thread: Thread | None = None,
    assistant_id: str | None = None,
    thread_metadata: Mapping[str, Any] | None = None,
    ephemeral: bool = False,
    after_seconds: float = 0,
    per_call: bool = False,
) -> RunRequest:
    """What the body asks. `thread` is the one it is for, where there is one already.

    Raises InvalidPayload, naming the field, for what cannot be honoured or points elsewhere.
    """
    _refuse_unsupported(body)
    configurable = (body.config.configurable if body.config else None) or {}
    check_place(
        {key: configurable[key] for key in configurable if key in PLACES}, "config.configurable", principal, thread
    )
    command = body.command or CommandBody()
    given = _input(body.input) if command == CommandBody() else {}
    update = _update(command)
    return RunRequest(
        assistant_id=assistant_id,
        messages=tuple(given.pop("messages", ())),
        values=given,
        update=update,
        goto=_goto(command.goto),
        checkpoint_id=_checkpoint_id(body, principal, thread),
        interrupt_before=_nodes(body.interrupt_before),
        interrupt_after=_nodes(body.interrupt_after),
        record=tuple(record),
        context=run_context(body),
        recursion_limit=body.config.recursion_limit if body.config else None,
        metadata=body.metadata or {},
        kwargs=_kwargs(body),
        webhook=check_webhook(body.webhook) if body.webhook else None,
        after_seconds=after_seconds,
        ephemeral=ephemeral,
        per_call=per_call,
        thread_metadata=thread_metadata or {},
    )


def _kwargs(body: RunPayload) -> dict[str, Any]:
    """What was asked, under the names by which LangGraph's server shows it."""
    return {
        "input": body.input,
        "command": body.command.model_dump(mode="json", exclude_unset=True) if body.command else None,
        "config": body.config.model_dump(mode="json", exclude_unset=True) if body.config else {},
        "context": run_context(body),
        "stream_mode": body.modes,
        "interrupt_before": body.interrupt_before,
        "interrupt_after": body.interrupt_after,
        "feedback_keys": None,
        "subgraphs": body.stream_subgraphs,
        "resumable": True,
        "durability": "sync",
    }


def _refuse_unsupported(body: RunPayload) -> None:
    if body.feedback_keys:
        raise RefusedField("feedback_keys", "needs LangSmith, which this server does not use")
    if body.command is not None and body.command.resume is not None and (body.command.update or body.command.goto):
        raise RefusedField("command", "takes either resume, or update and goto")


def run_context(body: RunPayload) -> dict[str, Any]:
    """What the run changes of its assistant: its context, and what older clients put into the configurable."""
    configurable = (body.config.configurable if body.config else None) or {}
    return {key: item for key, item in configurable.items() if key not in PLACES} | (body.context or {})


def check_place(place: Mapping[str, Any] | None, field: str, principal: Principal, thread: Thread | None) -> None:
    """Refuse ids that point elsewhere than the request does; the server alone says where a run writes.

    `thread` None: the request is for no thread that is there already.
    """
    for key, value in (place or {}).items():
        match key:
            case "thread_id" if thread is None:
                raise RefusedField(f"{field}.thread_id", "a run without a thread gets its own")
            case "thread_id" if isinstance(value, str) and _is_same(value, principal, thread):
                continue
            case "thread_id":
                raise RefusedField(f"{field}.thread_id", "is not the thread of the request")
            case "checkpoint_id" | "checkpoint_map" | "tags":
                continue
            case "checkpoint_ns" if not value:
                continue
            case _:
                raise RefusedField(f"{field}.{key}", "is for the server to set")


def _is_same(text: str, principal: Principal, thread: Thread | None) -> bool:
    return thread is not None and full_thread_id(principal.user_id, text) == thread.thread_id


def _checkpoint_id(body: RunPayload, principal: Principal, thread: Thread | None) -> str | None:
    configurable = (body.config.configurable if body.config else None) or {}
    checkpoint = body.checkpoint.model_dump(exclude_none=True, exclude={"checkpoint_map"}) if body.checkpoint else {}
    check_place(checkpoint, "checkpoint", principal, thread)
    found = checkpoint.get("checkpoint_id") or body.checkpoint_id or configurable.get("checkpoint_id")
    if found is None:
        return None
    if thread is None:
        raise RefusedField("checkpoint_id", "a run without a thread has no checkpoints")
    if not isinstance(found, str) or len(found) > 100:
        raise RefusedField("config.configurable.checkpoint_id", "takes a checkpoint's id")
    return found


def _input(given: JsonObject | None) -> dict[str, Any]:
    """A graph's input as a client may write it; nothing for None."""
    return {} if given is None else _state(given, "input")


def read_state(given: Mapping[str, Any], field: str) -> dict[str, Any]:
    """State values as a client writes them, with messages in LangChain's JSON."""
    return _state(given, field)


def _state(given: Mapping[str, Any], field: str) -> dict[str, Any]:
    for key in given:
        if key.startswith("_"):
            raise RefusedField(field, "keys of the state do not begin with _")
    if not isinstance(given.get("files", {}), dict):  # once it is stored, nobody could read the state any more
        raise RefusedField(f"{field}.files", "takes an object of files by their paths")
    if given.get("messages") is None:
        return {key: value for key, value in given.items() if key != "messages"}
    return {**given, "messages": read_messages(given["messages"])}


def _update(command: CommandBody) -> dict[str, Any] | None:
    if command.update is None:
        return None
    update = dict(command.update) if isinstance(command.update, list) else command.update
    return _state(update, "command.update")


def _goto(given: Any) -> tuple[str, ...]:
    items = cast("list[Any]", [] if given is None else given if isinstance(given, list) else [given])
    if len(items) > 100 or not all(isinstance(item, str) and 0 < len(item) <= 200 for item in items):
        raise RefusedField("command.goto", "takes names of nodes; a Send is not supported")
    return tuple(items)


def _nodes(given: Nodes | None) -> tuple[str, ...]:
    return ("*",) if given == "*" else tuple(given or ())

"""Commands of the v3 protocol, whichever way they come: start a run, answer what waits, look at what runs."""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError

from moorage.approvals import InterruptDecided, InterruptNotFound, NothingPending, seen_by_human
from moorage.errors import AppError, InvalidInput, PermissionDenied, Unauthenticated, Unavailable
from moorage.identity import Principal, Scope
from moorage.ids import ThreadId
from moorage.run_request import Record
from moorage.runs.run import RunNotFound
from moorage.runtime import Runtime
from moorage.threads import IfExists, Thread, ThreadNotFound, UnknownCheckpoint
from moorage_api.errors import field_errors
from moorage_api.langgraph.batching import unfold
from moorage_api.langgraph.requests import RunBody, run_request
from moorage_api.langgraph.starts import VIA, start_on
from moorage_api.langgraph.v3_frames import first_frame
from moorage_api.langgraph.v3_tree import tree_of

MAX_ID = 2**53 - 1
METHOD_LIMIT = 100

_RECORDED = ("values", "updates", "tasks", "checkpoints")
_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")
_PARAMS_OF_A_RUN = frozenset(RunBody.model_fields) - {"stream_mode", "if_not_exists", "command"}
_CODES: Sequence[tuple[type[AppError], str]] = (
    (UnknownCheckpoint, "no_such_checkpoint"),
    (InterruptNotFound, "no_such_interrupt"),
    (InterruptDecided, "no_such_interrupt"),
    (NothingPending, "no_such_interrupt"),
    (ThreadNotFound, "no_such_run"),
    (RunNotFound, "no_such_run"),
    (InvalidInput, "invalid_argument"),
    (PermissionDenied, "permission_denied"),
)

type Params = Mapping[str, Any]
type Reply = dict[str, Any]


class Refused(AppError):
    """A command that is answered with an error of the protocol's own."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code)


@dataclass(frozen=True, slots=True)
class Command:
    id: int
    method: str
    params: Params


@dataclass(frozen=True, slots=True)
class Done:
    """What a command led to. `through` is the last frame of the thread before it took effect."""

    result: Reply
    through: int


def read_command(given: object) -> Command | Reply:
    """The command in an envelope, or the answer to one that is none."""
    envelope = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    number, method, params = envelope.get("id"), envelope.get("method"), envelope.get("params")
    if (
        type(number) is not int
        or not 0 <= number <= MAX_ID
        or not isinstance(method, str)
        or len(method) > METHOD_LIMIT
    ):
        shown = number if type(number) is int and abs(number) <= MAX_ID else None
        return refusal(shown, "invalid_argument", "Protocol commands must include an integer id and string method.")
    return Command(number, method, cast("Params", params) if isinstance(params, dict) else {})


def refusal(number: int | None, code: str, message: str, **more: Any) -> Reply:
    return {"type": "error", "id": number, "error": code, "message": message, **more}


async def answered(number: int, act: Callable[[], Awaitable[Done]]) -> Reply:
    """The envelope with what `act` did, or why not. What is no answer to a command, 401 and 503, is raised."""
    try:
        done = await act()
    except (Unauthenticated, Unavailable):
        raise
    except Refused as error:
        return refusal(number, error.code, error.detail)
    except AppError as error:
        code = next((code for kind, code in _CODES if isinstance(error, kind)), "unknown_error")
        return refusal(number, code, error.detail, reason=error.code)
    return {"type": "success", "id": number, "result": done.result, "meta": {"applied_through_seq": done.through}}


class Commands:
    """What a principal asks of one thread, which need not be there yet."""

    def __init__(self, runtime: Runtime, principal: Principal, thread_id: str) -> None:
        """`thread_id` as the client names it; raises ThreadAccessDenied."""
        self._runtime = runtime
        self._principal = principal
        self._named = thread_id
        self.thread_id: ThreadId = runtime.threads.own_id(principal, thread_id)

    async def answer(self, command: Command) -> Reply:
        """The envelope of the answer; raises Unauthenticated or Unavailable only."""
        return await answered(command.id, lambda: self._act(command))

    async def _act(self, command: Command) -> Done:
        match command.method:
            case "run.start":
                return await self._start(command.params)
            case "input.respond":
                return await self._respond(command.params)
            case "agent.getTree":
                return await self._tree(command.params)
            case "subscription.subscribe" | "subscription.unsubscribe" | "subscription.reconnect":
                raise Refused("not_supported", "Over HTTP a subscription is its stream: POST .../stream/events")
            case _:
                raise Refused("unknown_command", "Unknown protocol command")

    async def _start(self, params: Params) -> Done:
        """Start a run; what waits for approval is answered by an input that is no new message."""
        self._principal.require(Scope.RUN)
        self._runtime.check_accepting()
        if not params.get("assistant_id"):
            raise Refused("invalid_argument", "run.start requires an assistant_id.")
        thread = await self._find()
        resumes = thread is not None and params.get("input") is not None and await self._is_answer(thread, params)
        body = _run_body(params, resumes=resumes)
        if thread is None:
            await self._runtime.assistants.get(self._principal.user_id, body.assistant_id)  # before there is a thread
            thread = await self._runtime.threads.ensure(self._principal, self._named, if_exists=IfExists.DO_NOTHING)
        if resumes:
            self._principal.require(Scope.APPROVE)
        started = await start_on(self._runtime, self._principal, thread, body, per_call=True)
        return Done({"run_id": started.run.run_id}, first_frame(started.run.first_seq) - 1)

    async def _is_answer(self, thread: Thread, params: Params) -> bool:
        given = params["input"]
        if isinstance(given, dict) and "messages" in given:
            return False
        if await self._runtime.approvals.pending(thread.owner_id, thread.thread_id):
            return True
        if isinstance(given, dict) and "decisions" in given:  # somebody else was first
            raise Refused("no_such_interrupt", "Nothing waits for approval in this thread")
        return False

    async def _respond(self, params: Params) -> Done:
        self._principal.require(Scope.APPROVE)
        self._runtime.check_accepting()
        responses = _responses(params)
        if params.get("update") is not None or params.get("goto") is not None:
            raise Refused("not_supported", "An answer cannot change the state or the way on: decide, then start a run.")
        thread = await self._get()
        pending = [
            seen_by_human(item) for item in await self._runtime.approvals.pending(thread.owner_id, thread.thread_id)
        ]
        more = {key: params[key] for key in ("config", "metadata") if params.get(key) is not None}
        body = _run_body({"assistant_id": thread.assistant_id, **more}, resumes=False)
        request = run_request(body, record=tuple(Record), principal=self._principal, thread=thread, assistant_id=None)
        answers = unfold(pending, responses)
        decided = await self._runtime.approvals.answer(thread.owner_id, thread.thread_id, answers, via=VIA, run=request)
        return Done({}, first_frame(decided.first_seq) - 1)

    async def _tree(self, params: Params) -> Done:
        thread = await self._get()
        named = params.get("run_id")
        if isinstance(named, str):
            run = await self._runtime.runs.get(thread, named)
        else:
            found = await self._runtime.runs.search(thread, limit=1)
            if not found:
                raise Refused("no_such_run", "No run is bound to this thread.")
            run = found[0]
        tree = await tree_of(self._runtime.event_log, thread, run)
        return Done({"tree": tree}, first_frame(thread.last_seq + 1) - 1)

    async def _get(self) -> Thread:
        return await self._runtime.threads.get(self._principal, self.thread_id)

    async def _find(self) -> Thread | None:
        try:
            return await self._get()
        except ThreadNotFound:
            return None


def _run_body(params: Params, *, resumes: bool) -> RunBody:
    """What run.start asks, as the body that creates a run: what that takes is taken here, and nothing else."""
    strategy = params.get("multitask_strategy") or params.get("multitaskStrategy")
    asked = {key: item for key, item in params.items() if key != "multitaskStrategy" and item is not None}
    unknown = sorted(key for key in asked if key not in _PARAMS_OF_A_RUN)
    if unknown:
        known = ", ".join(sorted(_PARAMS_OF_A_RUN))
        raise Refused("invalid_argument", f"run.start takes {known}, and nothing else.")
    if resumes:
        asked["command"] = {"resume": asked.pop("input")}
    if strategy is not None:
        asked["multitask_strategy"] = strategy
    try:
        return RunBody.model_validate({**asked, "stream_mode": list(_RECORDED), "if_not_exists": "create"})
    except ValidationError as error:
        problems = field_errors(cast("list[Mapping[str, Any]]", error.errors(include_input=False, include_url=False)))
        told = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in problems)
        raise Refused("invalid_argument", told) from None


def _responses(params: Params) -> dict[str, Any]:
    """The answers by the ids of what they answer: one, or several at once."""
    given = params.get("responses")
    entries: list[Any] = cast("list[Any]", given) if isinstance(given, list) else [params]
    responses: dict[str, Any] = {}
    for entry in entries:
        found = cast("dict[str, Any]", entry) if isinstance(entry, Mapping) else {}
        interrupt_id = found.get("interrupt_id")
        if not isinstance(interrupt_id, str) or not interrupt_id:
            raise Refused("invalid_argument", "input.respond requires an interrupt_id.")
        if not _INTERRUPT_ID.fullmatch(interrupt_id):
            raise Refused("no_such_interrupt", "Unknown or already-consumed interrupt")
        if interrupt_id in responses:
            raise Refused("invalid_argument", "input.respond takes one response for each interrupt.")
        responses[interrupt_id] = found.get("response")
    if not responses:
        raise Refused("invalid_argument", "input.respond requires a response.")
    return responses

"""The event log as the v3 protocol tells it: a projection that reads the events of a thread in order. Pure.

The log is folded from the first event of a run on: nothing that a frame says is older than its run. What it says of a
run that a client joins late is what it said to those who were there.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import datetime

import orjson

from moorage.assistants import READ_ONLY_TOOLS
from moorage.errors import NotFound
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId
from moorage_api.langgraph.v3_frames import FRAMES_PER_EVENT, Frame, Namespace, first_frame
from moorage_api.langgraph.v3_messages import tool_message
from moorage_api.langgraph.v3_payloads import (
    Data,
    approval,
    call_of_task,
    checkpoint_of,
    tool_ended,
    without_interrupts,
)
from moorage_api.langgraph.v3_run import ROOT, Call, Run, Told, json_text
from moorage_api.langgraph.values import StateFold, Values

_TERMINAL = {
    "success": "completed",
    "interrupted": "interrupted",
    "cancelled": "interrupted",  # as clients of the protocol expect it: both leave the thread for its user to go on
    "error": "failed",
    "timeout": "failed",
}

type LoadFinal = Callable[[], Awaitable[Values | None]]


class Projection:
    """Reads a thread's events in order; each becomes no, one or many frames."""

    def __init__(self, thread: str, fold: StateFold, *, final: LoadFinal | None = None) -> None:
        """`thread` is the thread's id as its clients know it; `fold` knows the states that its runs begin with.

        `final` loads the state in which a run left its thread, for runs that did not record theirs.
        """
        self._thread = thread
        self._fold = fold
        self._final = final
        self._runs: dict[RunId, Run] = {}
        self._running: RunId | None = None

    async def read(self, event: StoredEvent, *, live: bool = True) -> list[Frame]:
        """The frames of this event, numbered; those beyond 1024, of more than a thousand parallel calls, are cut.

        What is not `live` has been followed by more: nothing is loaded for it.
        """
        data: Data = orjson.loads(event.data)
        run = self._runs.setdefault(event.run_id, Run())
        ran = self._running == event.run_id
        told = [item async for item in self._told(event, run, data)]
        if event.type is EventType.RUN_END and live and ran and (data.get("rolled_back") or not run.recorded):
            told += [("values", ROOT, values) for values in [await self._left_behind()] if values is not None]
        first, timestamp = first_frame(event.seq), _milliseconds(event.at)
        return [
            Frame(
                self._thread,
                first + place,
                method,
                namespace,
                timestamp,
                shown,
                run_id=event.run_id if method in ("lifecycle", "input.requested", "input.answered") else None,
            )
            for place, (method, namespace, shown) in enumerate(told[:FRAMES_PER_EVENT])
        ]

    async def _left_behind(self) -> Data | None:
        """The state as it is after a run that did not tell it, or was taken back."""
        values = await self._final() if self._final is not None else None
        return without_interrupts(values) if values is not None else None

    async def _told(self, event: StoredEvent, run: Run, data: Data) -> AsyncIterator[Told]:
        if event.type is EventType.GRAPH:
            if data["kind"] not in ("tasks", "call"):
                for item in run.finish_messages(data):
                    yield item
            async for item in self._graph(run, data["kind"], tuple(data["ns"]), data["data"]):
                yield item
            return
        for item in self._flush_values(run, event.type):
            yield item
        for item in run.before(event.type, data):
            yield item
        if (tell := _TELLERS.get(event.type)) is not None:
            for item in tell(self, event, run, data):
                yield item

    # LangGraph's own events -----------------------------------------------------------------------------------------

    async def _graph(self, run: Run, kind: str, ns: Namespace, data: Data) -> AsyncIterator[Told]:
        """A state is told with its checkpoint before it, which the log has after it: so it waits for the next event."""
        held, run.held = run.held, None
        if held is not None and not (kind == "checkpoints" and held[0] == ns):
            yield "values", *held
            held = None
        match kind:
            case "values":
                run.held = await self._stands(run, ns, data)
            case "checkpoints":
                checkpoint = checkpoint_of(data)
                if not ns:
                    self._fold.stands_at(checkpoint["id"])
                yield "checkpoints", ns, checkpoint
            case _:
                for item in self._plain(run, kind, ns, data):
                    yield item
        if held is not None:
            yield "values", *held

    async def _stands(self, run: Run, ns: Namespace, change: Data) -> tuple[Namespace, Data] | None:
        """The state after a change; None when the checkpoint that it builds on is not kept any more."""
        try:
            values = await self._fold.apply(ns, change)
        except NotFound:
            run.lost = True
            return None
        if ns:
            return ns, without_interrupts(values)
        run.recorded = not run.lost
        return (ns, without_interrupts(values)) if run.recorded else None

    def _plain(self, run: Run, kind: str, ns: Namespace, data: Data) -> Iterator[Told]:
        match kind:
            case "updates":
                for node, values in data.items():
                    yield "updates", ns, {"node": node, "values": values}
            case "tasks":
                if (call := call_of_task(data)) is not None:
                    run.given.setdefault(call["id"], call["args"])
                yield "tasks", ns, data
            case "call":
                yield from self._announced(run, ns, data)
            case _:
                return

    def _flush_values(self, run: Run, kind: EventType) -> Iterator[Told]:
        """What a run stops with is told after the stop itself."""
        if run.held is not None and kind not in (EventType.INTERRUPT, EventType.RUN_END):
            yield "values", *run.held
            run.held = None

    def _announced(self, run: Run, ns: Namespace, data: Data) -> Iterator[Told]:
        """A call's task began: the tool itself, unless somebody is asked first."""
        call_id, name = data["call_id"], data.get("name", "")
        call = run.calls[call_id] = Call(call_id, name, run.given.get(call_id, {}), ns[:-1], ns)
        call.subagent = data.get("subagent")
        if name in READ_ONLY_TOOLS or call_id in run.decided:
            yield from call.begin()

    # Our own events -------------------------------------------------------------------------------------------------

    def _agent_start(self, event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        parent = data.get("parent_call_id")
        if parent is not None:
            yield from run.call(parent, subagent=data["agent"]).begin()
            return
        for scope, message in run.messages.items():  # an attempt before this one was in the middle of it
            yield "messages", run.place(scope), message.abandon()
        run.messages, run.agent = {}, data["agent"]
        self._running = event.run_id
        yield "lifecycle", ROOT, {"event": "running", "graph_name": run.agent}

    def _content(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        parent = data.get("parent_call_id")
        message, started = run.open(parent, data["message_id"])
        shown = [message.start()] if started else []
        if thinking := data.get("thinking_delta"):
            shown += message.delta("reasoning", thinking)
        if text := data["content_delta"]:
            shown += message.delta("text", text)
        yield from run.tell(parent, shown)

    def _message_complete(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        parent = data.get("parent_call_id")
        message, started = run.open(parent, data["message_id"])
        shown = [message.start()] if started else []
        yield from run.tell(parent, [*shown, *message.complete(data["final_content"], data["metadata"])])

    def _tool_call(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        parent, call_id = data.get("parent_call_id"), data["call_id"]
        scope = run.place(parent)
        call = Call(call_id, data["tool_name"], data["tool_input"], scope, (*scope, f"tools:{call_id}"))
        run.calls[call_id], run.given[call_id] = call, call.args
        if (message := run.messages.get(parent)) is not None:
            yield from run.tell(parent, message.call(call_id, call.name, call.args, json_text(call.args)))
        else:  # a message without words: LangGraph's own event, which comes next, knows its id
            run.unnamed.setdefault(parent, []).append(call)

    def _tool_output(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        call = run.call(data["call_id"], scope=run.scope(data))
        yield from call.begin()
        if delta := data.get("delta"):
            yield "tools", call.scope, {"event": "tool-output-delta", "tool_call_id": call.call_id, "delta": delta}

    def _tool_result(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        call = run.call(data["call_id"], scope=run.scope(data))
        status = data["status"]
        if call.started or status in ("success", "error"):
            yield from call.begin()
            yield "tools", call.scope, tool_ended(call.call_id, call.name, data)
        for shown in tool_message(data):
            yield "messages", (*call.scope, f"tools:{call.call_id}"), shown
        if call.subagent is not None and call.started:
            failed = {"error": data["result"]} if status != "success" else {}
            yield "lifecycle", call.place, call.phase("failed" if failed else "completed") | failed
        run.calls.pop(call.call_id, None)

    def _todo_update(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        yield "custom", run.scope(data), {"name": "todo_update", "payload": {"todos": data["todos"]}}

    def _error(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        run.error = data["detail"]
        return iter(())

    def _interrupt(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        """Each pause tells all that waits. Once its run has ended, a question that comes again is not news."""
        if run.ended:
            return
        for item in data["interrupts"]:
            payload = approval(item)
            told = {"interrupt_id": item["id"], "payload": payload, "value": payload}  # Python's client reads `value`
            yield "input.requested", run.scope(item), told

    def _decision(self, _event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        if data["type"] in ("approve", "edit"):
            run.decided.add(data["call_id"])
        if "executed_input" in data:
            run.given[data["call_id"]] = data["executed_input"]
        if "interrupt_id" in data:
            yield "input.answered", ROOT, {"interrupt_ids": [data["interrupt_id"]]}
        elif data["type"] == "approve" and (call := run.calls.get(data["call_id"])) is not None:
            yield from call.begin()

    def _run_end(self, event: StoredEvent, run: Run, data: Data) -> Iterator[Told]:
        ran, phase = self._running == event.run_id, _TERMINAL[data["status"]]
        run.ended = True
        failure = {"error": run.error or "The run failed"} if phase == "failed" else {}
        for call in run.calls.values():
            if call.subagent is not None and call.started:
                yield "lifecycle", call.place, call.phase(phase) | failure
        if ran:
            self._running = None
        if ran or phase == "failed":  # one that never ran says nothing: another one may run
            yield "lifecycle", ROOT, {"event": phase, "graph_name": run.agent, **failure}
        yield from self._left(run, ran=ran, paused=data["status"] == "interrupted")
        self._runs[event.run_id] = Run(agent=run.agent, ended=True)

    def _left(self, run: Run, *, ran: bool, paused: bool) -> Iterator[Told]:
        """The state that a run leaves. A pause tells it again: clients look for it after the pause."""
        if run.held is not None and run.held[0]:
            yield "values", *run.held
        if ran and run.recorded and (paused or run.held is not None):
            yield "values", ROOT, without_interrupts(self._fold.values() or {})


type _Teller = Callable[[Projection, StoredEvent, Run, Data], Iterator[Told]]

_TELLERS: Mapping[EventType, _Teller] = {
    EventType.AGENT_START: Projection._agent_start,  # pyright: ignore[reportPrivateUsage]
    EventType.CONTENT_STREAM: Projection._content,  # pyright: ignore[reportPrivateUsage]
    EventType.MESSAGE_COMPLETE: Projection._message_complete,  # pyright: ignore[reportPrivateUsage]
    EventType.TOOL_CALL: Projection._tool_call,  # pyright: ignore[reportPrivateUsage]
    EventType.TOOL_OUTPUT: Projection._tool_output,  # pyright: ignore[reportPrivateUsage]
    EventType.TOOL_RESULT: Projection._tool_result,  # pyright: ignore[reportPrivateUsage]
    EventType.TODO_UPDATE: Projection._todo_update,  # pyright: ignore[reportPrivateUsage]
    EventType.INTERRUPT: Projection._interrupt,  # pyright: ignore[reportPrivateUsage]
    EventType.DECISION: Projection._decision,  # pyright: ignore[reportPrivateUsage]
    EventType.ERROR: Projection._error,  # pyright: ignore[reportPrivateUsage]
    EventType.RUN_END: Projection._run_end,  # pyright: ignore[reportPrivateUsage]
}


def _milliseconds(at: datetime | None) -> int:
    return round(at.timestamp() * 1000) if at else 0

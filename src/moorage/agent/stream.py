"""From the parts that LangGraph streams to the events of our vocabulary. Pure: no I/O, no clock of its own.

Parts are those of `astream(version="v2", stream_mode=["messages", "updates", "custom"], subgraphs=True)`:
`{"type", "ns", "data"}`. Text deltas come out apart from the other events, so that they can be coalesced.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langgraph.types import Interrupt as GraphInterrupt

from moorage.agent.context import RunContext
from moorage.agent.wire_json import to_json
from moorage.approvals import RaisedInterrupt
from moorage.events import EventType, Message, Role, RunEvent, run_event, scrub_text
from moorage.ids import InterruptId, RunId

MAX_OUTPUT_BYTES = 64 * 1024
MAX_RESULT_CHARACTERS = 128 * 1024


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of streamed text; `thinking` is the model's reasoning."""

    message_id: str
    agent: str
    parent_call_id: str | None
    text: str = ""
    thinking: str = ""


@dataclass(slots=True)
class _OpenMessage:
    """A model message while it streams."""

    id: str
    agent: str
    started: float
    thinking: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class _Output:
    seen: dict[str, int] = field(default_factory=dict[str, int])
    truncated: bool = False


class PartReader:
    """Reads the parts of one run in order, and remembers what later parts refer to."""

    def __init__(
        self, run_id: RunId, agent: str, context: RunContext, *, clock: Callable[[], float], model: str
    ) -> None:
        """`clock` answers monotonic seconds; `model` is told to readers with each message.

        What the context's journal says that readers were told of already is not told again.
        """
        self._run_id = run_id
        self._context = context
        self._clock = clock
        self._model = model
        self._agents: dict[str | None, str] = {None: agent}
        self._call_of_task: dict[str, str] = {}
        self._open: dict[tuple[str, ...], _OpenMessage] = {}
        self._outputs: dict[str, _Output] = {}
        self._announced: set[str | None] = {None}
        self._places: dict[tuple[str | None, str], int] = {}
        self.interrupts: dict[str, RaisedInterrupt] = {}
        self.values: dict[str, Any] = {}  # what the root's nodes wrote beside messages, in JSON

    def start(self, *, attempt: int = 1) -> RunEvent:
        """From the second attempt on, readers drop what the one before was in the middle of saying."""
        told = {"run_id": self._run_id, "agent": self._agents[None], "attempt": attempt if attempt > 1 else None}
        return run_event(EventType.AGENT_START, told)

    def untold(self, messages: Iterable[BaseMessage], reports: Mapping[str, Mapping[str, Any]]) -> Iterator[RunEvent]:
        """Tell of messages of the root's state that readers have not been told of: their run was lost too early.

        `reports` holds what is known of tool results beside the message, by its id.
        """
        for message in messages:
            if isinstance(message, AIMessage):
                yield from self._model_message((), message)
            elif isinstance(message, ToolMessage):
                status = "error" if message.status == "error" else "success"
                report = reports.get(message.id or "") or {"status": status, "result": message.text}
                part = {"call_id": message.tool_call_id, "message_id": message.id, "report": report}
                yield from self._result(part, None)

    def read(self, part: dict[str, Any]) -> Iterator[Delta | RunEvent]:
        """What this part means to a reader of the thread; often nothing."""
        ns: tuple[str, ...] = part["ns"]
        data: Any = part["data"]
        match part["type"]:
            case "messages":
                if data[1].get("lc_source") != "summarization":  # a model call of deepagents' own, not the answer
                    yield from self._message_part(ns, data[0])
            case "updates":
                yield from self._update(ns, data)
            case "custom":
                yield from self._custom(ns, data)
            case _:
                return

    def _parent(self, ns: tuple[str, ...]) -> str | None:
        return self._call_of_task.get(ns[-1]) if ns else None

    def _agent(self, parent: str | None) -> str:
        return self._agents.get(parent) or "general-purpose"

    def _message_part(self, ns: tuple[str, ...], chunk: Any) -> Iterator[Delta | RunEvent]:
        if not isinstance(chunk, AIMessageChunk):
            return
        parent = self._parent(ns)
        if parent not in self._announced:
            self._announced.add(parent)
            yield run_event(
                EventType.AGENT_START,
                {"run_id": self._run_id, "agent": self._agent(parent), "parent_call_id": parent},
            )
        message = self._open.get(ns)
        if message is None:
            message = self._open[ns] = _OpenMessage(chunk.id or "", self._agent(parent), self._clock())
        content = chunk.content
        text = content if isinstance(content, str) else chunk.text
        thinking = _thinking_of(chunk)
        if thinking:
            message.thinking.append(thinking)
        if text or thinking:
            yield Delta(message.id, message.agent, parent, text, thinking)

    def _update(self, ns: tuple[str, ...], data: dict[str, Any]) -> Iterator[RunEvent]:
        if "__metadata__" in data:  # a step that ran before the pause, replayed
            return
        for node, update in data.items():
            if node == "__interrupt__":
                for item in cast("tuple[GraphInterrupt, ...]", update):
                    self._raise(ns, item)
            elif isinstance(update, dict):
                written = cast("dict[str, Any]", update)
                if not ns:
                    self._keep_values(written)
                if node == "model":
                    for message in written.get("messages", []):
                        if isinstance(message, AIMessage):
                            yield from self._model_message(ns, message)

    def _keep_values(self, written: Mapping[str, Any]) -> None:
        for key, value in written.items():
            if key != "messages" and not key.startswith("_"):
                self.values[key] = to_json(value)

    def _raise(self, ns: tuple[str, ...], item: GraphInterrupt) -> None:
        if item.id in self.interrupts:  # it passes each enclosing graph on its way up
            return
        value = cast("dict[str, Any]", item.value)
        parent = self._parent(ns)
        self.interrupts[item.id] = RaisedInterrupt(
            id=InterruptId(item.id),
            call_id=value["tool_call_id"],
            tool_name=value["name"],
            tool_input=value["args"],
            description=value["description"],
            allowed_decisions=value["allowed_decisions"],
            args_schema=value["args_schema"],
            facts=value["facts"],
            agent=self._agent(parent),
            parent_call_id=parent,
            base_file_hash=value["base_file_hash"],
            diff=value["diff"],
            checkpoint_ns=value["checkpoint_ns"],
            message_id=value["message_id"],
            position=value["position"],
            graph_id=item.id,
        )
        # They come in the order in which the calls' tasks ended; a human wants them as the model made them.
        self.interrupts = dict(sorted(self.interrupts.items(), key=lambda item: self._place(item[1])))

    def _place(self, raised: RaisedInterrupt) -> int:
        return self._places.get((raised.parent_call_id, raised.call_id), 0)

    def _model_message(self, ns: tuple[str, ...], message: AIMessage) -> Iterator[RunEvent]:
        parent = self._parent(ns)
        agent = self._agent(parent)
        opened = self._open.pop(ns, None)
        message_id = opened.id if opened and opened.id else message.id or ""
        usage = self._usage(message)
        text = scrub_text(message.text)
        took = self._clock() - opened.started if opened else 0.0
        stored = None if parent else self._history(message_id, text, message, opened, usage, took)
        if text:
            yield run_event(
                EventType.MESSAGE_COMPLETE,
                {
                    "message_id": message_id,
                    "final_content": text,
                    "agent": agent,
                    "parent_call_id": parent,
                    "metadata": {"model": self._model, "usage": usage, "response_time": round(took, 3)},
                },
                message=stored,
                waits_for=message.id,
            )
            stored = None
        for call in message.tool_calls:
            event = {
                "call_id": call["id"],
                "message_id": message_id,
                "tool_name": call["name"],
                "tool_input": call["args"],
                "agent": agent,
                "parent_call_id": parent,
            }
            self._places[parent, call["id"] or ""] = len(self._places)
            yield run_event(EventType.TOOL_CALL, event, message=stored, waits_for=message.id)
            stored = None

    def _usage(self, message: AIMessage) -> dict[str, int]:
        found = message.usage_metadata
        tokens_in, tokens_out = (found["input_tokens"], found["output_tokens"]) if found else (0, 0)
        self._context.count_tokens(input_tokens=tokens_in, output_tokens=tokens_out)
        return {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}

    def _history(
        self,
        message_id: str,
        text: str,
        message: AIMessage,
        opened: _OpenMessage | None,
        usage: dict[str, int],
        took: float,
    ) -> Message:
        calls = [{"call_id": c["id"], "tool_name": c["name"], "tool_input": c["args"]} for c in message.tool_calls]
        thinking = scrub_text("".join(opened.thinking)) if opened else ""
        return Message(
            message_id,
            Role.ASSISTANT,
            text,
            thinking or None,
            calls or None,
            usage=usage,
            duration_ms=round(took * 1000) if opened else None,
        )

    def _custom(self, ns: tuple[str, ...], data: Any) -> Iterator[RunEvent]:
        if not isinstance(data, dict):
            return
        part = cast("dict[str, Any]", data)
        match part.get("kind"):
            case "call":
                self._call_of_task[part["ns"].rpartition("|")[2]] = part["call_id"]
                if part["subagent"]:
                    self._agents[part["call_id"]] = part["subagent"]
            case "decision":
                told = {key: part[key] for key in ("call_id", "type", "decided_by", "decided_via")}
                yield run_event(EventType.DECISION, {**told, "parent_call_id": self._parent(ns)})
            case "output":
                yield from self._output(part, self._parent(ns))
            case "result":
                yield from self._result(part, self._parent(ns))
            case _:
                return

    def _output(self, part: dict[str, Any], parent: str | None) -> Iterator[RunEvent]:
        call_id, stream, delta = part["call_id"], part["stream"], scrub_text(part["delta"])
        output = self._outputs.setdefault(call_id, _Output())
        room = MAX_OUTPUT_BYTES - output.seen.get(stream, 0)
        kept = delta if len(delta) * 4 <= room else delta.encode()[: max(room, 0)].decode(errors="ignore")
        output.seen[stream] = output.seen.get(stream, 0) + len(delta.encode())
        agent = self._agent(parent)
        if kept:
            event = {"call_id": call_id, "stream": stream, "delta": kept, "agent": agent, "parent_call_id": parent}
            yield run_event(EventType.TOOL_OUTPUT, event)
        if len(kept) < len(delta) and not output.truncated:
            output.truncated = True
            event = {"call_id": call_id, "stream": stream, "truncated": True, "agent": agent, "parent_call_id": parent}
            yield run_event(EventType.TOOL_OUTPUT, event)

    def _result(self, part: dict[str, Any], parent: str | None) -> Iterator[RunEvent]:
        call_id, message_id, report = part["call_id"], part["message_id"], part["report"]
        self._outputs.pop(call_id, None)
        if message_id in self._context.journal.told:
            return
        text = scrub_text(report["result"])
        shown = text if len(text) <= MAX_RESULT_CHARACTERS else text[:MAX_RESULT_CHARACTERS] + "\n[cut]"
        event = {
            "call_id": call_id,
            "message_id": message_id,
            "status": report["status"],
            "result": shown,
            "exit_code": report.get("exit_code"),
            "duration_ms": report.get("duration_ms", 0),
            "executed_input": report.get("executed_input"),
            "agent": self._agent(parent),
            "parent_call_id": parent,
        }
        took = report.get("duration_ms")
        message = None if parent else Message(message_id, Role.TOOL, shown, call_id=call_id, duration_ms=took)
        yield run_event(EventType.TOOL_RESULT, event, message=message, waits_for=message_id)
        if report.get("todos") is not None:
            event = {"todos": report["todos"], "agent": self._agent(parent), "parent_call_id": parent}
            yield run_event(EventType.TODO_UPDATE, event)


def delta_event(deltas: list[Delta]) -> RunEvent:
    """One `content_stream` event for consecutive deltas of the same message."""
    first = deltas[0]
    return run_event(
        EventType.CONTENT_STREAM,
        {
            "message_id": first.message_id,
            "content_delta": "".join(delta.text for delta in deltas),
            "thinking_delta": "".join(delta.thinking for delta in deltas) or None,
            "agent": first.agent,
            "parent_call_id": first.parent_call_id,
        },
    )


def _thinking_of(chunk: AIMessageChunk) -> str:
    extra = chunk.additional_kwargs
    if extra:
        reasoning = extra.get("reasoning_content")
        if isinstance(reasoning, str):
            return reasoning
    if isinstance(chunk.content, list):
        return "".join(
            block.get("thinking") or block.get("reasoning") or ""
            for block in chunk.content
            if isinstance(block, dict) and block.get("type") in ("thinking", "reasoning")
        )
    return ""

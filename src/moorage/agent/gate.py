"""The gate around every tool call: it asks a human where it must, runs a call at most once, and tells how it ended.

One middleware, because what a human decided, what then ran and what came of it belong in the same record. It raises one
LangGraph interrupt per gated call (never a batch: a bad answer to one must not touch the others). Answers do not come
back through the graph: a resumed or recovered run enters every unfinished call again, and the gate asks the journal
what was decided and what was started.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from deepagents.backends.protocol import SandboxBackendProtocol
from langchain.agents.middleware.types import AgentMiddleware, ToolCallRequest
from langgraph.config import get_stream_writer
from langgraph.types import interrupt

from moorage.agent.calls import args_schema, call_of, checkpoint_ns, describe, refusal, would_run
from moorage.agent.changes import Change, file_hash, inspect_change
from moorage.agent.context import RunContext
from moorage.agent.hidden_text import hidden_characters
from moorage.agent.journal import (
    Call,
    CallStarted,
    CallState,
    Entry,
    Journal,
    ToolResult,
    pack,
    unknown_outcome,
    unpack,
)
from moorage.agent.results import answer_for, named, naming_new_files, rejection, report_of, watched, with_notice
from moorage.agent.risks import FOLDERS, risks_of
from moorage.agent.sandbox_files import SandboxFiles
from moorage.agent.scope import ToolScope
from moorage.approvals import RISKS, WARNINGS, Interrupt, InterruptStatus, digest_of
from moorage.ids import owner_of
from moorage.rules import Effect, Verdict
from moorage.sandboxes.port import SandboxDied, SandboxUnavailable, StartedTooLate, start_by

ALLOWED_DECISIONS = ("approve", "edit", "reject", "respond")

type Handler = Callable[[ToolCallRequest], Awaitable[ToolResult]]
type Decision = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gate:
    """What the server knows to tell the human beside what the agent claims; `folders` are those for files."""

    facts: dict[str, Any]
    folders: Sequence[str] = FOLDERS


class ToolGate(AgentMiddleware[Any, Any]):
    """Asks before each tool call that is not declared read-only, and reports every call through the custom stream.

    `scope` says which calls are refused, and where asking differs.
    """

    def __init__(self, gate: Gate, backend: SandboxBackendProtocol, scope: ToolScope) -> None:
        super().__init__()
        self._gate = gate
        self._files = SandboxFiles(backend)
        self._scope = scope

    async def awrap_tool_call(self, request: ToolCallRequest, handler: Handler) -> ToolResult:
        """Ask, run, report. A pause leaves through LangGraph's own exception; the next run comes in here again."""
        passage = _Passage(request, handler, self._gate, self._files, self._scope)
        passage.announce()
        if (why := refusal(request) or passage.out_of_scope()) is not None:
            return passage.tell(answer_for(request, why, status="error"))
        if passage.just_reads() or not would_run(request):
            return passage.tell(await passage.call_tool(request))
        return await passage.at_most_once()


class _Passage:
    """One call on its way through the gate."""

    def __init__(
        self, request: ToolCallRequest, handler: Handler, gate: Gate, files: SandboxFiles, scope: ToolScope
    ) -> None:
        self._request = request
        self._handler = handler
        self._gate = gate
        self._files = files
        self._scope = scope
        self._write = get_stream_writer()
        self._journal: Journal = cast("RunContext", cast("Any", request).runtime.context).journal
        self._call = call_of(request)
        self._result_id = self._call.key.result_id(self._journal.thread_id)
        self._began = time.monotonic()

    def announce(self) -> None:
        call = self._call
        subagent = call.args.get("subagent_type") if call.tool == "task" else None
        place = {"call_id": call.tool_call_id, "tool": call.tool, "ns": checkpoint_ns()}
        self._write({"kind": "call", **place, "subagent": subagent})

    def out_of_scope(self) -> str | None:
        """What to tell the model of a tool that it was not given, unless the call was started while it was."""
        if not self._scope.refuses(self._call.tool) or self._journal.find(self._call.key) is not None:
            return None
        return f"Error: the tool {self._call.tool} is not available to you. Nothing was run; go on without it."

    def just_reads(self) -> bool:
        tool, scope = self._call.tool, self._scope
        return not (scope.journals(tool) or scope.asks(tool) or scope.refuses(tool))

    async def call_tool(self, request: ToolCallRequest) -> ToolResult:
        with watched(self._write, self._call.tool_call_id) as created:
            return naming_new_files(await self._handler(request), created)

    def tell(self, result: ToolResult, *, rejected: bool = False, edited: Any = None) -> ToolResult:
        """Report a result that the journal need not know, and answer it."""
        self._report(report_of(result, rejected=rejected, edited=edited, seconds=time.monotonic() - self._began))
        return named(result, self._result_id)

    async def at_most_once(self) -> ToolResult:
        entry = self._journal.find(self._call.key)
        if entry is not None:
            return await self._again(entry)
        decision = await self._decision()
        match decision["type"]:
            case "respond":
                return self.tell(answer_for(self._request, decision["message"], status="success"))
            case "reject":
                return await self._rejected(decision)
            case _:
                return await self._run(decision.get("args"))

    async def _again(self, entry: Entry) -> ToolResult:
        """A call that an earlier run started: its result if it is known, and the truth if not."""
        result = entry.result
        if result is None:
            result = unknown_outcome()
            await self._journal.finish(self._call, CallState.UNKNOWN, result)
        self._report(result.get("report") or {"status": "rejected", "result": result.get("content", "")})
        return unpack(result, tool_call_id=self._call.tool_call_id, message_id=self._result_id, name=self._call.tool)

    async def _decision(self) -> Decision:
        asked = self._journal.asked(self._call.key)
        match asked:
            case Interrupt(decision=dict() as decision, status=status) if status is not InterruptStatus.SUPERSEDED:
                if await self._is_what_was_seen(asked, decision):
                    return decision
                return interrupt(await self._question())
            case Interrupt(status=InterruptStatus.PENDING):
                return interrupt(question_again(asked))
            case _:
                return await self._by_rule() or self._by_assistant() or interrupt(await self._question())

    async def _by_rule(self) -> Decision | None:
        """What a remembered rule decides, if one does. None lets a call through that a human should look at twice."""
        verdict = await self._journal.judge(self._call.tool, self._call.args, resolve=self._files.resolve)
        if verdict is None or (verdict.effect is Effect.ALLOW and await self._flags()):
            return None
        decision = _decision_of(verdict)
        told = {"type": decision["type"], "decided_by": verdict.owner, "decided_via": f"rule:{verdict.rule_id}"}
        self._write({"kind": "decision", "call_id": self._call.tool_call_id, **told})
        return decision

    def _by_assistant(self) -> Decision | None:
        """What the assistant decides in its user's name, where the operator permits that."""
        if self._scope.asks(self._call.tool):
            return None
        told = {"type": "approve", "decided_by": owner_of(self._journal.thread_id), "decided_via": "assistant"}
        self._write({"kind": "decision", "call_id": self._call.tool_call_id, **told})
        return {"type": "approve"}

    async def _is_what_was_seen(self, asked: Interrupt, decision: Decision) -> bool:
        """Whether the call is the one that the human saw, and the file that it changes still as it was then.

        A client may have put another call in its place since: a thread's state is the client's to change.
        """
        call = replace(asked.raised, tool_name=self._call.tool, tool_input=dict(self._call.args))
        if digest_of(self._journal.thread_id, call) != asked.digest:
            return False
        seen = asked.raised.base_file_hash
        if seen is None or decision["type"] not in ("approve", "edit"):
            return True
        path = asked.raised.tool_input.get("file_path")
        if (decision.get("args") or asked.raised.tool_input).get("file_path") != path:
            return True
        return await file_hash(self._files.read, str(path)) == seen

    async def _question(self) -> dict[str, Any]:
        call = self._call
        change = await inspect_change(self._files.read, call.tool, dict(call.args))
        return {
            "type": "tool_approval",
            "tool_call_id": call.tool_call_id,
            "name": call.tool,
            "args": dict(call.args),
            "description": describe(call.tool, dict(call.args)),
            "allowed_decisions": list(ALLOWED_DECISIONS),
            "args_schema": args_schema(cast("Any", self._request.tool)),
            "facts": await self._facts(change),
            "base_file_hash": change.base_file_hash if change else None,
            "diff": change.diff if change else None,
            "checkpoint_ns": call.key.checkpoint_ns,
            "message_id": call.key.message_id,
            "position": call.key.position,
        }

    async def _facts(self, change: Change | None) -> dict[str, Any]:
        facts = {**self._gate.facts, **await self._flags()}
        if change and change.note:
            facts["note"] = change.note
        return facts

    async def _flags(self) -> dict[str, Any]:
        """What a human should look at twice in this call; empty for most."""
        tool, args = self._call.tool, dict(self._call.args)
        hidden = await asyncio.to_thread(hidden_characters, args)
        risks = await asyncio.to_thread(risks_of, tool, args, folders=self._gate.folders)
        return {name: found for name, found in ((WARNINGS, hidden), (RISKS, risks)) if found}

    async def _rejected(self, decision: Decision) -> ToolResult:
        result = answer_for(self._request, rejection(self._call.tool, decision["message"]), status="error")
        if "rule_id" in decision:  # a rule may be gone when this call is entered again: what it said stays
            report = report_of(result, rejected=True, edited=None, seconds=0)
            await self._journal.finish(self._call, CallState.DONE, pack(result, report))
        return self.tell(result, rejected=True)

    async def _run(self, edited: dict[str, Any] | None) -> ToolResult:
        call, request = self._call, self._request
        if edited is not None:
            call = Call(call.key, call.tool_call_id, call.tool, edited)
            request = request.override(tool_call={**request.tool_call, "args": edited})
        if not self._scope.journals(call.tool):
            result = await self.call_tool(request)
            return self.tell(with_notice(result, edited) if edited is not None else result, edited=edited)
        try:
            result = await self._start(call, request)
        except CallStarted as started:
            return await self._again(started.entry)
        if edited is not None:
            result = with_notice(result, edited)
        report = report_of(result, rejected=False, edited=edited, seconds=time.monotonic() - self._began)
        await self._journal.finish(call, CallState.DONE, pack(result, report))
        self._report(report)
        return named(result, self._result_id)

    async def _start(self, call: Call, request: ToolCallRequest) -> ToolResult:
        """Start the tool once it is certain that nobody else may; raises CallStarted when somebody did."""
        while True:
            token = start_by.set(await self._journal.start(call))
            self._began = time.monotonic()
            try:
                return await self.call_tool(request)
            except StartedTooLate:  # slow, or frozen: withdrawing tells which
                await self._journal.withdraw(call)
            except SandboxDied:
                raise
            except SandboxUnavailable:
                await self._journal.withdraw(call)
                raise
            finally:
                start_by.reset(token)

    def _report(self, report: Mapping[str, Any]) -> None:
        self._write(
            {
                "kind": "result",
                "call_id": self._call.tool_call_id,
                "message_id": self._result_id,
                "report": dict(report),
            }
        )


def question_again(asked: Interrupt) -> dict[str, Any]:
    """A question that still waits, as it was raised."""
    raised = asked.raised
    return {
        "type": "tool_approval",
        "tool_call_id": raised.call_id,
        "name": raised.tool_name,
        "args": raised.tool_input,
        "description": raised.description,
        "allowed_decisions": raised.allowed_decisions,
        "args_schema": raised.args_schema,
        "facts": raised.facts,
        "base_file_hash": raised.base_file_hash,
        "diff": raised.diff,
        "checkpoint_ns": raised.checkpoint_ns,
        "message_id": raised.message_id,
        "position": raised.position,
    }


def _decision_of(verdict: Verdict) -> dict[str, Any]:
    if verdict.effect is Effect.ALLOW:
        return {"type": "approve", "rule_id": verdict.rule_id}
    reason = "A rule that the user made for this session forbids it."
    return {"type": "reject", "message": reason, "rule_id": verdict.rule_id}

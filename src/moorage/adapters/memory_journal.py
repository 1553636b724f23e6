"""The journal of tool calls in one process, for unit tests."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moorage.agent.journal import Call, CallKey, CallStarted, CallState, Entry, Resolve
from moorage.approvals import Interrupt
from moorage.ids import ThreadId
from moorage.rules import Rule, Verdict, judge


@dataclass(slots=True)
class MemoryJournal:
    """`moorage.agent.journal.Journal` of one thread; what tests put in is what it answers."""

    thread_id: ThreadId
    told: frozenset[str] = frozenset()
    entries: dict[CallKey, Entry] = field(default_factory=dict[CallKey, Entry])
    questions: dict[CallKey, Interrupt] = field(default_factory=dict[CallKey, Interrupt])
    rules: list[Rule] = field(default_factory=list[Rule])

    def find(self, key: CallKey) -> Entry | None:
        return self.entries.get(key)

    def asked(self, key: CallKey) -> Interrupt | None:
        return self.questions.get(key)

    async def told_of(self, message_ids: Sequence[str]) -> set[str]:
        return set(self.told & set(message_ids))

    async def of_messages(self, message_ids: Sequence[str]) -> list[Entry]:
        return [entry for key, entry in self.entries.items() if key.message_id in message_ids and not key.checkpoint_ns]

    async def judge(self, tool: str, args: Mapping[str, Any], *, resolve: Resolve) -> Verdict | None:
        path = args.get("file_path")
        return judge(self.rules, tool, dict(args), await resolve(path) if self.rules and path else None)

    async def start(self, call: Call) -> float:
        if call.key in self.entries:
            raise CallStarted(self.entries[call.key])
        self.entries[call.key] = Entry(call.key, call.tool_call_id, call.tool, CallState.STARTED)
        return math.inf

    async def finish(self, call: Call, state: CallState, result: Mapping[str, Any]) -> None:
        self.entries[call.key] = Entry(call.key, call.tool_call_id, call.tool, state, result)

    async def withdraw(self, call: Call) -> None:
        self.entries.pop(call.key, None)

"""From the events of one run to what an OpenAI model would have said. Pure: no I/O, no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from moorage.events import EventType, StoredEvent
from moorage_api.openai.wording import step_begins, step_ends

_BEGINS_ANEW = "\n\n[The answer was cut off and begins anew.]\n\n"
_CANCELLED = "[This run was cancelled.]"


@dataclass(frozen=True, slots=True)
class Piece:
    """More of the answer, or of the reasoning that leads to it."""

    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int


class Turn:
    """Reads a run's events in order. `usage` is there once the run has ended."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.error: tuple[str, str] | None = None  # its code, and what happened
        self.interrupts: list[dict[str, Any]] = []
        self._tools: dict[str, str] = {}
        self._message: str | None = None  # the one that is being said
        self._said = ""  # of it
        self._complete = False
        self._wrote = False
        self._began = False
        self._finals: list[str] = []

    @property
    def text(self) -> str:
        """All that was said to its end, without what was cut off on the way."""
        return "\n\n".join(self._finals)

    def read(self, event: StoredEvent) -> Piece:
        """What this event adds; often nothing. A sub-agent's words are its own, and only its steps are told."""
        data: dict[str, Any] = orjson.loads(event.data)
        own = data.get("parent_call_id") is None
        match event.type:
            case EventType.AGENT_START if own:
                self._began = True
                return self._begin_anew()
            case EventType.MESSAGE_COMPLETE if not self._began:
                pass  # what the client itself gave as said before
            case EventType.CONTENT_STREAM if own:
                thinking = data.get("thinking_delta") or ""
                return Piece(self._say(data["message_id"], data["content_delta"]), thinking)
            case EventType.MESSAGE_COMPLETE if own:
                return self._complete_message(data["message_id"], data["final_content"])
            case EventType.TOOL_CALL:
                self._tools[data["call_id"]] = data["tool_name"]
                return Piece(reasoning=step_begins(data["tool_name"], data["tool_input"]))
            case EventType.TOOL_RESULT:
                return Piece(reasoning=step_ends(self._tools.get(data["call_id"], "tool"), data))
            case EventType.INTERRUPT:
                self.interrupts = data["interrupts"]
            case EventType.ERROR:
                self.error = (data["code"], data["detail"])
            case EventType.RUN_END:
                return self._end(data)
            case _:
                pass
        return Piece()

    def _say(self, message_id: str, text: str) -> str:
        if not text:
            return ""
        before = "\n\n" if self._wrote and message_id != self._message else ""
        if message_id != self._message:
            self._message, self._said, self._complete = message_id, "", False
        self._said += text
        self._wrote = True
        return before + text

    def _complete_message(self, message_id: str, final: str) -> Piece:
        """Say what was not streamed: all of it, where another attempt had said it and been lost."""
        said = self._said if message_id == self._message else ""
        rest = final.removeprefix(said) if final.startswith(said) else ""
        piece = Piece(self._say(message_id, rest))
        self._complete = True
        self._finals.append(final)
        return piece

    def _begin_anew(self) -> Piece:
        """If a worker was lost, what its unfinished message said does not count, and cannot be taken back."""
        if self._message is None or self._complete:
            return Piece()
        self._message, self._said, self._wrote = None, "", False
        return Piece(_BEGINS_ANEW)

    def _end(self, data: Mapping[str, Any]) -> Piece:
        usage = data["usage"]
        self.usage = Usage(usage.get("input_tokens", 0), usage.get("output_tokens", 0))
        if data["status"] in ("error", "timeout") and self.error is None:
            self.error = ("run_failed", "The run ended with an error")
        if data["status"] == "cancelled":
            return self.add(_CANCELLED)
        return Piece()

    def add(self, text: str) -> Piece:
        """Words of our own after the agent's."""
        self._finals.append(text)
        return Piece(self._say("added", text))

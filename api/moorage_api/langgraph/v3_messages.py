"""Messages of the v3 protocol: one model message as start, content blocks that never interleave, and finish. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

type Data = dict[str, Any]

_KINDS = {"text": "text-delta", "reasoning": "reasoning-delta"}


@dataclass(slots=True)
class OpenMessage:
    """A model message while it is told. Every frame names it, so that messages told at once are kept apart."""

    id: str
    index: int = -1
    kind: str | None = None
    parts: list[str] = field(default_factory=list[str])
    completed: bool = False  # its text is whole; tool calls may follow
    usage: Mapping[str, Any] | None = None
    metadata: Data = field(default_factory=dict[str, Any])

    def start(self) -> Data:
        return {"event": "message-start", "role": "ai", "id": self.id}

    def delta(self, kind: str, text: str) -> Iterator[Data]:
        """A piece of `text` or `reasoning`."""
        if self.kind != kind:
            yield from self.close_block()
            self.index += 1
            self.kind = kind
            yield self._told("content-block-start", content={"type": kind, kind: ""})
        self.parts.append(text)
        yield self._told("content-block-delta", delta={"type": _KINDS[kind], kind: text})

    def complete(self, text: str, metadata: Mapping[str, Any]) -> Iterator[Data]:
        """Its text is `text`, whatever was told of it before."""
        if self.kind != "text":
            yield from self.delta("text", text)
        self.parts = [text]
        yield from self.close_block()
        self.completed = True
        self.usage = metadata.get("usage")
        if model := metadata.get("model"):
            self.metadata["model_name"] = model

    def call(self, call_id: str, name: str, args: Mapping[str, Any], raw: str) -> Iterator[Data]:
        """A tool call, whole: our log has them only so. `raw` is `args` as JSON."""
        yield from self.close_block()
        self.completed = True
        self.index += 1
        begun = {"type": "tool_call_chunk", "id": call_id, "name": name, "args": ""}
        yield self._told("content-block-start", content=begun)
        yield self._told("content-block-delta", delta={"type": "tool-call-delta", "args": raw})
        whole = {"type": "tool_call", "id": call_id, "name": name, "args": args}
        yield self._told("content-block-finish", content=whole)

    def close_block(self) -> Iterator[Data]:
        if self.kind is None:
            return
        content = {"type": self.kind, self.kind: "".join(self.parts)}
        self.kind, self.parts = None, []
        yield self._told("content-block-finish", content=content)

    def finish(self) -> Iterator[Data]:
        yield from self.close_block()
        told: Data = {"event": "message-finish", "message_id": self.id, "metadata": self.metadata}
        yield {**told, "usage": dict(self.usage)} if self.usage else told

    def abandon(self) -> Data:
        return {
            "event": "error",
            "message_id": self.id,
            "message": "The model was stopped before it had said all",
            "code": "aborted",
        }

    def _told(self, event: str, **more: Any) -> Data:
        return {"event": event, "message_id": self.id, "index": self.index, **more}


def tool_message(result: Mapping[str, Any]) -> Iterator[Data]:
    """The message with a tool's result, `{call_id, message_id, result}`, which is whole at once."""
    message_id, text = result["message_id"], result["result"]
    yield {"event": "message-start", "role": "tool", "id": message_id, "tool_call_id": result["call_id"]}
    block = {"message_id": message_id, "index": 0}
    yield {"event": "content-block-start", **block, "content": {"type": "text", "text": ""}}
    yield {"event": "content-block-delta", **block, "delta": {"type": "text-delta", "text": text}}
    yield {"event": "content-block-finish", **block, "content": {"type": "text", "text": text}}
    yield {"event": "message-finish", "message_id": message_id, "metadata": {}}

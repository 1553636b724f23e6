"""Frames of the v3 protocol: their numbers, their bytes, and which of them a subscription gets.

One event of the log may become several frames. A frame's `seq` is the event's seq * 1024 plus the frame's place among
those of this event: it is unique and rises within a thread, is the same whoever reads and whenever, and says exactly
where to go on. Source: the CDDL published as `@langchain/protocol` 0.0.21.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from moorage.errors import InvalidInput

FRAMES_PER_EVENT = 1024
CHANNELS = ("values", "updates", "messages", "tools", "lifecycle", "input", "checkpoints", "tasks", "custom")
_CUSTOM = "custom:"

type Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """Something that a client is told. `run_id` is there where clients read it from the event's id.

    `thread` is the thread's id as its clients know it.
    """

    thread: str
    seq: int
    method: str
    namespace: Namespace
    timestamp: int
    data: Any
    run_id: str | None = None

    @property
    def channel(self) -> str:
        match self.method:
            case "input.requested" | "input.answered":
                return "input"
            case "custom" if self.data.get("name"):
                return f"{_CUSTOM}{self.data['name']}"
            case _:
                return self.method

    def body(self) -> bytes:
        """The frame as JSON."""
        params = {"namespace": self.namespace, "timestamp": self.timestamp, "data": self.data}
        told = {"type": "event", "event_id": self.event_id, "seq": self.seq, "method": self.method}
        return orjson.dumps({**told, "params": params})

    @property
    def event_id(self) -> str:
        """Clients read the run of a lifecycle event from `synth:<run_id>:...`: it has no other place."""
        return f"synth:{self.run_id}:{self.seq}" if self.run_id else f"{self.thread}.{self.seq}"

    def sse(self) -> bytes:
        return b"event: %b\r\ndata: %b\r\nid: %d\r\n\r\n" % (self.method.encode(), self.body(), self.seq)


def first_frame(log_seq: int) -> int:
    """The least seq that a frame of this event can have."""
    return log_seq * FRAMES_PER_EVENT


@dataclass(frozen=True, slots=True)
class Filter:
    """What a subscription asks for. No namespaces are all of them; `depth` counts levels below a namespace."""

    channels: frozenset[str]
    namespaces: tuple[Namespace, ...] = ()
    depth: int | None = None

    @classmethod
    def of(
        cls, channels: Sequence[str], namespaces: Sequence[Sequence[str]] | None = None, depth: int | None = None
    ) -> "Filter":
        """Raises InvalidInput for no channels, or for one that there is not."""
        if not channels:
            raise InvalidInput("channels is required and must be a non-empty array", code="invalid_channels")
        unknown = [name for name in channels if name not in CHANNELS and not _is_named_custom(name)]
        if unknown:
            allowed = ", ".join(CHANNELS)
            raise InvalidInput(
                f"channels contains unsupported entries. Allowed: {allowed}, or any `custom:<name>`",
                code="invalid_channels",
            )
        return cls(frozenset(channels), tuple(tuple(item) for item in namespaces or ()), depth)

    @property
    def watches_only(self) -> bool:
        """Whether it is the watcher that clients keep beside what they show: of what goes on now, not of what went."""
        return self.channels <= {"lifecycle", "input"} and not self.namespaces and self.depth is None

    def takes(self, frame: Frame) -> bool:
        channel = frame.channel
        if channel not in self.channels and not (channel.startswith(_CUSTOM) and "custom" in self.channels):
            return False
        return not self.namespaces or any(self._covers(prefix, frame.namespace) for prefix in self.namespaces)

    def _covers(self, prefix: Namespace, namespace: Namespace) -> bool:
        return _is_prefix(prefix, namespace) and (self.depth is None or len(namespace) - len(prefix) <= self.depth)


def _is_named_custom(name: str) -> bool:
    return name.startswith(_CUSTOM) and len(name) > len(_CUSTOM)


def _is_prefix(prefix: Namespace, namespace: Namespace) -> bool:
    """A part of the prefix without a colon stands for all that have its name."""
    if len(prefix) > len(namespace):
        return False
    return all(
        candidate == part or (":" not in part and candidate.partition(":")[0] == part)
        for part, candidate in zip(prefix, namespace, strict=False)
    )

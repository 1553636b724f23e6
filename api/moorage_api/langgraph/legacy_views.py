"""The ways in which the legacy SSE shows messages: as chunks, as snapshots, and as updates where none were recorded."""

from collections.abc import Mapping
from typing import Any

import orjson

from moorage_api.langgraph.legacy_frames import FrameWriter, frame_name
from moorage_api.langgraph.legacy_messages import Answered, MessageView, Spoken
from moorage_api.langgraph.legacy_places import Namespace


class Chunks(MessageView):
    """Mode `messages-tuple`: `[AIMessageChunk | ToolMessage, metadata]` under the name `messages`.

    A chunk of text is spliced from its text and a tail that is encoded once per message: there is one for each event
    of the log that has text, and those are most of all events.
    """

    def __init__(self, frames: FrameWriter) -> None:
        self._frames = frames
        self._names: dict[tuple[str, ...], bytes] = {(): b"messages"}

    def opened(self, message: Spoken, /) -> None:
        about = orjson.dumps(message.metadata)
        chunk = orjson.dumps(chunk_of(message))
        head = chunk.index(b',"additional_kwargs"')  # right behind the empty content
        message.tail = b"%b,%b]" % (chunk[head:], about)
        self._names.setdefault(message.ns, frame_name("messages", message.ns))

    def delta(self, message: Spoken, text: str, thinking: str, /) -> None:
        name = self._names[message.ns]
        if thinking:
            chunk = chunk_of(message, additional_kwargs={"reasoning_content": thinking})
            self._frames.add(name, orjson.dumps([chunk, message.metadata]))
        if text:
            self._frames.add(name, b'[{"content":%b%b' % (orjson.dumps(text), message.tail))

    def called(self, message: Spoken, call: Mapping[str, Any], /) -> None:
        self._add(message, tool_calls=[call], tool_call_chunks=[call_chunk(message, call)])

    def closed(self, message: Spoken, /) -> None:
        self._add(message, response_metadata=message.response, usage_metadata=message.usage, chunk_position="last")

    def answered(self, result: Answered, /) -> None:
        self._frames.add_json(frame_name("messages", result.ns), [result.message, result.metadata])

    def _add(self, message: Spoken, **parts: Any) -> None:
        self._frames.add_json(self._names[message.ns], [chunk_of(message, **parts), message.metadata])


class Snapshots(MessageView):
    """Mode `messages`: where a message is, then what was said of it so far, again and again."""

    def __init__(self, frames: FrameWriter) -> None:
        self._frames = frames

    def opened(self, message: Spoken, /) -> None:
        self._frames.add_json(b"messages/metadata", {message.id: {"metadata": message.metadata}})

    def delta(self, message: Spoken, _text: str, _thinking: str, /) -> None:
        self._partial(message)

    def called(self, message: Spoken, _call: Mapping[str, Any], /) -> None:
        self._partial(message)

    def closed(self, message: Spoken, /) -> None:
        self._partial(message)

    def answered(self, result: Answered, /) -> None:
        self._frames.add_json(b"messages/metadata", {result.message["id"]: {"metadata": result.metadata}})
        self._frames.add_json(b"messages/complete", [result.message])

    def _partial(self, message: Spoken) -> None:
        self._frames.add_json(b"messages/partial", [message.as_message()])


class ToolProgress(MessageView):
    """Mode `tools`: what becomes of each call, in the words of the JavaScript client's `ToolsStreamEvent`."""

    def __init__(self, frames: FrameWriter) -> None:
        self._frames = frames

    def called(self, message: Spoken, call: Mapping[str, Any], /) -> None:
        told = {"event": "on_tool_start", "toolCallId": call["id"], "name": call["name"], "input": call["args"]}
        self._frames.add_json(frame_name("tools", message.ns), told)

    def answered(self, result: Answered, /) -> None:
        message = result.message
        told = {"toolCallId": result.call_id, "name": message["name"]}
        if result.ran and message["status"] == "success":
            told |= {"event": "on_tool_end", "output": message}
        else:
            told |= {"event": "on_tool_error", "error": message["content"]}
        self._frames.add_json(frame_name("tools", result.ns), told)


class DerivedUpdates(MessageView):
    """Mode `updates` for a run of which no updates were recorded: one for each finished message."""

    def __init__(self, frames: FrameWriter) -> None:
        self._frames = frames
        self.recorded = False  # LangGraph's own turned up

    def closed(self, message: Spoken, /) -> None:
        self._add(message.ns, {"model": {"messages": [message.as_message()]}})

    def answered(self, result: Answered, /) -> None:
        self._add(result.ns, {"tools": {"messages": [result.message]}})

    def _add(self, ns: Namespace, update: Mapping[str, Any]) -> None:
        if not self.recorded:
            self._frames.add_json(frame_name("updates", ns), update)


def chunk_of(message: Spoken, **parts: Any) -> dict[str, Any]:
    """An AIMessageChunk as LangChain dumps it, in its order of keys; empty but for `parts`."""
    return {
        "content": "",
        "additional_kwargs": {},
        "response_metadata": {},
        "type": "AIMessageChunk",
        "name": None,
        "id": message.id,
        "tool_calls": [],
        "invalid_tool_calls": [],
        "usage_metadata": None,
        "tool_call_chunks": [],
        "chunk_position": None,
        **parts,
    }


def call_chunk(message: Spoken, call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as a piece of the stream: our log has it when it is whole, so it is one piece."""
    return {
        "name": call["name"],
        "args": orjson.dumps(call["args"]).decode(),
        "id": call["id"],
        "index": len(message.calls) - 1,
        "type": "tool_call_chunk",
    }

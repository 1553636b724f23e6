"""Mode `events`: LangChain's callback events, as far as they follow from ours."""

import uuid
from collections.abc import Mapping
from typing import Any

from moorage.ids import RunId
from moorage_api.langgraph.legacy_frames import FrameWriter
from moorage_api.langgraph.legacy_messages import Answered, MessageView, Spoken
from moorage_api.langgraph.legacy_places import Places, ShownRun
from moorage_api.langgraph.legacy_views import call_chunk, chunk_of


class Callbacks(MessageView):
    """`on_chain_*` of the run and of its model steps, `on_chat_model_*`, `on_tool_*`; sub-agents' always too.

    Nobody kept LangChain's run ids: each follows from the run's and from what the event is about.
    """

    whole_tree = True

    def __init__(self, frames: FrameWriter, run: ShownRun, places: Places) -> None:
        self._frames = frames
        self._run = run
        self._places = places

    def run_started(self) -> None:
        self._chain("on_chain_start", {"input": self._run.input})

    def run_ended(self, values: Mapping[str, Any]) -> None:
        self._chain("on_chain_end", {"output": values})

    def opened(self, message: Spoken, /) -> None:
        self._step("on_chain_start", message, {"input": None})
        self._model("on_chat_model_start", message, {"input": None})

    def delta(self, message: Spoken, text: str, thinking: str, /) -> None:
        extra = {"additional_kwargs": {"reasoning_content": thinking}} if thinking else {}
        self._model("on_chat_model_stream", message, {"chunk": chunk_of(message, content=text, **extra)})

    def called(self, message: Spoken, call: Mapping[str, Any], /) -> None:
        chunk = chunk_of(message, tool_calls=[call], tool_call_chunks=[call_chunk(message, call)])
        self._model("on_chat_model_stream", message, {"chunk": chunk})

    def closed(self, message: Spoken, /) -> None:
        said = message.as_message()
        self._model("on_chat_model_end", message, {"output": said})
        self._step("on_chain_stream", message, {"chunk": {"messages": [said]}})
        self._step("on_chain_end", message, {"output": {"messages": [said]}})

    def answered(self, result: Answered, /) -> None:
        """Both ends of a tool call at once: before its result nothing tells that it passed its approval."""
        if not result.ran:
            return
        name, about = str(result.message["name"]), result.metadata
        run_id = self._id(result.message["id"])
        self._add("on_tool_start", name, {"input": result.given}, run_id, about, [self._run.run_id])
        output = {"output": result.message, "input": result.given}
        self._add("on_tool_end", name, output, run_id, about, [self._run.run_id])

    def _chain(self, event: str, data: Any) -> None:
        self._add(event, self._run.graph_id, data, self._run.run_id, self._places.base(), [])

    def _step(self, event: str, message: Spoken, data: Any) -> None:
        step = self._id(message.id, "model")
        self._add(event, "model", data, step, message.metadata, [self._run.run_id])

    def _model(self, event: str, message: Spoken, data: Any) -> None:
        parents = [self._run.run_id, self._id(message.id, "model")]
        self._add(event, "chat_model", data, self._id(message.id), message.metadata, parents)

    def _add(
        self, event: str, name: str, data: Any, run_id: str, metadata: Mapping[str, Any], parents: list[RunId | str]
    ) -> None:
        step = metadata.get("langgraph_step")
        told = {
            "event": event,
            "data": data,
            "name": name,
            "tags": [f"graph:step:{step}"] if step is not None else [],
            "run_id": run_id,
            "metadata": metadata,
            "parent_ids": parents,
        }
        self._frames.add_json(b"events", told)

    def _id(self, *parts: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, "\n".join((self._run.run_id, *parts))))

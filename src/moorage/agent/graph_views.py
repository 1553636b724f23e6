"""What an assistant's compiled graph looks like from outside: its nodes, schemas, sub-graphs and tools, as JSON."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.tools import BaseTool
from pydantic import PydanticUserError, TypeAdapter, create_model

from moorage.agent.calls import args_schema
from moorage.agent.graph import Agents, CompiledAgent
from moorage.agent.scope import ToolScope, scope_of
from moorage.assistants import Assistant, AssistantContext

type Json = dict[str, Any]

# What a client may configure. The graph's own context is what the server hands to a run: nobody else sets it.
_CONTEXT_SCHEMA = AssistantContext.model_json_schema()


@dataclass(frozen=True, slots=True)
class ToolView:
    """A tool as the model is offered it: the JSON schema of its arguments, and whether each call asks a human."""

    name: str
    description: str
    input_schema: Json
    asks: bool


class GraphViews:
    """Looks at agents without running them. What takes long happens beside the event loop."""

    def __init__(self, agents: Agents) -> None:
        self._agents = agents

    async def draw(self, assistant: Assistant, *, xray: bool | int = False) -> Json:
        """Nodes and edges in the form of `langchain_core`'s Graph.to_json; `xray` opens sub-graphs, that many deep."""
        graph = await self._graph(assistant)
        drawn = (await graph.aget_graph(xray=xray)).to_json()
        offered = scope_of(assistant.configuration).offered
        return {"nodes": [_shown(node, offered) for node in drawn["nodes"]], "edges": drawn["edges"]}

    async def schemas(self, assistant: Assistant) -> Json:
        """JSON schemas by `input_schema`, `output_schema`, `state_schema`, `config_schema`, `context_schema`."""
        graph = await self._graph(assistant)
        return await asyncio.to_thread(_schemas, graph, assistant.graph_id)

    async def subgraphs(self, assistant: Assistant, *, namespace: str | None = None, recurse: bool = False) -> Json:
        """The schemas of sub-graphs by namespace. Sub-agents are none: a tool calls them."""
        graph = await self._graph(assistant)
        found = cast("Any", graph).aget_subgraphs(namespace=namespace, recurse=recurse)
        return {name: await asyncio.to_thread(_schemas, inner, name) async for name, inner in found}

    async def tools(self, assistant: Assistant) -> list[ToolView]:
        """What the assistant's model is offered, by name."""
        return await asyncio.to_thread(_tools, await self._graph(assistant), self._agents.scope(assistant))

    async def _graph(self, assistant: Assistant) -> CompiledAgent:
        await self._agents.prepare(assistant)
        return self._agents.get(assistant)


def _tools(graph: CompiledAgent, scope: ToolScope) -> list[ToolView]:
    found: dict[str, BaseTool] = cast("Any", graph).nodes["tools"].bound.tools_by_name
    return [
        ToolView(name, tool.description, args_schema(tool), scope.asks(name))
        for name, tool in sorted(found.items())
        if name in scope.offered
    ]


def _schemas(graph: CompiledAgent, graph_id: str) -> Json:
    return {
        "graph_id": graph_id,
        "input_schema": graph.get_input_jsonschema(),
        "output_schema": graph.get_output_jsonschema(),
        "state_schema": _state_schema(graph),
        "config_schema": _CONTEXT_SCHEMA,
        "context_schema": _CONTEXT_SCHEMA,
    }


def _state_schema(graph: CompiledAgent) -> Json:
    """Every channel that a state shows; of one that JSON schema cannot describe, that it is there."""
    channels: dict[str, Any] = cast("Any", graph).channels
    fields: dict[str, Any] = {name: (_described(channels[name]), None) for name in graph.stream_channels_list}
    return create_model(graph.get_name("State"), **fields).model_json_schema()


def _described(channel: Any) -> Any:
    try:
        TypeAdapter(channel.UpdateType).json_schema()
    except PydanticUserError:
        return Any
    return channel.UpdateType


def _shown(node: Json, offered: frozenset[str]) -> Json:
    """Without the path of the Python class behind it, and with the tools that the agent is offered."""
    shown = dict(node)
    if isinstance(node.get("data"), dict):
        shown["data"] = {key: value for key, value in node["data"].items() if key != "id"}
    if tools := node.get("metadata", {}).get("__tools"):
        shown["metadata"] = {**node["metadata"], "__tools": [tool for tool in tools if tool in offered]}
    return shown

"""The tools of the agent that sessions have when they name no other."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from moorage_api.deps import PrincipalDep, RuntimeDep

router = APIRouter(prefix="/api/tools", tags=["tools"])

_DEFAULT = "agent"


class Tool(BaseModel):
    """`input_schema` is the JSON schema of the arguments; `asks`: a human decides on each call, unless a rule does."""

    name: str
    description: str
    input_schema: dict[str, Any]
    asks: bool


class ToolList(BaseModel):
    items: list[Tool]
    next_cursor: None = None


@router.get("")
async def list_tools(runtime: RuntimeDep, principal: PrincipalDep) -> ToolList:
    """What the default agent may call, by name, as its model is told of it."""
    assistant = await runtime.assistants.get(principal.user_id, _DEFAULT)
    tools = await runtime.graph_views.tools(assistant)
    return ToolList(items=[Tool(**asdict(tool)) for tool in tools])

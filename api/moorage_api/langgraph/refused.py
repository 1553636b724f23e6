"""What LangGraph's server has and this one does not: said with a 501, never with an answer that means nothing."""

from fastapi import APIRouter

from moorage.errors import NotBuilt

router = APIRouter(tags=["langgraph"])

_A2A = "Agents do not speak A2A here: create a run with POST /threads/{thread_id}/runs"
_MCP = "Agents are not offered as MCP tools here: create a run with POST /threads/{thread_id}/runs"
_METRICS = "There are no metrics yet: /healthz and /readyz tell whether the server lives and can work"


@router.post("/a2a/{assistant_id}", status_code=501, include_in_schema=False)
async def a2a(assistant_id: str) -> None:  # noqa: ARG001 -- the path's
    raise NotBuilt(_A2A)


@router.get("/.well-known/agent-card.json", status_code=501, include_in_schema=False)
async def agent_card() -> None:
    raise NotBuilt(_A2A)


@router.api_route("/mcp/", methods=["GET", "POST", "DELETE"], status_code=501, include_in_schema=False)
async def mcp() -> None:
    raise NotBuilt(_MCP)


@router.get("/metrics", status_code=501, include_in_schema=False)
async def metrics() -> None:
    raise NotBuilt(_METRICS)

"""Remembered rules: what a session's approvals decide without asking, and taking that back."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel

from moorage.rules import Rule
from moorage_api.deps import RuntimeDep, ThreadDep

router = APIRouter(prefix="/api/sessions", tags=["approvals"])


class ShownRule(BaseModel):
    """`pattern` is `{"command"}` or `{"args"}` (same), `{"tokens"}` (prefix), `{"path"}` (path)."""

    rule_id: str
    effect: Literal["allow", "deny"]
    tool: str
    match: Literal["same", "prefix", "path"]
    pattern: dict[str, Any]
    interrupt_id: str | None
    created_at: str
    expires_at: str | None


class RuleList(BaseModel):
    items: list[ShownRule]
    next_cursor: str | None


@router.get("/{thread_id}/rules")
async def list_rules(
    runtime: RuntimeDep,
    thread: ThreadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> RuleList:
    """The session's rules in force, latest first."""
    page = await runtime.rules.search(thread.owner_id, thread.thread_id, limit=limit, cursor=cursor)
    return RuleList(items=[_shown(rule) for rule in page.items], next_cursor=page.next_cursor)


@router.delete("/{thread_id}/rules/{rule_id}", status_code=204)
async def revoke_rule(
    runtime: RuntimeDep, thread: ThreadDep, rule_id: Annotated[str, Path(max_length=100)]
) -> Response:
    """Revoke a rule: the next call is asked about again."""
    await runtime.rules.revoke(thread.owner_id, thread.thread_id, rule_id)
    return Response(status_code=204)


def _shown(rule: Rule) -> ShownRule:
    return ShownRule(
        rule_id=rule.rule_id,
        effect=rule.effect.value,
        tool=rule.tool,
        match=rule.match.value,
        pattern=rule.pattern,
        interrupt_id=rule.interrupt_id,
        created_at=rule.created_at.isoformat(),
        expires_at=rule.expires_at.isoformat() if rule.expires_at else None,
    )

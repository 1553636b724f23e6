"""API keys, with which programs call this server, and tickets, with which browsers open a WebSocket."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from moorage.identity import Scope
from moorage.identity.keys import DEFAULT_LIFETIME, NAME_LIMIT
from moorage.identity.principal import ApiKey
from moorage.identity.service import TICKET_LIFETIME
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Integer

router = APIRouter(prefix="/api/auth", tags=["auth"])

_LONGEST_DAYS = 3650


class NewKey(BaseModel):
    """`scopes`: read (look), run (start and stop runs, change sessions), approve (answer approvals). All by default.

    `expires_in_days` null: the key does not expire.
    """

    model_config = ConfigDict(extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)] = list(Scope)
    expires_in_days: Annotated[Integer | None, Field(ge=1, le=_LONGEST_DAYS)] = DEFAULT_LIFETIME.days


class ShownKey(BaseModel):
    """A key without its secret. `prefix` is how it begins; `last_used_at` is exact to a minute."""

    key_id: str
    name: str
    prefix: str
    scopes: list[Scope]
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class CreatedKey(ShownKey):
    """`key` is shown here and never again."""

    key: str


class KeyList(BaseModel):
    items: list[ShownKey]
    next_cursor: str | None


class Ticket(BaseModel):
    """`expires_in` is in seconds."""

    ticket: str
    expires_in: int


@router.post("/keys", status_code=201)
async def create_key(response: Response, runtime: RuntimeDep, principal: PrincipalDep, body: NewKey) -> CreatedKey:
    """Make an API key, to be sent as `x-api-key` or `Authorization: Bearer`. 429 when one has 50 already."""
    lifetime = timedelta(days=body.expires_in_days) if body.expires_in_days is not None else None
    stored, key = await runtime.identity.keys.create(
        principal.user_id, body.name, scopes=set(body.scopes), lifetime=lifetime
    )
    response.headers["Cache-Control"] = "no-store"
    return CreatedKey(**shown_key(stored).model_dump(), key=key)


@router.get("/keys")
async def list_keys(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> KeyList:
    """One's own keys, latest first; an expired one is listed for a month."""
    page = await runtime.identity.keys.search(principal.user_id, limit=limit, cursor=cursor)
    return KeyList(items=[shown_key(key) for key in page.items], next_cursor=page.next_cursor)


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(
    runtime: RuntimeDep, principal: PrincipalDep, key_id: Annotated[UUID, Path(description="As listed")]
) -> Response:
    """Revoke a key: it counts no more, and its open streams end within half a minute."""
    await runtime.identity.keys.revoke(principal.user_id, key_id)
    return Response(status_code=204)


@router.post("/ws-ticket")
async def ws_ticket(response: Response, runtime: RuntimeDep, principal: PrincipalDep) -> Ticket:
    """A ticket for opening one WebSocket, as `?ticket=`: browsers cannot send a header there. It works once."""
    response.headers["Cache-Control"] = "no-store"
    ticket = await runtime.identity.issue_ticket(principal)
    return Ticket(ticket=ticket, expires_in=int(TICKET_LIFETIME.total_seconds()))


def shown_key(key: ApiKey) -> ShownKey:
    return ShownKey(
        key_id=str(key.key_id),
        name=key.name,
        prefix=key.prefix,
        scopes=sorted(key.scopes),
        created_at=key.created_at.isoformat(),
        expires_at=key.expires_at.isoformat() if key.expires_at else None,
        last_used_at=key.last_used_at.isoformat() if key.last_used_at else None,
    )

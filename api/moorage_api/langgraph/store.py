"""The store of the LangGraph wire: items that a user's clients keep between threads."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from moorage.store import ADDRESS_BYTES, LABELS, Item
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.json_types import Flag, Integer, No, Number

router = APIRouter(prefix="/store", tags=["langgraph"])

_MOST = 1000

Key = Annotated[str, Field(min_length=1, max_length=ADDRESS_BYTES)]
Label = Annotated[str, Field(max_length=ADDRESS_BYTES)]
Labels = Annotated[list[Label], Field(max_length=LABELS)]
Path = Annotated[str, Field(max_length=500)]
Offset = Annotated[Integer, Field(ge=0, le=10_000_000)]


class PutItem(BaseModel):
    """`index` names the parts of the value that a search looks at: all by default, none with `false`.

    `ttl` is in minutes; reading the item begins it anew. Without one the item stays.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    namespace: Annotated[Labels, Field(min_length=1)]
    key: Key
    value: dict[str, Any]
    index: No | Annotated[list[Path], Field(max_length=50)] | None = None
    ttl: Annotated[Number | None, Field(gt=0, le=5_256_000)] = None


class DeleteItem(BaseModel):
    """The item to remove."""

    model_config = ConfigDict(extra="forbid")
    namespace: Labels = []
    key: Key


class SearchItems(BaseModel):
    """Items below `namespace_prefix`, the latest first; with a `query` those with its words, the best first.

    `filter` compares parts of the value: `{"kind": "note", "size": {"$gt": 3}}`, with `$eq`, `$ne`, `$gt`, `$gte`,
    `$lt` and `$lte`.
    """

    model_config = ConfigDict(extra="forbid")
    namespace_prefix: Labels = []
    filter: dict[str, Any] | None = None
    limit: Annotated[Integer, Field(ge=1, le=_MOST)] = 10
    offset: Offset = 0
    query: Annotated[str | None, Field(max_length=1000)] = None
    refresh_ttl: Flag | None = None


class ListNamespaces(BaseModel):
    """`*` in `prefix` or `suffix` stands for any label; what is deeper than `max_depth` is cut there."""

    model_config = ConfigDict(extra="forbid")
    prefix: Labels | None = None
    suffix: Labels | None = None
    max_depth: Annotated[Integer | None, Field(ge=1, le=LABELS)] = None
    limit: Annotated[Integer, Field(ge=1, le=_MOST)] = 100
    offset: Offset = 0


class ShownItem(BaseModel):
    namespace: list[str]
    key: str
    value: dict[str, Any]
    created_at: str
    updated_at: str


class FoundItem(ShownItem):
    score: float | None = None


class FoundItems(BaseModel):
    items: list[FoundItem]


class Namespaces(BaseModel):
    namespaces: list[list[str]]


@router.put("/items", status_code=204)
async def put_item(runtime: RuntimeDep, principal: PrincipalDep, body: PutItem) -> Response:
    """Store or replace an item."""
    await runtime.store.put(
        principal.user_id, body.namespace, body.key, body.value, index=body.index, ttl_minutes=body.ttl
    )
    return Response(status_code=204)


@router.get("/items")
async def get_item(
    runtime: RuntimeDep,
    principal: PrincipalDep,
    key: Annotated[str, Query(min_length=1, max_length=ADDRESS_BYTES)],
    namespace: Annotated[str, Query(max_length=ADDRESS_BYTES)] = "",
    refresh_ttl: bool | None = None,
) -> ShownItem | None:
    """The item, or `null`. The labels of `namespace` are separated by periods."""
    labels = namespace.split(".") if namespace else []
    item = await runtime.store.find(principal.user_id, labels, key, refresh=refresh_ttl is not False)
    return ShownItem(**_shown(item)) if item else None


@router.delete("/items", status_code=204)
async def delete_item(runtime: RuntimeDep, principal: PrincipalDep, body: DeleteItem) -> Response:
    """Remove an item, if it is there."""
    await runtime.store.delete(principal.user_id, body.namespace, body.key)
    return Response(status_code=204)


@router.post("/items/search")
async def search_items(runtime: RuntimeDep, principal: PrincipalDep, body: SearchItems) -> FoundItems:
    """Items by where they are, what they hold and what words are in them. The search is one for words, not meanings."""
    found = await runtime.store.search(
        principal.user_id,
        body.namespace_prefix,
        wanted=body.filter,
        query=body.query,
        limit=body.limit,
        offset=body.offset,
        refresh=body.refresh_ttl is not False,
    )
    return FoundItems(items=[FoundItem(**_shown(item), score=item.score) for item in found])


@router.post("/namespaces")
async def list_namespaces(runtime: RuntimeDep, principal: PrincipalDep, body: ListNamespaces) -> Namespaces:
    """The namespaces that hold items."""
    found = await runtime.store.namespaces(
        principal.user_id,
        prefix=body.prefix or [],
        suffix=body.suffix or [],
        max_depth=body.max_depth,
        limit=body.limit,
        offset=body.offset,
    )
    return Namespaces(namespaces=[list(namespace) for namespace in found])


def _shown(item: Item) -> dict[str, Any]:
    return {
        "namespace": list(item.namespace),
        "key": item.key,
        "value": item.value,
        "created_at": item.created_at.isoformat(),
        "updated_at": item.updated_at.isoformat(),
    }

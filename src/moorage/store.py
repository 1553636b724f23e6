"""The store: small documents that a user's clients keep between threads, in namespaces like folders.

Its operations are those of LangGraph's store. Every item belongs to one user: what a client calls a namespace is below
that user, whom no namespace can name.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import Any, Protocol

from moorage.errors import InvalidPayload, LimitExceeded
from moorage.events import encode, scrub_text, survives_encoding
from moorage.ids import UserId

LABELS = 20
ADDRESS_BYTES = 2000  # namespace and key stand in an index of Postgres, which takes 2704
CONDITIONS = 50
VALUE_BYTES = 256 * 1024
ANSWER_BYTES = 16 * 1024 * 1024
_TEXT_CHARACTERS = 100_000
_LONGEST_TTL_MINUTES = 60 * 24 * 365 * 10

type Namespace = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """`score` says how well it fits the words that were searched for."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    score: float | None = None


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item to be stored. `text` is what a search finds it by; without a `ttl` it is kept for ever."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    text: str
    ttl: timedelta | None


class Operator(StrEnum):
    EQUAL = "$eq"
    NOT_EQUAL = "$ne"
    GREATER = "$gt"
    GREATER_OR_EQUAL = "$gte"
    LESS = "$lt"
    LESS_OR_EQUAL = "$lte"


_EQUALITIES = (Operator.EQUAL, Operator.NOT_EQUAL)


@dataclass(frozen=True, slots=True)
class Condition:
    """What the part of a value at `path` must be. What is not there counts as null, and is neither more nor less."""

    path: tuple[str, ...]
    operator: Operator
    operand: Any


class StoreFull(LimitExceeded):
    code = "store_full"


class TooMuch(InvalidPayload):
    code = "too_much_at_once"

    def __init__(self) -> None:
        super().__init__(f"These items come to more than {ANSWER_BYTES // 1024**2} MiB: ask for fewer with limit")


class ItemTable(Protocol):
    """Where items are kept. Every call sees the items of `owner` only, and none that has expired."""

    async def put(self, owner: UserId, item: NewItem, *, quota: int) -> None:
        """Store or replace; raises StoreFull when a new one would be beyond `quota` (0: none), race-free."""
        ...

    async def find(self, owner: UserId, namespace: Namespace, key: str, *, refresh: bool) -> Item | None:
        """`refresh`: its time to live begins anew."""
        ...

    async def delete(self, owner: UserId, namespace: Namespace, key: str) -> None: ...

    async def search(
        self,
        owner: UserId,
        prefix: Namespace,
        *,
        conditions: Sequence[Condition],
        query: str | None,
        limit: int,
        offset: int,
        refresh: bool,
    ) -> list[Item]:
        """Items below `prefix`, the latest first; with a `query` those that hold any of its words, the best first.

        Raises TooMuch when they come to more than ANSWER_BYTES.
        """
        ...

    async def namespaces(
        self,
        owner: UserId,
        *,
        prefix: Namespace,
        suffix: Namespace,
        max_depth: int | None,
        limit: int,
        offset: int,
    ) -> list[Namespace]:
        """The namespaces that hold items, cut at `max_depth`, in order. `*` stands for any label."""
        ...


class Store:
    """What a user can do with their items. What it is asked with is checked here."""

    def __init__(self, table: ItemTable, *, quota: int) -> None:
        """A user may have `quota` items; 0: any number."""
        self._table = table
        self._quota = quota

    async def put(
        self,
        owner: UserId,
        namespace: Sequence[str],
        key: str,
        value: dict[str, Any],
        *,
        index: Sequence[str] | bool | None = None,
        ttl_minutes: float | None = None,
    ) -> None:
        """Store or replace an item. `index` names the parts that a search looks at; all by default, False for none.

        Raises InvalidPayload or StoreFull.
        """
        _check_address(namespace, key)
        if not namespace:
            raise InvalidPayload("namespace must have a label at least")
        if not survives_encoding(value):
            raise InvalidPayload("value holds what JSON cannot carry to every client, such as integers beyond 64 bits")
        if len(encode(value)) > VALUE_BYTES:
            raise InvalidPayload(f"value must not be larger than {VALUE_BYTES // 1024} KiB")
        item = NewItem(tuple(namespace), key, value, _searchable(value, index), _ttl(ttl_minutes))
        await self._table.put(owner, item, quota=self._quota)

    async def find(self, owner: UserId, namespace: Sequence[str], key: str, *, refresh: bool = True) -> Item | None:
        """The item, or None; raises InvalidPayload for what cannot be an item's address."""
        _check_address(namespace, key)
        return await self._table.find(owner, tuple(namespace), key, refresh=refresh)

    async def delete(self, owner: UserId, namespace: Sequence[str], key: str) -> None:
        """Remove the item, if it is there."""
        _check_address(namespace, key)
        await self._table.delete(owner, tuple(namespace), key)

    async def search(
        self,
        owner: UserId,
        prefix: Sequence[str],
        *,
        wanted: Mapping[str, Any] | None = None,
        query: str | None = None,
        limit: int,
        offset: int = 0,
        refresh: bool = True,
    ) -> list[Item]:
        """Items below a namespace, whose values are as `wanted`, by their words if there is a `query`."""
        _check_labels("namespace_prefix", prefix)
        return await self._table.search(
            owner,
            tuple(prefix),
            conditions=conditions_of(wanted or {}),
            query=query,
            limit=limit,
            offset=offset,
            refresh=refresh,
        )

    async def namespaces(
        self,
        owner: UserId,
        *,
        prefix: Sequence[str] = (),
        suffix: Sequence[str] = (),
        max_depth: int | None = None,
        limit: int,
        offset: int = 0,
    ) -> list[Namespace]:
        """The namespaces with items in them; `*` in `prefix` or `suffix` stands for any label."""
        _check_labels("prefix", prefix)
        _check_labels("suffix", suffix)
        return await self._table.namespaces(
            owner, prefix=tuple(prefix), suffix=tuple(suffix), max_depth=max_depth, limit=limit, offset=offset
        )


def conditions_of(wanted: Mapping[str, Any]) -> list[Condition]:
    """A filter of LangGraph's store, such as `{"kind": "note", "size": {"$gt": 3}}`; raises InvalidPayload."""
    found = list(_conditions((), wanted))
    if len(found) > CONDITIONS:
        raise InvalidPayload(f"filter must not have more than {CONDITIONS} conditions")
    return found


def _conditions(path: tuple[str, ...], wanted: Mapping[str, Any]) -> Iterator[Condition]:
    for name, part in wanted.items():
        if path and name.startswith("$"):
            yield _compared(path, name, part)
        elif isinstance(part, dict) and part:
            yield from _conditions((*path, name), part)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield Condition((*path, name), Operator.EQUAL, part)


def _compared(path: tuple[str, ...], name: str, operand: Any) -> Condition:
    try:
        operator = Operator(name)
    except ValueError:
        raise InvalidPayload(f"filter knows the operators {', '.join(Operator)}") from None
    ordered = isinstance(operand, str | int | float) and not isinstance(operand, bool)
    if operator not in _EQUALITIES and not ordered:
        raise InvalidPayload(f"filter compares with {operator} numbers with numbers, and strings with strings")
    return Condition(path, operator, operand)


def _check_address(namespace: Sequence[str], key: str) -> None:
    _check_labels("namespace", namespace)
    if not key or scrub_text(key) != key:
        raise InvalidPayload("key must not be empty")
    if sum(len(part.encode()) for part in (*namespace, key)) > ADDRESS_BYTES:
        raise InvalidPayload(f"namespace and key must not be longer than {ADDRESS_BYTES} bytes together")


def _check_labels(name: str, labels: Sequence[str]) -> None:
    if len(labels) > LABELS:
        raise InvalidPayload(f"{name} must not have more than {LABELS} labels")
    if any(not label or "." in label or scrub_text(label) != label for label in labels):
        raise InvalidPayload(f"{name}: labels must not be empty, nor hold a period")


def _ttl(minutes: float | None) -> timedelta | None:
    if minutes is None:
        return None
    if not 0 < minutes <= _LONGEST_TTL_MINUTES:
        raise InvalidPayload(f"ttl is in minutes, more than 0 and at most {_LONGEST_TTL_MINUTES}")
    return timedelta(minutes=minutes)


_STEP = re.compile(r"\[(\*|-?\d{1,6})\]|([^.\[\]]+)")


def _searchable(value: dict[str, Any], index: Sequence[str] | bool | None) -> str:
    """The words and numbers of an item, or of those parts of it that `index` names, such as `notes[*].text`."""
    if index is False:
        return ""
    paths = ["$"] if index is None or index is True else index
    leaves = chain.from_iterable(_leaves(part) for path in paths for part in _parts(value, path))
    return "\n".join(leaves)[:_TEXT_CHARACTERS]


def _parts(value: Any, path: str) -> list[Any]:
    found: list[Any] = [value]
    if path == "$":
        return found
    for step in _STEP.finditer(path):
        position, name = step.groups()
        found = [part for item in found for part in _inside(item, position, name)]
    return found


def _inside(item: Any, position: str | None, name: str | None) -> list[Any]:
    if isinstance(item, dict) and name is not None:
        return list(item.values()) if name == "*" else [item[name]] if name in item else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(item, list) and position is not None:
        if position == "*":
            return item  # pyright: ignore[reportUnknownVariableType]
        at = int(position)
        return [item[at]] if -len(item) <= at < len(item) else []  # pyright: ignore[reportUnknownArgumentType]
    return []


def _leaves(part: Any) -> Iterator[str]:
    match part:
        case str():
            yield part
        case bool() | None:
            return
        case int() | float():
            yield str(part)
        case dict():
            for item in part.values():  # pyright: ignore[reportUnknownVariableType]
                yield from _leaves(item)
        case list():
            for item in part:  # pyright: ignore[reportUnknownVariableType]
                yield from _leaves(item)
        case _:
            return

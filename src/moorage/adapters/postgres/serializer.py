"""How values of checkpoints become bytes: anything that a model may say can be stored, and nothing runs on loading."""

import copy
import dataclasses
from collections.abc import Iterable
from typing import Any, cast

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.types import Send
from ormsgpack import MsgpackEncodeError
from pydantic import BaseModel

_FORMS = ("msgpack", "null", "bytes", "bytearray")
_LONGEST_INTEGER = 63
_DEEPEST = 200


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, which loads its and LangChain's own data types, and imports and runs nothing else.

    A value of another type is read as its plain data. The older forms, pickle and JSON, are refused. Of what
    MessagePack cannot hold, lone surrogates become question marks, integers beyond 64 bits text, and nesting beyond
    200 levels is cut.
    """

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        try:
            return super().dumps_typed(obj)
        except (TypeError, MsgpackEncodeError, RecursionError):
            return super().dumps_typed(_storable(obj, 0))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        if data[0] not in _FORMS:
            raise NotImplementedError(f"Unknown serialization type: {data[0]}")
        return super().loads_typed(data)


def _storable(value: Any, depth: int) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode("utf-8")
        case int() if value.bit_length() > _LONGEST_INTEGER:
            return str(value)
        case dict() | list() | tuple() | set() | frozenset():
            return _container(value, depth + 1) if depth < _DEEPEST else "…"
        case BaseModel():
            return value.model_copy(update=_fields(value, type(value).model_fields, depth))
        case Send():
            return Send(value.node, _storable(value.arg, depth + 1), timeout=value.timeout)
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            clean = copy.copy(value)
            for name, item in _fields(value, [field.name for field in dataclasses.fields(value)], depth).items():
                object.__setattr__(clean, name, item)
            return clean
        case _:
            return value


def _container(value: Any, depth: int) -> Any:
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_storable(key, depth): _storable(item, depth) for key, item in items}
    parts = [_storable(item, depth) for item in value]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def _fields(value: Any, names: Iterable[str], depth: int) -> dict[str, Any]:
    return {name: _storable(getattr(value, name), depth + 1) for name in names}

"""The types of JSON, for bodies. Pydantic alone would take `"1"` and true for numbers, 1 for true, and 5 for a time."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, Strict
from pydantic_core import PydanticCustomError


def _text(value: object) -> object:
    if value is None or isinstance(value, str | datetime):
        return value
    raise PydanticCustomError("datetime_type", "Input should be a date and time as text (RFC 3339)")


def _flag(value: object) -> object:
    if type(value) is bool:
        return value
    raise PydanticCustomError("bool_type", "Input should be a valid boolean")


Integer = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
No = Annotated[Literal[False], BeforeValidator(_flag)]
Moment = Annotated[datetime, BeforeValidator(_text)]

"""What is said between the broker and those who may use it: JSON lines over a unix socket.

    broker  {"sandboxd": 1, "name": "docker", "isolation_note": null, "shortcomings": [{"name": ..., "detail": ...}]}
    client  {"verb": "ensure", "thread_id": "alice-<uuid>", "profile": "default", "fencing_token": 7}
    broker  {"ok": ...}   or   {"error": {"type": "SandboxGone", "code": ..., "detail": ..., "retry_after": null}}

One request a connection, of at most 64 KiB, with exactly the verb's fields. The answer to `open_helper` carries the
helper's stream as a descriptor (SCM_RIGHTS) on its first byte.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from moorage.errors import AppError, Conflict, InvalidInput, Unavailable
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.port import (
    Bounds,
    PathError,
    SandboxDied,
    SandboxesFull,
    SandboxGone,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
    Shortcoming,
    StaleClaim,
    StartedTooLate,
)

VERSION = 1
MAX_REQUEST = 64 * 1024
MAX_ANSWER = 64 * 1024 * 1024  # a list of several hundred thousand sandboxes
GREETING_SECONDS = 5.0
SEND_SECONDS = 10.0

_MAX_TOKEN = 2**63 - 1
_NO_THREAD = ThreadId("")
_PROFILE = re.compile(r"[a-z0-9-]{1,32}")
_LEAVES: tuple[type[AppError], ...] = (
    SandboxesFull,
    StaleClaim,
    SandboxGone,
    SandboxDied,
    StartedTooLate,
    SandboxUnavailable,
    PathError,
    InvalidInput,
    Conflict,
    Unavailable,
)
_BY_NAME = {leaf.__name__: leaf for leaf in _LEAVES}


class Verb(StrEnum):
    """All that can be asked for, and how many seconds it may take."""

    seconds: float

    PREPARE_FOLDER = "prepare_folder", 60.0
    ENSURE = "ensure", 120.0
    OPEN_HELPER = "open_helper", 30.0
    KILL_ALL = "kill_all", 60.0
    PAUSE = "pause", 60.0
    REMOVE = "remove", 600.0  # with all the files there are
    LIST = "list", 60.0
    STATS = "stats", 30.0

    def __new__(cls, name: str, seconds: float) -> "Verb":
        verb = str.__new__(cls, name)
        verb._value_ = name
        verb.seconds = seconds
        return verb


_FIELDS: Mapping[Verb, frozenset[str]] = {
    Verb.PREPARE_FOLDER: frozenset({"thread_id", "profile"}),
    Verb.ENSURE: frozenset({"thread_id", "profile", "fencing_token"}),
    Verb.OPEN_HELPER: frozenset({"thread_id", "fencing_token"}),
    Verb.KILL_ALL: frozenset({"thread_id", "fencing_token"}),
    Verb.PAUSE: frozenset({"thread_id"}),
    Verb.REMOVE: frozenset({"thread_id", "files"}),
    Verb.LIST: frozenset({"folders", "only"}),
    Verb.STATS: frozenset({"thread_id"}),
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is one: `thread_id` has the form of an id, `profile` that of a name.

    `list` has no thread, but may be told to answer about `only` one.
    """

    verb: Verb
    thread_id: ThreadId = _NO_THREAD
    profile: str | None = None
    fencing_token: int | None = None
    files: bool = False
    folders: bool = False
    only: ThreadId | None = None

    def line(self) -> bytes:
        fields = {name: getattr(self, name) for name in sorted(_FIELDS[self.verb])}
        return orjson.dumps({"verb": self.verb.value, **fields}) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Request":
        """Raises InvalidInput for whatever is not exactly a request; the answer never repeats what was sent."""
        try:
            body: object = orjson.loads(line)
        except orjson.JSONDecodeError:
            raise InvalidInput("A request is one JSON object in one line.") from None
        if not isinstance(body, dict):
            raise InvalidInput("A request is one JSON object in one line.")
        values = cast(dict[str, object], body)
        verb = _verb(values.pop("verb", None))
        if values.keys() != _FIELDS[verb]:
            raise InvalidInput(f"{verb.value} takes exactly these fields: {', '.join(sorted(_FIELDS[verb]))}.")
        return cls(verb, **{name: _CHECKS[name](value) for name, value in values.items()})


def _verb(value: object) -> Verb:
    found = next((verb for verb in Verb if verb.value == value), None) if isinstance(value, str) else None
    if found is None:
        raise InvalidInput(f"The verbs are {', '.join(verb.value for verb in Verb)}.")
    return found


def _thread_id(value: object) -> ThreadId:
    if not isinstance(value, str) or owner_of(value) is None:
        raise InvalidInput("This is not a thread id.")
    return ThreadId(value)


def _only(value: object) -> ThreadId | None:
    return None if value is None else _thread_id(value)


def _profile(value: object) -> str | None:
    if value is not None and not (isinstance(value, str) and _PROFILE.fullmatch(value)):
        raise InvalidInput("This is not the name of a profile.")
    return value


def _fencing_token(value: object) -> int | None:
    if value is not None and not (type(value) is int and 0 <= value <= _MAX_TOKEN):
        raise InvalidInput("A fencing token is a whole number from 0 to 2^63-1.")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidInput("This must be true or false.")
    return value


_CHECKS: Mapping[str, Any] = {
    "thread_id": _thread_id,
    "profile": _profile,
    "fencing_token": _fencing_token,
    "files": _flag,
    "folders": _flag,
    "only": _only,
}


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the broker says first, to those who may hear it: what its sandboxes are, and what they lack now."""

    sandboxd: int
    name: Literal["docker"]
    isolation_note: str | None
    shortcomings: tuple[Shortcoming, ...]

    def line(self) -> bytes:
        return _GREETING.dump_json(self) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "Greeting":
        """Raises SandboxUnavailable when this is no broker, or one that speaks otherwise."""
        try:
            greeting = _GREETING.validate_json(line)
        except ValidationError:
            raise SandboxUnavailable("What answers at SANDBOX_BROKER is not a broker.", code="no_broker") from None
        if greeting.sandboxd != VERSION:
            raise SandboxUnavailable("The broker is of another version than this server.", code="no_broker")
        return greeting


_GREETING = TypeAdapter(Greeting)
_RESULTS: Mapping[Verb, TypeAdapter[Any]] = {
    Verb.ENSURE: TypeAdapter(Bounds),
    Verb.LIST: TypeAdapter(list[SandboxInfo]),
    Verb.STATS: TypeAdapter(SandboxStats),
}
_NOTHING: TypeAdapter[Any] = TypeAdapter(None)


def result_line(verb: Verb, result: object) -> bytes:
    return b'{"ok":' + _RESULTS.get(verb, _NOTHING).dump_json(result) + b"}\n"


def error_line(error: AppError) -> bytes:
    """The error as the nearest kind that both sides know."""
    known = next((kind for kind in type(error).__mro__ if kind in _LEAVES), SandboxUnavailable)
    said = {"type": known.__name__, "code": error.code, "detail": error.detail, "retry_after": error.retry_after}
    return orjson.dumps({"error": said}) + b"\n"


def read_answer(verb: Verb, line: bytes) -> Any:
    """What the verb gives; raises the error that the broker answered, as it was raised there."""
    try:
        match orjson.loads(line):
            case {"ok": result}:
                return _RESULTS.get(verb, _NOTHING).validate_python(result, strict=False)
            case {"error": {"type": str(name), "code": str(code), "detail": str(detail), "retry_after": wait}} if (
                name in _BY_NAME and (wait is None or type(wait) is int)
            ):
                error = _BY_NAME[name](detail, code=code)
                error.retry_after = wait
            case _:
                raise ValueError("neither")
    except ValueError:  # pydantic's and orjson's errors are some
        raise SandboxUnavailable("The broker's answer cannot be understood.", code="no_broker") from None
    raise error

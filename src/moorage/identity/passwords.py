"""Passwords: which are accepted, and their argon2id hashes, computed in a bounded pool off the event loop."""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from passlib.hash import argon2  # pyright: ignore[reportAttributeAccessIssue, reportMissingTypeStubs, reportUnknownVariableType]

from moorage.errors import InvalidPayload, Unavailable

MIN_LENGTH = 8
MAX_LENGTH = 128
_WORKERS = 2
_MAX_WAITING = 64
_ROUNDS = 3  # with 64 MiB: RFC 9106's second recommendation
_MEMORY_KIB = 64 * 1024

_COMMON = frozenset(
    {
        "00000000", "11111111", "12345678", "123456789", "1234567890", "87654321", "abc12345", "abcd1234", "admin123",
        "changeme", "football", "iloveyou", "letmein1", "passw0rd", "password", "password1", "password12",
        "password123", "princess", "qwerty12", "qwerty123", "qwertyui", "qwertyuiop", "sunshine", "superman",
        "test1234", "trustno1", "welcome1", "welcome123", "zaq12wsx",
    }
)  # fmt: skip


class WeakPassword(InvalidPayload):
    code = "weak_password"


def normalise(password: str) -> str:
    """The form of a password that is hashed: NFC, so that it is the same from every keyboard."""
    return unicodedata.normalize("NFC", password)


def check_password(password: str, *, username: str, field: str = "password") -> str:
    """`password` normalised; raises WeakPassword, saying why and in which `field`, without repeating it."""
    text = normalise(password)
    if problem := _weakness(text, username):
        detail = f"password {problem}"
        raise WeakPassword(detail, errors=[{"loc": ["body", field], "msg": detail, "type": "weak_password"}])
    return text


def _weakness(text: str, username: str) -> str | None:
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH:
        return f"must have {MIN_LENGTH} to {MAX_LENGTH} characters"
    if "\x00" in text or not _encodable(text):
        return "must not contain NUL or broken characters"
    if len(set(text)) == 1:
        return "must not repeat one character"
    if text.lower() == username or text.lower() in _COMMON:
        return "is too easy to guess"
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class PasswordHasher:
    """Hashes and verifies, at most two at a time; refuses when too many wait, so that log-ins cannot pile up."""

    def __init__(self, *, rounds: int = _ROUNDS, memory_kib: int = _MEMORY_KIB) -> None:
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="passwords")
        self._waiting = 0
        self._scheme = argon2.using(type="ID", rounds=rounds, memory_cost=memory_kib)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        self._dummy = self._hash("no such user")

    async def hash(self, password: str) -> str:
        return await self._offload(self._hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` made the hash `stored`; takes the same time when there is none."""
        text = normalise(password)
        if len(text) > MAX_LENGTH or not _encodable(text):
            text, stored = "", None
        matches = await self._offload(self._verify, text, stored or self._dummy)
        return matches and stored is not None

    def _hash(self, password: str) -> str:
        return str(self._scheme.hash(password))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]

    def _verify(self, password: str, stored: str) -> bool:
        try:
            return bool(self._scheme.verify(password, stored))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        except ValueError:  # not a hash: an account that cannot log in
            self._scheme.verify(password, self._dummy)  # pyright: ignore[reportUnknownMemberType]
            return False

    async def _offload[*Args, T](self, call: Callable[[*Args], T], *args: *Args) -> T:
        if self._waiting >= _MAX_WAITING:
            raise Unavailable("Too many log-ins at once", code="busy", retry_after=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)
        finally:
            self._waiting -= 1

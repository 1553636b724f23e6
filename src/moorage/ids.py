"""Identifiers, and the one rule that says who owns a thread id."""

import re
import uuid
from typing import NewType

UserId = NewType("UserId", str)
ThreadId = NewType("ThreadId", str)
RunId = NewType("RunId", str)
InterruptId = NewType("InterruptId", str)

_UUID_LENGTH = 36
_RESULTS = uuid.UUID("5b0f4d1c-6d1e-5c0a-9a57-2f6b1f1f7a3e")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
USER_ID = r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])"


def is_user_id(text: str) -> bool:
    """Whether `text` has the form of a user id: 2 to 32 of `[a-z0-9]`, with inner `-`, `_` and `.`."""
    return re.fullmatch(USER_ID, text) is not None


def new_thread_id(owner: UserId) -> ThreadId:
    return ThreadId(f"{owner}-{uuid.uuid4()}")


def user_place(owner: UserId) -> ThreadId:
    """The place of a user's own sandbox, for what belongs to no conversation: their shared folder. No thread has it."""
    return ThreadId(f"{owner}-{uuid.UUID(int=0)}")


def full_thread_id(caller: UserId, text: str) -> str:
    """What a client of the wire means by a thread id: a bare lower-case uuid is its caller's; all else is as it is."""
    return f"{caller}-{text}" if _UUID.fullmatch(text) else text


def new_run_id() -> RunId:
    return RunId(str(uuid.uuid4()))


def new_message_id() -> str:
    return str(uuid.uuid4())


def result_message_id(thread_id: ThreadId, checkpoint_ns: str, message_id: str, position: int) -> str:
    """The id of the message with the result of one tool call: whoever makes it, and however often, it is the same."""
    return str(uuid.uuid5(_RESULTS, "\n".join((thread_id, checkpoint_ns, message_id, str(position)))))


def owner_of(thread_id: str) -> UserId | None:
    """The user a thread id names, or None when it is not a thread id at all.

    The uuid is the LAST 36 characters and the owner is everything before the hyphen in front of it, so `al` never
    reaches `al-ice-<uuid>`.
    """
    owner, hyphen, tail = (
        thread_id[: -_UUID_LENGTH - 1],
        thread_id[-_UUID_LENGTH - 1 : -_UUID_LENGTH],
        thread_id[-_UUID_LENGTH:],
    )
    if hyphen != "-" or not _UUID.fullmatch(tail) or not is_user_id(owner):
        return None
    return UserId(owner)

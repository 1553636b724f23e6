"""Users, and which names may be taken."""

from dataclasses import dataclass
from datetime import datetime

from moorage.errors import Conflict, InvalidPayload
from moorage.ids import UserId, is_user_id

RESERVED_NAMES = frozenset(
    {
        "admin", "administrator", "anonymous", "api", "app", "assistant", "guest", "me", "moorage", "null", "public",
        "root", "shared", "support", "system", "user", "users", "www",
    }
)  # fmt: skip


class InvalidUsername(InvalidPayload):
    code = "invalid_username"


class LastAdmin(Conflict):
    code = "last_admin"

    def __init__(self) -> None:
        super().__init__("This is the last active administrator")


@dataclass(frozen=True, slots=True)
class User:
    """A user as stored. `token_version` grows when every token given out so far must die."""

    user_id: UserId
    password_hash: str
    email: str | None
    is_admin: bool
    is_active: bool
    token_version: int
    created_at: datetime


def check_username(name: str) -> UserId:
    """`name` as a user id; raises InvalidUsername. Upper case is refused, not folded."""
    if not is_user_id(name):
        raise InvalidUsername(
            "username takes 2 to 32 of a-z and 0-9, with - _ . inside",
            errors=[{"loc": ["body", "username"], "msg": "not a valid username", "type": "invalid_username"}],
        )
    if name in RESERVED_NAMES:
        raise InvalidUsername(
            "this username is reserved",
            errors=[{"loc": ["body", "username"], "msg": "reserved", "type": "reserved_username"}],
        )
    return UserId(name)

"""Where users and their proofs are kept. Times that matter for security are the store's own clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from moorage.identity.principal import ApiKey, Proof, Scope
from moorage.identity.user import User
from moorage.ids import UserId
from moorage.paging import Page


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a token of this user still counts."""

    is_admin: bool
    is_active: bool
    token_version: int
    token_revoked: bool


@dataclass(frozen=True, slots=True)
class KeyStanding:
    """An API key that counts. `used_lately`: its last use was noted within the last minute."""

    key_id: UUID
    user_id: UserId
    scopes: frozenset[Scope]
    used_lately: bool


class RefreshUse(StrEnum):
    """What came of using a refresh token once."""

    OK = "ok"
    UNKNOWN = "unknown"
    REUSED = "reused"


@dataclass(frozen=True, slots=True)
class Refreshed:
    use: RefreshUse
    user: User | None = None
    family: UUID | None = None


class UserStore(Protocol):
    async def add(self, user_id: UserId, password_hash: str, *, email: str | None, is_admin: bool) -> bool:
        """False when the name is taken."""
        ...

    async def find(self, user_id: str) -> User | None: ...

    async def standing(self, user_id: UserId, token_id: str, family: UUID) -> Standing | None:
        """None when there is no such user. A token is revoked when it is, or when its family is."""
        ...

    async def search(self, *, query: str | None = None, limit: int, cursor: str | None) -> Page[User]:
        """Users by name; `query` is a part of a name or of an email address, upper or lower case."""
        ...

    async def set_password(self, user_id: UserId, password_hash: str, *, keep_keys: bool = False) -> bool:
        """Also ends every token of the user, and their API keys unless kept; False when there is no such user."""
        ...

    async def set_active(self, user_id: UserId, *, active: bool, spare_last_admin: bool = False) -> bool:
        """Disabling also ends every token and API key of the user; False when there is no such user.

        To spare the last administrator raises LastAdmin, also when several are disabled at once.
        """
        ...

    async def end_all_tokens(self, user_id: UserId) -> None: ...

    async def revoke_access_token(self, user_id: UserId, token_id: str, *, until: datetime) -> None: ...

    async def add_refresh_token(self, user: User, digest: bytes, family: UUID, *, lifetime: timedelta) -> None: ...

    async def rotate_refresh_token(self, digest: bytes, following: bytes, *, lifetime: timedelta) -> Refreshed:
        """Put `following` in the place of a refresh token, in one step. One used before revokes its whole family."""
        ...

    async def revoke_family(self, family: UUID, user_id: UserId) -> None:
        """End all refresh and access tokens that come of one log-in."""
        ...

    async def seconds_blocked(self, account: str, address: str) -> int:
        """For how long this account or address has had too many failures; 0 when it may try."""
        ...

    async def settle_attempt(self, account: str, address: str, *, success: bool) -> int:
        """Count a failure, or clear the account's; unless blocked by now: then do nothing and answer for how long.

        One at a time for an account and for an address, so that no number of attempts at once gets around the limit.
        """
        ...

    async def offer_setup(self, digest: bytes, *, lifetime: timedelta) -> bool:
        """Store a set-up token in place of earlier ones; False when there is an admin already."""
        ...

    async def add_first_admin(self, digest: bytes, user_id: UserId, password_hash: str) -> bool:
        """Use the set-up token and add the admin, in one step; False when the token is not (any more) good."""
        ...


class KeyStore(Protocol):
    """Where API keys and tickets are kept, each as the digest of its text."""

    async def add_key(
        self,
        user_id: UserId,
        digest: bytes,
        *,
        name: str,
        prefix: str,
        scopes: frozenset[Scope],
        lifetime: timedelta | None,
        limit: int,
    ) -> ApiKey | None:
        """Store a key; None when the user has `limit` of them already, race-free."""
        ...

    async def search_keys(self, user_id: UserId, *, limit: int, cursor: str | None) -> Page[ApiKey]: ...

    async def remove_key(self, user_id: UserId, key_id: UUID) -> bool:
        """False when the user has no such key."""
        ...

    async def key_standing(self, digest: bytes) -> KeyStanding | None:
        """None when there is no such key, it has expired, or its user is disabled."""
        ...

    async def touch_key(self, key_id: UUID) -> None:
        """Note that the key is in use, unless that was noted within the last minute."""
        ...

    async def add_ticket(self, digest: bytes, proof: Proof, *, lifetime: timedelta) -> None:
        """Store a ticket that stands for what proved its user."""
        ...

    async def use_ticket(self, digest: bytes) -> Proof | None:
        """Take a ticket away and answer what it stands for; None when it was used, expired or never there."""
        ...

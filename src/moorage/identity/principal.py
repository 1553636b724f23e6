"""Who is calling, by what they proved it, and what they may do."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from moorage.errors import PermissionDenied
from moorage.ids import UserId


class Scope(StrEnum):
    """What an API key may do. Who logged in may do all of it, and what no key may."""

    READ = "read"
    RUN = "run"
    APPROVE = "approve"


ALL_SCOPES = frozenset(Scope)


class ScopeMissing(PermissionDenied):
    code = "scope_missing"

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"This API key lacks the scope `{scope.value}`")


class LoginRequired(PermissionDenied):
    code = "login_required"

    def __init__(self) -> None:
        super().__init__("No API key may do this: log in and send the access token")


class AdminRequired(PermissionDenied):
    code = "admin_required"

    def __init__(self) -> None:
        super().__init__("Only an administrator may do this")


@dataclass(frozen=True, slots=True)
class TokenProof:
    """What a valid access token says. `family` is the log-in that it and its refresh tokens come of."""

    user_id: UserId
    token_version: int
    token_id: str
    family: UUID
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class KeyProof:
    """An API key, by what is stored of it."""

    user_id: UserId
    key_id: UUID
    digest: bytes


type Proof = TokenProof | KeyProof


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller. `is_admin` holds for log-ins only: no key carries an administrator's rights."""

    user_id: UserId
    is_admin: bool
    proof: Proof
    scopes: frozenset[Scope] = ALL_SCOPES

    def require(self, scope: Scope) -> None:
        """Raise ScopeMissing unless the caller may do what `scope` names."""
        if scope not in self.scopes:
            raise ScopeMissing(scope)

    def require_admin(self) -> None:
        """Raise AdminRequired unless the caller is an administrator who logged in."""
        if not self.is_admin:
            raise AdminRequired

    def require_login(self) -> TokenProof:
        """The access token that proved the caller; raises LoginRequired for an API key."""
        if not isinstance(self.proof, TokenProof):
            raise LoginRequired
        return self.proof


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as its owner sees it. `prefix` is how it begins; `expires_at` None: never."""

    key_id: UUID
    name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

"""Access tokens (HS256 JWTs, RFC 7519) and refresh tokens (opaque). Pure: the clock is passed in.

python-jose stays in this module. It checks the signature; every claim is checked here, because it lets a token without
an `aud` pass, and reads header fields that we ignore.
"""

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from jose import jwt  # pyright: ignore[reportMissingModuleSource]
from jose.exceptions import JOSEError  # pyright: ignore[reportMissingModuleSource]

from moorage.errors import Unauthenticated
from moorage.identity.principal import TokenProof
from moorage.identity.user import User
from moorage.ids import UserId, is_user_id

_ALGORITHM = "HS256"
_ISSUER = "moorage"
_AUDIENCE = "moorage"
_TYPE = "access"
_LEEWAY = timedelta(seconds=30)
_MAX_LENGTH = 4096
_MAX_TIMESTAMP = 2**40
_UNCHECKED: dict[str, bool] = {
    f"verify_{name}": False for name in ("aud", "iat", "exp", "nbf", "iss", "sub", "jti", "at_hash")
}


class InvalidToken(Unauthenticated):
    code = "invalid_token"

    def __init__(self) -> None:
        super().__init__("The access token is not valid: log in again")


class TokenExpired(Unauthenticated):
    code = "token_expired"

    def __init__(self) -> None:
        super().__init__("The access token has expired: log in again")


class TokenSigner:
    """Issues and verifies access tokens under one key."""

    def __init__(self, secret_key: str, *, lifetime: timedelta) -> None:
        self._key = secret_key
        self.lifetime = lifetime

    def issue(self, user: User, now: datetime, *, family: UUID) -> str:
        claims: dict[str, Any] = {
            "sub": user.user_id,
            "ver": user.token_version,
            "jti": secrets.token_hex(16),
            "sid": family.hex,
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "typ": _TYPE,
            "iat": int(now.timestamp()),
            "exp": int((now + self.lifetime).timestamp()),
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def verify(self, token: str, now: datetime) -> TokenProof:
        """The claims of a token that we signed and that has not expired; raises InvalidToken or TokenExpired."""
        if len(token) > _MAX_LENGTH or not token.isascii():
            raise InvalidToken
        _refuse_critical(token)
        try:
            claims = jwt.decode(token, self._key, algorithms=[_ALGORITHM], options=cast("Any", _UNCHECKED))
        except (JOSEError, ValueError, TypeError, AttributeError):
            raise InvalidToken from None
        return _checked(claims, now)


def _refuse_critical(token: str) -> None:
    """A `crit` header names extensions that the reader must understand (RFC 7515, 4.1.11). We understand none."""
    part = token.partition(".")[0]
    try:
        header = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (Base64Error, ValueError, RecursionError):
        raise InvalidToken from None
    if not isinstance(header, dict) or "crit" in header:
        raise InvalidToken


def _checked(claims: dict[str, Any], now: datetime) -> TokenProof:
    subject, version, token_id = claims.get("sub"), claims.get("ver"), claims.get("jti")
    issued, expires = _timestamp(claims.get("iat")), _timestamp(claims.get("exp"))
    if (claims.get("iss"), claims.get("aud"), claims.get("typ")) != (_ISSUER, _AUDIENCE, _TYPE):
        raise InvalidToken
    if not isinstance(subject, str) or not is_user_id(subject) or not isinstance(token_id, str) or not token_id:
        raise InvalidToken
    if not isinstance(version, int) or isinstance(version, bool) or issued > now + _LEEWAY:
        raise InvalidToken
    refuse_expired(expires, now)
    return TokenProof(UserId(subject), version, token_id, _family(claims.get("sid")), expires)


def refuse_expired(expires: datetime, now: datetime) -> None:
    """Raise TokenExpired for an access token that ended at `expires`."""
    if expires + _LEEWAY <= now:
        raise TokenExpired


def _family(value: object) -> UUID:
    if not isinstance(value, str):
        raise InvalidToken
    try:
        return UUID(value)
    except ValueError:
        raise InvalidToken from None


def _timestamp(value: object) -> datetime:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < _MAX_TIMESTAMP:
        raise InvalidToken
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, ValueError, OSError):
        raise InvalidToken from None


def new_opaque_token() -> str:
    """256 random bits: a refresh token, a set-up token, a ticket or the rest of an API key."""
    return secrets.token_urlsafe(32)


def opaque_digest(token: str) -> bytes:
    """What is stored of an opaque token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()

"""What people do to come in, stay in and go out. Every rule of authentication that needs the store is here."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from moorage.errors import Conflict, LimitExceeded, NotFound, PermissionDenied, Unauthenticated
from moorage.identity.passwords import PasswordHasher, check_password
from moorage.identity.port import RefreshUse, Standing, UserStore
from moorage.identity.tokens import Claims, InvalidToken, TokenSigner, new_opaque_token, opaque_digest
from moorage.identity.user import Principal, User, check_username
from moorage.ids import UserId, is_user_id
from moorage.paging import Page

_REFRESH_LIFETIME = timedelta(days=30)
_SETUP_LIFETIME = timedelta(hours=24)
_STANDING_SECONDS = 1.0
_STANDING_LIMIT = 10_000


class UsernameTaken(Conflict):
    code = "username_taken"


class RegistrationClosed(PermissionDenied):
    code = "registration_closed"


class WrongCredentials(Unauthenticated):
    code = "wrong_credentials"

    def __init__(self) -> None:
        super().__init__("Wrong username or password")


class TooManyFailures(LimitExceeded):
    code = "too_many_failures"


class SetupRefused(PermissionDenied):
    code = "setup_refused"


class NoSuchUser(NotFound):
    code = "no_such_user"

    def __init__(self) -> None:
        super().__init__("There is no such user")


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a log-in gives. `expires_in` is in seconds."""

    access_token: str
    refresh_token: str
    expires_in: int


class Identity:
    """Users and their sessions with us.

    Whether a token still counts is asked of the store at most once a second per token: what this process changes counts
    at once, what another one changes within that second.
    """

    def __init__(
        self,
        store: UserStore,
        signer: TokenSigner,
        *,
        registration_open: bool,
        clock: Callable[[], datetime],
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._registration_open = registration_open
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._standings: dict[str, tuple[float, Standing]] = {}
        self._changes = 0

    async def register(self, username: str, password: str, *, email: str | None = None) -> UserId:
        """Raises RegistrationClosed, InvalidUsername, WeakPassword or UsernameTaken."""
        if not self._registration_open:
            raise RegistrationClosed("Registration is closed: ask the administrator for an account")
        return await self.create_user(username, password, email=email)

    async def create_user(
        self, username: str, password: str, *, email: str | None = None, is_admin: bool = False
    ) -> UserId:
        """`register` for the operator: whether registration is open or not."""
        user_id = check_username(username)
        hashed = await self._hasher.hash(check_password(password, username=username))
        if not await self._store.add(user_id, hashed, email=email, is_admin=is_admin):
            raise UsernameTaken("This username is taken")
        return user_id

    async def login(self, username: str, password: str, *, address: str) -> Tokens:
        """Raises WrongCredentials (the same for an unknown user) or TooManyFailures."""
        user = await self._checked(username, password, address=address)
        refresh_token, family = new_opaque_token(), uuid4()
        await self._store.add_refresh_token(user, opaque_digest(refresh_token), family, lifetime=_REFRESH_LIFETIME)
        return self._tokens(user, refresh_token, family)

    async def _checked(self, username: str, password: str, *, address: str) -> User:
        """The user whose password this is. Of many guesses at once, those beyond the limit learn nothing."""
        _refuse_blocked(await self._store.seconds_blocked(username, address))
        user = await self._store.find(username)
        matches = await self._hasher.verify(password, user.password_hash if user else None)
        found = user if matches and user is not None and user.is_active else None
        _refuse_blocked(await self._store.settle_attempt(username, address, success=found is not None))
        if found is None:
            raise WrongCredentials
        return found

    async def authenticate(self, token: str) -> Principal:
        """Who this access token is; raises Unauthenticated when it does not count any more."""
        claims = self._signer.verify(token, self._clock())
        standing = await self._standing(claims)
        if standing is None or not standing.is_active or standing.token_revoked:
            raise InvalidToken
        if standing.token_version != claims.token_version:
            raise InvalidToken
        return Principal(claims.user_id, standing.is_admin, claims.token_id, claims.expires_at, claims.family)

    async def _standing(self, claims: Claims) -> Standing | None:
        now = time.monotonic()
        known = self._standings.get(claims.token_id)
        if known is not None and now - known[0] < _STANDING_SECONDS:
            return known[1]
        changes = self._changes
        standing = await self._store.standing(claims.user_id, claims.token_id, claims.family)
        if standing is not None and changes == self._changes:  # else it may be older than a change made meanwhile
            if len(self._standings) >= _STANDING_LIMIT:
                self._standings.clear()
            self._standings[claims.token_id] = (now, standing)
        return standing

    def _forget_standings(self) -> None:
        self._changes += 1
        self._standings.clear()

    async def refresh(self, refresh_token: str) -> Tokens:
        """New tokens for old. A token that was used before ends all that came of its log-in; raises Unauthenticated."""
        following = new_opaque_token()
        found = await self._store.rotate_refresh_token(
            opaque_digest(refresh_token), opaque_digest(following), lifetime=_REFRESH_LIFETIME
        )
        if found.use is RefreshUse.REUSED:
            self._forget_standings()
        if found.use is not RefreshUse.OK or found.user is None or found.family is None:
            raise Unauthenticated("The refresh token is not valid: log in again", code="invalid_refresh_token")
        return self._tokens(found.user, following, found.family)

    async def logout(self, principal: Principal) -> None:
        """End this access token and all others of its log-in, refresh tokens too."""
        await self._store.revoke_access_token(principal.user_id, principal.token_id, until=principal.token_expires_at)
        await self._store.revoke_family(principal.family, principal.user_id)
        self._forget_standings()

    async def logout_all(self, principal: Principal) -> None:
        """End every token of the user, everywhere."""
        await self._store.end_all_tokens(principal.user_id)
        self._forget_standings()

    async def change_password(self, principal: Principal, current: str, new: str, *, address: str) -> None:
        """Raises WrongCredentials, WeakPassword or TooManyFailures. Ends every token of the user."""
        user = await self._checked(principal.user_id, current, address=address)
        await self._store_password(user.user_id, check_password(new, username=user.user_id, field="new_password"))

    async def me(self, principal: Principal) -> User:
        return await self._get(principal.user_id)

    async def set_password(self, user_id: str, password: str) -> None:
        """Set a user's password and end their tokens; raises WeakPassword or NoSuchUser."""
        await self._store_password(_user_id(user_id), check_password(password, username=user_id))

    async def _store_password(self, user_id: UserId, checked: str) -> None:
        if not await self._store.set_password(user_id, await self._hasher.hash(checked)):
            raise NoSuchUser
        self._forget_standings()

    async def set_active(self, user_id: str, *, active: bool) -> None:
        """Disable a user, ending their tokens, or let them in again; raises NoSuchUser."""
        if not await self._store.set_active(_user_id(user_id), active=active):
            raise NoSuchUser
        self._forget_standings()

    async def list_users(self, *, limit: int = 100, cursor: str | None = None) -> Page[User]:
        return await self._store.search(limit=limit, cursor=cursor)

    async def create_setup_link_if_first_start(self) -> str | None:
        """A fresh one-time token with which the first admin is made; None when there is an admin."""
        token = new_opaque_token()
        offered = await self._store.offer_setup(opaque_digest(token), lifetime=_SETUP_LIFETIME)
        return token if offered else None

    async def setup(self, token: str, username: str, password: str) -> UserId:
        """Make the first admin; raises SetupRefused when the link is used, old, or there is an admin."""
        user_id = check_username(username)
        hashed = await self._hasher.hash(check_password(password, username=username))
        if not await self._store.add_first_admin(opaque_digest(token), user_id, hashed):
            raise SetupRefused("This set-up link is not valid any more, or the username is taken")
        return user_id

    async def _get(self, user_id: UserId) -> User:
        user = await self._store.find(user_id)
        if user is None:
            raise NoSuchUser
        return user

    def _tokens(self, user: User, refresh_token: str, family: UUID) -> Tokens:
        access = self._signer.issue(user, self._clock(), family=family)
        return Tokens(access, refresh_token, int(self._signer.lifetime.total_seconds()))


def _refuse_blocked(seconds: int) -> None:
    if seconds:
        raise TooManyFailures("Too many failed attempts: wait and try again", retry_after=seconds)


def _user_id(name: str) -> UserId:
    """Not `check_username`: whether a name may be taken is another question than whether it was."""
    if not is_user_id(name):
        raise NoSuchUser
    return UserId(name)

"""What people do to come in, stay in and go out. Every rule of authentication that needs the store is here."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from moorage.errors import Conflict, LimitExceeded, NotFound, PermissionDenied, Unauthenticated
from moorage.identity.keys import ApiKeys, looks_like_key
from moorage.identity.passwords import PasswordHasher, check_password
from moorage.identity.port import KeyStore, RefreshUse, Standing, UserStore
from moorage.identity.principal import KeyProof, Principal, Proof, TokenProof
from moorage.identity.recent import Recent
from moorage.identity.tokens import InvalidToken, TokenSigner, new_opaque_token, opaque_digest, refuse_expired
from moorage.identity.user import User, check_username
from moorage.ids import UserId, is_user_id
from moorage.paging import Page

_REFRESH_LIFETIME = timedelta(days=30)
_SETUP_LIFETIME = timedelta(hours=24)
TICKET_LIFETIME = timedelta(seconds=30)


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


class InvalidTicket(Unauthenticated):
    code = "invalid_ticket"

    def __init__(self) -> None:
        super().__init__("The ticket is not valid: each works once, within seconds")


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
    """Users and their sessions with us; `keys` are their API keys.

    Whether a token or a key still counts is asked of the store at most once a second each: what this process changes
    counts at once, what another one changes within that second.
    """

    def __init__(
        self,
        store: UserStore,
        signer: TokenSigner,
        keys: KeyStore,
        *,
        registration_open: bool,
        clock: Callable[[], datetime],
        hasher: PasswordHasher | None = None,
    ) -> None:
        self._store = store
        self._signer = signer
        self._tickets = keys
        self.keys = ApiKeys(keys)
        self._registration_open = registration_open
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._standings = Recent[Standing]()

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

    async def authenticate(self, credential: str) -> Principal:
        """Who this access token or API key is; raises Unauthenticated when it does not count any more."""
        if looks_like_key(credential):
            return await self.keys.principal(credential)
        return await self._token_principal(self._signer.verify(credential, self._clock()))

    async def recheck(self, principal: Principal) -> Principal:
        """The principal as of now, by what proved it; raises Unauthenticated when that does not count any more."""
        return await self._prove(principal.proof)

    async def issue_ticket(self, principal: Principal) -> str:
        """What stands for the principal once within half a minute, for where no header can be sent."""
        ticket = new_opaque_token()
        await self._tickets.add_ticket(opaque_digest(ticket), principal.proof, lifetime=TICKET_LIFETIME)
        return ticket

    async def redeem_ticket(self, ticket: str) -> Principal:
        """Whose ticket this is; raises Unauthenticated when it was used, is old, or its giver does not count any more.

        Of several who redeem one at the same time, in whichever process, one gets it.
        """
        proof = await self._tickets.use_ticket(opaque_digest(ticket))
        if proof is None:
            raise InvalidTicket
        return await self._prove(proof)

    async def _prove(self, proof: Proof) -> Principal:
        if isinstance(proof, KeyProof):
            return await self.keys.prove(proof.digest)
        refuse_expired(proof.expires_at, self._clock())
        return await self._token_principal(proof)

    async def _token_principal(self, proof: TokenProof) -> Principal:
        standing = await self._standings.get(
            proof.token_id, lambda: self._store.standing(proof.user_id, proof.token_id, proof.family)
        )
        if standing is None or not standing.is_active or standing.token_revoked:
            raise InvalidToken
        if standing.token_version != proof.token_version:
            raise InvalidToken
        return Principal(proof.user_id, standing.is_admin, proof)

    def _forget_standings(self) -> None:
        self._standings.forget()
        self.keys.forget()

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
        token = principal.require_login()
        await self._store.revoke_access_token(principal.user_id, token.token_id, until=token.expires_at)
        await self._store.revoke_family(token.family, principal.user_id)
        self._forget_standings()

    async def logout_all(self, principal: Principal) -> None:
        """End every token of the user, everywhere. API keys stay: they are no log-ins, and revoked one by one."""
        await self._store.end_all_tokens(principal.user_id)
        self._forget_standings()

    async def change_password(
        self, principal: Principal, current: str, new: str, *, address: str, keep_keys: bool = False
    ) -> None:
        """Raises WrongCredentials, WeakPassword or TooManyFailures. Ends every token of the user.

        API keys end too, unless kept: whoever knew the password may have made one.
        """
        user = await self._checked(principal.user_id, current, address=address)
        checked = check_password(new, username=user.user_id, field="new_password")
        await self._store_password(user.user_id, checked, keep_keys=keep_keys)

    async def me(self, principal: Principal) -> User:
        return await self.get(principal.user_id)

    async def get(self, user_id: str) -> User:
        """Raises NoSuchUser."""
        user = await self._store.find(user_id)
        if user is None:
            raise NoSuchUser
        return user

    async def set_password(self, user_id: str, password: str) -> None:
        """Set a user's password and end their tokens and API keys; raises WeakPassword or NoSuchUser."""
        await self._store_password(_user_id(user_id), check_password(password, username=user_id), keep_keys=False)

    async def _store_password(self, user_id: UserId, checked: str, *, keep_keys: bool) -> None:
        if not await self._store.set_password(user_id, await self._hasher.hash(checked), keep_keys=keep_keys):
            raise NoSuchUser
        self._forget_standings()

    async def set_active(self, user_id: str, *, active: bool, spare_last_admin: bool = False) -> None:
        """Disable a user, ending their tokens and API keys, or let them in again; raises NoSuchUser or LastAdmin."""
        if not await self._store.set_active(_user_id(user_id), active=active, spare_last_admin=spare_last_admin):
            raise NoSuchUser
        self._forget_standings()

    async def list_users(self, *, query: str | None = None, limit: int = 100, cursor: str | None = None) -> Page[User]:
        return await self._store.search(query=query, limit=limit, cursor=cursor)

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

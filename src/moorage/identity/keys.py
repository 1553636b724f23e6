"""API keys: what programs send in place of an access token. 256 random bits, shown once, stored as SHA-256."""

import re
import time
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from moorage.errors import AppError, InvalidPayload, LimitExceeded, NotFound, Unauthenticated
from moorage.events import scrub_text
from moorage.identity.port import KeyStanding, KeyStore
from moorage.identity.principal import ALL_SCOPES, ApiKey, KeyProof, Principal, Scope
from moorage.identity.recent import Recent
from moorage.identity.tokens import new_opaque_token, opaque_digest
from moorage.ids import UserId
from moorage.paging import Page
from moorage.telemetry import get_logger

KEYS_PER_USER = 50
NAME_LIMIT = 100
DEFAULT_LIFETIME = timedelta(days=90)
_PREFIX = "mrg_"
_SHOWN = len(_PREFIX) + 6
_KEY = re.compile(_PREFIX + r"[A-Za-z0-9_-]{43}")
_TOUCH_SECONDS = 60.0
_TOUCHED_LIMIT = 10_000

log = get_logger(__name__)


class InvalidApiKey(Unauthenticated):
    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__("The API key is not valid, or not any more")


class TooManyKeys(LimitExceeded):
    code = "api_key_limit"


class KeyNotFound(NotFound):
    code = "no_such_api_key"

    def __init__(self) -> None:
        super().__init__("There is no such API key")


def new_api_key() -> str:
    return _PREFIX + new_opaque_token()


def shown_prefix(key: str) -> str:
    """How a key begins: enough to tell one's own apart, nothing to guess the rest from."""
    return key[:_SHOWN]


def looks_like_key(credential: str) -> bool:
    """Whether this is meant to be a key and not an access token."""
    return credential.startswith(_PREFIX)


class ApiKeys:
    """The keys of users, and who a key is."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._standings = Recent[KeyStanding]()
        self._touched: dict[UUID, float] = {}

    async def create(
        self,
        user_id: UserId,
        name: str,
        *,
        scopes: Collection[Scope] = ALL_SCOPES,
        lifetime: timedelta | None = DEFAULT_LIFETIME,
    ) -> tuple[ApiKey, str]:
        """A new key and its text, which nobody can show again; raises TooManyKeys, or InvalidPayload without a name."""
        name = scrub_text(name).strip()
        if not name or not scopes:
            raise InvalidPayload("An API key needs a name, and a scope at least")
        key = new_api_key()
        stored = await self._store.add_key(
            user_id,
            opaque_digest(key),
            name=name,
            prefix=shown_prefix(key),
            scopes=frozenset(scopes),
            lifetime=lifetime,
            limit=KEYS_PER_USER,
        )
        if stored is None:
            raise TooManyKeys(f"A user has {KEYS_PER_USER} API keys at most: revoke one first")
        return stored, key

    async def search(self, user_id: UserId, *, limit: int, cursor: str | None = None) -> Page[ApiKey]:
        """The user's keys, latest first, those that expired lately too."""
        return await self._store.search_keys(user_id, limit=limit, cursor=cursor)

    async def revoke(self, user_id: UserId, key_id: UUID) -> None:
        """End a key; raises KeyNotFound unless it is this user's."""
        if not await self._store.remove_key(user_id, key_id):
            raise KeyNotFound
        self.forget()

    async def principal(self, key: str) -> Principal:
        """Who this key is; raises InvalidApiKey when it does not count, or not any more."""
        if not _KEY.fullmatch(key):
            raise InvalidApiKey
        return await self.prove(opaque_digest(key))

    async def prove(self, digest: bytes) -> Principal:
        """`principal` by what is stored of a key."""
        found = await self._standings.get(digest, lambda: self._store.key_standing(digest))
        if found is None:
            raise InvalidApiKey
        if not found.used_lately:
            await self._note_use(found.key_id)
        proof = KeyProof(found.user_id, found.key_id, digest)
        return Principal(found.user_id, is_admin=False, proof=proof, scopes=found.scopes)

    async def _note_use(self, key_id: UUID) -> None:
        """Once a minute at most. A database that cannot write must not keep those out who only read."""
        now = time.monotonic()
        if now - self._touched.get(key_id, -_TOUCH_SECONDS) < _TOUCH_SECONDS:
            return
        if len(self._touched) >= _TOUCHED_LIMIT:
            self._touched.clear()
        self._touched[key_id] = now
        try:
            await self._store.touch_key(key_id)
        except AppError as error:
            log.warning("api_key_use_not_noted", key_id=str(key_id), code=error.code)

    def forget(self) -> None:
        """Something changed that decides whether keys count."""
        self._standings.forget()

"""What administrators do to accounts. All of it is told to the log, with who did it; secrets never are."""

from moorage.errors import Conflict
from moorage.identity.principal import Principal
from moorage.identity.service import Identity
from moorage.identity.user import User
from moorage.ids import UserId
from moorage.paging import Page
from moorage.telemetry import get_logger

log = get_logger(__name__)


class OwnAccount(Conflict):
    code = "own_account"


class Accounts:
    """The accounts of all users. Every call takes the administrator first and raises AdminRequired for anyone else."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    async def search(self, admin: Principal, *, query: str | None, limit: int, cursor: str | None) -> Page[User]:
        """Users by name; `query` is a part of a name or of an email address, upper or lower case."""
        admin.require_admin()
        return await self._identity.list_users(query=query, limit=limit, cursor=cursor)

    async def create(
        self, admin: Principal, username: str, password: str, *, email: str | None, is_admin: bool
    ) -> User:
        """Whether registration is open or not; raises InvalidUsername, WeakPassword or UsernameTaken."""
        admin.require_admin()
        user_id = await self._identity.create_user(username, password, email=email, is_admin=is_admin)
        log.info("user_created", by=admin.user_id, account=user_id, is_admin=is_admin)
        return await self._identity.get(user_id)

    async def set_active(self, admin: Principal, user_id: str, *, active: bool) -> User:
        """Disable a user, ending their tokens and API keys, or let them in again.

        Raises NoSuchUser, OwnAccount, or LastAdmin when no active administrator would be left.
        """
        admin.require_admin()
        self._refuse_own(admin, user_id, "You cannot disable or enable yourself")
        await self._identity.set_active(user_id, active=active, spare_last_admin=True)
        log.info("user_enabled" if active else "user_disabled", by=admin.user_id, account=user_id)
        return await self._identity.get(user_id)

    async def set_password(self, admin: Principal, user_id: str, password: str) -> None:
        """Set it and end the user's tokens and API keys; raises NoSuchUser, WeakPassword or OwnAccount.

        One's own password takes the current one: a stolen token must not be worth an account.
        """
        admin.require_admin()
        self._refuse_own(admin, user_id, "Change your own password with the current one: POST /api/auth/password")
        await self._identity.set_password(user_id, password)
        log.info("user_password_set", by=admin.user_id, account=UserId(user_id))

    def _refuse_own(self, admin: Principal, user_id: str, why: str) -> None:
        if user_id == admin.user_id:
            raise OwnAccount(why)

"""For administrators: accounts, live sandboxes, a check of the server, totals. Nothing of what users write."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict

from moorage.identity import Principal, User
from moorage.ids import ThreadId
from moorage.sandboxes.operating import LiveSandbox
from moorage.telemetry import get_logger
from moorage_api.auth import Registration, Secret
from moorage_api.deps import PrincipalDep, RuntimeDep

router = APIRouter(prefix="/api/admin", tags=["admin"])

log = get_logger(__name__)


async def _admin(principal: PrincipalDep) -> Principal:
    principal.require_admin()
    return principal


AdminDep = Annotated[Principal, Depends(_admin)]
type UserIdPath = Annotated[str, Path(max_length=100)]
type Limit = Annotated[int, Query(ge=1, le=100)]
type Cursor = Annotated[str | None, Query(max_length=500)]


class NewUser(Registration):
    is_admin: bool = False


class UserChange(BaseModel):
    """`active` false: keep the user out, at once; sessions and files stay."""

    model_config = ConfigDict(extra="forbid", strict=True)
    active: bool


class NewPassword(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    new_password: Secret


class Stop(BaseModel):
    """`force`: even while a run uses it; its command is lost."""

    model_config = ConfigDict(extra="forbid", strict=True)
    force: bool = False


class Account(BaseModel):
    user_id: str
    email: str | None
    is_admin: bool
    is_active: bool
    created_at: str


class AccountList(BaseModel):
    items: list[Account]
    next_cursor: str | None


class ShownSandbox(BaseModel):
    """`busy`: a run of the thread is going on or about to; `stopped`: it died and is not cleared up yet.

    `memory_bytes` and `disk_bytes` are of now, `cpu_seconds` since it started; null: the engine does not say.
    """

    thread_id: str
    owner: str | None
    state: Literal["busy", "idle", "stopped"]
    profile: str
    started_at: str | None
    memory_bytes: int | None
    processes: int | None
    cpu_seconds: float | None
    oom_kills: int | None
    disk_bytes: int | None
    disk_limit_bytes: int | None


class SandboxList(BaseModel):
    items: list[ShownSandbox]
    next_cursor: str | None


class ShownFinding(BaseModel):
    """`fix` is what to do about it."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str | None


class Findings(BaseModel):
    """`checked_at`: several seconds ago at most."""

    items: list[ShownFinding]
    checked_at: str


class UserTotals(BaseModel):
    total: int
    active: int
    active_admins: int


class SessionTotals(BaseModel):
    active: int
    closed: int
    expired: int


class RunTotals(BaseModel):
    queued: int
    running: int


class Usage(BaseModel):
    """Of the whole installation, now."""

    users: UserTotals
    sessions: SessionTotals
    runs: RunTotals
    approvals_pending: int


@router.get("/users")
async def list_users(
    runtime: RuntimeDep,
    admin: AdminDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    q: Annotated[str | None, Query(max_length=254)] = None,
) -> AccountList:
    """All users, by name; `q` searches in names and email addresses."""
    page = await runtime.administration.accounts.search(admin, query=q, limit=limit, cursor=cursor)
    return AccountList(items=[_shown_user(user) for user in page.items], next_cursor=page.next_cursor)


@router.post("/users", status_code=201)
async def create_user(runtime: RuntimeDep, admin: AdminDep, body: NewUser) -> Account:
    """Make an account, whether registration is open or not. 409 when the name is taken."""
    user = await runtime.administration.accounts.create(
        admin, body.username, body.password.get_secret_value(), email=body.email, is_admin=body.is_admin
    )
    return _shown_user(user)


@router.patch("/users/{user_id}")
async def change_user(runtime: RuntimeDep, admin: AdminDep, user_id: UserIdPath, body: UserChange) -> Account:
    """Disable a user, whose log-ins and API keys end, or let them in again.

    409 `own_account` for oneself, `last_admin` when no active administrator would be left.
    """
    return _shown_user(await runtime.administration.accounts.set_active(admin, user_id, active=body.active))


@router.post("/users/{user_id}/password", status_code=204)
async def set_password(runtime: RuntimeDep, admin: AdminDep, user_id: UserIdPath, body: NewPassword) -> Response:
    """Set a user's password; their log-ins and API keys end. 409 `own_account`: one's own takes the current one."""
    await runtime.administration.accounts.set_password(admin, user_id, body.new_password.get_secret_value())
    return Response(status_code=204)


@router.get("/sandboxes")
async def list_sandboxes(
    runtime: RuntimeDep, _admin: AdminDep, limit: Limit = 50, cursor: Cursor = None
) -> SandboxList:
    """The sandboxes that use memory now, of all users, by thread."""
    page = await runtime.administration.sandboxes.live(limit=limit, cursor=cursor)
    return SandboxList(items=[_shown_sandbox(one) for one in page.items], next_cursor=page.next_cursor)


@router.post("/sandboxes/{thread_id}/stop", status_code=204)
async def stop_sandbox(
    runtime: RuntimeDep,
    admin: AdminDep,
    thread_id: Annotated[str, Path(max_length=100)],
    body: Stop | None = None,
) -> Response:
    """Stop a sandbox: what runs in it ends, its files stay, and the next use starts it again.

    409 `sandbox_busy` while a run uses it, unless forced.
    """
    force = body is not None and body.force
    await runtime.administration.sandboxes.stop(ThreadId(thread_id), force=force)
    log.info("sandbox_stopped", by=admin.user_id, thread_id=thread_id, forced=force)
    return Response(status_code=204)


@router.get("/check")
async def check(runtime: RuntimeDep, _admin: AdminDep) -> Findings:
    """What works here and what does not, each by trying it; as `moorage doctor`, within a few seconds."""
    checked = await runtime.administration.checks.run()
    return Findings(
        items=[
            ShownFinding(name=one.name, status=one.status.value, detail=one.detail, fix=one.fix)
            for one in checked.findings
        ],
        checked_at=checked.at.isoformat(),
    )


@router.get("/usage")
async def usage(runtime: RuntimeDep, _admin: AdminDep) -> Usage:
    """How much there is in all: numbers only."""
    found = await runtime.administration.totals.read()
    return Usage(
        users=UserTotals(total=found.users, active=found.active_users, active_admins=found.active_admins),
        sessions=SessionTotals(
            active=found.sessions_active, closed=found.sessions_closed, expired=found.sessions_expired
        ),
        runs=RunTotals(queued=found.runs_queued, running=found.runs_running),
        approvals_pending=found.approvals_pending,
    )


def _shown_user(user: User) -> Account:
    return Account(
        user_id=user.user_id,
        email=user.email,
        is_admin=user.is_admin,
        is_active=user.is_active,
        created_at=user.created_at.isoformat(),
    )


def _shown_sandbox(one: LiveSandbox) -> ShownSandbox:
    used = one.stats
    return ShownSandbox(
        thread_id=one.thread_id,
        owner=one.owner,
        state=one.state.value,
        profile=one.profile,
        started_at=one.started_at.isoformat() if one.started_at else None,
        memory_bytes=used.memory_bytes if used else None,
        processes=used.processes if used else None,
        cpu_seconds=used.cpu_seconds if used else None,
        oom_kills=used.oom_kills if used else None,
        disk_bytes=used.disk_bytes if used else None,
        disk_limit_bytes=used.disk_limit_bytes if used else None,
    )

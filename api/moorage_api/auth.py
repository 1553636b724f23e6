"""Coming in, staying in, going out: register, log in, refresh, log out, passwords, set-up."""

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError

from moorage.errors import InvalidPayload, PermissionDenied, Unauthenticated
from moorage.identity.service import Tokens
from moorage.ids import USER_ID
from moorage.runtime import Runtime
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.errors import field_errors

router = APIRouter(prefix="/api/auth", tags=["auth"])

_COOKIE = "moorage_refresh"
_COOKIE_PATH = "/api/auth"
_COOKIE_SECONDS = 30 * 24 * 3600
_FORM = "application/x-www-form-urlencoded"

# Said, not checked, here: the domain tells what is wrong with a name.
type NewName = Annotated[str, Field(max_length=1000, json_schema_extra={"pattern": f"^{USER_ID}$"})]
# Not `type`: `_LOGIN_FORMS` shows them in place, where their names would refer to nothing.
Text = Annotated[str, Field(max_length=1000)]
Secret = Annotated[SecretStr, Field(max_length=1000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Registration(_Body):
    username: NewName
    password: Secret
    email: Annotated[str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None


class Login(_Body):
    username: Text
    password: Secret
    cookie: bool = False


class RefreshBody(_Body):
    refresh_token: Secret | None = None


class PasswordChange(_Body):
    current_password: Secret
    new_password: Secret
    keep_keys: bool = False


class Setup(_Body):
    token: Secret
    username: NewName
    password: Secret


class Registered(BaseModel):
    message: Literal["User registered"] = "User registered"
    user_id: str


class TokenAnswer(BaseModel):
    """`expires_in` is in seconds. In cookie mode there is no `refresh_token` here."""

    access_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105
    expires_in: int
    refresh_token: str | None = None


class Me(BaseModel):
    user_id: str
    email: str | None
    is_admin: bool
    created_at: str
    quotas: dict[str, int]
    usage: dict[str, int]


_LOGIN_FORMS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": Login.model_json_schema()},
            _FORM: {
                "schema": {
                    "type": "object",
                    "required": ["username", "password"],
                    "properties": {"username": {"type": "string"}, "password": {"type": "string"}},
                }
            },
        },
    }
}


@router.post("/register", status_code=201)
async def register(runtime: RuntimeDep, body: Registration) -> Registered:
    """Make an account. 409 when the name is taken, 403 when registration is closed."""
    user_id = await runtime.identity.register(body.username, body.password.get_secret_value(), email=body.email)
    return Registered(user_id=user_id)


@router.post("/login", openapi_extra=_LOGIN_FORMS, response_model_exclude_none=True)
async def login(request: Request, response: Response, runtime: RuntimeDep) -> TokenAnswer:
    """Log in with JSON or with the OAuth2 password form. `{"cookie": true}` puts the refresh token into a cookie."""
    body = await _login_body(request)
    tokens = await runtime.identity.login(body.username, body.password.get_secret_value(), address=_address(request))
    return _answer(request, response, tokens, cookie=body.cookie)


@router.post("/refresh", response_model_exclude_none=True)
async def refresh(
    request: Request, response: Response, runtime: RuntimeDep, body: RefreshBody | None = None
) -> TokenAnswer:
    """New tokens for a refresh token, from the body or the cookie. Each refresh token works once."""
    given = body.refresh_token if body else None
    if given is not None:
        return _answer(request, response, await runtime.identity.refresh(given.get_secret_value()), cookie=False)
    cookie = request.cookies.get(_COOKIE)
    if cookie is None:
        raise Unauthenticated("Send the refresh token", code="invalid_refresh_token")
    _check_origin(request, runtime)
    return _answer(request, response, await runtime.identity.refresh(cookie), cookie=True)


@router.post("/logout", status_code=204)
async def logout(runtime: RuntimeDep, principal: PrincipalDep) -> Response:
    """End the log-in that this access token comes of: it, its refresh token and what came of that."""
    await runtime.identity.logout(principal)
    return _without_cookie()


@router.post("/logout-all", status_code=204)
async def logout_all(runtime: RuntimeDep, principal: PrincipalDep) -> Response:
    """End every token of this user, everywhere. API keys stay: revoke them one by one."""
    await runtime.identity.logout_all(principal)
    return _without_cookie()


@router.post("/password", status_code=204)
async def change_password(
    request: Request, runtime: RuntimeDep, principal: PrincipalDep, body: PasswordChange
) -> Response:
    """Change one's password. All tokens given out so far die at once, and all API keys unless `keep_keys` is true."""
    await runtime.identity.change_password(
        principal,
        body.current_password.get_secret_value(),
        body.new_password.get_secret_value(),
        address=_address(request),
        keep_keys=body.keep_keys,
    )
    return _without_cookie()


@router.post("/setup", status_code=201)
async def setup(runtime: RuntimeDep, body: Setup) -> Registered:
    """Make the first administrator with the one-time token that the server printed at its first start."""
    user_id = await runtime.identity.setup(
        body.token.get_secret_value(), body.username, body.password.get_secret_value()
    )
    return Registered(user_id=user_id)


@router.get("/me")
async def me(runtime: RuntimeDep, principal: PrincipalDep) -> Me:
    """Oneself, one's quotas (0: none) and what is used of them."""
    user = await runtime.identity.me(principal)
    return Me(
        user_id=user.user_id,
        email=user.email,
        is_admin=user.is_admin,
        created_at=user.created_at.isoformat(),
        quotas={"active_sessions": runtime.settings.quota_active_sessions},
        usage={"active_sessions": await runtime.threads.active_count(principal)},
    )


_LOGIN = TypeAdapter(Login)
_LOGIN_EXPECTED = "Send username and password, as JSON or as a form"


async def _login_body(request: Request) -> Login:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    raw = await request.body()
    try:
        if media_type == _FORM:
            return _form_login(raw)
        if media_type == "application/json":  # no other: a foreign page may send those without asking
            return _LOGIN.validate_json(raw)
    except ValidationError as error:
        problems = field_errors({**item, "loc": ("body", *item["loc"])} for item in error.errors())
        raise InvalidPayload(_LOGIN_EXPECTED, errors=problems) from None
    except ValueError:
        raise InvalidPayload(_LOGIN_EXPECTED) from None
    raise InvalidPayload(_LOGIN_EXPECTED)


def _form_login(raw: bytes) -> Login:
    """The OAuth2 password form (RFC 6749, 4.3.2); its other fields, which Swagger sends, mean nothing here."""
    fields = parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    return Login.model_validate({name: fields[name][0] for name in ("username", "password") if name in fields})


def _address(request: Request) -> str:
    """Where a caller is, for counting failures. Whoever has an IPv6 address has the 2^64 beside it too."""
    host = request.client.host if request.client else "-"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not isinstance(address, IPv6Address):
        return host
    return str(address.ipv4_mapped or IPv6Network((address, 64), strict=False))


def _answer(request: Request, response: Response, tokens: Tokens, *, cookie: bool) -> TokenAnswer:
    response.headers["Cache-Control"] = "no-store"
    if cookie:
        response.set_cookie(
            _COOKIE,
            tokens.refresh_token,
            max_age=_COOKIE_SECONDS,
            path=_COOKIE_PATH,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https" or not _is_loopback(request.url.hostname),
        )
    return TokenAnswer(
        access_token=tokens.access_token,
        expires_in=tokens.expires_in,
        refresh_token=None if cookie else tokens.refresh_token,
    )


def _without_cookie() -> Response:
    response = Response(status_code=204)
    response.delete_cookie(_COOKIE, path=_COOKIE_PATH, httponly=True, samesite="strict")
    return response


def _check_origin(request: Request, runtime: Runtime) -> None:
    """A cookie is sent by the browser by itself, so the page that asks must be one of ours."""
    origin = request.headers.get("origin")
    own = f"{request.url.scheme}://{request.url.netloc}"
    if origin != own and origin not in runtime.settings.cors_origins:
        raise PermissionDenied("A refresh by cookie must come from this server's own pages", code="foreign_origin")


def _is_loopback(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host or "").is_loopback
    except ValueError:
        return False

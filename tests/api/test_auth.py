"""Coming in, staying in and going out, over the whole application and a real Postgres."""

import asyncio
import time
import unicodedata
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.api.harness import PASSWORD, Server

from moorage.adapters.postgres.api_keys import PostgresKeyStore
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.users import PostgresUserStore
from moorage.identity import Identity, TokenSigner
from moorage.identity.passwords import PasswordHasher
from moorage.identity.port import Standing
from moorage.identity.tokens import InvalidToken, opaque_digest
from moorage.runtime import Runtime
from moorage_api.app import create_app

OTHER = "another battery staple"
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Caller:
    """Somebody at an address, with a token once logged in."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def post(self, path: str, body: object = None, **request: Any) -> httpx.Response:
        return await self.client.post(f"/api/auth/{path}", json=body, **request)

    async def register(self, username: str = "alice", password: str = PASSWORD, **body: Any) -> httpx.Response:
        return await self.post("register", {"username": username, "password": password, **body})

    async def login(self, username: str = "alice", password: str = PASSWORD, **body: Any) -> httpx.Response:
        return await self.post("login", {"username": username, "password": password, **body})

    async def come_in(self, username: str = "alice") -> dict[str, Any]:
        """Log in, and call as that user from now on."""
        tokens = (await self.login(username)).json()
        self.client.headers["authorization"] = f"Bearer {tokens['access_token']}"
        return tokens

    async def refresh(self, refresh_token: str) -> httpx.Response:
        return await self.post("refresh", {"refresh_token": refresh_token})

    async def me_status(self) -> int:
        return (await self.client.get("/api/auth/me")).status_code


NewCaller = Callable[..., Caller]


class PausingStore(PostgresUserStore):
    """Lets something happen between reading and answering."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.has_read, self.may_answer = asyncio.Event(), asyncio.Event()

    async def standing(self, *args: Any) -> Standing | None:
        found = await super().standing(*args)
        self.has_read.set()
        await self.may_answer.wait()
        return found


def with_identity(
    runtime: Runtime,
    clock: Clock,
    *,
    store: PostgresUserStore | None = None,
    registration_open: bool = True,
    **parts: Any,
) -> Runtime:
    """The runtime with an identity of our own: cheap hashes, another clock."""
    identity = Identity(
        store or PostgresUserStore(runtime.database),
        TokenSigner("k" * 48, lifetime=timedelta(hours=24)),
        PostgresKeyStore(runtime.database),
        registration_open=registration_open,
        clock=clock,
        **{"hasher": PasswordHasher(rounds=1, memory_kib=64), **parts},
    )
    return replace(runtime, identity=identity)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def runtime(server: Server, database: Database, clock: Clock) -> Runtime:
    """That of the module's server, its database emptied for this test."""
    return with_identity(server.runtime, clock)


@pytest.fixture
def new_caller(runtime: Runtime) -> NewCaller:
    def make(address: str = "192.0.2.1", *, url: str = "http://127.0.0.1", of: Runtime = runtime) -> Caller:
        transport = httpx.ASGITransport(create_app(of), client=(address, 1234))
        return Caller(httpx.AsyncClient(transport=transport, base_url=url))

    return make


@pytest.fixture
async def caller(new_caller: NewCaller) -> Caller:
    """At an address, with the account alice."""
    caller = new_caller()
    assert (await caller.register()).status_code == 201
    return caller


def code(reply: httpx.Response) -> tuple[int, str]:
    assert reply.headers["content-type"] == "application/problem+json"
    return reply.status_code, reply.json()["code"]


# Registration ---------------------------------------------------------------------------------------------------


async def test_registering_answers_as_documented(new_caller: NewCaller) -> None:
    reply = await new_caller().register("al-ice_2.x", email="al@example.org")
    assert reply.status_code == 201
    assert reply.json() == {"message": "User registered", "user_id": "al-ice_2.x"}


async def test_a_taken_name_is_409(caller: Caller) -> None:
    assert code(await caller.register(password=OTHER)) == (409, "username_taken")
    assert (await caller.login()).status_code == 200


@pytest.mark.parametrize("name", ["Alice", "a", "a" * 33, "-al", "al ice", "älice", "admin", "root", ""])
async def test_a_bad_name_is_422(new_caller: NewCaller, name: str) -> None:
    assert code(await new_caller().register(name)) == (422, "invalid_username")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaa", "bobby-tables", "password123", "ab" * 65])
async def test_a_weak_password_is_422_and_not_repeated(new_caller: NewCaller, password: str) -> None:
    reply = await new_caller().register("bobby-tables", password)
    assert code(reply) == (422, "weak_password")
    assert reply.json()["errors"][0]["loc"] == ["body", "password"]
    assert password not in reply.text


async def test_nobody_registers_where_registration_is_closed(
    runtime: Runtime, new_caller: NewCaller, clock: Clock
) -> None:
    closed = new_caller(of=with_identity(runtime, clock, registration_open=False))
    assert code(await closed.register()) == (403, "registration_closed")
    assert code(await closed.login()) == (401, "wrong_credentials")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": "bob"},
        {"username": "bob", "password": 12345678},
        {"username": ["bob"], "password": PASSWORD},
        {"username": "bob", "password": PASSWORD, "is_admin": True},
        {"username": "bob", "password": PASSWORD, "email": "no address"},
        {"username": "bob", "password": "x" * 1001},
        [],
        "bob",
        None,
    ],
)
async def test_a_registration_of_another_form_is_422(new_caller: NewCaller, body: object) -> None:
    assert code(await new_caller().post("register", body)) == (422, "invalid_request")


# Log-in ---------------------------------------------------------------------------------------------------------


async def test_logging_in_answers_as_documented(caller: Caller) -> None:
    reply = await caller.login()
    assert reply.status_code == 200
    assert set(reply.json()) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (reply.json()["token_type"], reply.json()["expires_in"]) == ("bearer", 24 * 3600)
    assert reply.headers["cache-control"] == "no-store"
    assert "set-cookie" not in reply.headers


async def test_the_oauth2_form_logs_in_as_swagger_sends_it(caller: Caller) -> None:
    form = {"grant_type": "password", "scope": "", "client_id": "", "username": "alice", "password": PASSWORD}
    reply = await caller.client.post("/api/auth/login", data=form)
    assert reply.status_code == 200
    assert reply.json()["token_type"] == "bearer"


async def test_swagger_knows_where_to_log_in(caller: Caller) -> None:
    api = (await caller.client.get("/openapi.json")).json()
    schemes = {scheme["type"]: scheme for scheme in api["components"]["securitySchemes"].values()}
    assert schemes["oauth2"]["flows"]["password"]["tokenUrl"] == "/api/auth/login"
    assert schemes["apiKey"]["name"] == "x-api-key"
    content = api["paths"]["/api/auth/login"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-www-form-urlencoded"}


async def test_an_unknown_user_and_a_wrong_password_look_the_same(caller: Caller) -> None:
    wrong, unknown = await caller.login(password=OTHER), await caller.login("nobody", OTHER)
    assert code(wrong) == code(unknown) == (401, "wrong_credentials")
    assert wrong.headers["www-authenticate"] == unknown.headers["www-authenticate"] == "Bearer"
    bodies = [{**reply.json(), "request_id": ""} for reply in (wrong, unknown)]
    assert bodies[0] == bodies[1]


async def test_an_unknown_user_takes_the_time_of_a_known_one(
    runtime: Runtime, new_caller: NewCaller, clock: Clock
) -> None:
    caller = new_caller(of=with_identity(runtime, clock, hasher=PasswordHasher()))
    await caller.register()
    seconds: dict[str, list[float]] = {"alice": [], "nobody": []}
    for name in ("alice", "nobody") * 3:
        started = time.perf_counter()
        await caller.login(name, OTHER)
        seconds[name].append(time.perf_counter() - started)
    assert min(seconds["nobody"]) > min(seconds["alice"]) / 2


@pytest.mark.parametrize("name", ["Alice", "ALICE", "alice ", "' OR 1=1 --", "al\u200bice", "x" * 1000])
async def test_strange_names_are_only_unknown(caller: Caller, name: str) -> None:
    assert code(await caller.login(name)) == (401, "wrong_credentials")


async def test_a_password_may_be_typed_decomposed(new_caller: NewCaller) -> None:
    caller, password = new_caller(), "éà" * 64
    decomposed = unicodedata.normalize("NFD", password)
    assert (await caller.register(password=decomposed)).status_code == 201
    assert (await caller.login(password=password)).status_code == 200
    assert (await caller.login(password=decomposed)).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("text/plain", b'{"username":"alice","password":"correct horse battery","cookie":true}'),
        ("", b'{"username":"alice","password":"correct horse battery"}'),
        ("application/json", b'{"username":"alice","password":"correct horse battery","cookie":"yes"}'),
        ("application/json", b'{"username":"alice"}'),
        ("application/json", b""),
        ("application/json", b"[]"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b""),
        ("application/x-www-form-urlencoded", b"username=alice"),
        ("application/x-www-form-urlencoded", b"&".join([b"a=b"] * 50)),
    ],
)
async def test_a_login_of_another_form_is_422_and_sets_no_cookie(
    caller: Caller, content_type: str, content: bytes
) -> None:
    reply = await caller.client.post("/api/auth/login", content=content, headers={"content-type": content_type})
    assert code(reply) == (422, "invalid_payload")
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("value", [b"%00", b"%ff%fe", b"%ed%a0%80", b"%F0%9F%94%91", b"x" * 900])
async def test_strange_bytes_in_the_form_are_only_wrong(caller: Caller, value: bytes) -> None:
    for content in (b"username=alice&password=" + value, b"password=password1&username=" + value):
        reply = await caller.client.post("/api/auth/login", content=content, headers=FORM)
        assert code(reply) == (401, "wrong_credentials")


# Too many failures ----------------------------------------------------------------------------------------------


async def test_after_five_failures_even_the_right_password_waits(caller: Caller, new_caller: NewCaller) -> None:
    for _ in range(5):
        assert (await caller.login(password=OTHER)).status_code == 401
    for blocked in (caller, new_caller("192.0.2.99")):
        reply = await blocked.login()
        assert code(reply) == (429, "too_many_failures")
        assert 0 < int(reply.headers["retry-after"]) <= 900


async def test_success_starts_the_count_again(caller: Caller) -> None:
    for _ in range(3):
        assert [(await caller.login(password=OTHER)).status_code for _ in range(4)] == [401] * 4
        assert (await caller.login()).status_code == 200


async def test_names_that_do_not_exist_are_blocked_alike(caller: Caller) -> None:
    statuses = [(await caller.login("nobody")).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


async def test_twenty_failures_block_the_address_and_no_other(caller: Caller, new_caller: NewCaller) -> None:
    for n in range(20):
        assert (await caller.login(f"user-{n}")).status_code == 401
    assert code(await caller.login()) == (429, "too_many_failures")
    assert (await new_caller("192.0.2.2").login()).status_code == 200


async def test_neighbours_in_ipv6_are_one_address(caller: Caller, new_caller: NewCaller) -> None:
    for n in range(20):
        await new_caller(f"2001:db8:1:2::{n:x}").login(f"user-{n}")
    assert (await new_caller("2001:db8:1:2:ffff::1").login()).status_code == 429
    assert (await new_caller("2001:db8:1:3::1").login()).status_code == 200


async def test_guesses_sent_at_once_do_not_get_around_the_limit(caller: Caller) -> None:
    replies = await asyncio.gather(*(caller.login(password=OTHER) for _ in range(20)))
    assert Counter(reply.status_code for reply in replies) == {401: 5, 429: 15}
    assert (await caller.login()).status_code == 429


async def test_who_knows_the_password_may_log_in_many_times_at_once(caller: Caller) -> None:
    replies = await asyncio.gather(*(caller.login() for _ in range(20)))
    assert {reply.status_code for reply in replies} == {200}


async def test_guessing_the_current_password_is_limited_too(caller: Caller) -> None:
    await caller.come_in()
    body = {"current_password": OTHER, "new_password": "a whole new one"}
    statuses = [(await caller.post("password", body)).status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]


# Access tokens --------------------------------------------------------------------------------------------------


async def test_me_answers_as_documented(caller: Caller) -> None:
    await caller.come_in()
    await caller.client.post("/api/sessions")
    me = (await caller.client.get("/api/auth/me")).json()
    assert datetime.fromisoformat(me.pop("created_at")).tzinfo is not None
    assert me == {
        "user_id": "alice",
        "email": None,
        "is_admin": False,
        "quotas": {"active_sessions": 0},
        "usage": {"active_sessions": 1},
    }


async def test_a_token_counts_in_the_authorization_header_only(caller: Caller) -> None:
    token = (await caller.login()).json()["access_token"]
    headers = {"cookie": f"access_token={token}"}
    elsewhere = await caller.client.get("/api/auth/me", params={"access_token": token}, headers=headers)
    assert code(elsewhere) == (401, "unauthenticated")
    as_key = await caller.client.get("/api/auth/me", headers={"x-api-key": token})
    assert code(as_key) == (401, "invalid_api_key")
    assert elsewhere.headers["www-authenticate"] == "Bearer"
    for scheme, status in (("Bearer", 200), ("bearer", 200), ("Basic", 401), ("Token", 401)):
        reply = await caller.client.get("/api/auth/me", headers={"authorization": f"{scheme} {token}"})
        assert reply.status_code == status


async def test_a_token_ends_after_its_time(caller: Caller, clock: Clock) -> None:
    await caller.come_in()
    clock.now += timedelta(hours=24, seconds=29)
    assert await caller.me_status() == 200
    clock.now += timedelta(seconds=2)
    assert code(await caller.client.get("/api/auth/me")) == (401, "token_expired")


async def test_a_token_under_another_key_is_refused(caller: Caller, runtime: Runtime, clock: Clock) -> None:
    user = await PostgresUserStore(runtime.database).find("alice")
    assert user is not None
    signer = TokenSigner("x" * 48, lifetime=timedelta(hours=1))
    token = signer.issue(user, clock(), family=uuid.uuid4())
    caller.client.headers["authorization"] = f"Bearer {token}"
    assert code(await caller.client.get("/api/auth/me")) == (401, "invalid_token")


async def test_rights_are_those_of_now_not_of_the_token(caller: Caller, runtime: Runtime, database: Database) -> None:
    await runtime.identity.create_user("boss", PASSWORD, is_admin=True)
    await caller.come_in("boss")
    assert (await caller.client.get("/api/auth/me")).json()["is_admin"]


async def test_a_disabled_users_token_dies_at_once(caller: Caller, runtime: Runtime) -> None:
    tokens = await caller.come_in()
    assert await caller.me_status() == 200
    await runtime.identity.set_active("alice", active=False)
    assert code(await caller.client.get("/api/auth/me")) == (401, "invalid_token")
    assert (await caller.refresh(tokens["refresh_token"])).status_code == 401
    assert code(await caller.login()) == (401, "wrong_credentials")


async def test_what_was_read_before_a_change_is_not_believed_after_it(
    caller: Caller, runtime: Runtime, clock: Clock
) -> None:
    store = PausingStore(runtime.database)
    identity = with_identity(runtime, clock, store=store).identity
    token = (await caller.login()).json()["access_token"]
    early = asyncio.create_task(identity.authenticate(token))
    await store.has_read.wait()
    await identity.set_active("alice", active=False)
    store.may_answer.set()
    await early
    with pytest.raises(InvalidToken):
        await identity.authenticate(token)


async def test_an_enabled_user_comes_in_again_but_not_with_old_tokens(caller: Caller, runtime: Runtime) -> None:
    await caller.come_in()
    await runtime.identity.set_active("alice", active=False)
    await runtime.identity.set_active("alice", active=True)
    assert await caller.me_status() == 401
    assert (await caller.login()).status_code == 200


# Refresh --------------------------------------------------------------------------------------------------------


async def test_refreshing_gives_new_tokens_that_count(caller: Caller) -> None:
    old = (await caller.login()).json()
    new = (await caller.refresh(old["refresh_token"])).json()
    assert set(new) == set(old)
    assert new["refresh_token"] != old["refresh_token"]
    caller.client.headers["authorization"] = f"Bearer {new['access_token']}"
    assert await caller.me_status() == 200


async def test_using_a_refresh_token_twice_ends_all_that_came_of_its_login(caller: Caller) -> None:
    mine, elsewhere = (await caller.login()).json(), (await caller.login()).json()
    thief = (await caller.refresh(mine["refresh_token"])).json()
    caller.client.headers["authorization"] = f"Bearer {thief['access_token']}"
    assert await caller.me_status() == 200
    assert code(await caller.refresh(mine["refresh_token"])) == (401, "invalid_refresh_token")
    assert code(await caller.refresh(thief["refresh_token"])) == (401, "invalid_refresh_token")
    assert await caller.me_status() == 401
    assert (await caller.refresh(elsewhere["refresh_token"])).status_code == 200


@pytest.mark.parametrize("token", ["", "x", "\u00e4", "x" * 1000])
async def test_a_refresh_token_of_nobody_is_refused(caller: Caller, token: str) -> None:
    assert code(await caller.refresh(token)) == (401, "invalid_refresh_token")
    assert code(await caller.post("refresh", {})) == (401, "invalid_refresh_token")


async def test_the_two_kinds_of_token_are_not_mistaken_for_each_other(caller: Caller) -> None:
    tokens = await caller.come_in()
    assert (await caller.refresh(tokens["access_token"])).status_code == 401
    caller.client.headers["authorization"] = f"Bearer {tokens['refresh_token']}"
    assert await caller.me_status() == 401


async def test_tokens_are_not_stored(caller: Caller, database: Database) -> None:
    token = (await caller.login()).json()["refresh_token"]
    async with database.system_transaction() as connection:
        rows = await (await connection.execute("SELECT token_hash FROM refresh_tokens")).fetchall()
    assert [row["token_hash"] for row in rows] == [opaque_digest(token)]


# Going out ------------------------------------------------------------------------------------------------------


async def test_logging_out_ends_this_login_and_no_other(caller: Caller, new_caller: NewCaller) -> None:
    tokens, other = await caller.come_in(), new_caller()
    await other.come_in()
    assert await caller.me_status() == 200
    reply = await caller.post("logout")
    assert (reply.status_code, reply.content) == (204, b"")
    assert code(await caller.client.get("/api/auth/me")) == (401, "invalid_token")
    assert (await caller.refresh(tokens["refresh_token"])).status_code == 401
    assert await other.me_status() == 200


async def test_logging_out_ends_what_was_refreshed_since(caller: Caller) -> None:
    tokens = await caller.come_in()
    later = (await caller.refresh(tokens["refresh_token"])).json()
    await caller.post("logout")
    assert (await caller.refresh(later["refresh_token"])).status_code == 401
    caller.client.headers["authorization"] = f"Bearer {later['access_token']}"
    assert await caller.me_status() == 401


async def test_logging_out_everywhere_ends_every_login(caller: Caller, new_caller: NewCaller) -> None:
    other = new_caller()
    tokens, others = await caller.come_in(), await other.come_in()
    assert [await caller.me_status(), await other.me_status()] == [200, 200]
    assert (await other.post("logout-all")).status_code == 204
    assert [await caller.me_status(), await other.me_status()] == [401, 401]
    for refresh_token in (tokens["refresh_token"], others["refresh_token"]):
        assert (await caller.refresh(refresh_token)).status_code == 401
    assert (await caller.login()).status_code == 200


async def test_changing_the_password_ends_all_tokens_at_once(caller: Caller, new_caller: NewCaller) -> None:
    other = new_caller()
    tokens = await caller.come_in()
    await other.come_in()
    assert await other.me_status() == 200
    reply = await caller.post("password", {"current_password": PASSWORD, "new_password": OTHER})
    assert (reply.status_code, reply.content) == (204, b"")
    assert [await caller.me_status(), await other.me_status()] == [401, 401]
    assert (await caller.refresh(tokens["refresh_token"])).status_code == 401
    assert (await caller.login()).status_code == 401
    assert (await caller.login(password=OTHER)).status_code == 200


async def test_a_password_is_not_changed_without_the_old_one_or_to_a_weak_one(caller: Caller) -> None:
    await caller.come_in()
    wrong = await caller.post("password", {"current_password": OTHER, "new_password": OTHER})
    assert code(wrong) == (401, "wrong_credentials")
    weak = await caller.post("password", {"current_password": PASSWORD, "new_password": "short"})
    assert code(weak) == (422, "weak_password")
    assert weak.json()["errors"][0]["loc"] == ["body", "new_password"]
    assert (await caller.login()).status_code == 200


# The refresh token in a cookie ----------------------------------------------------------------------------------


async def test_in_cookie_mode_scripts_never_see_the_refresh_token(caller: Caller) -> None:
    reply = await caller.login(cookie=True)
    assert "refresh_token" not in reply.json()
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/api/auth" in cookie
    assert "secure" not in cookie  # a browser would not send it over http


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://moorage.example.org", True),
        ("http://moorage.example.org", True),
        ("http://192.0.2.7:8000", True),
        ("https://localhost", True),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
    ],
)
async def test_the_cookie_is_secure_except_on_loopback(
    caller: Caller, new_caller: NewCaller, url: str, secure: bool
) -> None:
    cookie = (await new_caller(url=url).login(cookie=True)).headers["set-cookie"]
    assert ("Secure" in cookie) == secure


async def test_a_cookie_refreshes_for_our_own_pages_and_is_replaced(caller: Caller) -> None:
    first = (await caller.login(cookie=True)).cookies["moorage_refresh"]
    reply = await caller.post("refresh", headers={"origin": "http://127.0.0.1"})
    assert reply.status_code == 200
    assert "refresh_token" not in reply.json()
    assert reply.cookies["moorage_refresh"] != first


@pytest.mark.parametrize("origin", [None, "null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:81"])
async def test_a_cookie_does_not_refresh_for_a_foreign_page(caller: Caller, origin: str | None) -> None:
    await caller.login(cookie=True)
    reply = await caller.post("refresh", headers={"origin": origin} if origin is not None else {})
    assert code(reply) == (403, "foreign_origin")
    assert (await caller.post("refresh", headers={"origin": "http://127.0.0.1"})).status_code == 200


async def test_a_listed_page_may_refresh_by_cookie(caller: Caller, new_caller: NewCaller, runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"cors_origins": ("https://ui.example.org",)})
    other = new_caller(of=replace(runtime, settings=settings))
    await other.login(cookie=True)
    reply = await other.post("refresh", headers={"origin": "https://ui.example.org"})
    assert reply.status_code == 200
    assert reply.headers["access-control-allow-origin"] == "https://ui.example.org"


async def test_a_cookie_is_nobodys_access(caller: Caller) -> None:
    await caller.login(cookie=True)
    assert await caller.me_status() == 401
    assert (await caller.post("logout-all")).status_code == 401


async def test_going_out_takes_the_cookie_away(caller: Caller) -> None:
    reply = await caller.login(cookie=True)
    caller.client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
    reply = await caller.post("logout")
    assert 'moorage_refresh=""' in reply.headers["set-cookie"]
    assert "moorage_refresh" not in caller.client.cookies


# The first administrator ----------------------------------------------------------------------------------------


async def test_the_setup_link_makes_the_first_admin_once(new_caller: NewCaller, runtime: Runtime) -> None:
    token, caller = await runtime.identity.create_setup_link_if_first_start(), new_caller()
    body = {"token": token, "username": "boss", "password": PASSWORD}
    reply = await caller.post("setup", body)
    assert reply.status_code == 201
    assert reply.json() == {"message": "User registered", "user_id": "boss"}
    assert code(await caller.post("setup", {**body, "username": "boss-2"})) == (403, "setup_refused")
    await caller.come_in("boss")
    assert (await caller.client.get("/api/auth/me")).json()["is_admin"]
    assert await runtime.identity.create_setup_link_if_first_start() is None


async def test_without_the_link_nobody_becomes_admin(new_caller: NewCaller, runtime: Runtime) -> None:
    token, caller = await runtime.identity.create_setup_link_if_first_start(), new_caller()
    body = {"token": "x" * 43, "username": "boss", "password": PASSWORD}
    assert code(await caller.post("setup", body)) == (403, "setup_refused")
    assert code(await caller.post("setup", {**body, "token": token, "username": "Boss"})) == (422, "invalid_username")
    assert code(await caller.post("setup", {**body, "token": token, "password": "x"})) == (422, "weak_password")
    assert (await caller.post("setup", {**body, "token": token})).status_code == 201


# What is told to nobody -----------------------------------------------------------------------------------------


async def test_no_password_and_no_token_is_ever_logged(
    caller: Caller, runtime: Runtime, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    tokens = await caller.come_in()
    setup_token = await runtime.identity.create_setup_link_if_first_start()
    await caller.login(password="wrong-secret-1")
    await caller.refresh(tokens["refresh_token"])
    await caller.post("login", {"username": "alice", "password": ["wrong-secret-1"], PASSWORD: 1})
    await caller.post("setup", {"token": setup_token, "username": "x", "password": PASSWORD})
    await caller.client.post("/api/auth/login", content=b'{"password":"wrong-secret-1"', headers=FORM)
    await caller.post("password", {"current_password": PASSWORD, "new_password": "wrong-secret-1 2"})
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "/api/auth/login" in logged
    for secret in (PASSWORD, "wrong-secret-1", setup_token, *tokens.values()):
        assert secret in ("bearer", 24 * 3600) or str(secret) not in logged

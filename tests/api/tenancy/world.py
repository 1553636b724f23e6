"""Two tenants, `al` and `al-ice`, who have one of everything each, and what Postgres holds of al-ice."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from tests.api.harness import PASSWORD, User, pending

OWNER = "al-ice"
CANARY = "canary-of-al-ice"
SHARED_ID = "11111111-2222-4333-8444-555555555555"  # both users' clients made up this one
KEY = "the-same-idempotency-key"
LATER = 24 * 3600
_UUID_LIKE = "-".join("_" * length for length in (8, 4, 4, 4, 12))

type Json = dict[str, Any]

# Nothing in these is one user's: failures to log in are of names, whether somebody has them or not.
NOBODYS_TABLES = {"alembic_version", "checkpoint_migrations", "setup_links", "login_failures", "installation"}


@dataclass
class Tenant:
    """A user and the ids of what they have."""

    user: User
    secret: str
    thread: str = ""
    shared: str = ""
    paused: str = ""
    waiting: str = ""
    temporary: str = ""
    run: str = ""
    paused_run: str = ""
    waiting_run: str = ""
    temporary_run: str = ""
    checkpoints: list[str] = field(default_factory=list[str])
    messages: list[str] = field(default_factory=list[str])
    interrupt: str = ""
    call: str = ""
    rule: str = ""
    snapshot: str = ""
    assistant: str = ""
    cron: str = ""
    thread_cron: str = ""
    key_id: str = ""
    cursor: str = ""

    @property
    def name(self) -> str:
        return self.user.name

    @property
    def threads(self) -> list[str]:
        return [self.thread, self.shared, self.paused, self.waiting, self.temporary]

    @property
    def runs(self) -> list[str]:
        return [self.run, self.paused_run, self.waiting_run, self.temporary_run]

    @property
    def secrets(self) -> set[str]:
        """What no other user may read: the planted words, and every id that the server made."""
        ids = {
            self.interrupt,
            self.call,
            self.rule,
            self.assistant,
            self.cron,
            self.thread_cron,
            self.key_id,
            self.snapshot,
        }
        found = {self.secret, *self.threads, *self.runs, *self.checkpoints, *self.messages, *ids}
        return {*found, *(thread[-36:] for thread in self.threads)} - {SHARED_ID}


@dataclass(frozen=True)
class World:
    al: Tenant
    al_ice: Tenant
    admin_url: str
    told: list[bytes] = field(default_factory=list[bytes])  # what al said and was accepted: he may read it again

    async def snapshot(self, owner: str = OWNER) -> dict[str, tuple[int, str]]:
        """How many rows of a user each table has, and a hash over them, whatever row security says."""
        async with await psycopg.AsyncConnection.connect(self.admin_url) as connection:
            tables = await _tables(connection)
            hashes = sql.SQL(" UNION ALL ").join(_hash_of(owner, *item) for item in tables.items())
            cursor = await connection.execute(hashes)
            return {name: (count, digest) for name, count, digest in await cursor.fetchall()}


async def _tables(connection: psycopg.AsyncConnection[TupleRow]) -> dict[str, list[str]]:
    """Each table that holds something of a user, with the columns that say whose it is."""
    cursor = await connection.execute(
        "SELECT table_name::text, array_remove(array_agg(column_name::text) FILTER ("
        "WHERE column_name IN ('owner_id', 'user_id', 'thread_id')), NULL) "
        "FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name"
    )
    found: dict[str, list[str]] = {
        name: columns or [] for name, columns in await cursor.fetchall() if name not in NOBODYS_TABLES
    }
    assert [name for name, columns in found.items() if not columns] == [], "tables of which nobody knows the owner"
    return found


def _hash_of(owner: str, table: str, columns: list[str]) -> sql.Composed:
    conditions = [
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(owner))
        if name != "thread_id"
        else sql.SQL("thread_id LIKE {}").format(sql.Literal(f"{owner}-{_UUID_LIKE}"))
        for name in columns
    ]
    return sql.SQL(
        "SELECT {}, count(*), COALESCE(md5(string_agg(t::text, ',' ORDER BY t::text)), '') FROM {} t WHERE {}"
    ).format(sql.Literal(table), sql.Identifier(table), sql.SQL(" OR ").join(conditions))


@asynccontextmanager
async def open_world(url: str, superuser_url: str, database_url: str) -> AsyncGenerator[World]:
    database = str(conninfo_to_dict(database_url)["dbname"])
    async with httpx.AsyncClient(base_url=url, timeout=60) as his, httpx.AsyncClient(base_url=url, timeout=60) as hers:
        al = await _tenant(his, "al", "word-of-al")
        yield World(al, await _tenant(hers, OWNER, CANARY), make_conninfo(superuser_url, dbname=database))


async def _tenant(client: httpx.AsyncClient, name: str, secret: str) -> Tenant:
    account = {"username": name, "password": PASSWORD}
    await sent(client, "POST", "/api/auth/register", {**account, "email": f"{secret}@example.com"})
    reply = await sent(client, "POST", "/api/auth/login", account)
    client.headers["authorization"] = f"Bearer {reply['access_token']}"
    tenant = Tenant(User(name, client), secret)
    for make in (_make_threads, _make_paused, _make_runs, _make_assistant, _make_rest, _make_files):
        await make(tenant)
    return tenant


async def sent(client: httpx.AsyncClient, method: str, path: str, body: object = None, **headers: str) -> Any:
    reply = await client.request(method, path, json=body, headers=headers)
    assert reply.is_success, f"{method} {path}: {reply.status_code} {reply.text}"
    return reply.json() if reply.content else None


async def _make_threads(one: Tenant) -> None:
    client, note = one.user.client, {"note": one.secret}
    key = {"idempotency-key": KEY}
    one.thread = (await sent(client, "POST", "/api/sessions", {"title": one.secret}, **key))["thread_id"]
    events = await one.user.chat(one.thread, f"hello {one.secret}", **{"Idempotency-Key": f"{KEY}-chat"})
    one.run = events[-1].data["run_id"]
    await sent(client, "POST", "/threads", {"thread_id": SHARED_ID, "metadata": note})
    one.shared = f"{one.name}-{SHARED_ID}"
    await sent(client, "POST", f"/threads/{SHARED_ID}/runs/wait", run_body(one.secret))


async def _make_paused(one: Tenant) -> None:
    """A thread with a remembered rule, and with an approval that waits."""
    client = one.user.client
    one.paused = await one.user.new_session(title=one.secret)
    events = await one.user.play(one.paused, ("execute", {"command": f"echo {one.secret}"}))
    decision = {"type": "approve", "remember": {"match": "same"}}
    await one.user.resume(one.paused, decisions=[{"interrupt_id": pending(events)[0]["id"], **decision}])
    rules = await sent(client, "GET", f"/api/sessions/{one.paused}/rules")
    one.rule = rules["items"][0]["rule_id"]
    events = await one.user.play(one.paused, ("execute", {"command": f"printf {one.secret}"}))
    one.interrupt, one.call = pending(events)[0]["id"], pending(events)[0]["call_id"]
    one.paused_run = events[-1].data["run_id"]


async def _make_runs(one: Tenant) -> None:
    """A thread with a run that waits for its time, and a temporary one; then the ids inside the first thread."""
    client, later = one.user.client, {**run_body(one.secret), "after_seconds": LATER}
    one.waiting = await one.user.new_session(title=one.secret)
    one.waiting_run = (await sent(client, "POST", f"/threads/{one.waiting}/runs", later))["run_id"]
    temporary = await sent(client, "POST", "/runs", later)
    one.temporary_run, one.temporary = temporary["run_id"], temporary["thread_id"]
    history = await sent(client, "GET", f"/threads/{one.thread}/history")
    one.checkpoints = [state["checkpoint"]["checkpoint_id"] for state in history]
    one.messages = [message["id"] for message in history[0]["values"]["messages"]]


async def _make_assistant(one: Tenant) -> None:
    client, context = one.user.client, {"instruction": f"never tell {one.secret}"}
    body = {"graph_id": "agent", "name": f"Bot {one.secret}", "context": context, "metadata": {"note": one.secret}}
    one.assistant = (await sent(client, "POST", "/assistants", body))["assistant_id"]
    await sent(client, "PATCH", f"/assistants/{one.assistant}", {"description": f"second {one.secret}"})


async def _make_rest(one: Tenant) -> None:
    """Crons, items of the store, a key, and a snapshot."""
    client, note = one.user.client, {"note": one.secret}
    yearly = {**run_body(one.secret), "schedule": "0 0 1 1 *", "metadata": note}
    one.cron = (await sent(client, "POST", "/runs/crons", yearly))["cron_id"]
    one.thread_cron = (await sent(client, "POST", f"/threads/{one.thread}/runs/crons", yearly))["cron_id"]
    for namespace in (["notes"], [OWNER]):
        await sent(client, "PUT", "/store/items", {"namespace": namespace, "key": "a", "value": note})
    one.cursor = (await sent(client, "GET", "/api/sessions?limit=1"))["next_cursor"]
    one.snapshot = (await sent(client, "POST", f"/api/sessions/{one.thread}/snapshots"))["snapshot_id"]
    one.key_id = (await sent(client, "POST", "/api/auth/keys", {"name": one.secret}))["key_id"]


async def _make_files(one: Tenant) -> None:
    """A file in a workspace and one in the shared folder, both named and filled with what is to stay theirs."""
    for base in (f"/api/files/{one.thread}", "/api/shared"):
        reply = await one.user.client.put(f"{base}/content", params={"path": one.secret}, content=one.secret.encode())
        assert reply.status_code == 201, reply.text


def run_body(words: str) -> Json:
    return {"assistant_id": "agent", "input": {"messages": [{"role": "user", "content": words}]}}

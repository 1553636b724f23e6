"""Everything around the servers that outlives them: Postgres, the model, the folders, the users."""

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from tests.api.harness import remove_sandboxes
from tests.faults.cluster import Postgres, open_postgres
from tests.faults.model import Model, open_model
from tests.faults.scripts import EFFECTS
from tests.faults.server import Server
from tests.faults.user import Thread, User
from tests.faults.waiting import eventually

from moorage.adapters.postgres.migrate import migrate
from moorage.runtime import open_sandbox_provider
from moorage.sandboxes.port import SandboxProvider
from moorage.settings import Settings, load_settings

_DATABASE = "faults"
_PASSWORD = "correct horse battery"
_SERVE = ("serve",)
_SERVE_ONLY = ("serve", "--no-worker")
_WORKER = ("worker",)
_BROKER = ("sandboxd",)


@dataclass
class World:
    folder: Path
    postgres: Postgres
    model: Model
    sandbox: str = "docker"
    lease_seconds: float = 3
    _servers: dict[str, Server] = field(default_factory=dict[str, Server])
    _users: dict[str, User] = field(default_factory=dict[str, User])
    _secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))

    @property
    def database_url(self) -> str:
        return self.postgres.url(_DATABASE, user=_DATABASE)

    async def server(self, **settings: object) -> Server:
        """One server, and nothing else; one that runs already is taken as it is."""
        return (await self.servers(1, **settings))[0]

    async def servers(self, count: int, **settings: object) -> list[Server]:
        """So many servers, each with its worker, on one database."""
        return await self._only([(f"server-{number}", _SERVE) for number in range(count)], settings)

    async def split(self, *, workers: int, **settings: object) -> tuple[Server, list[Server]]:
        """A server that executes nothing, and workers that serve nothing."""
        wanted = [("front", _SERVE_ONLY), *((f"worker-{number}", _WORKER) for number in range(workers))]
        front, *rest = await self._only(wanted, settings)
        return front, rest

    async def fleet(self, *, servers: int, workers: int, broker: bool, **settings: object) -> list[Server]:
        """So many servers that execute runs too, workers beside them, and perhaps a broker for all of them."""
        wanted = [
            *((f"server-{number}", _SERVE) for number in range(servers)),
            *((f"worker-{number}", _WORKER) for number in range(workers)),
        ]
        if broker:
            wanted.insert(0, ("broker", _BROKER))
            settings["sandbox_broker"] = self.folder / "sandboxd.sock"
        return await self._only(wanted, settings)

    async def _only(self, wanted: Sequence[tuple[str, tuple[str, ...]]], settings: dict[str, object]) -> list[Server]:
        environment = self._environment(settings)
        names = [name for name, _ in wanted]
        for server in self._servers.values():
            server.thaw()
            if server.name not in names or server.settings != environment:
                server.reap()
        chosen = [self._server(name, arguments, environment) for name, arguments in wanted]
        for server in chosen:
            if not server.alive:
                server.launch()
            if server.arguments == _BROKER:  # which the others cannot start without
                await server.until_ready()
        for server in chosen:
            await server.until_ready()
        return chosen

    def _server(self, name: str, arguments: tuple[str, ...], environment: dict[str, str]) -> Server:
        found = self._servers.get(name)
        if found is None:
            found = self._servers[name] = Server(name, arguments, self.folder, environment)
        found.settings = environment
        return found

    def _environment(self, settings: dict[str, object]) -> dict[str, str]:
        chosen: dict[str, object] = {
            "DATABASE_URL": self.database_url,
            "DATA_DIR": self.folder / "data",
            "WORKSPACE_ROOT": self.folder / "workspaces",
            "SHARED_DIR": self.folder / "shared",
            "SECRET_KEY": self._secret,
            "LLM_MODEL": "openai:calls",
            "LLM_BASE_URL": self.model.base_url,
            "LLM_API_KEY": "none",
            "QUOTA_ACTIVE_SESSIONS": 0,
            "SANDBOX": self.sandbox,
            "SANDBOX_STORAGE": "watch",  # so that tests see workspaces from outside, used or not
            "RUN_LEASE_SECONDS": self.lease_seconds,
            **{key.upper(): value for key, value in settings.items()},
        }
        return {key: str(value) for key, value in chosen.items()}

    async def user(self, server: Server, name: str = "alice") -> User:
        """A registered user; one log-in each."""
        if name not in self._users:
            self._users[name] = await self._log_in(server, name)
        return self._users[name]

    async def thread(self, server: Server) -> Thread:
        return await (await self.user(server)).new_thread(server)

    async def _log_in(self, server: Server, name: str) -> User:
        async with User(name, "").client(server) as client:
            del client.headers["authorization"]
            account = {"username": name, "password": _PASSWORD}
            reply = await client.post("/api/auth/register", json=account)
            assert reply.status_code == 201, reply.text
            reply = await client.post("/api/auth/login", json=account)
        assert reply.status_code == 200, reply.text
        return User(name, reply.json()["access_token"])

    @asynccontextmanager
    async def superuser(self) -> AsyncGenerator[AsyncConnection[dict[str, Any]]]:
        """A connection that sees all rows, for checks."""
        url = self.postgres.url(_DATABASE)
        async with await AsyncConnection.connect(url, autocommit=True, row_factory=dict_row) as connection:
            yield connection

    async def rows(self, query: LiteralString, *values: object) -> list[dict[str, Any]]:
        async with self.superuser() as connection:
            return await (await connection.execute(query, values)).fetchall()

    def workspace(self, thread: Thread) -> Path:
        return self.folder / "workspaces" / thread.user.name / thread.id

    def effects(self, thread: Thread) -> list[str]:
        """What the commands of `scripts.effect` left behind, in order."""
        file = self.workspace(thread) / EFFECTS
        return file.read_text().split() if file.exists() else []

    async def until_effect(self, thread: Thread, name: str) -> None:
        async def done() -> bool:
            return name in self.effects(thread)

        await eventually(done, seconds=30, what=f"effect {name}")

    async def until_run(self, run_id: str, state: str, *, seconds: float = 20) -> dict[str, Any]:
        """The run's row, once it is in this state."""

        async def found() -> list[dict[str, Any]]:
            return await self.rows("SELECT * FROM runs WHERE run_id = %s AND status = %s", run_id, state)

        return (await eventually(found, seconds=seconds, what=f"run {run_id} is {state}"))[0]

    def container(self, thread: Thread) -> str:
        """The name of the thread's container."""
        found = docker("ps", "-a", "--filter", f"name={thread.id}", "--format", "{{.Names}}").split()
        assert len(found) == 1, f"{found} for {thread.id}"
        return found[0]

    def set_right(self) -> None:
        """After a test: Postgres runs, nothing is frozen."""
        self.postgres.ensure()
        for server in self._servers.values():
            server.thaw()

    def reap(self) -> None:
        """No server runs any more."""
        for server in self._servers.values():
            server.reap()

    def dump(self) -> None:
        """After a failure: what every server was doing is in its log; none runs any more."""
        for server in self._servers.values():
            server.dump()

    async def start_over(self) -> None:
        """After a failure: no server, and no run that the next test's servers would take up."""
        for server in self._servers.values():
            server.reap()
        async with self.superuser() as connection:
            await connection.execute("UPDATE runs SET status = 'cancelled' WHERE status IN ('queued', 'running')")
        await self._remove_sandboxes()

    def logs(self) -> dict[str, str]:
        return {server.name: server.tail() for server in self._servers.values()}

    async def close(self) -> None:
        self.set_right()
        for server in self._servers.values():
            server.reap()
        await self._remove_sandboxes()
        for pid in processes_with(str(self.folder)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @asynccontextmanager
    async def sandboxes(self) -> AsyncGenerator[SandboxProvider]:
        """The containers of the servers' installation, reached as they reach them."""
        async with open_sandbox_provider(self._docker_settings()) as provider:
            yield provider

    def settings_of(self, server: Server) -> Settings:
        """For whoever looks after the same sandboxes beside it."""
        return load_settings(
            {}, env_file=None, overrides={key.lower(): value for key, value in server.settings.items()}
        )

    async def _remove_sandboxes(self) -> None:
        """Bubblewrap leaves nothing behind; containers wait for the next start of their installation."""
        await remove_sandboxes(self._docker_settings())

    def _docker_settings(self) -> Settings:
        chosen = {key.lower(): value for key, value in self._environment({"SANDBOX": "docker"}).items()}
        return load_settings({}, env_file=None, overrides=chosen)


@asynccontextmanager
async def open_world(folder: Path, *, sandbox: str = "docker", lease_seconds: float = 3) -> AsyncGenerator[World]:
    """Postgres and the model run, the database is migrated; no server runs yet. Removes `folder` at the end."""
    with _folder(folder), open_postgres(folder / "postgres") as postgres:
        _make_database(postgres)
        async with open_model() as model:
            world = World(folder, postgres, model, sandbox, lease_seconds)
            try:
                yield world
            finally:
                await world.close()


@contextmanager
def _folder(path: Path) -> Generator[None]:
    path.mkdir(mode=0o711, parents=True)
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _make_database(postgres: Postgres) -> None:
    name = sql.Identifier(_DATABASE)
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(name))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, name))
    migrate(make_conninfo(postgres.url(_DATABASE, user=_DATABASE)))


def docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout


def processes_with(text: str) -> list[int]:
    """The processes of this machine, those in sandboxes too, that have `text` in their command line."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found

"""Servers that only serve, and workers that only work, as processes of their own on one database."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.api.harness import PASSWORD, User, make_settings, only, remove_sandboxes

from moorage.runtime.database import installation_of

_SECONDS = 60
_READY = re.compile(r"Moorage worker is ready: (\S+)")
_URL = re.compile(r"Moorage is running at (http://\S+)")


@dataclass(frozen=True)
class Process:
    popen: subprocess.Popen[bytes]
    log: Path

    async def said(self, pattern: re.Pattern[str]) -> str:
        """The group in the first line that matches; waits for it while the process lives."""
        deadline = time.monotonic() + _SECONDS
        while not (found := pattern.search(self.log.read_text(encoding="utf-8"))):
            alive = self.popen.poll() is None and time.monotonic() < deadline
            assert alive, self.log.read_text(encoding="utf-8")
            await asyncio.sleep(0.05)
        return found[1]

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(35)


@contextmanager
def process(folder: Path, *arguments: str, database_url: str | None) -> Generator[Process]:
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"PORT": "0", "SANDBOX": "docker", "LLM_MODEL": "scripted:hello", "DATABASE_URL": database_url or ""}
    log = folder / f"{'-'.join(arguments)}.log"
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [sys.executable, "-u", "-m", "moorage", *arguments],
            cwd=folder,
            env=os.environ | settings,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Process(popen, log)
    finally:
        popen.kill()
        popen.wait()


@pytest.fixture
def folder(public_tmp_path: Path) -> Path:
    folder = public_tmp_path / uuid.uuid4().hex
    folder.mkdir()
    return folder


@pytest.mark.parametrize("arguments", [("worker",), ("serve", "--no-worker")])
def test_sharing_the_work_needs_a_database_that_can_be_shared(folder: Path, arguments: tuple[str, ...]):
    with process(folder, *arguments, database_url=None) as alone:
        assert alone.popen.wait(_SECONDS) == 2
        assert "DATABASE_URL" in alone.log.read_text(encoding="utf-8")


async def test_a_worker_executes_what_a_server_takes(folder: Path, database_url: str):
    with process(folder, "serve", "--no-worker", database_url=database_url) as server:
        url = await server.said(_URL)
        with process(folder, "worker", database_url=database_url) as worker:
            assert await worker.said(_READY)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                assert (await client.get("/readyz")).json()["checks"]["worker"] == "none"
                user = await _new_user(client)
                events = await user.chat(await user.new_session(), "hello")
                assert only(events, "run_end")["status"] == "success"
            worker.popen.send_signal(signal.SIGHUP)
            assert await asyncio.to_thread(worker.stop) == 0
        assert await asyncio.to_thread(server.stop) == 0
    await remove_sandboxes(make_settings(folder, database_url, workspace_root=folder / "workspaces"))


async def test_processes_with_one_database_and_one_workspace_root_are_one_installation(folder: Path, database_url: str):
    settings = make_settings(folder, database_url)
    moved = settings.model_copy(update={"data_dir": folder / "other"})
    assert await installation_of(settings, database_url) == await installation_of(moved, database_url)
    elsewhere = settings.model_copy(update={"workspace_root": folder / "other"})
    assert await installation_of(settings, database_url) != await installation_of(elsewhere, database_url)
    container = elsewhere.model_copy(update={"sandbox_host_workspace_root": str(folder / "workspaces")})
    assert await installation_of(settings, database_url) == await installation_of(container, database_url)


async def _new_user(client: httpx.AsyncClient) -> User:
    account = {"username": "alice", "password": PASSWORD}
    await client.post("/api/auth/register", json=account)
    reply = await client.post("/api/auth/login", json=account)
    client.headers["authorization"] = f"Bearer {reply.json()['access_token']}"
    return User("alice", client)

"""`moorage sandbox`, beside a server that uses the same database and the same engine."""

import json
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest
from click.testing import Result
from tests.api.harness import make_settings
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports
from typer.testing import CliRunner

from moorage.adapters.postgres.pool import Database
from moorage.cli import app
from moorage.ids import ThreadId, UserId, new_thread_id, user_place
from moorage.runtime import open_sandbox_provider
from moorage.sandboxes.port import SandboxProvider

type Run = Callable[..., Result]


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


@pytest.fixture
async def provider(database_url: str, public_tmp_path: Path) -> AsyncGenerator[SandboxProvider]:
    """What a server would use. Nothing of it is left after the test."""
    async with open_sandbox_provider(make_settings(public_tmp_path / "cli", database_url, sandbox="docker")) as found:
        yield found
        for info in await found.list(folders=True):
            await found.remove(info.thread_id, files=True)


@pytest.fixture
def moorage(database_url: str, public_tmp_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `moorage sandbox ...` with the settings of the provider."""
    monkeypatch.chdir(tmp_path)
    settings = make_settings(public_tmp_path / "cli", database_url)
    environment = {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(settings.data_dir),
        "WORKSPACE_ROOT": str(settings.workspace_root),
        "SHARED_DIR": str(settings.shared_dir),
        "SANDBOX": "docker",
        "SANDBOX_STORAGE": "watch",
    }

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["sandbox", *arguments], env=environment)

    return run


@pytest.fixture
async def thread(ports: Ports, provider: SandboxProvider) -> ThreadId:
    """A thread whose sandbox runs."""
    thread_id = await ports.new_thread()
    await provider.ensure(thread_id, profile="default")
    return thread_id


@pytest.fixture
async def busy(ports: Ports, thread: ThreadId) -> ThreadId:
    await ports.submit(thread)
    return thread


@pytest.fixture
async def vanished(ports: Ports, provider: SandboxProvider) -> ThreadId:
    """What is left of a thread that is not in the database, with a user's place that is to stay."""
    thread_id = new_thread_id(UserId("bob"))
    await provider.ensure(thread_id, profile="default")
    await provider.prepare_folder(user_place(ALICE))
    return thread_id


def lines(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_running_sandbox_is_listed_until_it_is_stopped(moorage: Run, thread: ThreadId) -> None:
    [shown] = lines(moorage("list", "--json"))
    assert (shown["thread_id"], shown["running"], shown["profile"]) == (thread, True, "default")
    assert thread in moorage("list").stdout
    assert moorage("stop", thread).exit_code == 0
    assert lines(moorage("list", "--json")) == []
    [shown] = lines(moorage("list", "--all", "--json"))
    assert (shown["thread_id"], shown["running"], shown["profile"]) == (thread, False, None)


def test_a_sandbox_that_a_run_uses_is_stopped_by_force_only(moorage: Run, busy: ThreadId) -> None:
    refused = moorage("stop", busy)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert len(lines(moorage("list", "--json"))) == 1
    assert moorage("stop", "--force", busy).exit_code == 0
    assert lines(moorage("list", "--json")) == []


def test_what_a_sandbox_uses_is_measured(moorage: Run, thread: ThreadId) -> None:
    [used] = lines(moorage("stats", "--json"))
    assert used["thread_id"] == thread
    assert isinstance(used["memory_bytes"], int)
    assert "MiB" in moorage("stats", thread).stdout or "KiB" in moorage("stats", thread).stdout


def test_what_happened_to_a_sandbox_is_told(moorage: Run, thread: ThreadId) -> None:
    assert "created under profile default" in moorage("logs", thread).stdout


def test_what_vanished_threads_left_is_named_first_and_removed_when_told_so(
    moorage: Run, thread: ThreadId, vanished: ThreadId
) -> None:
    named = moorage("gc")
    assert named.exit_code == 0
    assert vanished in named.stdout
    assert thread not in named.stdout
    assert len(lines(moorage("list", "--all", "--json"))) == 3
    assert [item["thread_id"] for item in lines(moorage("gc", "--yes", "--json"))] == [vanished]
    assert "Nothing is left" in moorage("gc").stdout
    left = {item["thread_id"] for item in lines(moorage("list", "--all", "--json"))}
    assert left == {thread, user_place(ALICE)}


@pytest.mark.parametrize("text", ["alice", "../alice", "alice-550e8400"])
def test_what_is_no_thread_id_is_refused(moorage: Run, text: str) -> None:
    assert moorage("stop", text).exit_code == 2


@pytest.mark.parametrize("command", ["stop", "logs", "stats"])
def test_a_thread_that_has_nothing_is_not_told_of_as_if_it_had(moorage: Run, command: str) -> None:
    thread = new_thread_id(ALICE)
    refused = moorage(command, thread)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"{thread} has no sandbox and no workspace" in refused.stderr


def test_what_many_sandboxes_use_is_measured_in_the_order_of_their_names(
    moorage: Run, thread: ThreadId, vanished: ThreadId
) -> None:
    assert [used["thread_id"] for used in lines(moorage("stats", "--json"))] == sorted([thread, vanished])

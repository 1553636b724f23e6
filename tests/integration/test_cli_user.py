"""`moorage user` on a real database, also while a server holds the embedded one."""

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from moorage.adapters.embedded_postgres import find_running_embedded_postgres, open_embedded_postgres
from moorage.cli import app
from moorage.cli.terminal import EXIT_FAILED, EXIT_USAGE

PASSWORD = "correct horse battery"


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`moorage user ...` in an empty folder, on the module's database."""
    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, ["user", *arguments], input=typed, env={"DATABASE_URL": database_url})

    return invoke


def listed(result: Result) -> dict[str, dict[str, object]]:
    users = [json.loads(line) for line in result.stdout.splitlines()]
    return {user["user_id"]: user for user in users}


def test_a_created_user_is_listed(run) -> None:
    assert run("create", "alice", "--password-stdin", typed=f"{PASSWORD}\n").exit_code == 0
    assert run("create", "boss", "--admin", "--password-stdin", typed=f"{PASSWORD}\n").exit_code == 0
    users = listed(run("list", "--json"))
    assert (users["alice"]["admin"], users["boss"]["admin"]) == (False, True)


def test_a_disabled_user_can_be_enabled_again(run) -> None:
    run("create", "carol", "--password-stdin", typed=f"{PASSWORD}\n")
    assert run("disable", "carol").exit_code == 0
    assert listed(run("list", "--json"))["carol"]["active"] is False
    assert run("enable", "carol").exit_code == 0
    assert listed(run("list", "--json"))["carol"]["active"] is True


@pytest.mark.parametrize(
    ("arguments", "typed", "reason"),
    [
        (("create", "Alice", "--password-stdin"), PASSWORD, "a-z"),
        (("create", "dave", "--password-stdin"), "short", "8 to 128"),
        (("passwd", "nobody-here", "--password-stdin"), PASSWORD, "no such user"),
        (("disable", "nobody-here"), "", "no such user"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(run, arguments: tuple[str, ...], typed: str, reason: str) -> None:
    result = run(*arguments, typed=f"{typed}\n")
    assert result.exit_code == EXIT_FAILED
    assert reason in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_typed_password_is_asked_for_twice(run) -> None:
    result = run("create", "erin", typed=f"{PASSWORD}\nanother one\n{PASSWORD}\n{PASSWORD}\n")
    assert result.exit_code == 0, result.stderr
    assert PASSWORD not in result.output


def test_a_password_is_no_argument(run) -> None:
    assert run("create", "frank", PASSWORD).exit_code == EXIT_USAGE


async def test_a_running_embedded_postgres_is_found_and_only_then(public_tmp_path: Path) -> None:
    folder = public_tmp_path / "beside"
    assert await asyncio.to_thread(find_running_embedded_postgres, folder) is None
    async with open_embedded_postgres(folder) as url:
        assert await asyncio.to_thread(find_running_embedded_postgres, folder) == url
    assert await asyncio.to_thread(find_running_embedded_postgres, folder) is None


def test_a_key_is_created_listed_and_revoked(run) -> None:
    run("create", "dave", "--password-stdin", typed=f"{PASSWORD}\n")
    key = run("key", "create", "dave", "ci", "--scope", "read", "--days", "0").stdout.strip()
    assert key.startswith("mrg_")
    assert len(key) == 47
    shown = json.loads(run("key", "list", "dave", "--json").stdout)
    assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("ci", ["read"], None)
    assert key.startswith(shown["prefix"])
    assert "for ever" in run("key", "list", "dave").stdout
    assert run("key", "revoke", "dave", shown["key_id"]).exit_code == 0
    assert run("key", "list", "dave").stdout == ""
    assert run("key", "revoke", "dave", shown["key_id"]).exit_code == EXIT_FAILED


def test_a_key_for_nobody_is_refused(run) -> None:
    assert run("key", "create", "nobody-there", "ci").exit_code == EXIT_FAILED
    assert run("key", "create", "nobody-there", "ci", "--scope", "admin").exit_code == EXIT_USAGE

"""`moorage doctor` tells what works from what does not, by trying it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moorage.cli import app
from moorage.cli.terminal import EXIT_FAILED


@pytest.fixture
def doctor(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run it in an empty folder; answers the exit code and the findings by name."""
    monkeypatch.chdir(tmp_path)
    usual = {"DATABASE_URL": database_url, "SANDBOX": "bubblewrap", "PORT": "0", "LLM_MODEL": "scripted:hello"}

    def run(*arguments: str, **settings: str) -> tuple[int, dict[str, dict[str, str]]]:
        result = CliRunner().invoke(app, ["doctor", "--json", *arguments], env=usual | settings)
        found = [json.loads(line) for line in result.stdout.splitlines()]
        return result.exit_code, {finding["name"]: finding for finding in found}

    return run


def test_all_is_well_where_a_server_would_start(doctor) -> None:
    code, found = doctor()
    statuses = {name: finding["status"] for name, finding in found.items()}
    assert code == 0, found
    assert statuses == dict.fromkeys(statuses, "ok") | {"sandbox": "warn"}  # bubblewrap is the weaker one


def test_the_kind_of_sandbox_and_what_it_lacks_are_named(doctor) -> None:
    told = doctor(SANDBOX_STORAGE="watch")[1]["sandbox"]["detail"]
    assert told.startswith("bubblewrap, storage watch: ran `true` in ")
    assert "isolation: " in told
    assert "storage: " in told


def test_a_server_that_must_not_lack_anything_would_not_start(doctor) -> None:
    code, found = doctor(SANDBOX_STRICT="1")
    assert (code, found["sandbox"]["status"]) == (EXIT_FAILED, "fail")
    assert "SANDBOX_STRICT=1" in found["sandbox"]["detail"]
    assert "isolation: " in found["sandbox"]["detail"]


def test_a_broker_that_is_not_there_is_told(doctor, tmp_path: Path) -> None:
    code, found = doctor(SANDBOX="auto", SANDBOX_BROKER=str(tmp_path / "sandboxd.sock"))
    assert (code, found["sandbox"]["status"]) == (EXIT_FAILED, "fail")
    assert "broker" in found["sandbox"]["detail"]


def test_packages_that_the_engine_does_not_see_stop_the_start_and_not_the_first_user(doctor) -> None:
    code, found = doctor(SANDBOX="docker", SANDBOX_STORAGE="watch", SANDBOX_PACKAGES_DIR="/nowhere/wheels")
    assert (code, found["sandbox"]["status"]) == (EXIT_FAILED, "fail")
    assert found["sandbox"]["detail"] == "SANDBOX_PACKAGES_DIR: the engine's machine has no folder /nowhere/wheels"


def test_the_embedded_postgres_is_tried_where_none_is_set(doctor, public_tmp_path: Path) -> None:
    _, found = doctor(DATABASE_URL="", DATA_DIR=str(public_tmp_path / "new"))
    assert found["database"]["status"] == "ok"
    assert not (public_tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("database", {"DATABASE_URL": "postgresql://127.0.0.1:1/none"}),
        ("sandbox", {"SANDBOX": "docker", "DOCKER_IMAGE": "moorage-no-such-image:1"}),
        ("model", {"LLM_MODEL": "openai:gpt-5"}),
        ("settings", {"LLM_MODLE": "openai:gpt-5"}),
    ],
)
def test_what_does_not_work_is_found(doctor, name: str, settings: dict[str, str]) -> None:
    code, found = doctor(**settings)
    assert code == EXIT_FAILED
    assert [item["name"] for item in found.values() if item["status"] == "fail"] == [name]


def test_an_empty_database_needs_a_migration(doctor, new_database) -> None:
    _, found = doctor(DATABASE_URL=new_database())
    assert found["database"]["status"] == "fail"
    assert "moorage migrate" in found["database"]["fix"]


def test_a_key_file_that_others_can_read_fails(doctor, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "secret_key").write_text("x" * 64)
    (tmp_path / "data" / "secret_key").chmod(0o644)
    assert doctor()[1]["secrets"]["status"] == "fail"


def test_a_model_that_cannot_be_reached_is_told_without_its_key(doctor) -> None:
    settings = {"LLM_MODEL": "openai:gpt-5", "LLM_API_KEY": "sk-hush", "LLM_BASE_URL": "http://127.0.0.1:9/v1"}
    code, found = doctor("--model-call", LLM_MAX_RETRIES="0", **settings)
    assert (code, found["model"]["status"]) == (EXIT_FAILED, "fail")
    assert "sk-hush" not in json.dumps(found)

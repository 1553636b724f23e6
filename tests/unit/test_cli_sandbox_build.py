"""`moorage sandbox build`, with a stand-in for `docker` at the front of the PATH."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moorage.cli.sandbox import app

# Its last argument is the folder of inputs, which is gone afterwards.
REMEMBER = 'echo "$*" >"$0.calls"; for last; do :; done; ls -R "$last" >"$0.inputs"; exit ${EXIT:-0}'


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{REMEMBER}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def test_the_image_is_built_from_what_the_package_brings(docker: Path) -> None:
    done = CliRunner().invoke(app, ["build", "--base", "some:base", "--tag", "ours:1"])

    assert done.exit_code == 0, done.output
    assert "Built ours:1." in done.output
    assert "build --tag ours:1 --build-arg BASE=some:base" in docker.with_name("docker.calls").read_text()
    inputs = docker.with_name("docker.inputs").read_text().splitlines()
    assert {"Dockerfile", "requirements.txt", "uv.sh"} <= set(inputs)
    assert not {"ca-bundle.crt", "wheels"} & set(inputs)


def test_the_image_may_be_built_without_a_package_index(docker: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.pem").touch()
    (tmp_path / "fetched").mkdir()
    (tmp_path / "fetched" / "six.whl").touch()

    done = CliRunner().invoke(
        app, ["build", "--certificates", str(tmp_path / "bundle.pem"), "--wheels", str(tmp_path / "fetched")]
    )

    assert done.exit_code == 0, done.output
    inputs = docker.with_name("docker.inputs").read_text().splitlines()
    assert {"ca-bundle.crt", "wheels", "six.whl"} <= set(inputs)


def test_a_build_that_fails_is_told_by_the_exit_code(docker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXIT", "7")

    done = CliRunner().invoke(app, ["build"])

    assert done.exit_code == 1
    assert docker.with_name("docker.calls").exists()
    assert "Without a registry: --base" in done.stderr


def test_without_docker_the_command_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    done = CliRunner().invoke(app, ["build"])

    assert done.exit_code == 3
    assert "docker command is not installed" in done.output

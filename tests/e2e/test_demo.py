"""`moorage demo` as a newcomer starts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_demo(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "moorage", "demo"],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("sandbox", ["docker", "bubblewrap"])
def test_the_demo_plays_to_its_end(tmp_path: Path, sandbox: str) -> None:
    done = run_demo(tmp_path, SANDBOX=sandbox)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"sandbox {sandbox}" in done.stdout
    assert "✗" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_other_settings_do_not_reach_the_demo(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLM_MODEL=openai:gpt-5\nPORT=1\nSANDBOX=bubblewrap\n", encoding="utf-8")
    done = run_demo(tmp_path, DATABASE_URL="postgresql://nowhere/none", LLM_BASE_URL="http://nowhere")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    done = run_demo(tmp_path, SANDBOX="docker", DOCKER_IMAGE="moorage-no-such-image:1")
    assert done.returncode == 1
    assert "moorage-no-such-image:1" in done.stderr

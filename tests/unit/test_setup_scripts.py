"""The set-up scripts, run against stand-ins for `docker` and `id` at the front of the PATH."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE_ANSWERS = 'echo "docker $*" >>"$CALLS"; [ "$1" = version ] && echo 99.0; true'
NO_ENGINE = 'echo "docker $*" >>"$CALLS"; exit 1'
A_PLAIN_USER = "[ $1 = -u ] && echo 1000 || echo somebody"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the scripts are for make and a POSIX shell")


class Shell:
    """Runs a script with stand-in commands; `calls` is what it asked of Docker."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self._calls.touch()
        self.engine_folder = folder / "engine"
        self.engine_folder.mkdir()

    def command(self, name: str, body: str) -> None:
        path = self._bin / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        foreign = ("DOCKER_", "SANDBOX", "MOORAGE_")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        ours = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "CALLS": str(self._calls),
            "MOORAGE_DOCKER_DIR": str(self.engine_folder),
        }
        return subprocess.run(
            [ROOT / "scripts" / script, *arguments],
            env=kept | ours | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_an_engine_that_answers_is_used_as_it_is(shell: Shell) -> None:
    shell.command("docker", ENGINE_ANSWERS)

    done = shell.run("docker-engine", "start")

    assert done.returncode == 0
    assert "using the engine that is there (version 99.0)" in done.stdout
    assert not any(shell.engine_folder.iterdir())


def test_a_plain_user_without_an_engine_is_told_the_commands_and_gets_exit_code_3(shell: Shell) -> None:
    shell.command("docker", NO_ENGINE)
    shell.command("id", A_PLAIN_USER)

    done = shell.run("docker-engine", "start")

    assert done.returncode == 3
    assert "sudo apt-get install -y docker.io" in done.stderr
    assert "SANDBOX=bubblewrap make serve" in done.stderr


def test_no_engine_is_started_behind_a_docker_host_that_does_not_answer(shell: Shell) -> None:
    shell.command("docker", NO_ENGINE)

    done = shell.run("docker-engine", "start", DOCKER_HOST="tcp://127.0.0.1:1")

    assert done.returncode == 3
    assert "DOCKER_HOST is tcp://127.0.0.1:1" in done.stdout


def test_stop_leaves_a_process_alone_that_got_the_engines_old_pid(shell: Shell) -> None:
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (shell.engine_folder / "dockerd.pid").write_text(str(bystander.pid))

        done = shell.run("docker-engine", "stop")

        assert done.returncode == 0
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.skipif(Path("/etc/docker/daemon.json").exists(), reason="this machine's engine is configured by hand")
@pytest.mark.skipif(
    not Path("/etc/debian_version").exists() or os.getuid() != 0, reason="only root on Debian starts one"
)
def test_an_engine_of_our_own_knows_gvisor(shell: Shell) -> None:
    started, asked = shell.engine_folder / "started", shell.engine_folder / "asked"
    shell.command("docker", f"[ -e {started} ] && touch {asked} && echo 99.0")
    shell.command(
        "dockerd",
        f'echo "dockerd $*" >>"$CALLS"; echo 1 >{shell.engine_folder}/dockerd.pid; touch {started}; '
        f"for _ in $(seq 300); do [ -e {asked} ] && break; sleep 0.1; done",  # one that ends at once did not start
    )
    for installed in ("iptables", "runsc", "apt-get"):
        shell.command(installed, "true")

    done = shell.run("docker-engine", "start")

    assert done.returncode == 0, done.stderr
    configuration = shell.engine_folder / "daemon.json"
    assert f"--config-file {configuration}" in shell.calls[0]
    runsc = json.loads(configuration.read_text())["runtimes"]["runsc"]
    assert runsc["runtimeArgs"] == ["--network=none", "--platform=ptrace"]


def test_an_image_that_is_not_ours_is_never_rebuilt(shell: Shell) -> None:
    shell.command("docker", ENGINE_ANSWERS)  # inspecting succeeds and finds no label

    done = shell.run("sandbox-image", DOCKER_IMAGE="theirs:1")

    assert done.returncode == 0
    assert "theirs:1 is up to date" in done.stdout
    assert not any(call.startswith("docker build") for call in shell.calls)


def test_an_image_of_the_same_recipe_is_reused(shell: Shell) -> None:
    shell.command("docker", labels(base="some:base", recipe=recipe_on("some:base")))

    done = shell.run("sandbox-image")

    assert "moorage-sandbox:dev is up to date" in done.stdout


def test_an_image_of_an_older_recipe_is_rebuilt_on_the_base_that_is_there(shell: Shell) -> None:
    shell.command("docker", labels(base="some:base", recipe="older"))

    done = shell.run("sandbox-image", MOORAGE_SANDBOX_BASE="some:base")

    assert done.returncode == 0, done.stderr
    build = next(call for call in shell.calls if call.startswith("docker build"))
    assert "--build-arg BASE=some:base" in build
    assert "--tag moorage-sandbox:dev" in build


def test_a_server_on_bubblewrap_asks_nothing_of_docker(shell: Shell) -> None:
    shell.command("docker", ENGINE_ANSWERS)

    done = shell.run("sandbox-ready", SANDBOX="bubblewrap")

    assert done.returncode == 0
    assert shell.calls == []


def test_the_list_of_targets_names_every_one_of_them() -> None:
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert declared
    assert re.findall(r"^  make ([\w-]+)", shown, re.MULTILINE) == declared[1].split()


def recipe_on(base: str) -> str:
    inputs = ROOT / "src/moorage/sandboxes/image"
    text = "".join((inputs / name).read_text() for name in ("Dockerfile", "requirements.txt", "uv.sh")) + base + "\n"
    done = subprocess.run(["cksum"], input=text, capture_output=True, text=True, check=True)
    return done.stdout.strip().replace(" ", "-")


def labels(*, base: str, recipe: str) -> str:
    """A `docker` whose every image carries these labels."""
    return f"""echo "docker $*" >>"$CALLS"
case "$*" in
*moorage.recipe*--tag*) ;;
*.Size*) echo 1000000 ;;
*moorage.base*) echo {base} ;;
*moorage.recipe*) echo {recipe} ;;
version*) echo 99.0 ;;
esac"""

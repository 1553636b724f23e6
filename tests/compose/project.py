"""The containers of the Compose project under test, and how what they do is judged."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

READY_SECONDS = 180.0

_PROJECT = os.environ["COMPOSE_PROJECT_NAME"]


def step(title: str, act: Callable[[], object]) -> None:
    began = time.monotonic()
    print(f"test-compose: {title} ...", flush=True)  # noqa: T201
    act()
    print(f"test-compose:   {time.monotonic() - began:.1f} s", flush=True)  # noqa: T201


def expect(condition: object, otherwise: object) -> None:
    if not condition:
        sys.exit(f"test-compose: not as expected: {otherwise}")


def docker(*arguments: str, may_fail: bool = False) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    expect(may_fail or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout if done.returncode == 0 else ""


def containers() -> dict[str, dict[str, Any]]:
    """What the engine says of each service's container."""
    ids = docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={_PROJECT}").split()
    found = json.loads(docker("inspect", *ids))
    return {item["Config"]["Labels"]["com.docker.compose.service"]: item for item in found}


def container(service: str) -> str:
    return str(containers()[service]["Id"])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not condition():
        expect(time.monotonic() < deadline, f"{what} within {READY_SECONDS:.0f} s")
        time.sleep(0.2)


def wait_healthy(service: str) -> None:
    wait_until(lambda: containers()[service]["State"]["Health"]["Status"] == "healthy", f"{service} is healthy")

"""Whether the settings of `.env` come to the services that they are for, and what is said of those that are wrong."""

import subprocess
from pathlib import Path

from tests.compose.project import containers, docker, expect

from moorage.settings import Settings

_WHO_USE_SANDBOXES = ("broker", "server", "worker")
_OWN_VALUES = {  # the broker's, as it alone reaches engine and folders
    "SANDBOX_BROKER_UIDS",
    "SANDBOX_HOST_SHARED_DIR",
    "SANDBOX_HOST_WORKSPACE_ROOT",
    "SANDBOX_PACKAGES_DIR",
    "SANDBOX_STORAGE",
}
_NOT_HERE = {"SANDBOX_ALLOW_WEAK"}  # of bubblewrap
_FROM_ENV_FILE = {"SANDBOX_PIDS": "200", "SANDBOX_IDLE_MINUTES": "20"}
_WRONG = (
    ("broker", {"SANDBOX": "bubblewrap"}, "SANDBOX=bubblewrap has none"),
    ("broker", {"SANDBOX_MEMORY_MB": "1"}, "SANDBOX_MEMORY_MB"),
    ("broker", {"SANDBOX_RUNTIME": "none-such"}, "SANDBOX_RUNTIME=none-such is not one of the engine's runtimes"),
    ("broker", {"SANDBOX_PACKAGES_DIR": "none-such"}, "SANDBOX_PACKAGES_DIR: the engine's machine has no folder"),
    ("migrate", {"SANDBOX_NETWORK": "allowlist"}, "SANDBOX_NETWORK=allowlist needs SANDBOX_ALLOW"),
)


def look_at_settings() -> None:
    """Whoever uses sandboxes is told every setting of them, and all the same where they must agree."""
    found = containers()
    told = {
        service: dict(entry.split("=", 1) for entry in found[service]["Config"]["Env"])
        for service in _WHO_USE_SANDBOXES
    }
    names = {name.upper() for name in Settings.model_fields if name.startswith(("sandbox", "container_"))}
    for name in sorted({*names, "DOCKER_IMAGE"} - _NOT_HERE):
        values = {service: environment.get(name) for service, environment in told.items()}
        expect(None not in values.values(), f"{name} does not reach all: {values}")
        expect(name in _OWN_VALUES or len(set(values.values())) == 1, f"{name} differs: {values}")
    for name, value in _FROM_ENV_FILE.items():
        expect(told["broker"][name] == value, f"{name} of .env is {told['broker'][name]!r}")
    for service in _WHO_USE_SANDBOXES:
        said = docker("exec", str(found[service]["Id"]), "cat", "/etc/moorage/profiles.toml")
        expect("[profiles.roomy]" in said, f"{service} has not the operator's profiles but {said!r}")


def try_wrong_settings(clone: Path) -> None:
    """Each is refused by a container made for it; what is unknown, by the first that reads `.env`."""
    for service, setting, words in _WRONG:
        _expect_refusal(clone, service, words, setting)
    _expect_refusal(clone, "migrate", "unknown settings: SANDBOX_PIDZ", {}, "-e", "SANDBOX_PIDZ=9")
    missing = _compose(clone, {"SANDBOX_PROFILES": "none.toml"}, "up", "--detach")
    expect(missing.returncode == 2 and "there is no file" in missing.stderr, f"up: {missing.stderr}")


def _expect_refusal(clone: Path, service: str, words: str, setting: dict[str, str], *options: str) -> None:
    done = _compose(clone, setting, "run", "--rm", "--no-deps", "-T", *options, service)
    expect(done.returncode != 0 and words in done.stdout + done.stderr, f"{service}, {setting}: {done}")


def _compose(clone: Path, setting: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["env", *(f"{name}={value}" for name, value in setting.items()), clone / "scripts" / "compose"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, timeout=120)

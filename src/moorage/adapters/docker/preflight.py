"""What an engine lacks for sandboxes to be as closed and as bounded as they should be: asked, and tried from inside."""

import secrets
import time
from collections.abc import Iterator

from moorage.adapters.docker.container import GVISOR_RUNTIMES
from moorage.adapters.docker.engine import UNSEEN_FOLDER, Body
from moorage.adapters.docker.making import ContainerMaker
from moorage.sandboxes.port import AgentIdentity, SandboxUnavailable, Shortcoming
from moorage.sandboxes.profiles import SandboxProfile

_PROBE = "probe-"
_PROBE_SECONDS = 10.0
_PROBE_LIFE_SECONDS = 600.0
_NOBODY = AgentIdentity(65533, 65533)
_LOOK = """
sed 's/^/status /' /proc/self/status
sed 's/^/cgroup /' /proc/self/cgroup
for name in /sys/class/net/*; do echo "net ${name##*/}"; done
touch /probe && echo 'root writable'
python3 -I -S -c 'print("python works")' 2>&1
"""

_INFO = {
    "MemoryLimit": ("memory", "The engine cannot bound memory: one sandbox may use all of the machine's"),
    "SwapLimit": ("swap", "The engine cannot bound swap: a sandbox may use as much again there as it has memory"),
    "PidsLimit": ("pids", "The engine cannot bound processes: a fork bomb in one sandbox stops the machine"),
    "CpuCfsQuota": ("cpu", "The engine cannot bound processors: one sandbox may keep all of them busy"),
}


def check_engine(info: Body, *, runtime: str | None) -> None:
    """Raises SandboxUnavailable, saying what to do, when sandboxes cannot be had there at all."""
    if info["OSType"] != "linux":
        raise SandboxUnavailable("The Docker engine runs Windows containers: switch it to Linux containers.")
    if runtime and runtime not in info["Runtimes"]:
        raise SandboxUnavailable(
            f"SANDBOX_RUNTIME={runtime} is not one of the engine's runtimes: {', '.join(info['Runtimes'])}."
        )


def lacks_of_engine(info: Body, *, runtime: str | None) -> Iterator[Shortcoming]:
    """From the engine's `/info`."""
    for field, (name, detail) in _INFO.items():
        if info.get(field) is False:
            yield Shortcoming(name, detail)
    options: list[str] = info.get("SecurityOptions") or []
    security = {option.split(",")[0] for option in options}
    if "name=userns" in security:
        yield Shortcoming(
            "userns", "The engine's remapping of users is not used for sandboxes, which have uids of their own"
        )
    if "name=rootless" in security:
        yield Shortcoming(
            "rootless", "The engine runs rootless: it may not give sandboxes the uids of SANDBOX_UID_RANGE"
        )
    if "name=seccomp" not in security and not _is_gvisor(info, runtime):
        yield Shortcoming("seccomp", "The engine has no seccomp: sandboxes may use every system call")


def lacks_of_container(said: str, info: Body, *, runtime: str | None) -> Iterator[Shortcoming]:
    """From what a probe saw of itself (`_LOOK`)."""
    lines = [line.partition(" ")[::2] for line in said.splitlines()]
    status = dict(text.split(":", 1) for kind, text in lines if kind == "status" and ":" in text)
    status = {name: value.strip() for name, value in status.items()}
    if status.get("Seccomp") != "2" and not _is_gvisor(info, runtime):  # whose own kernel answers all calls instead
        yield Shortcoming("seccomp", "The seccomp profile is not in force: sandboxes may use every system call")
    if status.get("NoNewPrivs", "1") != "1":
        yield Shortcoming("no_new_privs", "Programs in sandboxes may gain rights by setuid files")
    if any(int(status.get(name, "0"), 16) for name in ("CapPrm", "CapEff", "CapBnd")):
        yield Shortcoming("capabilities", "Sandboxes keep capabilities that they must not have")
    if any(not text.endswith(":/") for kind, text in lines if kind == "cgroup"):
        yield Shortcoming("cgroupns", "Sandboxes have no cgroup namespace: they see the names of the engine's groups")
    if any(kind == "net" and text not in ("lo", "*") for kind, text in lines):
        yield Shortcoming("network", "Sandboxes see a network interface although they are made without a network")
    if ("root", "writable") in lines:
        yield Shortcoming("read_only_root", "The root file system of sandboxes can be written to")


def probe(maker: ContainerMaker, profile: SandboxProfile) -> str:
    """What a container like a thread's, but without its folders, sees of itself.

    Raises SandboxUnavailable when it does not even run Python. Those of servers that died at it are removed.
    """
    for container in maker.containers():
        if maker.place_of(container).startswith(_PROBE) and container["Created"] < time.time() - _PROBE_LIFE_SECONDS:
            maker.engine.remove(container["Id"])
    name = maker.name(_PROBE + secrets.token_hex(8))
    try:
        maker.engine.create(name, maker.probe_body(profile))
        maker.engine.start(name)
        user = f"{_NOBODY.uid}:{_NOBODY.gid}"
        said = maker.engine.run(name, ("sh", "-c", _LOOK), user=user, seconds=_PROBE_SECONDS)
    except SandboxUnavailable as error:
        if error.code != UNSEEN_FOLDER:
            raise
        packages = maker.settings.packages  # the only folder that a probe has
        raise SandboxUnavailable(
            f"SANDBOX_PACKAGES_DIR: the engine's machine has no folder {packages}", code="no_packages"
        ) from None
    finally:
        maker.engine.remove(name)
    text = said.decode(errors="replace")
    if "python works" not in text:
        raise SandboxUnavailable(f"A container of image {profile.image} cannot run python3: {text[-300:]}")
    return text


def _is_gvisor(info: Body, runtime: str | None) -> bool:
    """By the name or the program that the engine knows it by."""
    name = runtime or info.get("DefaultRuntime", "")
    runtimes: dict[str, dict[str, str]] = info.get("Runtimes") or {}
    path = runtimes.get(name, {}).get("path") or ""
    return path.rsplit("/", 1)[-1] in GVISOR_RUNTIMES or name in GVISOR_RUNTIMES

"""How a sandbox's container is made: fixed by the server, nothing in it is a client's choice."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moorage.sandboxes.port import Folder
from moorage.sandboxes.profiles import SandboxProfile

INSTALLATION_LABEL = "moorage.installation"
PROFILE_LABEL = "moorage.profile"
DIGEST_LABEL = "moorage.digest"
POOL_LABEL = "moorage.pool"

GVISOR_RUNTIMES = ("runsc",)

PACKAGES_DIR = "/opt/packages"
KEEPER = "65534:65534"  # PID 1 is nobody: the agent's uid can neither signal nor trace it

_SECCOMP = json.dumps(json.loads(Path(__file__).with_name("seccomp.json").read_text()), separators=(",", ":"))
_TMP_OPTIONS = "noexec,nosuid,nodev"
_RUN_MB = 16
_OPEN_FILES = 4096
_GVISOR_THREADS = 8  # of the host for each process inside, with its own; it dies when it gets none
_MIB = 1024 * 1024
_SHORT_PERIOD, _USUAL_PERIOD, _LEAST_QUOTA = 10_000, 100_000, 1_000  # in microseconds

type Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ContainerSettings:
    """What all containers of one server have in common.

    `runtime`: an engine's runtime name, None for its default. `packages`: a folder of wheels, as the engine's machine
    names it, that programs inside may install; None: nothing may be installed.
    """

    installation: str
    workspace_dir: str = "/workspace"
    shared_dir: str = "/shared"
    runtime: str | None = None
    packages: str | None = None


def container_body(
    settings: ContainerSettings,
    profile: SandboxProfile,
    *,
    image_id: str,
    workspace: Folder,
    shared: Folder,
    labels: Mapping[str, str] | None = None,
) -> Body:
    """The Engine API's description of a container under `profile`, with its folders."""
    mounts = [_mount(workspace.host_path, settings.workspace_dir), _mount(shared.host_path, settings.shared_dir)]
    return _labelled(_body(settings, profile, image_id, mounts), settings, profile, labels or {})


def probe_body(settings: ContainerSettings, profile: SandboxProfile, *, image_id: str) -> Body:
    """The same for a container that belongs to no thread and sees no folder."""
    return _labelled(_body(settings, profile, image_id, []), settings, profile, {})


def name_prefix(installation: str) -> str:
    """What the names of an installation's containers begin with."""
    return f"moorage-{installation}-"


def _body(settings: ContainerSettings, profile: SandboxProfile, image_id: str, mounts: list[Body]) -> Body:
    if settings.packages:
        mounts = [*mounts, {**_mount(settings.packages, PACKAGES_DIR), "ReadOnly": True}]
    return {
        "Image": image_id,
        "Entrypoint": ["sleep", "infinity"],
        "Cmd": [],
        "User": KEEPER,
        "Hostname": "sandbox",
        "WorkingDir": "/",
        "Env": _environment(settings),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_isolation(settings),
            **_bounds(settings, profile),
            "Mounts": mounts,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _environment(settings: ContainerSettings) -> list[str]:
    """Of the agent's processes: PID 1 needs none of it."""
    values = {
        "HOME": settings.workspace_dir,
        "USER": "agent",
        "LOGNAME": "agent",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",  # noqa: S108 -- a file system of its own in there
    }
    if settings.packages:
        values |= {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": PACKAGES_DIR,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "UV_OFFLINE": "1",
            "UV_NO_INDEX": "1",
            "UV_FIND_LINKS": PACKAGES_DIR,
        }
    return [f"{name}={value}" for name, value in values.items()]


def _isolation(settings: ContainerSettings) -> Body:
    return {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "UsernsMode": "host",  # an engine that remaps users would make other uids of those the folders belong to
        "Init": True,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", f"seccomp={_SECCOMP}"],
        **({"Runtime": settings.runtime} if settings.runtime else {}),
    }


def _bounds(settings: ContainerSettings, profile: SandboxProfile) -> Body:
    return {
        "Memory": profile.memory_mb * _MIB,
        "MemorySwap": profile.memory_mb * _MIB,
        **_processors(profile.cpus),
        "PidsLimit": profile.pids * (_GVISOR_THREADS if settings.runtime in GVISOR_RUNTIMES else 1),
        "Ulimits": [
            _ulimit("nofile", _OPEN_FILES),
            _ulimit("core", 0),
            _ulimit("fsize", profile.file_mb * _MIB),
        ],
        "Tmpfs": {
            "/tmp": f"size={profile.tmp_mb}m,mode=1777,{_TMP_OPTIONS}",  # noqa: S108
            "/run": f"size={_RUN_MB}m,mode=0755,{_TMP_OPTIONS}",
        },
    }


def _processors(cpus: float) -> Body:
    """A tenth of the kernel's usual period: who floods its sandbox keeps others waiting for a tenth of the time.

    The kernel gives out 1000 microseconds at least, so few processors need the usual one.
    """
    period = _SHORT_PERIOD if cpus * _SHORT_PERIOD >= _LEAST_QUOTA else _USUAL_PERIOD
    return {"CpuPeriod": period, "CpuQuota": max(_LEAST_QUOTA, int(cpus * period))}


def _labelled(body: Body, settings: ContainerSettings, profile: SandboxProfile, more: Mapping[str, str]) -> Body:
    """With the labels by which we find our own again, and see whether it is made as we would make it now."""
    labels = {
        INSTALLATION_LABEL: settings.installation,
        PROFILE_LABEL: profile.name,
        DIGEST_LABEL: _digest(body, settings, profile),
        **more,
    }
    return {**body, "Labels": labels}


def _digest(body: Body, settings: ContainerSettings, profile: SandboxProfile) -> str:
    """Of all but the workspace's last part, which is another one for a container that was made before its thread.

    The way out is a part of it, though no container knows of it: another server's helper may still offer one in there.
    """
    host = body["HostConfig"]
    mounts = [
        {**mount, "Source": _parent(mount["Source"])} if mount["Target"] == settings.workspace_dir else mount
        for mount in host["Mounts"]
    ]
    described = {**body, "HostConfig": {**host, "Mounts": mounts}, "WayOut": [profile.network, *profile.allow]}
    text = json.dumps(described, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parent(host_path: str) -> str:
    """Of a path of the engine's machine, which may be a Windows one."""
    return re.split(r"[/\\][^/\\]*$", host_path)[0]


def _ulimit(name: str, value: int) -> Body:
    return {"Name": name, "Soft": value, "Hard": value}


def _mount(host_path: str, target: str) -> Body:
    return {"Type": "bind", "Source": host_path, "Target": target, "BindOptions": {"Propagation": "rprivate"}}

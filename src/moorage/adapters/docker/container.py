"""How a sandbox's container is made: fixed by the server, nothing in it is a client's choice."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from moorage.sandboxes.port import AgentIdentity, Folder, SandboxLimits, SandboxSpec

INSTALLATION_LABEL = "moorage.installation"
THREAD_LABEL = "moorage.thread"
DIGEST_LABEL = "moorage.digest"

_KEEPER = "65534:65534"  # PID 1 is nobody: the agent's uid can neither signal nor trace it
_TMP_OPTIONS = "mode=1777,noexec,nosuid,nodev"
_RUN_MB = 16
_OPEN_FILES = 4096
_MIB = 1024 * 1024

type Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ContainerProfile:
    """What all sandboxes of one server have in common. `runtime`: an engine's runtime name, None for its default."""

    image_id: str
    installation: str
    agent: AgentIdentity
    workspace_dir: str
    shared_dir: str
    runtime: str | None = None


def container_body(profile: ContainerProfile, spec: SandboxSpec) -> Body:
    """The Engine API's description of the container for `spec`."""
    mounts = [_mount(spec.workspace, profile.workspace_dir), _mount(spec.shared, profile.shared_dir)]
    return _labelled(_body(profile, spec.limits, mounts), profile, spec.thread_id)


def probe_body(profile: ContainerProfile, name: str) -> Body:
    """The same for a container that belongs to no thread and sees no folder."""
    return _labelled(_body(profile, SandboxLimits(), []), profile, name)


def _body(profile: ContainerProfile, limits: SandboxLimits, mounts: list[Body]) -> Body:
    return {
        "Image": profile.image_id,
        "Entrypoint": ["sleep", "infinity"],
        "Cmd": [],
        "User": _KEEPER,
        "Hostname": "sandbox",
        "WorkingDir": "/",
        "Env": [f"HOME={profile.workspace_dir}", "LANG=C.UTF-8", "TMPDIR=/tmp"],
        "HostConfig": {
            **_isolation(profile),
            **_bounds(limits),
            "Mounts": mounts,
            "LogConfig": {"Type": "none"},
            "RestartPolicy": {"Name": "no"},
        },
    }


def _isolation(profile: ContainerProfile) -> Body:
    return {
        "NetworkMode": "none",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Init": True,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        **({"Runtime": profile.runtime} if profile.runtime else {}),
    }


def _bounds(limits: SandboxLimits) -> Body:
    return {
        "Memory": limits.memory_mb * _MIB,
        "MemorySwap": limits.memory_mb * _MIB,
        "NanoCpus": int(limits.cpus * 1_000_000_000),
        "PidsLimit": limits.pids,
        "Ulimits": [
            _ulimit("nofile", _OPEN_FILES),
            _ulimit("core", 0),
            _ulimit("fsize", limits.file_mb * _MIB),
        ],
        "Tmpfs": {
            "/tmp": f"size={limits.tmp_mb}m,{_TMP_OPTIONS}",  # noqa: S108
            "/run": f"size={_RUN_MB}m,{_TMP_OPTIONS}",
        },
    }


def _labelled(body: Body, profile: ContainerProfile, thread_id: str) -> Body:
    """With the labels by which we find our own again, and see whether it is made as we would make it now."""
    labels = {
        INSTALLATION_LABEL: profile.installation,
        THREAD_LABEL: thread_id,
        DIGEST_LABEL: hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(),
    }
    return {**body, "Labels": labels}


def container_name(installation: str, thread_id: str) -> str:
    """One name per thread, so that two servers of an installation cannot make two containers for it."""
    return f"moorage-{installation}-{thread_id}"


def _ulimit(name: str, value: int) -> Body:
    return {"Name": name, "Soft": value, "Hard": value}


def _mount(folder: Folder, target: str) -> Body:
    return {"Type": "bind", "Source": folder.host_path, "Target": target, "BindOptions": {"Propagation": "rprivate"}}

"""What a sandbox may use: profiles that the operator defines and an assistant names."""

from dataclasses import dataclass
from typing import Literal

DEFAULT_PROFILE = "default"


@dataclass(frozen=True, slots=True)
class SandboxProfile:
    """The bounds of one kind of sandbox.

    `disk_mb` and `max_files` bound the whole workspace, `file_mb` one file. `network`: "none", or "allowlist" for the
    `allow`ed `host:port`s only; a host may begin with `*.` for all names below it.
    """

    name: str = DEFAULT_PROFILE
    image: str = "moorage-sandbox:dev"
    cpus: float = 1.0
    memory_mb: int = 1024
    pids: int = 256
    disk_mb: int = 1024
    max_files: int = 100_000
    file_mb: int = 1024
    tmp_mb: int = 256
    network: Literal["none", "allowlist"] = "none"
    allow: tuple[str, ...] = ()

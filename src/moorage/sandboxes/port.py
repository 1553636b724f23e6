"""What the product needs of a sandbox, whichever kind it is."""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from moorage.errors import InvalidInput, Unavailable
from moorage.ids import ThreadId, UserId

KEEP_BYTES = 64 * 1024
OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
MAX_COMMAND_BYTES = 120 * 1024  # the kernel takes 128 KiB per argument
FILE_SECONDS = 60.0

start_by: ContextVar[float | None] = ContextVar("start_by", default=None)
"""Until when, on the monotonic clock, what is asked of a sandbox may be started: a frozen process wakes up too late."""

type StreamName = Literal["stdout", "stderr"]
type OnOutput = Callable[[StreamName, str], None]


class SandboxUnavailable(Unavailable):
    """No sandbox can be had; `detail` says what the operator should do."""

    code = "sandbox_unavailable"


class SandboxGone(SandboxUnavailable):
    """The sandbox was not there any more, so nothing was started: safe to try again with a new one."""

    code = "sandbox_gone"


class SandboxDied(SandboxUnavailable):
    """The sandbox died under what it did: that may have taken effect."""

    code = "sandbox_died"


class StartedTooLate(SandboxUnavailable):
    """Nothing was started, because `start_by` had passed."""

    code = "started_too_late"


class PathError(InvalidInput):
    """A file operation that cannot work.

    `code` says why: file_not_found, is_directory, permission_denied, invalid_path, file_too_large or no_space.
    """

    code = "invalid_path"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as this process sees it (`path`) and as the container engine's machine names it (`host_path`)."""

    path: Path
    host_path: str


@dataclass(frozen=True, slots=True)
class SandboxLimits:
    """Bounds of one sandbox: its processors, memory, number of processes and largest file."""

    cpus: float = 1.0
    memory_mb: int = 1024
    pids: int = 256
    file_mb: int = 1024
    tmp_mb: int = 256


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """Everything that may differ between two sandboxes of one provider."""

    thread_id: ThreadId
    owner_id: UserId
    workspace: Folder
    shared: Folder
    limits: SandboxLimits = SandboxLimits()


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The unprivileged numbers that commands run under, and that own the workspaces."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One existing sandbox: its reference for the provider, whose it is, and whether it uses memory now."""

    ref: str
    thread_id: ThreadId
    running: bool


class Outcome(StrEnum):
    """How a command ended. In each case none of its processes is left."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    OUT_OF_MEMORY = "out_of_memory"
    LOST = "lost"  # the sandbox died under it


@dataclass(frozen=True, slots=True)
class CommandResult:
    """What a command left behind.

    `exit_code` is 128 + n after signal n and None when nobody knows. `output` holds stdout and stderr in order of
    arrival, its first and last `keep` bytes; `truncated` says that something between is missing. `bytes_out` counts
    all of it.
    """

    exit_code: int | None
    output: str
    truncated: bool
    outcome: Outcome
    bytes_out: int


class Sandbox(Protocol):
    """A place to run commands and keep files, for one thread. All paths are absolute and as seen inside."""

    @property
    def id(self) -> str: ...

    async def run(
        self,
        command: str,
        *,
        time_limit: float,
        on_output: OnOutput | None = None,
        stdin: bytes | None = None,
        keep: int = KEEP_BYTES,
        raw: bool = False,
    ) -> CommandResult:
        """Run `command` with /bin/sh in the workspace and wait for its end, at most `time_limit` seconds.

        `on_output` is called on the event loop with decoded text as it comes. Control characters are dropped from all
        text unless it is wanted `raw`, for a program that reads it. When the command's shell ends, when the
        time is up or when this call is cancelled, every process it started is killed before this returns. Raises
        SandboxGone (nothing ran), SandboxUnavailable or InvalidInput (`command_too_long`, `invalid_command`).
        """
        ...

    async def write_file(self, path: str, content: bytes) -> bool:
        """Create or replace the file at once, with its parent folders; answers whether it is new.

        Raises PathError, SandboxDied (it may be written) or another SandboxUnavailable (it is not).
        """
        ...

    async def read_file(self, path: str, *, limit: int) -> bytes:
        """The file's bytes; raises PathError, with code `file_too_large` over `limit` bytes, or SandboxUnavailable."""
        ...


class SandboxProvider(Protocol):
    """Makes and removes sandboxes of one kind."""

    @property
    def name(self) -> Literal["docker", "bubblewrap"]: ...

    @property
    def isolation_note(self) -> str | None:
        """What the operator must know when the isolation is weaker than a container's."""
        ...

    async def check(self) -> None:
        """Run `true` in a throw-away sandbox; raises SandboxUnavailable, saying what to do, when that fails."""
        ...

    async def create(self, spec: SandboxSpec) -> str:
        """Make sure that the thread's sandbox exists and runs; answers its reference. Safe to repeat."""
        ...

    async def connect(self, ref: str) -> Sandbox:
        """A handle on a created sandbox. Using it raises SandboxGone when the sandbox is not there or paused."""
        ...

    async def pause(self, ref: str) -> None:
        """Free its memory and kill what runs; `create` wakes it up. Nothing happens when it is not there."""
        ...

    async def delete(self, ref: str) -> None:
        """Remove it and all it runs; the workspace stays. Nothing happens when it is not there."""
        ...

    async def list(self) -> list[SandboxInfo]:
        """The sandboxes of this installation, and of no other."""
        ...

    async def close(self) -> None:
        """Let go of the provider's own resources; sandboxes stay."""
        ...

"""What the product needs of a sandbox, whichever kind it is."""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from moorage.errors import InvalidInput, NotFound, Unavailable
from moorage.ids import ThreadId
from moorage.sandboxes.files import FileAccess
from moorage.sandboxes.trees import Trees

KEEP_BYTES = 64 * 1024
OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
MAX_COMMAND_BYTES = 120 * 1024  # the kernel takes 128 KiB per argument
FILE_SECONDS = 60.0

start_by: ContextVar[float | None] = ContextVar("start_by", default=None)
"""Until when, on the monotonic clock, what is asked of a sandbox may be started: a frozen process wakes up too late."""

fencing_token: ContextVar[int | None] = ContextVar("fencing_token", default=None)
"""Which claim of a run asks; it grows with every claim of the thread. None outside of runs, such as for a download."""

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


USER_FULL = "user_sandboxes_full"


class SandboxesFull(SandboxUnavailable):
    """As many sandboxes run as the operator allows in all, or, with code `user_sandboxes_full`, of this user."""

    code = "sandboxes_full"


class StaleClaim(SandboxUnavailable):
    """A newer claim of the thread's run has asked before: nothing was done for this older one."""

    code = "stale_claim"


class ThreadDeleted(NotFound):
    """The thread was deleted before its sandbox could be used."""

    code = "thread_not_found"

    def __init__(self) -> None:
        super().__init__("No such session")


class PathError(InvalidInput):
    """A file operation that cannot work.

    `code` says why: file_not_found, is_directory, not_a_directory, not_empty, file_exists, permission_denied,
    invalid_path, file_too_large or no_space.
    """

    code = "invalid_path"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder as this process sees it (`path`) and as the container engine's machine names it (`host_path`)."""

    path: Path
    host_path: str


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """The unprivileged numbers that commands run under, and that own the workspaces."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """One thread's place: whether it uses memory now, under which profile, and since when."""

    thread_id: ThreadId
    running: bool
    profile: str = "default"
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SandboxStats:
    """What one sandbox uses. Sizes in bytes; None: nobody knows. `log`: what happened to it, oldest first."""

    memory_bytes: int | None
    processes: int | None
    cpu_seconds: float | None
    oom_kills: int | None
    disk_bytes: int | None
    disk_limit_bytes: int | None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the helper has to see to, because nothing stronger does in this kind of sandbox.

    `rlimits` per process of a command: {"NPROC": 256, ...}. `disk_bytes` and `max_files` of the workspace; None: the
    file system bounds it.
    """

    rlimits: Mapping[str, int] = field(default_factory=dict[str, int])
    disk_bytes: int | None = None
    max_files: int | None = None


@dataclass(frozen=True, slots=True)
class Shortcoming:
    """Something that this machine's engine, kernel or file system lacks, and what follows from that."""

    name: str
    detail: str


class Outcome(StrEnum):
    """How a command ended. In each case none of its processes is left."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    OUTPUT_LIMIT = "output_limit"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"  # killed because the workspace outgrew what nothing stronger bounds
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

    @property
    def files(self) -> FileAccess:
        """The files for people: paths relative to a root, links never followed, streamed both ways."""
        ...

    @property
    def trees(self) -> Trees:
        """The workspace as a whole: to be kept, and made again."""
        ...


class Channel(Protocol):
    """A running helper's stdin and stdout."""

    async def send(self, data: bytes) -> None:
        """Returns when there is room for more; a helper that is gone is no error."""
        ...

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. May be cancelled and called again."""
        ...

    async def close(self) -> str:
        """Let go of it, which ends the helper; answers what it complained about, at most 2000 characters."""
        ...


class SandboxProvider(Protocol):
    """Sandboxes of one kind, by thread id. Each thread has one place: its folders, and a sandbox while it is used.

    A `fencing_token` that is older than one that was given before for the thread raises StaleClaim; None is no claim.
    Every call may raise SandboxUnavailable (code `no_engine` when it is worth trying again).
    """

    @property
    def name(self) -> Literal["docker", "bubblewrap"]: ...

    @property
    def isolation_note(self) -> str | None:
        """What the operator must know when the isolation is weaker than a container's."""
        ...

    async def check(self) -> list[Shortcoming]:
        """Run `true` in a throw-away sandbox; answers what this machine lacks.

        Raises SandboxUnavailable, saying what to do, when sandboxes do not work here.
        """
        ...

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = "default") -> None:
        """Make the thread's workspace and its owner's shared folder, bounded by `profile`, unless they are there."""
        ...

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        """Make sure that the thread's sandbox runs, made as `profile` says. Prepares the folders too. Safe to repeat.

        None: as it runs now, else as the profile `default`. Raises SandboxesFull.
        """
        ...

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> Channel:
        """Start a helper in the running sandbox, under the agent's uid. Raises SandboxGone when it does not run."""
        ...

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        """Kill every process of the agent, helpers too, whoever started them. The sandbox stays usable.

        Nothing happens when it does not run.
        """
        ...

    async def pause(self, thread_id: ThreadId) -> None:
        """Free its memory and kill what runs; `ensure` brings it back. Nothing happens when it is not there."""
        ...

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        """Remove the sandbox and all it runs; with `files` the workspace too, whatever it holds. Safe to repeat."""
        ...

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        """The sandboxes of this installation, and of no other; with `folders` also the threads that only have files.

        What does not run and is listed without `folders` all the same still costs something, which `pause` lets go of.
        With `thread_id` only that thread's, if it would be listed; what that costs does not grow with the others.
        """
        ...

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        """What the thread's sandbox uses now; all None when it does not run."""
        ...

    async def close(self) -> None:
        """Let go of the provider's own resources; sandboxes stay."""
        ...

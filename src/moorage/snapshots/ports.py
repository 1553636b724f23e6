"""What snapshots need: a place for contents, a place for rows, and the sandboxes whose files they are."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from moorage.claims import Claim
from moorage.errors import NotFound, Unavailable
from moorage.ids import ThreadId, UserId
from moorage.paging import Page
from moorage.sandboxes.trees import Piece, Trees
from moorage.snapshots.manifest import Digest
from moorage.threads import Thread


class SnapshotNotFound(NotFound):
    code = "snapshot_not_found"

    def __init__(self) -> None:
        super().__init__("This session has no such snapshot")


class SnapshotDamaged(Unavailable):
    """What a snapshot refers to is not on the server's disk as it was stored."""

    code = "snapshot_damaged"

    def __init__(self) -> None:
        super().__init__("A part of this snapshot is not on the server's disk any more")


class SnapshotKind(StrEnum):
    """Why a snapshot was taken: somebody asked, a run ended, or the session was copied."""

    REQUEST = "request"
    RUN = "run"
    COPY = "copy"


class CopiedFiles(StrEnum):
    """What files a copy of a thread began with."""

    SNAPSHOT = "snapshot"  # those of a snapshot
    CURRENT = "current"  # those of the original
    NONE = "none"


@dataclass(frozen=True, slots=True)
class NewSnapshot:
    """`bytes` counts all files by their length; `added_bytes` what was new to the server.

    `left_out` counts what cannot be kept (pipes, sockets, devices, unreadable files), `missed` files that kept changing
    while they were read.
    """

    kind: SnapshotKind
    manifest: Digest
    files: int
    bytes: int
    added_bytes: int
    left_out: int
    missed: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A thread's files as they were at its checkpoint `checkpoint_id`, None before the first."""

    snapshot_id: str
    thread_id: ThreadId
    owner_id: UserId
    checkpoint_id: str | None
    created_at: datetime
    content: NewSnapshot


class SnapshotTable(Protocol):
    """Where snapshots are listed. Every call sees those of the thread's owner only."""

    async def standing(self, thread: Thread) -> int:
        """The seq that the thread stands at; raises ThreadBusy or ThreadNotFound."""
        ...

    async def insert(
        self,
        owner: UserId,
        thread_id: ThreadId,
        new: NewSnapshot,
        *,
        as_of: int | None = None,
        hold: Claim | None = None,
    ) -> Snapshot:
        """Add one of the thread's present checkpoint, and drop the oldest beyond what is kept of a thread.

        Raises ThreadNotFound; with `as_of` ThreadBusy when the thread is busy or has got beyond that seq; with `hold`
        ClaimLost.
        """
        ...

    async def newest(self, owner: UserId, thread_id: ThreadId) -> Snapshot | None: ...

    async def at(self, thread: Thread, checkpoint_id: str) -> Snapshot | None:
        """The newest at this checkpoint, or else at the nearest one before it in its history."""
        ...

    async def find(self, thread: Thread, snapshot_id: str) -> Snapshot | None: ...

    async def search(self, thread: Thread, *, limit: int, cursor: str | None) -> Page[Snapshot]:
        """Newest first."""
        ...

    async def delete(self, thread: Thread, snapshot_id: str) -> bool: ...

    async def delete_all(self, owner: UserId, thread_id: ThreadId) -> int: ...

    async def manifests(self, owner: UserId) -> set[Digest]:
        """What the snapshots of all the user's threads refer to."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """Contents that are kept under their digest. `size` counts holes too; `added`: the bytes that were new."""

    digest: Digest
    size: int
    added: int


class UserObjects(Protocol):
    """One user's contents, of which none is collected while this is open. Every call raises Unavailable."""

    @property
    def added(self) -> int:
        """The bytes that were new of all that was added through this."""
        ...

    async def add(self, pieces: AsyncIterator[Piece]) -> Stored:
        """Keep contents; they count only after `settle`."""
        ...

    async def settle(self) -> None:
        """Return when all that was added is on the disk, to stay there whatever happens to this machine."""
        ...

    async def missing(self, digests: Collection[Digest]) -> set[Digest]:
        """Those of which there is nothing."""
        ...

    def read(self, digest: Digest) -> AsyncIterator[Piece]:
        """The contents, checked: raises SnapshotDamaged at the latest at their end."""
        ...


class ObjectStore(Protocol):
    """Where contents are kept, each user's apart from all others': sharing would tell what somebody else has."""

    def open(self, owner: UserId) -> AbstractAsyncContextManager[UserObjects]: ...

    async def used_bytes(self, owner: UserId, *, counted_now: bool = False) -> int:
        """What the user's contents take up: about, or, at a price, of all that any process has settled by now."""
        ...

    async def owners(self) -> list[UserId]:
        """Whoever has something here."""
        ...

    async def collect(self, owner: UserId, manifests: Callable[[], Awaitable[set[Digest]]]) -> int:
        """Remove what none of these manifests refers to; answers how many. Does nothing while somebody has it open."""
        ...


class Places(Protocol):
    """The sandboxes, as far as snapshots use them."""

    async def has_files(self, thread_id: ThreadId) -> bool: ...

    def is_awake(self, thread_id: ThreadId) -> bool:
        """Whether this process has used the thread's sandbox, and it still runs."""
        ...

    async def trees(self, thread_id: ThreadId, *, profile: str | None = None) -> Trees: ...

    async def release(self, thread_id: ThreadId) -> None: ...

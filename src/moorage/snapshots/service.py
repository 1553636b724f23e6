"""What a user can do with snapshots of their threads' files, and what is done for them when a run ends."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from moorage.claims import Claim
from moorage.errors import AppError, LimitExceeded
from moorage.ids import ThreadId, UserId
from moorage.paging import Page
from moorage.sandboxes.trees import Planted, TreeBounds, TreeRefused, Trees
from moorage.snapshots.manifest import Digest, Manifest
from moorage.snapshots.ports import (
    CopiedFiles,
    NewSnapshot,
    ObjectStore,
    Places,
    Snapshot,
    SnapshotDamaged,
    SnapshotKind,
    SnapshotNotFound,
    SnapshotTable,
    UserObjects,
)
from moorage.snapshots.taking import Picture, keep_manifest, read_manifest, take
from moorage.telemetry import get_logger
from moorage.threads import Thread, ThreadBusy

_AT_ONCE = 8
_AT_ONCE_OF_USER = 2
_RUN_SECONDS = 30.0

log = get_logger(__name__)


class SnapshotSpaceUsedUp(LimitExceeded):
    code = "snapshot_quota"


@dataclass(frozen=True, slots=True)
class SnapshotLimits:
    """`bounds` of one snapshot, and how many bytes all of a user's may take up; 0: any number."""

    bounds: TreeBounds
    user_bytes: int = 0


class Snapshots:
    """Takes and restores snapshots, a few at a time."""

    def __init__(
        self,
        table: SnapshotTable,
        objects: ObjectStore,
        places: Places,
        limits: SnapshotLimits,
        *,
        profile_of: Callable[[Thread], Awaitable[str | None]],
    ) -> None:
        """`profile_of` says under which profile a thread's sandbox has room for its files; None: any will do."""
        self._profile_of = profile_of
        self._table = table
        self._objects = objects
        self._places = places
        self._limits = limits
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._turns_of: WeakValueDictionary[UserId, asyncio.Semaphore] = WeakValueDictionary()

    async def take(self, thread: Thread, kind: SnapshotKind = SnapshotKind.REQUEST) -> Snapshot:
        """The thread's files as they are now, at its present checkpoint.

        Raises ThreadBusy when anything runs in the thread meanwhile, TreeRefused, SnapshotSpaceUsedUp or Unavailable.
        """
        as_of = await self._table.standing(thread)
        async with self._taken(thread.owner_id, thread.thread_id, kind) as (new, _):
            return await self._table.insert(thread.owner_id, thread.thread_id, new, as_of=as_of)

    async def after_run(self, claim: Claim) -> None:
        """Keep what a run that is about to end has done to the files, if it used a sandbox. Never fails.

        Nothing is kept of a thread whose files are as in its newest snapshot.
        """
        if not self._places.is_awake(claim.thread_id):
            return
        try:
            async with asyncio.timeout(_RUN_SECONDS):
                async with self._taken(claim.owner_id, claim.thread_id, SnapshotKind.RUN) as (new, is_new):
                    if is_new:
                        await self._table.insert(claim.owner_id, claim.thread_id, new, hold=claim)
        except TimeoutError:
            log.warning("snapshot_not_taken", thread_id=claim.thread_id, reason="it took too long")
        except AppError as error:
            log.warning("snapshot_not_taken", thread_id=claim.thread_id, code=error.code, reason=error.detail)

    async def get(self, thread: Thread, snapshot_id: str) -> Snapshot:
        """Raises SnapshotNotFound."""
        if (found := await self._table.find(thread, snapshot_id)) is None:
            raise SnapshotNotFound
        return found

    async def search(self, thread: Thread, *, limit: int, cursor: str | None) -> Page[Snapshot]:
        """The thread's snapshots, newest first."""
        return await self._table.search(thread, limit=limit, cursor=cursor)

    async def delete(self, thread: Thread, snapshot_id: str) -> None:
        """Raises SnapshotNotFound."""
        if not await self._table.delete(thread, snapshot_id):
            raise SnapshotNotFound
        await self._collect(thread.owner_id)

    async def restore(self, thread: Thread, snapshot: Snapshot) -> Planted:
        """Make the thread's files what they were then; its history stays. May be repeated when it breaks off.

        Raises ThreadBusy, also when something began to run meanwhile: that saw neither the old files nor these.
        """
        as_of = await self._table.standing(thread)
        planted = await self._plant(snapshot, thread.thread_id, await self._profile_of(thread))
        if await self._table.standing(thread) != as_of:
            raise ThreadBusy
        return planted

    async def _plant(self, snapshot: Snapshot, thread_id: ThreadId, profile: str | None) -> Planted:
        """Make the files of a thread of the same user those of the snapshot, and nothing else.

        Raises TreeRefused, PathError (`no_space`), SnapshotDamaged or Unavailable.
        """
        trees = await self._places.trees(thread_id, profile=profile)
        async with self._turn(snapshot.owner_id), self._objects.open(snapshot.owner_id) as objects:
            manifest = await read_manifest(objects, snapshot.content.manifest)
            if not manifest.entries and not await self._places.has_files(thread_id):
                return Planted(written=0, removed=0)
            if await objects.missing(set(manifest.digests.values())):
                raise SnapshotDamaged
            try:
                return await self._plant_changed(manifest, thread_id, trees, objects)
            except TreeRefused as error:
                if error.code != "workspace_changed":
                    raise
            # A file that was to stay was changed: look again.
            return await self._plant_changed(manifest, thread_id, trees, objects)

    async def copy_files(self, source: Thread, target: ThreadId, checkpoint_id: str | None = None) -> CopiedFiles:
        """Give `target`, which is new, the files that `source` has now, or those it had at an earlier checkpoint.

        The latter are the newest snapshot's at that checkpoint or before it. No sandbox is started for a thread that
        never had one. That of the target is stopped again. Raises what `take` and `restore` raise.
        """
        if checkpoint_id is not None:
            snapshot = await self._table.at(source, checkpoint_id)
            copied = CopiedFiles.SNAPSHOT
        elif await self._places.has_files(source.thread_id):
            snapshot = await self.take(source, SnapshotKind.COPY)
            copied = CopiedFiles.CURRENT
        else:
            return CopiedFiles.NONE
        if snapshot is None:
            return CopiedFiles.NONE
        await self._plant(snapshot, target, await self._profile_of(source))
        await self._places.release(target)
        return copied

    async def forget(self, owner: UserId, thread_id: ThreadId) -> None:
        """Remove all snapshots of a thread that is being deleted."""
        if await self._table.delete_all(owner, thread_id):
            await self._collect(owner)

    async def collect(self) -> int:
        """Remove contents that no snapshot of their user refers to any more; answers how many there were."""
        return sum([await self._collect(owner) for owner in await self._objects.owners()])

    async def _collect(self, owner: UserId) -> int:
        return await self._objects.collect(owner, lambda: self._table.manifests(owner))

    @asynccontextmanager
    async def _turn(self, owner: UserId) -> AsyncGenerator[None]:
        """Nobody's many large workspaces keep others waiting for long."""
        own = self._turns_of.setdefault(owner, asyncio.Semaphore(_AT_ONCE_OF_USER))
        async with own, self._turns:
            yield

    @asynccontextmanager
    async def _taken(
        self, owner: UserId, thread_id: ThreadId, kind: SnapshotKind
    ) -> AsyncGenerator[tuple[NewSnapshot, bool]]:
        """A snapshot that is kept while this is open, so that its row can come; and whether it tells anything new."""
        wanted = True
        try:
            async with self._turn(owner), self._objects.open(owner) as objects:
                try:
                    new, is_new, wanted = await self._keep(owner, thread_id, kind, objects)
                except SnapshotSpaceUsedUp:
                    wanted = not objects.added
                    raise
                yield new, is_new
        finally:
            if not wanted:
                await self._collect(owner)

    async def _keep(
        self, owner: UserId, thread_id: ThreadId, kind: SnapshotKind, objects: UserObjects
    ) -> tuple[NewSnapshot, bool, bool]:
        """A snapshot, whether it tells anything new, and whether all that was added for it is wanted."""
        newest, earlier = await self._earlier(owner, thread_id, objects)
        picture = await self._picture(owner, thread_id, objects, earlier)
        is_new = earlier is None or not await asyncio.to_thread(picture.manifest.same_as, earlier)
        digest = await keep_manifest(objects, picture.manifest)
        if not objects.added or not await self._is_full(owner, counted_now=True):
            return _new(kind, digest, picture), is_new, True
        if newest is None or is_new:
            raise self._no_space()
        return _new(kind, newest, picture), is_new, False

    async def _picture(
        self, owner: UserId, thread_id: ThreadId, objects: UserObjects, earlier: Manifest | None
    ) -> Picture:
        async def check_space() -> None:
            if await self._is_full(owner):
                raise self._no_space()

        if not await self._places.has_files(thread_id):
            return Picture()
        return await take(
            await self._places.trees(thread_id),
            objects,
            earlier=earlier or Manifest(),
            bounds=self._limits.bounds,
            check_space=check_space,
        )

    async def _earlier(
        self, owner: UserId, thread_id: ThreadId, objects: UserObjects
    ) -> tuple[Digest, Manifest] | tuple[None, None]:
        newest = await self._table.newest(owner, thread_id)
        if newest is None:
            return None, None
        try:
            return newest.content.manifest, await read_manifest(objects, newest.content.manifest)
        except SnapshotDamaged as error:
            log.error("snapshot_damaged", thread_id=thread_id, snapshot_id=newest.snapshot_id, reason=error.detail)
            return None, None

    async def _is_full(self, owner: UserId, *, counted_now: bool = False) -> bool:
        """Whether too much is there.

        Each snapshot counts when all of it is settled. Of several at once the last that has settled counts the others,
        too, so that those which are kept never pass the limit together.
        """
        limit = self._limits.user_bytes
        return bool(limit) and await self._objects.used_bytes(owner, counted_now=counted_now) > limit

    def _no_space(self) -> SnapshotSpaceUsedUp:
        megabytes = self._limits.user_bytes // (1024 * 1024)
        return SnapshotSpaceUsedUp(f"Your snapshots would take up more than {megabytes} MiB: delete some")

    async def _plant_changed(
        self, manifest: Manifest, thread_id: ThreadId, trees: Trees, objects: UserObjects
    ) -> Planted:
        return await trees.plant(
            manifest.entries,
            keep=await self._unchanged(manifest, thread_id, trees),
            read=lambda entry: objects.read(_digest(manifest, entry.path)),
            bounds=self._limits.bounds,
        )

    async def _unchanged(self, manifest: Manifest, thread_id: ThreadId, trees: Trees) -> set[bytes]:
        """The files that are there already."""
        if not await self._places.has_files(thread_id):
            return set()
        try:
            listing = await trees.list(self._limits.bounds)
        except TreeRefused:  # no reason not to make something better of it
            return set()
        known = {entry.path: entry for entry in manifest.entries if entry.type == "file"}
        return {entry.path for entry in listing.entries if known.get(entry.path) == entry}


def _digest(manifest: Manifest, path: bytes) -> Digest:
    return manifest.digests[path]


def _new(kind: SnapshotKind, manifest: Digest, picture: Picture) -> NewSnapshot:
    return NewSnapshot(
        kind=kind,
        manifest=manifest,
        files=picture.manifest.files,
        bytes=picture.manifest.size,
        added_bytes=picture.added_bytes,
        left_out=picture.left_out,
        missed=picture.missed,
    )

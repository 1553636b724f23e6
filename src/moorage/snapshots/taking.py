"""Taking a snapshot: what is in a workspace becomes a manifest, and what is new of it is fetched."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from moorage.sandboxes.trees import Listing, Piece, TreeBounds, TreeEntry, TreeRefused, Trees, Verdict
from moorage.snapshots.manifest import Digest, Manifest
from moorage.snapshots.ports import SnapshotDamaged, UserObjects

_ROUNDS = 3
_NEVER = 0  # a time of change that no file has: such a file is fetched again next time

type _Known = dict[bytes, tuple[tuple[int, int, int], Digest]]


@dataclass(slots=True)
class Picture:
    """What came of it: see `NewSnapshot`."""

    manifest: Manifest = field(default_factory=Manifest)
    added_bytes: int = 0
    left_out: int = 0
    missed: int = 0


async def take(
    trees: Trees,
    objects: UserObjects,
    *,
    earlier: Manifest,
    bounds: TreeBounds,
    check_space: Callable[[], Awaitable[None]],
) -> Picture:
    """The files as they are now. Nothing is fetched of those that are as in `earlier`.

    Each file is of one moment. One that changes under the reader is asked for again, and missed if it goes on so.
    `check_space` is asked before anything is added and after each file that was: it raises an error to end this.
    """
    return await _Taking(trees, objects, bounds, check_space).take(earlier)


class _Taking:
    """`young` are files that may change without showing it."""

    def __init__(
        self, trees: Trees, objects: UserObjects, bounds: TreeBounds, check_space: Callable[[], Awaitable[None]]
    ) -> None:
        self._trees = trees
        self._objects = objects
        self._bounds = bounds
        self._check_space = check_space
        self._known: _Known = {}
        self._young: set[bytes] = set()
        self._unreadable: set[bytes] = set()
        self._added = 0

    async def take(self, earlier: Manifest) -> Picture:
        await self._remember(earlier)
        listing = await self._trees.list(self._bounds)
        for _ in range(_ROUNDS):
            if not (wanted := self._wanted(listing)) or await self._fetch(wanted):
                break
            listing = await self._trees.list(self._bounds)
        return self._picture(listing)

    async def _remember(self, earlier: Manifest) -> None:
        missing = await self._objects.missing(set(earlier.digests.values()))
        for entry in earlier.entries:
            digest = earlier.digests.get(entry.path)
            if digest is not None and digest not in missing:
                self._known[entry.path] = (entry.identity, digest)

    def _wanted(self, listing: Listing) -> list[TreeEntry]:
        return [
            entry
            for entry in listing.entries
            if entry.type == "file" and not self._knows(entry) and entry.path not in self._unreadable
        ]

    def _knows(self, entry: TreeEntry) -> bool:
        known = self._known.get(entry.path)
        return known is not None and known[0] == entry.identity

    async def _fetch(self, wanted: Sequence[TreeEntry]) -> bool:
        """Whether all could be had."""
        await self._check_space()
        whole = True
        async with self._trees.fetch(wanted) as files:
            async for file in files:
                stored = await self._objects.add(file.pieces)
                if stored.added:
                    self._added += stored.added
                    await self._check_space()
                match file.verdict:
                    case Verdict.WHOLE | Verdict.YOUNG:
                        self._known[file.entry.path] = (file.entry.identity, stored.digest)
                        if file.verdict is Verdict.YOUNG:
                            self._young.add(file.entry.path)
                    case Verdict.UNREADABLE:
                        self._unreadable.add(file.entry.path)
                    case Verdict.CHANGED:
                        whole = False
        return whole

    def _picture(self, listing: Listing) -> Picture:
        picture = Picture(added_bytes=self._added, left_out=listing.left_out)
        for entry in listing.entries:
            if entry.type != "file":
                picture.manifest.entries.append(entry)
            elif self._knows(entry):
                kept = replace(entry, ctime_ns=_NEVER) if entry.path in self._young else entry
                picture.manifest.entries.append(kept)
                picture.manifest.digests[entry.path] = self._known[entry.path][1]
            elif entry.path in self._unreadable:
                picture.left_out += 1
            else:
                picture.missed += 1
        return picture


async def read_manifest(objects: UserObjects, digest: Digest) -> Manifest:
    """Raises SnapshotDamaged."""
    data = b"".join([piece if isinstance(piece, bytes) else bytes(piece) async for piece in objects.read(digest)])
    try:
        return await asyncio.to_thread(Manifest.decode, data)  # may be long
    except (ValueError, TreeRefused) as error:
        raise SnapshotDamaged from error


async def keep_manifest(objects: UserObjects, manifest: Manifest) -> Digest:
    """Under which digest it is to be found, it and all that it refers to being on the disk."""

    data = await asyncio.to_thread(manifest.encode)

    async def pieces() -> AsyncGenerator[Piece]:
        yield data

    stored = await objects.add(pieces())
    await objects.settle()
    return stored.digest

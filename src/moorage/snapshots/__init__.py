"""Snapshots: a thread's files as they were at one of its checkpoints, kept by the server, to be had again."""

from moorage.snapshots.manifest import Digest, Manifest, digests_in
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
    Stored,
    UserObjects,
)
from moorage.snapshots.service import SnapshotLimits, Snapshots, SnapshotSpaceUsedUp

__all__ = [
    "CopiedFiles",
    "Digest",
    "Manifest",
    "NewSnapshot",
    "ObjectStore",
    "Places",
    "Snapshot",
    "SnapshotDamaged",
    "SnapshotKind",
    "SnapshotLimits",
    "SnapshotNotFound",
    "SnapshotSpaceUsedUp",
    "SnapshotTable",
    "Snapshots",
    "Stored",
    "UserObjects",
    "digests_in",
]

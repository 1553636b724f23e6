"""Snapshots of a session's files."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from moorage.snapshots import Snapshot
from moorage_api.deps import RuntimeDep, ThreadDep
from moorage_api.downloads import WRITTEN

router = APIRouter(prefix="/api/sessions/{thread_id}/snapshots", tags=["snapshots"])


class ShownSnapshot(BaseModel):
    """A session's files as they were at its checkpoint `checkpoint_id` (null: before the first). Sizes in bytes.

    `added_bytes` were new to the server. `left_out` counts what cannot be kept, such as pipes, `missed` files that kept
    changing while they were read. `kind`: somebody asked for it, a run ended, or the session was copied.
    """

    snapshot_id: str
    thread_id: str
    checkpoint_id: str | None
    kind: Literal["request", "run", "copy"]
    files: int
    bytes: int
    added_bytes: int
    left_out: int
    missed: int
    created_at: str


class SnapshotList(BaseModel):
    items: list[ShownSnapshot]
    next_cursor: str | None


class Restored(BaseModel):
    """How many files were written again, and how many files, folders and links removed."""

    snapshot_id: str
    written: int
    removed: int


@router.post("", status_code=201)
async def take_snapshot(runtime: RuntimeDep, thread: ThreadDep) -> ShownSnapshot:
    """Keep the session's files as they are now. Of a session the newest 50 snapshots are kept.

    409 `thread_busy` while something runs, or `too_many_files`, `too_deep` and `workspace_too_large`; 429
    `snapshot_quota` when all of the user's take up too much.
    """
    return shown_snapshot(await runtime.snapshots.take(thread))


@router.get("")
async def list_snapshots(
    runtime: RuntimeDep,
    thread: ThreadDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> SnapshotList:
    """The session's snapshots, newest first."""
    page = await runtime.snapshots.search(thread, limit=limit, cursor=cursor)
    return SnapshotList(items=[shown_snapshot(item) for item in page.items], next_cursor=page.next_cursor)


@router.delete("/{snapshot_id}", status_code=204)
async def delete_snapshot(runtime: RuntimeDep, thread: ThreadDep, snapshot_id: str) -> Response:
    """Forget a snapshot; what no other one needs of it is removed from the disk."""
    await runtime.snapshots.delete(thread, snapshot_id)
    return Response(status_code=204)


@router.post("/{snapshot_id}/restore", responses=WRITTEN)
async def restore_snapshot(runtime: RuntimeDep, thread: ThreadDep, snapshot_id: str) -> Restored:
    """Make the session's files what they were in the snapshot: what came later is removed, history and state stay.

    409 `thread_busy` while something runs, or when something began meanwhile. What broke off may be repeated.
    """
    snapshot = await runtime.snapshots.get(thread, snapshot_id)
    planted = await runtime.snapshots.restore(thread, snapshot)
    return Restored(snapshot_id=snapshot.snapshot_id, written=planted.written, removed=planted.removed)


def shown_snapshot(snapshot: Snapshot) -> ShownSnapshot:
    content = snapshot.content
    return ShownSnapshot(
        snapshot_id=snapshot.snapshot_id,
        thread_id=snapshot.thread_id,
        checkpoint_id=snapshot.checkpoint_id,
        kind=content.kind.value,
        files=content.files,
        bytes=content.bytes,
        added_bytes=content.added_bytes,
        left_out=content.left_out,
        missed=content.missed,
        created_at=snapshot.created_at.isoformat(),
    )

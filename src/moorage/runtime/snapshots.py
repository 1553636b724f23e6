"""Snapshots and copies put together."""

from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from moorage.adapters.postgres.copies import PostgresCopyStore
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.snapshots import PostgresSnapshots
from moorage.adapters.snapshot_files import SnapshotFiles
from moorage.agent.states import Place, States
from moorage.copies import Copies, Moment
from moorage.errors import NotFound
from moorage.ids import ThreadId, owner_of
from moorage.runs.executor import LoadAssistant
from moorage.sandboxes.profiles import SandboxProfile
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.trees import TreeBounds
from moorage.settings import Settings
from moorage.snapshots import SnapshotLimits, Snapshots
from moorage.threads import Thread

_MIB = 1024 * 1024


def make_snapshots(
    settings: Settings,
    database: Database,
    files: SnapshotFiles,
    sandboxes: Sandboxes,
    profiles: Mapping[str, SandboxProfile],
    load_assistant: LoadAssistant,
) -> Snapshots:
    """A snapshot may be as large as the largest workspace."""

    async def profile_of(thread: Thread) -> str | None:
        try:
            assistant = await load_assistant(thread.owner_id, thread.assistant_id)
        except NotFound:  # it is gone, the thread's files are not
            return None
        profile = assistant.configuration.sandbox_profile
        return profile if profile in profiles else None

    bounds = TreeBounds(
        max_files=max(profile.max_files for profile in profiles.values()),
        max_bytes=max(profile.disk_mb for profile in profiles.values()) * _MIB,
    )
    limits = SnapshotLimits(bounds, user_bytes=settings.snapshot_user_mb * _MIB)
    return Snapshots(PostgresSnapshots(database), files, sandboxes, limits, profile_of=profile_of)


def make_copies(
    settings: Settings, database: Database, states: States, sandboxes: Sandboxes, snapshots: Snapshots
) -> Copies:
    return Copies(
        PostgresCopyStore(database, session_life=timedelta(hours=settings.session_life_hours)),
        quota=settings.quota_active_sessions,
        find_moment=partial(find_moment, states),
        copy_files=snapshots.copy_files,
        remove_files=sandboxes.delete,
    )


async def find_moment(states: States, thread: Thread, checkpoint_id: str) -> Moment:
    """Raises UnknownCheckpoint."""
    state = await states.at(thread, Place(checkpoint_id))
    messages = state.values.get("messages", [])
    ids = [message["id"] for message in messages if isinstance(message.get("id"), str)]
    values = {name: value for name, value in state.values.items() if name != "messages"}
    return Moment(checkpoint_id, ids, values, state.is_latest)


async def remove_all_files(sandboxes: Sandboxes, snapshots: Snapshots, thread_id: ThreadId) -> None:
    """The sandbox and files of a thread that is being deleted, and its snapshots."""
    await sandboxes.delete(thread_id)
    if (owner := owner_of(thread_id)) is not None:
        await snapshots.forget(owner, thread_id)

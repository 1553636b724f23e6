"""What the HTTP layer and the command line work with."""

import asyncio
from dataclasses import dataclass

from moorage.adapters.folders.room import low_disk
from moorage.adapters.postgres.pool import Database
from moorage.agent.graph_views import GraphViews
from moorage.agent.states import States
from moorage.approvals import Approvals
from moorage.assistants import Assistants
from moorage.copies import Copies
from moorage.crons import Crons
from moorage.deliveries import Deliveries
from moorage.files import Files
from moorage.identity import Identity
from moorage.rules import RuleBook
from moorage.runs.ports import EventLog
from moorage.runs.service import Runs
from moorage.runtime.administration import Administration
from moorage.runtime.intake import Intake, ServerStopping, WorkerState
from moorage.runtime.providers import disk_of_broker
from moorage.settings import Settings
from moorage.snapshots import Snapshots
from moorage.store import Store
from moorage.thread_lists import ThreadLists
from moorage.threads import Threads


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything that a process offers, and whether it still takes work."""

    settings: Settings
    identity: Identity
    threads: Threads
    thread_lists: ThreadLists
    states: States
    approvals: Approvals
    rules: RuleBook
    snapshots: Snapshots
    copies: Copies
    files: Files
    assistants: Assistants
    graph_views: GraphViews
    store: Store
    runs: Runs
    crons: Crons
    deliveries: Deliveries
    administration: Administration
    event_log: EventLog
    sandbox_kind: str
    sandbox_note: str | None
    model_name: str
    database: Database
    database_url: str
    executes: bool
    worker_name: str
    intake: Intake

    @property
    def draining(self) -> bool:
        """Whether this process was told to stop."""
        return not self.intake.is_open

    @property
    def worker_state(self) -> WorkerState:
        """What this process does for runs: execute them, finish what it executes, or nothing."""
        if not self.executes:
            return "none"
        return "draining" if self.draining else "ok"

    def stop_accepting(self) -> None:
        """Take no new work, end all event streams, and let what runs come to its end: the process is to stop."""
        self.intake.close()
        self.stop_readers()

    def check_accepting(self) -> None:
        """Raise ServerStopping after `stop_accepting`."""
        if self.draining:
            raise ServerStopping

    def stop_readers(self) -> None:
        """End all event streams."""
        self.event_log.close_readers()

    async def check_ready(self) -> None:
        """Raise Unavailable when the database does not answer."""
        await self.database.ping()

    async def disk_state(self) -> str:
        """`ok`, or in words how little room is left for new workspaces, on a broker's disk if there is one."""
        if self.settings.sandbox_broker is not None:
            return await disk_of_broker(self.settings.sandbox_broker)
        try:
            return await asyncio.to_thread(low_disk, self.settings.workspace_root) or "ok"
        except OSError as error:
            return f"WORKSPACE_ROOT: {error.strerror}"

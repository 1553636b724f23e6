"""What a worker holds while it executes a run, and how it learns that it must stop."""

from dataclasses import dataclass, field
from enum import StrEnum

from moorage.errors import Conflict
from moorage.ids import RunId, ThreadId, UserId


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to write for one run. `generation` grows with every claim, so an older holder can be told apart.

    So does `fencing_token`, over all runs: a sandbox tells by it who came later. None where the server itself writes.
    """

    run_id: RunId
    thread_id: ThreadId
    owner_id: UserId
    generation: int
    fencing_token: int | None = field(default=None, compare=False)


class ClaimLost(Conflict):
    """Another worker holds the run now, or it ended, or its thread is gone: write nothing more, start nothing more."""

    code = "claim_lost"


class StopReason(StrEnum):
    """Why a run is asked to stop before it is done."""

    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    SHUTDOWN = "shutdown"
    DELETED = "deleted"
    INTERRUPT = "interrupt"  # a newer message wants its turn; what this run did stays
    ROLLBACK = "rollback"  # a newer message wants its turn; what this run did is undone

"""One group-commit writer per process for the events of all runs.

`seq` is assigned under the lock of the thread's row, in the transaction that inserts the event, so commit order is seq
order and no reader skips one. While Postgres is away what was said waits. When the answer to a commit is lost, the
events may be stored all the same: the next try asks, under the thread's lock, before it stores them again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import AsyncConnection

from moorage.adapters.postgres.event_rows import Placed, insert_events, place
from moorage.adapters.postgres.patience import PATIENCE_SECONDS
from moorage.adapters.postgres.pool import Database
from moorage.claims import Claim, ClaimLost
from moorage.errors import AppError, Unavailable
from moorage.events import RunEvent, StoredEvent
from moorage.telemetry import get_logger

_STOPPING = "The server is shutting down"
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_BEYOND_LIMITS = "54"  # SQLSTATE class "program limit exceeded", which psycopg counts among what may pass

log = get_logger(__name__)

type Row = dict[str, Any]

# Two statements: one that waits for a row lock still sees other tables, here the runs, as they were before the wait.
_LOCK = "SELECT FROM threads WHERE thread_id = ANY(%s) ORDER BY thread_id FOR NO KEY UPDATE"

_ARRIVED = """
SELECT e.thread_id, e.seq FROM unnest(%s::text[], %s::bigint[], %s::uuid[], %s::bigint[], %s::text[])
    AS tried(thread_id, seq, run_id, generation, data)
JOIN run_events e USING (thread_id, seq, run_id, generation, data)
"""

_COUNT = """
UPDATE threads t SET last_seq = t.last_seq + w.events, message_count = t.message_count + w.messages
FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::int[], %s::int[])
    AS w(thread_id, run_id, generation, events, messages)
JOIN runs r ON r.run_id = w.run_id AND r.generation = w.generation AND r.status = 'running'
WHERE t.thread_id = w.thread_id AND r.thread_id = w.thread_id
RETURNING w.run_id, w.generation, t.last_seq - w.events AS before
"""


@dataclass(slots=True, eq=False)
class _Append:
    claim: Claim
    events: Sequence[RunEvent]
    done: asyncio.Future[None]
    since: float
    tried_at: int | None = None
    """The seq that its first event had in the last try: a try whose commit may have arrived."""

    def placed_as_tried(self) -> list[Placed]:
        return place(self.claim, self.events, before=self.tried_at - 1) if self.tried_at else []

    def succeed(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: AppError) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class EventWriter:
    """Appends of all runs, committed together; `write_forever` must run beside it."""

    def __init__(
        self,
        database: Database,
        *,
        publish: Callable[[Sequence[StoredEvent]], None],
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        """`publish` gets events after their commit. An append fails when Postgres is away for `patience` seconds."""
        self._database = database
        self._publish = publish
        self._patience = patience
        self._waiting: list[_Append] = []
        self._storing: list[_Append] = []
        self._work = asyncio.Event()
        self._stopped = False

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        """Return after the commit; raises ClaimLost, or Unavailable when the events cannot be stored."""
        if self._stopped:
            raise Unavailable(_STOPPING)
        if not events:
            return
        done = asyncio.get_running_loop().create_future()
        self._waiting.append(_Append(claim, events, done, time.monotonic()))
        self._work.set()
        await done

    async def write_forever(self) -> None:
        """Commit what waits, all of it at once, for as long as the process lives. The next batch gathers meanwhile."""
        try:
            while True:
                await self._work.wait()
                await self._store_all()
        finally:  # nobody may wait for a writer that is gone
            self._stopped = True
            for item in [*self._storing, *self._waiting]:
                item.fail(Unavailable(_STOPPING))

    async def _store_all(self) -> None:
        """Store what waits, and what comes meanwhile, until nothing is left."""
        pause = _FIRST_PAUSE
        while self._take_waiting():
            try:
                await self._commit(self._storing)
                self._storing = []
                pause = _FIRST_PAUSE
            except (AppError, psycopg.Error, ValueError) as error:
                if not _is_final(error) and not await self._reachable():
                    self._storing = self._still_patient(self._storing, error)
                else:
                    self._storing = await self._store_one_by_one(self._storing)
                if self._storing:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)

    def _take_waiting(self) -> bool:
        self._work.clear()
        self._storing += self._waiting
        self._waiting = []
        return bool(self._storing)

    async def _store_one_by_one(self, batch: list[_Append]) -> list[_Append]:
        """What one run wrote must not fail the others that share its commit. Answers what must be tried again."""
        again: list[_Append] = []
        for item in batch:
            if any(item.claim == other.claim for other in again):
                again.append(item)  # not before what its run said earlier
                continue
            try:
                await self._commit([item])
            except (AppError, psycopg.Error, ValueError) as error:
                if _is_final(error):
                    log.error("event_log_write_failed", run_id=item.claim.run_id, error=_name(error))
                    item.fail(Unavailable("The event could not be stored"))
                else:
                    again += self._still_patient([item], error)
        return again

    def _still_patient(self, batch: list[_Append], error: Exception) -> list[_Append]:
        """Fail what has waited for too long; answers the rest, which waits on."""
        log.warning("event_log_waits", appends=len(batch), error=_name(error))
        now = time.monotonic()
        for item in batch:
            if now - item.since > self._patience:
                item.fail(Unavailable("The event could not be stored"))
        return [item for item in batch if not item.done.done()]

    async def _reachable(self) -> bool:
        try:
            await self._database.ping()
        except Unavailable:
            return False
        return True

    async def _commit(self, batch: list[_Append]) -> None:
        async with self._database.system_pipeline() as connection:
            await connection.execute(_LOCK, [list({item.claim.thread_id for item in batch})])
            arrived = await _arrived(connection, [item for item in batch if item.tried_at])
            fresh = [item for item in batch if item not in arrived]
            before = await _count(connection, fresh) if fresh else {}
            held = [item for item in fresh if item.claim in before]
            placed = _place_all(held, before)
            await insert_events(connection, placed)
        found = [placed for item in batch if item in arrived for placed in item.placed_as_tried()]
        self._publish([item.stored() for item in [*found, *placed]])
        for item in batch:
            if item in arrived or item.claim in before:
                item.succeed()
            else:
                item.fail(ClaimLost("This run is not this worker's any more"))


async def _arrived(connection: AsyncConnection[Row], tried: Sequence[_Append]) -> set[_Append]:
    """Which appends are stored since an earlier try. The lock that the caller holds waited for that try's end.

    An append is stored whole or not at all, so its first event tells.
    """
    if not tried:
        return set()
    by_place = {(item.claim.thread_id, item.tried_at): item for item in tried}
    columns = [
        [item.claim.thread_id for item in tried],
        [item.tried_at for item in tried],
        [item.claim.run_id for item in tried],
        [item.claim.generation for item in tried],
        [item.events[0].data.decode() for item in tried],
    ]
    rows = await (await connection.execute(_ARRIVED, columns)).fetchall()
    return {by_place[row["thread_id"], row["seq"]] for row in rows}


async def _count(connection: AsyncConnection[Row], batch: Sequence[_Append]) -> dict[Claim, int]:
    """Number the events of the claims that still hold: answers the seq after which each may write."""
    by_claim: dict[Claim, list[RunEvent]] = {}
    for item in batch:
        by_claim.setdefault(item.claim, []).extend(item.events)
    columns = [
        [claim.thread_id for claim in by_claim],
        [claim.run_id for claim in by_claim],
        [claim.generation for claim in by_claim],
        [len(events) for events in by_claim.values()],
        [sum(event.message is not None for event in events) for events in by_claim.values()],
    ]
    rows = await (await connection.execute(_COUNT, columns)).fetchall()
    held = {(str(row["run_id"]), row["generation"]): row["before"] for row in rows}
    pairs = {claim: (str(claim.run_id), claim.generation) for claim in by_claim}
    return {claim: held[pair] for claim, pair in pairs.items() if pair in held}


def _place_all(batch: Sequence[_Append], before: dict[Claim, int]) -> list[Placed]:
    at = dict(before)
    placed: list[Placed] = []
    for item in batch:
        item.tried_at = at[item.claim] + 1
        placed += item.placed_as_tried()
        at[item.claim] += len(item.events)
    return placed


def _is_final(error: Exception) -> bool:
    """Whether trying again would only fail again. ValueError: text that psycopg cannot send."""
    cause = error.__cause__
    beyond_limits = isinstance(cause, psycopg.Error) and (cause.sqlstate or "").startswith(_BEYOND_LIMITS)
    return beyond_limits or not isinstance(error, Unavailable)


def _name(error: Exception) -> str:
    return type(error.__cause__ or error).__name__

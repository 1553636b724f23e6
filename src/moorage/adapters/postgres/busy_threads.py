"""Which threads have work, and which are there at all: for whoever would stop or remove their sandboxes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, LiteralString

from psycopg import AsyncConnection

from moorage.adapters.postgres.patience import patiently
from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.sandbox_uses import marked_use
from moorage.errors import Unavailable
from moorage.ids import ThreadId, owner_of, user_place
from moorage.sandboxes.port import fencing_token
from moorage.telemetry import get_logger

_BUSY = "SELECT DISTINCT thread_id FROM runs WHERE thread_id = ANY(%s) AND status IN ('queued', 'running')"

_USED = "SELECT DISTINCT thread_id FROM sandbox_uses WHERE thread_id = ANY(%s) AND until > now()"

# Whoever submits a run, or answers an approval, locks the thread first.
_HOLD = "SELECT thread_id FROM threads WHERE thread_id = ANY(%s) ORDER BY thread_id FOR NO KEY UPDATE SKIP LOCKED"

# Those that are being copied come soon: their files, and so their sandboxes, are there before their rows.
_EXISTING = """
WITH asked AS (SELECT unnest(%s::text[]) AS thread_id)
SELECT thread_id FROM asked WHERE EXISTS (SELECT FROM threads t WHERE t.thread_id = asked.thread_id)
    OR EXISTS (SELECT FROM coming_threads c WHERE c.thread_id = asked.thread_id AND c.until > now())
"""

_USERS = "SELECT user_id FROM users WHERE user_id = ANY(%s)"

log = get_logger(__name__)


class BusyThreads:
    """`moorage.sandboxes.work.Work`: asks over all servers and workers of the database, whoever owns the threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those of `thread_ids` that have a queued or running run; raises Unavailable."""
        async with self._database.system_transaction() as connection:
            return await _found(connection, _BUSY, thread_ids)

    @asynccontextmanager
    async def hold_idle(self, thread_ids: Collection[ThreadId]) -> AsyncGenerator[set[ThreadId]]:
        """Those that have none, and get none before the end of the block: their rows are locked meanwhile.

        Nor those whose sandbox somebody says to be using.

        Runs wait for a Postgres that is away. One that goes away within the block locks nothing any more, which is no
        error at its end: what was done under the lock is done.
        """
        async with AsyncExitStack() as holding:
            yield await _as_a_run_may_wait(lambda: self._hold(thread_ids, holding))

    async def _hold(self, thread_ids: Collection[ThreadId], holding: AsyncExitStack) -> set[ThreadId]:
        async with AsyncExitStack() as trying:
            connection = await trying.enter_async_context(self._database.system_transaction())
            held = await _found(connection, _HOLD, thread_ids)
            others = await _found(connection, _EXISTING, set(thread_ids) - held)  # somebody works on their rows
            used = await _found(connection, _USED, thread_ids)
            idle = set(thread_ids) - others - used - await _found(connection, _BUSY, thread_ids)
            holding.push_async_callback(_let_go, trying.pop_all())
            return idle

    @asynccontextmanager
    async def in_use(self, thread_id: ThreadId) -> AsyncGenerator[None]:
        """Tells that its sandbox is used, when that takes longer than a second. Of runs their rows tell it."""
        owner = owner_of(thread_id)
        if owner is None or fencing_token.get() is not None:
            yield
            return
        async with marked_use(self._database, owner, thread_id):
            yield

    async def existing(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those that are there, and of users' own places those whose user is. Runs wait for a Postgres that is away."""
        return await _as_a_run_may_wait(lambda: self._existing(thread_ids))

    async def _existing(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        places = {thread_id: owner for thread_id in thread_ids if (owner := _owner_of_place(thread_id))}
        async with self._database.system_transaction() as connection:
            found = await _found(connection, _EXISTING, set(thread_ids) - places.keys())
            users = await (await connection.execute(_USERS, [list(places.values())])).fetchall()
        alive = {row["user_id"] for row in users}
        return found | {thread_id for thread_id, owner in places.items() if owner in alive}


def _owner_of_place(thread_id: ThreadId) -> str | None:
    owner = owner_of(thread_id)
    return owner if owner is not None and user_place(owner) == thread_id else None


async def _as_a_run_may_wait[T](action: Callable[[], Awaitable[T]]) -> T:
    """What it answers, patiently in the name of a run; whoever else asks is told of a Postgres that is away."""
    return await (action() if fencing_token.get() is None else patiently(action))


async def _let_go(held: AsyncExitStack) -> None:
    """End a transaction that stored nothing."""
    try:
        await held.aclose()
    except Unavailable as error:
        log.warning("idle_threads_not_held_to_the_end", reason=error.detail)


async def _found(
    connection: AsyncConnection[dict[str, Any]], statement: LiteralString, thread_ids: Collection[ThreadId]
) -> set[ThreadId]:
    rows = await (await connection.execute(statement, [list(thread_ids)])).fetchall()
    return {ThreadId(row["thread_id"]) for row in rows}

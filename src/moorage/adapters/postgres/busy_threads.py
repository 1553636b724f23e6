"""Which threads have work: for whoever would stop their sandboxes."""

from collections.abc import Collection

from moorage.adapters.postgres.pool import Database
from moorage.ids import ThreadId

_BUSY = "SELECT DISTINCT thread_id FROM runs WHERE thread_id = ANY(%s) AND status IN ('queued', 'running')"


class BusyThreads:
    """Asks over all servers and workers of the database, whoever owns the threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def among(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those of `thread_ids` that have a queued or running run; raises Unavailable."""
        async with self._database.system_transaction() as connection:
            rows = await (await connection.execute(_BUSY, [list(thread_ids)])).fetchall()
        return {ThreadId(row["thread_id"]) for row in rows}

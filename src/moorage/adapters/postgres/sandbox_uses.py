"""Who uses a sandbox outside of any run, told to all processes while it takes long: nobody is to stop it meanwhile."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from psycopg.errors import ForeignKeyViolation

from moorage.adapters.postgres.pool import Database
from moorage.errors import Unavailable
from moorage.ids import ThreadId, UserId
from moorage.telemetry import get_logger

_AFTER_SECONDS = 1.0  # most uses are over by then, and cost nothing
_MARK_SECONDS = 30.0  # what a process that died used is free again after that
_PAUSE_SECONDS = 10.0

_MARK = """
INSERT INTO sandbox_uses (use_id, thread_id, owner_id, until) VALUES (%s, %s, %s, now() + make_interval(secs => %s))
ON CONFLICT (use_id) DO UPDATE SET until = EXCLUDED.until
"""
_FORGET_OLD = "DELETE FROM sandbox_uses WHERE owner_id = %s AND until <= now()"
_FORGET = "DELETE FROM sandbox_uses WHERE use_id = %s"

log = get_logger(__name__)


@asynccontextmanager
async def marked_use(database: Database, owner: UserId, thread_id: ThreadId) -> AsyncGenerator[None]:
    """Until the end of the block; a Postgres that is away does not hinder the use itself."""
    marking = asyncio.create_task(_keep_marked(database, owner, thread_id))
    try:
        yield
    finally:
        marking.cancel()
        await asyncio.wait([marking])
        if not marking.cancelled() and (error := marking.exception()) is not None:
            log.error("sandbox_use_not_marked", thread_id=thread_id, exc_info=error)


async def _keep_marked(database: Database, owner: UserId, thread_id: ThreadId) -> None:
    await asyncio.sleep(_AFTER_SECONDS)
    use_id = uuid.uuid4()
    try:
        while True:
            try:
                async with database.tenant_pipeline(owner) as connection:
                    await connection.execute(_FORGET_OLD, [owner])
                    await connection.execute(_MARK, [use_id, thread_id, owner, _MARK_SECONDS])
            except Unavailable as error:
                log.warning("sandbox_use_not_marked", thread_id=thread_id, reason=error.detail)
            except ForeignKeyViolation:  # the user was deleted: so are their sandboxes
                return
            await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        try:
            async with database.tenant_pipeline(owner) as connection:
                await connection.execute(_FORGET, [use_id])
        except Unavailable as error:  # it ends by itself
            log.warning("sandbox_use_still_marked", thread_id=thread_id, reason=error.detail)

"""What webhooks are to be told, in Postgres."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.adapters.postgres.pool import Database
from moorage.deliveries import ATTEMPTS, PAUSES, Delivery
from moorage.events import encode
from moorage.ids import RunId, ThreadId, UserId

type Row = dict[str, Any]

_KEPT = timedelta(days=7)
_BATCH = 1000

_ENQUEUE = """
INSERT INTO webhook_deliveries (owner_id, thread_id, run_id, url, checkpoint_id, payload)
SELECT r.owner_id, r.thread_id, r.run_id, r.webhook,
    (SELECT max(c.checkpoint_id) FROM checkpoints c WHERE c.thread_id = r.thread_id AND c.checkpoint_ns = ''),
    jsonb_build_object('run_id', r.run_id, 'thread_id', COALESCE(t.wire_id, t.thread_id),
        'assistant_id', r.assistant_id, 'status', r.status, 'metadata', r.metadata, 'kwargs', r.kwargs,
        'multitask_strategy', r.multitask_strategy, 'cancel_reason', r.stop_reason, 'error', r.error,
        'created_at', r.created_at, 'updated_at', r.finished_at, 'run_started_at', r.started_at,
        'run_ended_at', r.finished_at)
FROM runs r JOIN threads t USING (thread_id) WHERE r.run_id = ANY(%s::uuid[]) AND r.webhook IS NOT NULL
"""

_CLAIM = """
WITH owners AS (
    SELECT DISTINCT owner_id FROM webhook_deliveries
    WHERE state = 'pending' AND next_attempt_at <= now() AND owner_id <> ALL(%(busy)s::text[])
), due AS (
    SELECT d.delivery_id FROM owners o CROSS JOIN LATERAL (
        SELECT delivery_id, next_attempt_at FROM webhook_deliveries
        WHERE owner_id = o.owner_id AND state = 'pending' AND next_attempt_at <= now() AND attempts < %(attempts)s
        ORDER BY next_attempt_at LIMIT %(each)s FOR UPDATE SKIP LOCKED
    ) d ORDER BY d.next_attempt_at LIMIT %(limit)s
)
UPDATE webhook_deliveries d
SET attempts = attempts + 1, next_attempt_at = now() + (%(pauses)s::interval[])[attempts + 1]
FROM due WHERE d.delivery_id = due.delivery_id
RETURNING d.delivery_id, d.owner_id, d.thread_id, d.url, d.payload, d.checkpoint_id, d.attempts
"""

_THIS = "WHERE delivery_id = %(id)s AND attempts = %(attempt)s AND state = 'pending'"

_KEEP = f"UPDATE webhook_deliveries SET payload = %(payload)s {_THIS}"  # noqa: S608

_DELIVERED = f"""
UPDATE webhook_deliveries SET state = 'delivered', finished_at = now(), last_error = NULL, payload = '{{}}' {_THIS}
"""  # noqa: S608 -- constant parts

_FAILED = f"""
UPDATE webhook_deliveries SET last_error = %(reason)s,
    state = CASE WHEN %(for_good)s THEN 'failed' ELSE state END,
    finished_at = CASE WHEN %(for_good)s THEN now() END,
    payload = CASE WHEN %(for_good)s THEN '{{}}' ELSE payload END
{_THIS}
"""  # noqa: S608 -- constant parts

_GIVE_UP = """
UPDATE webhook_deliveries SET state = 'failed', finished_at = now(), payload = '{}',
    last_error = COALESCE(last_error, 'The server died while it was sent')
WHERE state = 'pending' AND attempts >= %s AND next_attempt_at <= now()
"""

_FORGET = """
DELETE FROM webhook_deliveries WHERE delivery_id IN (
    SELECT delivery_id FROM webhook_deliveries WHERE finished_at < now() - %s LIMIT %s)
"""


async def enqueue_deliveries(connection: AsyncConnection[Row], run_ids: Sequence[RunId]) -> None:
    """Note in the transaction that ended these runs whom to tell; nothing for runs without a webhook."""
    await connection.execute(_ENQUEUE, [list(run_ids)])


class PostgresDeliveryTable:
    """`moorage.deliveries.DeliveryTable` on Postgres."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, *, limit: int, each: int, busy: Sequence[UserId]) -> list[Delivery]:
        values = {"limit": limit, "each": each, "busy": list(busy), "attempts": ATTEMPTS, "pauses": list(PAUSES)}
        async with self._database.system_transaction() as connection:
            rows = await (await connection.execute(_CLAIM, values)).fetchall()
        return [_delivery(row) for row in rows]

    async def keep(self, delivery: Delivery, payload: Mapping[str, Any]) -> None:
        await self._settle(_KEEP, delivery, payload=Jsonb(dict(payload), dumps=encode))

    async def delivered(self, delivery: Delivery) -> None:
        await self._settle(_DELIVERED, delivery)

    async def failed(self, delivery: Delivery, reason: str, *, for_good: bool) -> None:
        given_up = for_good or delivery.attempt >= ATTEMPTS
        await self._settle(_FAILED, delivery, reason=reason, for_good=given_up)

    async def _settle(self, statement: Any, delivery: Delivery, **values: Any) -> None:
        async with self._database.system_transaction() as connection:
            await connection.execute(statement, {"id": delivery.delivery_id, "attempt": delivery.attempt, **values})


async def forget_deliveries(database: Database) -> int:
    """Give up what nobody could finish, and remove what was finished a week ago; answers how many were removed."""
    async with database.system_transaction() as connection:
        await connection.execute(_GIVE_UP, [ATTEMPTS])
    removed = 0
    while True:
        async with database.system_transaction() as connection:
            gone = (await connection.execute(_FORGET, [_KEPT, _BATCH])).rowcount
        removed += gone
        if gone < _BATCH:
            return removed


def _delivery(row: Row) -> Delivery:
    return Delivery(
        delivery_id=str(row["delivery_id"]),
        owner_id=UserId(row["owner_id"]),
        thread_id=ThreadId(row["thread_id"]),
        url=row["url"],
        payload=row["payload"],
        checkpoint_id=row["checkpoint_id"],
        attempt=row["attempts"],
    )

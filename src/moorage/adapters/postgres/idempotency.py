"""Answers to requests with an Idempotency-Key, kept in the transaction that did what was asked."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.events import encode, scrub_text
from moorage.idempotency import RequestKey
from moorage.ids import UserId
from moorage.runs.run import IdempotencyMismatch

type Row = dict[str, Any]

_KEY_REUSED = "This Idempotency-Key was used for another request"
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 2))"
_FIND = "SELECT digest, answer FROM idempotency_keys WHERE owner_id = %s AND key = %s"
_INSERT = "INSERT INTO idempotency_keys (owner_id, key, digest, answer) VALUES (%s, %s, %s, %s)"


async def earlier_answer(
    connection: AsyncConnection[Row], owner: UserId, request: RequestKey | None
) -> dict[str, Any] | None:
    """What was answered to this request before, None for a new one; raises IdempotencyMismatch for a key of another.

    Until the transaction ends, repetitions of the request wait here.
    """
    if request is None:
        return None
    await connection.execute(_LOCK, [f"{owner} {scrub_text(request.key)}"])
    return await find_answer(connection, owner, request)


async def find_answer(connection: AsyncConnection[Row], owner: UserId, request: RequestKey) -> dict[str, Any] | None:
    """`earlier_answer` without waiting for anybody."""
    row = await (await connection.execute(_FIND, [owner, scrub_text(request.key)])).fetchone()
    if row is None:
        return None
    if row["digest"] != request.digest:
        raise IdempotencyMismatch(_KEY_REUSED)
    return row["answer"]


async def keep_answer(
    connection: AsyncConnection[Row], owner: UserId, request: RequestKey | None, answer: dict[str, Any]
) -> None:
    """Remember the answer for the next time, after `earlier_answer` found none in this transaction."""
    if request is not None:
        values = [owner, scrub_text(request.key), request.digest, Jsonb(answer, dumps=encode)]
        await connection.execute(_INSERT, values)

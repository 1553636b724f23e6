"""Putting a run into the queue, within the transaction that accepted what it is for."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from moorage.claims import Claim
from moorage.events import encode
from moorage.runs.run import BusyPolicy, RunKind, RunRequest

type Row = dict[str, Any]

_NOTHING_ASKED = RunRequest()

_INSERT_RUN = """
INSERT INTO runs (run_id, thread_id, owner_id, assistant_id, kind, input, status, priority, idempotency_key,
    request_digest, multitask_strategy, metadata, kwargs, webhook, ephemeral, not_before)
VALUES (%s, %s, %s, %s, %s, %s, 'queued', %s, %s, %s, %s, %s, %s, %s, %s,
    CASE WHEN %s > 0 THEN now() + make_interval(secs => %s) END)
"""


async def enqueue_run(
    connection: AsyncConnection[Row],
    claim: Claim,
    *,
    assistant_id: str,
    kind: RunKind,
    run_input: dict[str, Any],
    key: str | None = None,
    digest: str | None = None,
    policy: BusyPolicy = BusyPolicy.ENQUEUE,
    request: RunRequest | None = None,
) -> None:
    """Insert a queued run. A resume is first in line: its thread has been waiting for it."""
    asked = request or _NOTHING_ASKED
    await connection.execute(
        _INSERT_RUN,
        [
            claim.run_id,
            claim.thread_id,
            claim.owner_id,
            assistant_id,
            kind.value,
            Jsonb(run_input | ({"graph": graph} if (graph := asked.for_graph()) else {}), dumps=encode),
            1 if kind is RunKind.RESUME else 0,
            key,
            digest,
            policy.value,
            Jsonb(dict(asked.metadata), dumps=encode),
            Jsonb(dict(asked.kwargs), dumps=encode),
            asked.webhook,
            asked.ephemeral,
            asked.after_seconds,
            asked.after_seconds,
        ],
    )

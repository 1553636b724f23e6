"""Webhooks put together: what they are told, by whom, and the keys that sign it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.threads import PostgresThreadStore
from moorage.adapters.postgres.webhook_deliveries import PostgresDeliveryTable
from moorage.adapters.webhook_sender import WebhookSender
from moorage.agent.states import Place, States
from moorage.deliveries import Deliveries
from moorage.ids import ThreadId, UserId
from moorage.runtime.database import webhook_secret
from moorage.settings import Settings
from moorage.threads import UnknownCheckpoint
from moorage.webhooks import AllowList, user_secret


def make_deliveries(settings: Settings, database: Database, threads: PostgresThreadStore, states: States) -> Deliveries:
    return Deliveries(
        PostgresDeliveryTable(database),
        WebhookSender(AllowList.of(settings.webhook_allow)),
        read_values=partial(_values_at, threads, states),
        secret_of=partial(user_secret, webhook_secret(settings)),
        clock=lambda: datetime.now(UTC),
    )


async def _values_at(
    threads: PostgresThreadStore, states: States, owner: UserId, thread_id: ThreadId, checkpoint_id: str
) -> Mapping[str, Any] | None:
    thread = await threads.find(owner, thread_id)
    if thread is None:
        return None
    try:
        return (await states.at(thread, Place(checkpoint_id))).values
    except UnknownCheckpoint:
        return None

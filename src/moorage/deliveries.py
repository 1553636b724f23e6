"""Telling webhooks that a run has ended: each is told by one process at a time, again later when that fails.

A delivery is written in the transaction that ends its run, so none is forgotten. It may arrive twice when a process
dies right after it was sent: its id tells.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from moorage.assistants import wire_assistant_id
from moorage.errors import AppError
from moorage.events import encode
from moorage.ids import ThreadId, UserId
from moorage.runs.run import RunStatus
from moorage.telemetry import get_logger
from moorage.webhooks import SIGNATURE_HEADER, signature

# How long after each attempt the next one comes. It is the lease, too: of an attempt whose process died.
PAUSES = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 45, 2))
ATTEMPTS = len(PAUSES)
LARGEST_BODY = 5 * 1024 * 1024
DELIVERY_HEADER = "X-Moorage-Delivery"
_AT_ONCE = 32
_AT_ONCE_PER_USER = 4
_POLL_SECONDS = 1.0
_RETRY_SECONDS = 5.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt that this process is to make. `payload` is what was known of the run at its end.

    `checkpoint_id` is where the run left the thread's state; `values` stands in the payload once it was read.
    """

    delivery_id: str
    owner_id: UserId
    thread_id: ThreadId
    url: str
    payload: dict[str, Any]
    checkpoint_id: str | None
    attempt: int


class NotDelivered(AppError):
    """The webhook did not take it. `for_good`: nor will it later."""

    code = "not_delivered"

    def __init__(self, detail: str, *, for_good: bool = False) -> None:
        super().__init__(detail)
        self.for_good = for_good


class DeliveryTable(Protocol):
    async def claim(self, *, limit: int, each: int, busy: Sequence[UserId]) -> list[Delivery]:
        """Take what is due, up to `each` of a user, nothing of `busy` ones; each attempt goes to one process."""
        ...

    async def keep(self, delivery: Delivery, payload: Mapping[str, Any]) -> None:
        """Remember what is sent, for the next attempt."""
        ...

    async def delivered(self, delivery: Delivery) -> None: ...

    async def failed(self, delivery: Delivery, reason: str, *, for_good: bool) -> None: ...


class Sender(Protocol):
    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        """POST it; raises NotDelivered."""
        ...


type ReadValues = Callable[[UserId, ThreadId, str], Awaitable[Mapping[str, Any] | None]]


class Deliveries:
    """Sends what is due, some at once, few of them one user's."""

    def __init__(
        self,
        table: DeliveryTable,
        sender: Sender,
        *,
        read_values: ReadValues,
        secret_of: Callable[[UserId], bytes],
        clock: Callable[[], datetime],
    ) -> None:
        """`read_values` answers a thread's state at a checkpoint, None when it is gone; `secret_of` a user's key."""
        self._table = table
        self._sender = sender
        self._read_values = read_values
        self.secret_of = secret_of
        self._clock = clock
        self._busy: Counter[UserId] = Counter()

    async def deliver_forever(self) -> None:
        """Until cancelled. What was being sent then is sent again, by whoever finds it due."""
        async with asyncio.TaskGroup() as group:
            while True:
                pause = _POLL_SECONDS
                try:
                    for delivery in await self._claim():
                        group.create_task(self._deliver(delivery))
                except AppError as error:
                    log.warning("webhooks_not_claimed", code=error.code, detail=error.detail)
                    pause = _RETRY_SECONDS
                await asyncio.sleep(pause)

    async def deliver_due(self) -> int:
        """Make the attempts that are due now; answers how many they were."""
        claimed = await self._claim()
        await asyncio.gather(*(self._deliver(delivery) for delivery in claimed))
        return len(claimed)

    async def _claim(self) -> list[Delivery]:
        free = _AT_ONCE - self._busy.total()
        if free <= 0:
            return []
        busy = list(self._busy)  # who has some under way waits: so nobody has more than a claim's share
        claimed = await self._table.claim(limit=free, each=_AT_ONCE_PER_USER, busy=busy)
        self._busy.update(delivery.owner_id for delivery in claimed)
        return claimed

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            await self._attempt(delivery)
        except AppError as error:  # the database's; what is not settled is due again later
            log.warning("webhook_not_settled", delivery_id=delivery.delivery_id, code=error.code)
        except Exception as error:  # what one user's run left must not end the others' deliveries
            log.error("webhook_not_settled", delivery_id=delivery.delivery_id, exc_info=error)
        finally:
            self._busy[delivery.owner_id] -= 1
            self._busy += Counter()  # forgets who has none

    async def _attempt(self, delivery: Delivery) -> None:
        body = await self._body(delivery)
        signed = signature(self.secret_of(delivery.owner_id), body, int(self._clock().timestamp()))
        headers = {SIGNATURE_HEADER: signed, DELIVERY_HEADER: delivery.delivery_id}
        begun = time.monotonic()
        try:
            await self._sender.send(delivery.url, body, headers)
        except NotDelivered as error:
            log.warning(
                "webhook_failed", delivery_id=delivery.delivery_id, attempt=delivery.attempt, reason=error.detail
            )
            await self._table.failed(delivery, error.detail, for_good=error.for_good)
            return
        log.info("webhook_delivered", delivery_id=delivery.delivery_id, ms=round((time.monotonic() - begun) * 1000))
        await self._table.delivered(delivery)

    async def _body(self, delivery: Delivery) -> bytes:
        """The run as LangGraph's server tells it: the run object with `values`, `error` and `webhook_sent_at`."""
        payload = delivery.payload
        if "values" not in payload:
            payload = await self._with_values(delivery)
            await self._table.keep(delivery, payload)
        return encode(shown(payload) | {"webhook_sent_at": self._clock().isoformat()})

    async def _with_values(self, delivery: Delivery) -> dict[str, Any]:
        values = None
        if delivery.checkpoint_id is not None:
            values = await self._read_values(delivery.owner_id, delivery.thread_id, delivery.checkpoint_id)
        if len(encode(values)) > LARGEST_BODY:
            return {**delivery.payload, "values": None, "values_too_large": True}
        return {**delivery.payload, "values": values}


def shown(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A run's stored words as the LangGraph wire says them."""
    status = RunStatus(payload["status"])
    error: Mapping[str, Any] | None = payload.get("error")
    return {
        **payload,
        "assistant_id": wire_assistant_id(payload["assistant_id"]),
        "status": "interrupted" if status is RunStatus.CANCELLED else status.value,
        "error": {"error": error.get("code"), "message": error.get("detail")} if error else None,
    }

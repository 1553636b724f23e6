"""Webhooks: who is told of a run's end, how often, what, and which addresses are never called."""

import asyncio
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.conftest import AddUser
from tests.contract.ports import ALICE, Ports, open_ports

from moorage.adapters.postgres.pool import Database
from moorage.adapters.postgres.webhook_deliveries import PostgresDeliveryTable, forget_deliveries
from moorage.adapters.webhook_sender import WebhookSender
from moorage.claims import StopReason
from moorage.deliveries import ATTEMPTS, Deliveries, NotDelivered
from moorage.ids import ThreadId, UserId
from moorage.run_request import RunRequest
from moorage.runs.run import BusyPolicy, Outcome, RunStatus
from moorage.webhooks import AllowList

HERE = AllowList.of(["127.0.0.1"])
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Behave = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Receiver:
    """Somebody's HTTP server: what it got, and what it answers."""

    url: str = ""
    answers: list[bytes] = field(default_factory=list[bytes])
    heads: list[str] = field(default_factory=list[str])
    bodies: list[bytes] = field(default_factory=list[bytes])
    behave: Behave | None = None
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str, request: int = 0) -> str:
        [value] = [line.split(": ", 1)[1] for line in self.heads[request].split("\r\n") if line.startswith(f"{name}: ")]
        return value

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        length = int(self.header("Content-Length", -1))
        self.bodies.append(await reader.readexactly(length))
        self.heard.set()
        if self.behave is not None:
            await self.behave(writer)
        else:
            writer.write(self.answers.pop(0) if self.answers else OK)
        writer.close()


@asynccontextmanager
async def receiving() -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", 0) as server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?token=t"
        yield receiver


@pytest.fixture
async def receiver() -> AsyncGenerator[Receiver]:
    async with receiving() as found:
        yield found


@pytest.fixture
async def ports(database: Database, add_user: AddUser) -> AsyncGenerator[Ports]:
    await add_user(ALICE)
    async with open_ports("postgres", database) as found:
        yield found


def deliveries(database: Database, *, allowed: AllowList = HERE, seconds: float = 5) -> Deliveries:
    async def read_values(owner: UserId, thread_id: ThreadId, checkpoint_id: str) -> dict[str, Any] | None:
        return {"read": [owner, thread_id, checkpoint_id]}

    return Deliveries(
        PostgresDeliveryTable(database),
        WebhookSender(allowed, seconds=seconds),
        read_values=read_values,
        secret_of=lambda owner: f"secret of {owner}".encode(),
        clock=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    )


async def submit(ports: Ports, url: str | None, thread_id: ThreadId | None = None) -> ThreadId:
    thread_id = thread_id or await ports.new_thread()
    request = RunRequest(messages=({"type": "human", "content": "hi", "id": "1"},), metadata={"m": 1}, webhook=url)
    await ports.queue.submit(
        ALICE, thread_id, content=None, policy=BusyPolicy.ENQUEUE, idempotency_key=None, request=request
    )
    return thread_id


async def end(ports: Ports, outcome: Outcome) -> None:
    for claim in await ports.claim():
        await ports.queue.finish(claim, outcome)


async def ended(ports: Ports, url: str | None, outcome: Outcome | None = None) -> ThreadId:
    """A run with this webhook that has ended."""
    thread_id = await submit(ports, url)
    await end(ports, outcome or Outcome(RunStatus.SUCCESS))
    return thread_id


async def rows(database: Database) -> list[dict[str, Any]]:
    async with database.system_transaction() as connection:
        found = await connection.execute(
            "SELECT *, extract(epoch FROM next_attempt_at - now())::float AS wait FROM webhook_deliveries"
        )
        return await found.fetchall()


async def make_due(database: Database) -> None:
    async with database.system_transaction() as connection:
        await connection.execute("UPDATE webhook_deliveries SET next_attempt_at = now()")


async def test_the_end_of_a_run_is_told_once(ports: Ports, database: Database, receiver: Receiver) -> None:
    thread_id = await ended(ports, receiver.url)
    sender = deliveries(database)
    assert await sender.deliver_due() == 1
    assert await sender.deliver_due() == 0
    told = json.loads(receiver.bodies[0])
    assert (told["thread_id"], told["status"], told["metadata"]) == (thread_id, "success", {"m": 1})
    assert (told["values"], told["error"]) == (None, None)
    assert told["webhook_sent_at"] == "2026-01-02T03:04:05+00:00"
    assert told["run_ended_at"] >= told["created_at"]
    assert receiver.heads[0].startswith("POST /hook?token=t HTTP/1.1")
    [row] = await rows(database)
    assert (row["state"], row["payload"]) == ("delivered", {})
    assert receiver.header("X-Moorage-Delivery") == str(row["delivery_id"])


async def test_what_is_told_is_signed_with_the_users_key(ports: Ports, database: Database, receiver: Receiver) -> None:
    await ended(ports, receiver.url)
    await deliveries(database).deliver_due()
    at, signed = receiver.header("X-Moorage-Signature").removeprefix("t=").split(",v1=")
    expected = hmac.new(b"secret of alice", at.encode() + b"." + receiver.bodies[0], hashlib.sha256)
    assert signed == expected.hexdigest()


async def test_a_run_without_a_webhook_is_nobodys_business(ports: Ports, database: Database) -> None:
    await ended(ports, None)
    assert await rows(database) == []


async def test_words_of_the_wire_are_used(ports: Ports, database: Database, receiver: Receiver) -> None:
    await ended(ports, receiver.url, Outcome(RunStatus.ERROR, error={"code": "model_error", "detail": "It broke"}))
    await ended(ports, receiver.url, Outcome(RunStatus.CANCELLED))
    sender = deliveries(database)
    await sender.deliver_due()
    told = sorted((json.loads(body) for body in receiver.bodies), key=lambda run: run["status"])
    assert [run["status"] for run in told] == ["error", "interrupted"]
    assert told[0]["error"] == {"error": "model_error", "message": "It broke"}
    assert told[0]["assistant_id"] != "agent"


async def test_runs_that_end_before_they_began_are_told_of_too(
    ports: Ports, database: Database, receiver: Receiver
) -> None:
    claim = await ports.running()
    await submit(ports, receiver.url, claim.thread_id)
    await ports.queue.request_stop(claim.thread_id, StopReason.CANCELLED)
    assert await deliveries(database).deliver_due() == 1
    assert json.loads(receiver.bodies[0])["status"] == "interrupted"


async def test_two_servers_tell_it_once(ports: Ports, database: Database, receiver: Receiver) -> None:
    for _ in range(4):
        await ended(ports, receiver.url)
    made = await asyncio.gather(*(deliveries(database).deliver_due() for _ in range(3)))
    assert sum(made) == 4
    assert len(receiver.bodies) == 4


async def test_what_fails_is_tried_again_later_and_then_given_up(
    ports: Ports, database: Database, receiver: Receiver
) -> None:
    receiver.answers = [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"] * ATTEMPTS
    await ended(ports, receiver.url)
    sender = deliveries(database)
    waits: list[float] = []
    for _ in range(ATTEMPTS):
        await sender.deliver_due()
        assert await sender.deliver_due() == 0
        waits.append((await rows(database))[0]["wait"] / 60)
        await make_due(database)
    assert [round(wait) for wait in waits[:-1]] == [1, 5, 15, 45]
    [row] = await rows(database)
    assert (row["state"], row["last_error"]) == ("failed", "It answered 503")
    assert len({receiver.header("X-Moorage-Delivery", n) for n in range(ATTEMPTS)}) == 1


async def test_the_next_attempt_may_succeed(ports: Ports, database: Database, receiver: Receiver) -> None:
    receiver.answers = [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]
    await ended(ports, receiver.url)
    sender = deliveries(database)
    await sender.deliver_due()
    await make_due(database)
    await sender.deliver_due()
    assert [row["state"] for row in await rows(database)] == ["delivered"]


async def test_what_a_dying_server_was_sending_is_sent_by_another_later(
    ports: Ports, database: Database, receiver: Receiver
) -> None:
    await ended(ports, receiver.url)
    await PostgresDeliveryTable(database).claim(limit=10, each=10, busy=[])  # and it dies
    assert await deliveries(database).deliver_due() == 0
    await make_due(database)
    assert await deliveries(database).deliver_due() == 1
    assert len(receiver.bodies) == 1


async def test_one_users_slow_webhooks_leave_room_for_others(
    ports: Ports, database: Database, receiver: Receiver
) -> None:
    for _ in range(6):
        await ended(ports, receiver.url)
    table = PostgresDeliveryTable(database)
    assert len(await table.claim(limit=10, each=4, busy=[])) == 4
    assert await table.claim(limit=10, each=4, busy=[ALICE]) == []


async def test_what_was_finished_long_ago_is_forgotten(ports: Ports, database: Database, receiver: Receiver) -> None:
    await ended(ports, receiver.url)
    await deliveries(database).deliver_due()
    assert await forget_deliveries(database) == 0
    async with database.system_transaction() as connection:
        await connection.execute("UPDATE webhook_deliveries SET finished_at = now() - interval '8 days'")
    assert await forget_deliveries(database) == 1


async def test_an_address_of_a_private_network_is_never_called(
    ports: Ports, database: Database, receiver: Receiver
) -> None:
    port = receiver.url.split(":")[2]
    for host in ("127.0.0.1", "localhost", "127.1", "2130706433", "[::ffff:127.0.0.1]", "[::1]", "0.0.0.0"):  # noqa: S104
        await ended(ports, f"http://{host}:{port}")
    sender = deliveries(database, allowed=AllowList())
    while await sender.deliver_due():
        pass
    assert receiver.bodies == []
    assert {row["state"] for row in await rows(database)} == {"failed"}
    assert {row["attempts"] for row in await rows(database)} == {1}


async def test_a_name_must_lead_to_allowed_addresses_only(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        both = ("127.0.0.1", "10.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in both]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = receiver.url.replace("127.0.0.1", "rebind.example")
    with pytest.raises(NotDelivered, match="internet"):
        await WebhookSender(HERE).send(url, b"{}", {})
    await WebhookSender(AllowList.of(["127.0.0.1", "10.0.0.1"])).send(url, b"{}", {})
    assert asked == ["rebind.example", "rebind.example"]
    assert receiver.header("Host") == url.split("/")[2]


async def test_names_that_nobody_resolves_keep_nothing_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def resolve(*_: Any, **__: Any) -> list[Any]:
        answered.wait(30)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    sender = WebhookSender(HERE)
    sending = [asyncio.create_task(sender.send("http://slow.example/", b"{}", {})) for _ in range(32)]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(lambda: "at once") == "at once"
    answered.set()
    assert {type(found) for found in await asyncio.gather(*sending, return_exceptions=True)} == {NotDelivered}


async def test_an_ipv6_address_is_named_in_its_brackets(receiver: Receiver) -> None:
    async with await asyncio.start_server(receiver.serve, "::1", 0) as server:
        place = f"[::1]:{server.sockets[0].getsockname()[1]}"
        await WebhookSender(AllowList.of(["::1"])).send(f"http://{place}/", b"{}", {})
    assert receiver.header("Host") == place


async def test_redirects_and_proxies_are_not_followed(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiving() as elsewhere:
        monkeypatch.setenv("HTTP_PROXY", elsewhere.url)
        monkeypatch.setenv("ALL_PROXY", elsewhere.url)
        location = f"Location: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
        receiver.answers = [f"HTTP/1.1 307 Go\r\n{location}".encode()]
        with pytest.raises(NotDelivered, match="It answered 307"):
            await WebhookSender(HERE).send(receiver.url, b"{}", {})
        assert len(receiver.bodies) == 1
        assert elsewhere.bodies == []


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    try:
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
    except ConnectionError:
        return


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(5)


async def garbled(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\xff nonsense\r\n\r\n")


async def test_an_endless_answer_is_cut(receiver: Receiver) -> None:
    receiver.behave = endless
    await WebhookSender(HERE).send(receiver.url, b"{}", {})


@pytest.mark.parametrize(("behave", "why"), [(silent, "No answer"), (garbled, "No connection")])
async def test_who_does_not_speak_http_is_not_waited_for(receiver: Receiver, behave: Behave, why: str) -> None:
    receiver.behave = behave
    with pytest.raises(NotDelivered, match=why) as failed:
        await WebhookSender(HERE, seconds=0.3).send(receiver.url, b"{}", {})
    assert not failed.value.for_good


async def test_nobody_at_the_address_is_no_reason_to_give_up() -> None:
    with pytest.raises(NotDelivered, match="No connection") as failed:
        await WebhookSender(HERE).send("http://127.0.0.1:1/", b"{}", {})
    assert not failed.value.for_good
    with pytest.raises(NotDelivered, match="resolved") as failed:
        await WebhookSender(HERE).send("http://no-such-host.invalid/", b"{}", {})
    assert not failed.value.for_good

"""A client that stops reading, on a real socket: the server's memory stays bounded, and the client loses nothing."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.api.harness import Server, User

from moorage.adapters.postgres.event_log import PostgresEventLog
from moorage.adapters.postgres.event_readers import BUFFER_BYTES
from moorage.claims import Claim
from moorage.events import EventType, run_event
from moorage.ids import RunId, ThreadId, UserId, new_run_id


@dataclass
class Frames:
    """The frames on a connection that was opened with as small a receive buffer as there is."""

    reader: asyncio.StreamReader

    async def next(self) -> tuple[int | None, str, str]:
        """Id, event and data of the next frame that is not a comment."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(30):
            while True:
                line = (await self.reader.readuntil(b"\n")).decode().strip("\r\n")
                name, separator, value = line.partition(": ")
                if name in ("id", "event", "data") and separator:
                    fields[name] = value
                elif "data" in fields and not line:
                    return int(fields["id"]) if "id" in fields else None, fields["event"], fields["data"]


@asynccontextmanager
async def following(server: Server, user: User, thread: str, *, after: int) -> AsyncIterator[Frames]:
    host, port = server.url.removeprefix("http://").split(":")
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=raw, limit=2**16)
    writer.write(
        f"GET /api/sessions/{thread}/events HTTP/1.0\r\nHost: {host}\r\nLast-Event-ID: {after}\r\n"
        f"Authorization: {user.client.headers['authorization']}\r\n\r\n".encode()
    )
    try:
        yield Frames(reader)
    finally:
        writer.close()


async def running(server: Server, thread_id: str) -> Claim:
    """A run that no worker executes."""
    claim = Claim(RunId(new_run_id()), ThreadId(thread_id), UserId(thread_id[:-37]), 1)
    async with server.runtime.database.tenant_transaction(claim.owner_id) as connection:
        await connection.execute(
            "INSERT INTO runs (run_id, thread_id, owner_id, kind, input, status, generation, lease_expires_at)"
            " VALUES (%s, %s, %s, 'message', '{}', 'running', 1, now() + interval '1 hour')",
            [claim.run_id, thread_id, claim.owner_id],
        )
    return claim


async def test_a_client_that_stops_reading_costs_a_bounded_amount_and_loses_nothing(server: Server, alice: User):
    log = server.runtime.event_log
    assert isinstance(log, PostgresEventLog)
    thread = await alice.new_session()
    claim = await running(server, thread)
    large = run_event(EventType.CONTENT_STREAM, {"content_delta": "x" * 10_000})
    seen: list[int | None] = []
    async with following(server, alice, thread, after=0) as frames:
        await log.append(claim, [large])
        seen.append((await frames.next())[0])
        most = 0
        for _ in range(60):
            await log.append(claim, [large] * 50)
            most = max(most, log.readers.buffered_bytes)
        assert 0 < most <= BUFFER_BYTES
        assert log.readers.buffered_bytes == 0
        while (frame := await frames.next())[1] != "stream_closed":
            seen.append(frame[0])
    closing = json.loads(frame[2])
    assert closing == {"reason": "lagged", "last_seq": seen[-1]}
    async with following(server, alice, thread, after=closing["last_seq"]) as frames:
        while seen[-1] != 3001:
            seen.append((await frames.next())[0])
    assert seen == list(range(1, 3002))


async def test_a_client_that_asks_for_forgotten_events_is_sent_to_the_state(server: Server, alice: User):
    thread = await alice.new_session()
    await alice.play(thread, then="hi")
    async with server.runtime.database.tenant_transaction(UserId("alice")) as connection:
        await connection.execute("DELETE FROM run_events WHERE thread_id = %s AND seq < 3", [thread])
        await connection.execute("UPDATE threads SET first_seq = 3 WHERE thread_id = %s", [thread])
    async with following(server, alice, thread, after=0) as frames:
        _, kind, data = await frames.next()
    last_seq = (await alice.client.get(f"/api/sessions/{thread}/state")).json()["last_seq"]
    assert (kind, json.loads(data)) == ("stream_closed", {"reason": "gap", "last_seq": last_seq})
    async with following(server, alice, thread, after=2) as frames:
        assert (await frames.next())[0] == 3

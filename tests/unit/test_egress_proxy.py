"""The proxy's end on the server, and a helper that says what no helper of ours says."""

import asyncio
import resource
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from tests.unit.helper_stub import StubHelper, frame

from moorage.ids import UserId
from moorage.sandboxes import egress
from moorage.sandboxes.egress import EgressProxy
from moorage.sandboxes.egress_room import EgressFull, EgressRoom
from moorage.sandboxes.egress_rules import AllowedTargets
from moorage.sandboxes.helper.wire import FROM_INSIDE

ALICE, BOB = UserId("alice"), UserId("bob")
INSIDE = FROM_INSIDE | 1
ALLOWED = AllowedTargets.of(["shop.test:443"])
CONNECT = b"CONNECT shop.test:443 HTTP/1.1\r\n\r\n"
PUBLIC, DEAF = "93.184.216.34", "93.184.216.35"


class Target:
    """What every address but DEAF leads to: says back all it was told, once that has ended. `heard`: what that was."""

    def __init__(self) -> None:
        self.heard = b""
        self.addresses = [PUBLIC]
        self.port = 0
        self.answers = asyncio.Event()

    async def resolve(self, host: str, port: int) -> list[str]:
        return self.addresses

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if address == DEAF:
            await asyncio.Event().wait()
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heard += await reader.read()
        await self.answers.wait()
        writer.write(self.heard)
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def open_proxy(room: EgressRoom | None = None) -> AsyncGenerator[tuple[StubHelper, Target]]:
    """A program's connection to the proxy; nothing may go wrong that nobody has thought of."""
    target, helper = Target(), StubHelper()
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0)
    target.port = server.sockets[0].getsockname()[1]
    proxy = EgressProxy(ALLOWED, resolve=target.resolve, connect=target.connect, room=room, user=ALICE)
    connection = await helper.open(on_connection=proxy)
    helper.say(frame(b"n", INSIDE))
    yield helper, target
    await connection.close()
    server.close()
    await server.wait_closed()
    assert unheard == []


async def test_what_is_said_after_the_end_is_not_passed_on() -> None:
    async with open_proxy() as (helper, target):
        helper.say(frame(b"o", INSIDE, CONNECT + b"all") + frame(b"e", INSIDE) + frame(b"o", INSIDE, b" and more"))
        await helper.hears(b"I", number=INSIDE)
        target.answers.set()
        await helper.hears(b"K", number=INSIDE)
        assert helper.heard[-3][2] == target.heard == b"all"


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_FIRST_SECONDS", 0.05)
    async with open_proxy() as (helper, target):
        target.addresses = [DEAF, PUBLIC]
        target.answers.set()
        helper.say(frame(b"o", INSIDE, CONNECT) + frame(b"e", INSIDE))
        assert b" 200 " in await asyncio.wait_for(helper.hears(b"I", number=INSIDE), 5)
        await helper.hears(b"K", number=INSIDE)


async def test_who_comes_when_all_connections_are_taken_is_told_so_and_served_when_one_has_ended() -> None:
    room = EgressRoom(1)
    async with open_proxy(room) as (helper, target):
        target.answers.set()
        with room.one_for(BOB):
            helper.say(frame(b"o", INSIDE, CONNECT))
            assert (await helper.hears(b"I", number=INSIDE)).startswith(b"HTTP/1.1 503 All sandboxes together")
            await helper.hears(b"K", number=INSIDE)
        for number in (INSIDE + 1, INSIDE + 2):
            helper.say(frame(b"n", number) + frame(b"o", number, CONNECT) + frame(b"e", number))
            assert b" 200 " in await helper.hears(b"I", number=number)
            await helper.hears(b"K", number=number)


def test_one_user_has_a_quarter_of_all_connections() -> None:
    room = EgressRoom(8)
    with room.one_for(ALICE), room.one_for(ALICE):
        with pytest.raises(EgressFull, match="Your sandboxes"), room.one_for(ALICE):
            pass
        with room.one_for(BOB):
            pass


def test_of_the_files_that_a_process_may_have_open_a_quarter_is_for_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def eight(_: int) -> tuple[int, int]:
        return 8, 8

    monkeypatch.setattr(resource, "getrlimit", eight)
    room = EgressRoom.of_this_process()
    with room.one_for(ALICE), room.one_for(BOB), pytest.raises(EgressFull, match="All"), room.one_for(UserId("carol")):
        pass

"""The way out of a sandbox whose profile has an allow-list, from inside. Its targets stand on this machine."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import pytest
from tests.contract.sandboxes.harness import SMALL, Kind, eventually, new_folders, new_installation

from moorage.adapters.bubblewrap import BubblewrapSandboxes
from moorage.adapters.docker import ContainerSettings, DockerSandboxes
from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.sandboxes.connecting import Connecting, WaysOut
from moorage.sandboxes.port import CommandResult, Sandbox
from moorage.sandboxes.profiles import DEFAULT_PROFILE
from moorage.sandboxes.service import Sandboxes

PUBLIC = "93.184.216.34"
ALLOW = ("shop.test:80", "shop.test:443", "*.shop.test:443", "metadata.test:80", "mixed.test:80", "moving.test:80")
OTHERS = ("169.254.169.254:80", "translated.test:80", "nowhere.test:80")
PROFILES = {
    DEFAULT_PROFILE: SMALL,
    "open": replace(SMALL, name="open", network="allowlist", allow=(*ALLOW, *OTHERS)),
}
MIB = 1024 * 1024

# `ask` prints the answer of a tunnel's other end, or what the proxy said instead of opening one.
TUNNEL = """
import http.client, os, sys, threading, hashlib, socket
def ask(host, path="/", port=443, **more):
    connection = http.client.HTTPConnection("127.0.0.1", 3128, timeout=30)
    connection.set_tunnel(host, port)
    try:
        connection.request(more.pop("method", "GET"), path, **more)
        return connection.getresponse().read()
    except OSError as error:
        return str(error).encode()
"""


@dataclass
class Outside:
    """Names, what they lead to, and a target that stands for every address. `connected`: which were connected to."""

    names: dict[str, list[list[str]]]
    port: int = 0
    asked: list[str] = field(default_factory=list[str])
    connected: list[str] = field(default_factory=list[str])
    heads: list[bytes] = field(default_factory=list[bytes])
    served: int = 0
    open: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        answers = self.names.get(host)
        if answers is None:
            raise OSError("no such name")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def connect(self, address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.connected.append(address)
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
                writer.close()
                await writer.wait_closed()
        finally:
            self.open -= 1

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split()[1]
        if path == b"/deaf":
            await self.over.wait()
        if path == b"/endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                self.served += 65536
        body = b"hello from outside"
        if path == b"/large":
            body = bytes(range(256)) * (20 * MIB // 256)
        elif path == b"/count":
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            body = str(len(await reader.readexactly(int(length.partition(b":")[2])))).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
        await writer.drain()


@dataclass
class Coast:
    """Sandboxes with a way out, and one without."""

    sandboxes: Sandboxes
    another_server_s: Sandboxes
    outside: Outside

    async def open(self, profile: str = "open") -> Sandbox:
        return await self.sandboxes.acquire(new_thread_id(UserId("alice")), profile=profile)


async def run(sandbox: Sandbox, program: str) -> CommandResult:
    return await sandbox.run("python3 -", stdin=program.encode(), time_limit=60)


@asynccontextmanager
async def _open_coast(kind: Kind, folder: Path) -> AsyncGenerator[Coast]:
    outside = Outside(
        {
            "shop.test": [[PUBLIC]],
            "cdn.shop.test": [["2606:2800:220:1::1"]],
            "metadata.test": [["169.254.169.254"]],
            "169.254.169.254": [["169.254.169.254"]],
            "mixed.test": [[PUBLIC, "10.0.0.1"]],
            "translated.test": [["64:ff9b::808:808"]],
            "moving.test": [[PUBLIC], ["::ffff:127.0.0.1"]],
        }
    )
    folders, installation = new_folders(folder), new_installation()
    if kind == "bubblewrap":
        provider = BubblewrapSandboxes(installation=installation, folders=folders, profiles=PROFILES)
    else:
        provider = DockerSandboxes(ContainerSettings(installation=installation), folders=folders, profiles=PROFILES)
    ways_out = WaysOut.of(PROFILES, resolve=outside.resolve, connect=outside.connect)
    server = await asyncio.start_server(outside.serve, "127.0.0.1", 0)
    outside.port = server.sockets[0].getsockname()[1]
    sandboxes, others = (Sandboxes(provider, Connecting(ways_out)) for _ in range(2))
    try:
        yield Coast(sandboxes, others, outside)
    finally:
        await sandboxes.close()
        await others.close()
        for info in await provider.list(folders=True):
            await provider.remove(info.thread_id, files=True)
        await provider.close()
        server.close()
        outside.over.set()
        assert await eventually(lambda: outside.open == 0, within=10)


@pytest.fixture(params=["docker", "bubblewrap"])
async def coast(request: pytest.FixtureRequest, public_tmp_path: Path) -> AsyncGenerator[Coast]:
    async with _open_coast(cast("Kind", request.param), public_tmp_path / new_installation()) as coast:
        yield coast


async def test_programs_reach_a_listed_host_by_the_proxy_that_their_environment_names(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox, "import urllib.request as r; print(r.urlopen('http://shop.test/a?b=c', timeout=30).read().decode())"
    )

    assert result.output == "hello from outside\n"
    assert coast.outside.connected == [PUBLIC]
    assert coast.outside.heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: shop.test\r\n")


async def test_a_tunnel_leads_to_names_below_a_listed_one(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(sandbox, TUNNEL + "print(ask('cdn.shop.test').decode())")

    assert result.output == "hello from outside\n"
    assert coast.outside.connected == ["2606:2800:220:1::1"]


@pytest.mark.parametrize("host", ["elsewhere.test", "shop.test.evil.test", "127.0.0.1", "10.0.0.1", "[::1]"])
async def test_what_is_not_listed_is_refused_with_a_reason_and_not_even_looked_up(coast: Coast, host: str) -> None:
    sandbox = await coast.open()

    result = await run(sandbox, TUNNEL + f"print(ask({host!r}).decode())")

    assert f"403 {host}:443 is not on the list" in result.output
    assert (coast.outside.asked, coast.outside.connected) == ([], [])


@pytest.mark.parametrize("host", ["metadata.test", "169.254.169.254", "mixed.test", "translated.test"])
async def test_a_listed_name_that_leads_to_an_inner_address_is_refused_and_never_connected_to(
    coast: Coast, host: str
) -> None:
    sandbox = await coast.open()

    result = await run(sandbox, TUNNEL + f"print(ask({host!r}, port=80).decode())")

    assert "does not lead out to the internet" in result.output
    assert coast.outside.connected == []


async def test_a_name_that_leads_elsewhere_the_second_time_was_asked_for_once_a_connection(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox, TUNNEL + "print(ask('moving.test', port=80).decode(), ask('moving.test', port=80).decode())"
    )

    assert "hello from outside" in result.output
    assert "does not lead out to the internet" in result.output
    assert coast.outside.asked == ["moving.test", "moving.test"]
    assert coast.outside.connected == [PUBLIC]


async def test_a_name_that_nobody_knows_is_an_answer_too(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(sandbox, TUNNEL + "print(ask('nowhere.test', port=80).decode())")

    assert "502 nowhere.test:80 cannot be reached" in result.output


async def test_other_profiles_have_no_proxy(coast: Coast) -> None:
    sandbox = await coast.open(DEFAULT_PROFILE)

    result = await run(
        sandbox,
        "import os, socket\nprint([name for name in os.environ if 'proxy' in name.lower()])\n"
        "try: socket.create_connection(('127.0.0.1', 3128), 5)\nexcept OSError as error: print(type(error).__name__)",
    )

    assert result.output == "[]\nConnectionRefusedError\n"


async def test_the_way_out_of_one_run_is_none_for_the_next_under_another_profile(coast: Coast) -> None:
    """Though the server of the first still has its helper open in there."""
    first = await coast.open()
    await run(first, "pass")

    second = await coast.another_server_s.acquire(ThreadId(first.id), profile=DEFAULT_PROFILE)
    result = await run(second, TUNNEL + "print(ask('shop.test').decode())")

    assert "refused" in result.output
    assert coast.outside.asked == []


async def test_there_is_no_way_out_beside_the_proxy(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox,
        f"import socket\ntry: socket.create_connection(({PUBLIC!r}, 80), 5)\nexcept OSError as error: print('no way')",
    )

    assert result.output == "no way\n"


async def test_much_is_carried_both_ways_without_loss(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox,
        TUNNEL + "data = ask('shop.test', '/large')\n"
        "print(len(data), data == bytes(range(256)) * (len(data) // 256))\n"
        "print(ask('shop.test', '/count', method='POST', body=b'y' * (20 << 20)).decode())",
    )

    assert result.output == f"{20 * MIB} True\n{20 * MIB}\n"


async def test_a_program_that_does_not_read_makes_its_target_wait(coast: Coast) -> None:
    sandbox = await coast.open()
    program = (
        "import socket, time\ns = socket.create_connection(('127.0.0.1', 3128))\n"
        "s.sendall(b'GET http://shop.test/endless HTTP/1.1\\r\\n\\r\\n')\ninput()"
    )
    command = asyncio.create_task(sandbox.run(f'python3 -c "{program}"; sleep 60', stdin=None, time_limit=3))

    await command

    assert coast.outside.served < 32 * MIB
    assert await eventually(lambda: coast.outside.open == 0, within=10)


async def test_a_target_that_does_not_read_holds_nothing_up(coast: Coast) -> None:
    sandbox = await coast.open()
    await run(
        sandbox,
        "import socket\ns = socket.create_connection(('127.0.0.1', 3128))\n"
        "s.sendall(b'POST http://shop.test/deaf HTTP/1.1\\r\\nContent-Length: 1000000000\\r\\n\\r\\n')\n"
        "s.settimeout(2)\ntry:\n  while True: s.sendall(bytes(65536))\nexcept TimeoutError: pass",
    )

    async with asyncio.timeout(30):
        await coast.sandboxes.release(ThreadId(sandbox.id))

    assert (await run(sandbox, "print('on')")).output == "on\n"


async def test_more_connections_than_there_may_be_are_served_in_turn(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox,
        "import socket\nopened = []\nfor _ in range(100):\n"
        "    s = socket.create_connection(('127.0.0.1', 3128))\n"
        "    s.sendall(b'GET http://shop.test/ HTTP/1.1\\r\\n\\r\\n')\n    opened.append(s)\n"
        "print({s.makefile('rb').read().splitlines()[-1] for s in opened})",
    )

    assert result.output == "{b'hello from outside'}\n"
    assert len(coast.outside.heads) == 100


async def test_connections_that_are_left_at_once_harm_nobody(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox,
        TUNNEL + "for number in range(500):\n"
        "    s = socket.create_connection(('127.0.0.1', 3128))\n"
        "    if number % 2: s.sendall(b'GET http://shop.test/endless HTTP/1.1\\r\\n\\r\\n')\n"
        "    s.close()\n"
        "print(ask('shop.test').decode())",
    )

    assert result.output == "hello from outside\n"
    assert await eventually(lambda: coast.outside.open == 0, within=10)


@pytest.mark.parametrize(
    "said",
    [
        "\\x16\\x03\\x01\\r\\n\\r\\n",
        "GET / HTTP/1.1\\r\\n\\r\\n",
        "GET http://shop.test/ HTTP/1.1\\nX: y\\r\\n\\r\\n",
        "x",
    ],
)
async def test_what_is_no_request_is_answered_so(coast: Coast, said: str) -> None:
    sandbox = await coast.open()
    said = said * (9000 if said == "x" else 1)

    result = await run(
        sandbox,
        f"import socket\ns = socket.create_connection(('127.0.0.1', 3128))\ns.sendall(b'{said}')\n"
        "print(s.makefile('rb').readline().decode().strip())",
    )

    assert result.output.startswith("HTTP/1.1 400 Bad request")
    assert coast.outside.asked == []


async def test_a_connection_may_say_that_it_sends_no_more_and_still_read(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await run(
        sandbox,
        "import socket\ns = socket.create_connection(('127.0.0.1', 3128))\n"
        "s.sendall(b'GET http://shop.test/ HTTP/1.1\\r\\n\\r\\n')\ns.shutdown(socket.SHUT_WR)\n"
        "print(s.makefile('rb').read().decode().splitlines()[-1])",
    )

    assert result.output == "hello from outside\n"


async def test_what_a_program_says_after_its_request_is_not_another_one(coast: Coast) -> None:
    sandbox = await coast.open()
    smuggled = "GET http://shop.test/ HTTP/1.1\\r\\n\\r\\nGET /internal HTTP/1.1\\r\\nHost: inner\\r\\n\\r\\n"

    await run(
        sandbox,
        "import socket\ns = socket.create_connection(('127.0.0.1', 3128))\n"
        f"s.sendall(b'{smuggled}')\ns.makefile('rb').read()",
    )

    assert len(coast.outside.heads) == 1
    assert b"internal" not in coast.outside.heads[0]


async def test_programs_show_the_reason(coast: Coast) -> None:
    sandbox = await coast.open()

    result = await sandbox.run(
        "python3 -c 'import urllib.request as r; r.urlopen(\"https://pypi.test/\", timeout=30)' 2>&1 | tail -n 1",
        time_limit=60,
    )

    assert "403 pypi.test:443 is not on the list of what this sandbox may reach" in result.output

"""A broker over sandboxes that are only noted down, and ways to reach it that no client of ours would take."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.contract.sandboxes.harness import PROFILES as REAL_PROFILES
from tests.contract.sandboxes.harness import Harbour, connect, new_folders, new_installation

from moorage.adapters.docker import ContainerSettings, DockerSandboxes, open_channel
from moorage.adapters.sandboxd import Broker, BrokerSandboxes, listening
from moorage.adapters.sandboxd.server import BrokerLimits
from moorage.ids import ThreadId
from moorage.sandboxes.port import Bounds, Channel, SandboxInfo, SandboxStats, Shortcoming
from moorage.sandboxes.service import Sandboxes

PROFILES = ("default", "big")
SHORTCOMINGS = (Shortcoming("swap", "The engine cannot bound it."),)


class SocketChannel:
    """A helper's stream as it is."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._connection, data)

    async def receive(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self._connection, 65536)

    async def close(self) -> str:
        self._connection.close()
        return ""


async def open_socket_channel(connection: socket.socket) -> Channel:
    return SocketChannel(connection)


@dataclass
class NotedSandboxes:
    """A provider that notes what is asked of it. `answer` is asked before each verb: it may raise, or wait."""

    name: Literal["docker"] = "docker"
    isolation_note: str | None = "only noted"
    calls: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    answer: Callable[[], Awaitable[None]] | None = None
    infos: list[SandboxInfo] = field(default_factory=list[SandboxInfo])
    bounds: Bounds = field(default_factory=Bounds)
    usage: SandboxStats = field(default_factory=lambda: SandboxStats(None, None, None, None, None, None))
    helper_ends: list[socket.socket] = field(default_factory=list[socket.socket])
    helper_opened: asyncio.Event = field(default_factory=asyncio.Event)
    close_helpers: bool = True
    passing: list[Shortcoming] = field(default_factory=list[Shortcoming])

    async def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if self.answer is not None:
            await self.answer()

    async def check(self) -> list[Shortcoming]:
        return list(SHORTCOMINGS)

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = "default") -> None:
        await self._note("prepare_folder", thread_id, profile)

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        await self._note("ensure", thread_id, profile, fencing_token)
        return self.bounds

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> Channel:
        return SocketChannel(await self.open_stream(thread_id, fencing_token=fencing_token))

    async def open_stream(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> socket.socket:
        await self._note("open_helper", thread_id, fencing_token)
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.helper_ends.append(theirs)
        self.helper_opened.set()
        return ours

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        await self._note("kill_all", thread_id, fencing_token)

    async def pause(self, thread_id: ThreadId) -> None:
        await self._note("pause", thread_id)

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        await self._note("remove", thread_id, files)

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        await self._note("list", folders, thread_id)
        return self.infos

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        await self._note("stats", thread_id)
        return self.usage

    async def close(self) -> None:
        for end in self.helper_ends if self.close_helpers else ():
            end.close()


@dataclass
class BrokerAtWork:
    """A broker that serves, its provider, its socket, and a client of ours."""

    provider: NotedSandboxes
    path: Path
    client: BrokerSandboxes
    stop: asyncio.Event

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has been greeted."""
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=2**20)
        assert json.loads(await reader.readline())["sandboxd"] == 1
        return reader, writer

    async def say(self, line: bytes) -> Any:
        """What the broker answers to these bytes; None when it hangs up without a word."""
        reader, writer = await self.raw()
        try:
            writer.write(line)
            answer = await reader.readline()
        finally:
            writer.close()
        return json.loads(answer) if answer else None

    async def ask(self, **request: object) -> Any:
        return await self.say(json.dumps(request).encode() + b"\n")


@asynccontextmanager
async def broker_at(
    path: Path,
    *,
    provider: NotedSandboxes | None = None,
    uids: tuple[int, ...] = (os.geteuid(),),
    limits: BrokerLimits | None = None,
) -> AsyncGenerator[BrokerAtWork]:
    provider = provider or NotedSandboxes()
    stop = asyncio.Event()
    with listening(path) as listener:
        broker = Broker(
            provider,
            profiles=PROFILES,
            uids=uids,
            shortcomings=SHORTCOMINGS,
            passing=lambda: tuple(provider.passing),
            limits=limits or BrokerLimits(),
        )
        serving = asyncio.create_task(broker.serve(listener, until=stop))
        try:
            yield BrokerAtWork(provider, path, BrokerSandboxes(path, open_channel=open_socket_channel), stop)
        finally:
            stop.set()
            await serving
            await provider.close()


@asynccontextmanager
async def open_brokered_harbour(folder: Path) -> AsyncGenerator[Harbour]:
    """Docker's sandboxes once more, made by a broker."""
    folders, installation = new_folders(folder), new_installation()
    docker = DockerSandboxes(ContainerSettings(installation=installation), folders=folders, profiles=REAL_PROFILES)
    stop = asyncio.Event()
    with listening(folder / "run" / "s") as listener:
        broker = Broker(docker, profiles=REAL_PROFILES, uids=[os.geteuid()], shortcomings=await docker.check())
        serving = asyncio.create_task(broker.serve(listener, until=stop))
        client = BrokerSandboxes(folder / "run" / "s", open_channel=open_channel)
        sandboxes = Sandboxes(client, connect)
        try:
            yield Harbour(client, sandboxes, folders, folder, "docker", installation)
        finally:
            await sandboxes.close()
            for info in await client.list(folders=True):
                await client.remove(info.thread_id, files=True)
            stop.set()
            await serving
            await docker.close()

"""Supervisors in a container: one `docker exec` each, its stream read by the event loop."""

import asyncio
import socket
import struct

from moorage.adapters.docker.engine import Engine
from moorage.adapters.docker.pool import BlockingPool
from moorage.sandboxes.port import AgentIdentity
from moorage.sandboxes.supervised import SUPERVISOR_ARGV

_HEADER = struct.Struct(">BxxxI")
_STDOUT = 1
_CHUNK = 64 * 1024
_COMPLAINT_BYTES = 2000


class ExecChannel:
    """The engine's multiplexed stream, taken apart: stdout is the supervisor's, stderr its complaints."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = 0
        self._left = 0
        self._complaint = b""

    async def send(self, data: bytes) -> None:
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            return

    async def receive(self) -> bytes:
        while True:
            try:
                if self._left == 0:
                    self._stream, self._left = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
                data = await self._reader.read(min(self._left, _CHUNK))
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
            self._left -= len(data)
            if self._stream == _STDOUT or not data:
                return data
            self._complaint = (self._complaint + data)[-_COMPLAINT_BYTES:]

    async def close(self) -> str:
        """Ends the supervisor's stdin too, which makes it kill its command."""
        self._writer.close()
        return self._complaint.decode(errors="replace").strip()


class ExecLauncher:
    """Launches supervisors in one container."""

    def __init__(
        self, engine: Engine, pool: BlockingPool, container: str, *, agent: AgentIdentity, workspace_dir: str
    ) -> None:
        self._engine = engine
        self._pool = pool
        self._container = container
        self._user = f"{agent.uid}:{agent.gid}"
        self._workspace_dir = workspace_dir
        self._started_at: str | None = None

    async def launch(self) -> ExecChannel:
        return await _open_channel(await self._pool.run(self._exec, abandon=socket.socket.close))

    async def reset(self) -> None:
        await self._pool.run(self._restart)

    def _exec(self) -> socket.socket:
        self._started_at = self._engine.started_at(self._container)
        return self._engine.exec(self._container, SUPERVISOR_ARGV, user=self._user, workdir=self._workspace_dir)

    def _restart(self) -> None:
        """Unless the container was killed meanwhile, and our commands with it: what runs now is somebody else's."""
        if self._engine.started_at(self._container) == self._started_at:
            self._engine.kill(self._container)
            self._engine.start(self._container)


async def _open_channel(connection: socket.socket) -> ExecChannel:
    connect = asyncio.open_unix_connection if connection.family == socket.AF_UNIX else asyncio.open_connection
    reader, writer = await connect(sock=connection, limit=4 * _CHUNK)
    return ExecChannel(reader, writer)

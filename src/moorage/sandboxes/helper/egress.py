"""Runs INSIDE a sandbox. The proxy's end in here: a port of the sandbox's loopback whose connections go to the server.

The server decides about each, and also when it is over (K): until then a connection counts as one of the few that
there may be. `o` is what the program sends; `e` that it sends no more or is gone (see wire.py).
"""

import select
import socket
from collections import deque
from functools import partial

from moorage.sandboxes.helper.wire import CHUNK, CREDIT, CREDIT_BYTES, ENDED, FROM_INSIDE, MOST_CONNECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from moorage.sandboxes.helper.zygote import Zygote

_GONE = b"gone"
_LAST = FROM_INSIDE - 1


class Listener:
    """Accepts as many connections as there may be; others wait in its backlog."""

    def __init__(self, zygote: "Zygote", port: int) -> None:
        self._zygote = zygote
        self._connections: set[Connection] = set()
        self._last_number = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            # The helpers of other processes that use this sandbox listen here too: the kernel chooses one.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen(MOST_CONNECTIONS)
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        before = zygote.stream.on_room
        zygote.stream.on_room = partial(self._go_on, before)
        self._listen()

    def let_go(self, connection: "Connection") -> None:
        self._connections.discard(connection)
        self._listen()

    def _listen(self) -> None:
        events = select.POLLIN if len(self._connections) < MOST_CONNECTIONS else 0
        self._zygote.loop.watch(self._socket.fileno(), events, self._accept)

    def _accept(self, _: int) -> None:
        try:
            accepted = self._socket.accept()[0]
        except OSError:  # it went away meanwhile, or there is no descriptor left for it
            return
        self._last_number = self._last_number % _LAST + 1
        number = FROM_INSIDE | self._last_number
        self._zygote.stream.send(b"n", number)
        self._connections.add(Connection(self._zygote, self, number, accepted))
        self._listen()

    def _go_on(self, before: "Any") -> None:
        before()
        for connection in self._connections:
            connection.listen()


class Connection:
    """One program's connection, between its socket and the server."""

    def __init__(self, zygote: "Zygote", listener: Listener, number: int, accepted: socket.socket) -> None:
        self._zygote = zygote
        self._listener = listener
        self._number = number
        self._socket: socket.socket | None = accepted
        self._credit = CREDIT
        self._outgoing: deque[bytes] = deque()  # bounded by the credit that the server has
        self._eaten = 0
        self._program_ended = False
        self._server_ended = False
        self._over = False
        accepted.setblocking(False)
        zygote.addressees[number] = self
        self.listen()

    def listen(self) -> None:
        """Wait for what can be done now."""
        if self._socket is None:
            return
        reads = self._credit > 0 and not (self._program_ended or self._over or self._zygote.stream.full)
        events = (select.POLLIN if reads else 0) | (select.POLLOUT if self._outgoing else 0)
        self._zygote.loop.watch(self._socket.fileno(), events, self._move)

    def take(self, kind: bytes, payload: bytes) -> None:
        """A frame from the server."""
        if kind == b"W":
            self._credit += CREDIT_BYTES.unpack(payload)[0]
        elif kind == b"I" and self._socket is not None:
            self._outgoing.append(payload)
            self._push()
        elif kind == b"E":
            self._server_ended = True
            self._shut()
        elif kind == b"K":
            self._zygote.addressees.pop(self._number, None)
            self._zygote.report(self._number, {"outcome": "exited"})
            self._over = True
            if not self._outgoing:
                self._close()
        self.listen()

    def _move(self, events: int) -> None:
        if events & select.POLLOUT:
            self._push()
        if events & select.POLLIN:
            self._read()
        elif events & (select.POLLHUP | select.POLLERR):
            self._lose()
        self.listen()

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(min(CHUNK, self._credit))
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        if data:
            self._credit -= len(data)
            self._zygote.stream.send(b"o", self._number, data)
        else:
            self._program_ended = True
            self._zygote.stream.send(ENDED, self._number)

    def _push(self) -> None:
        while self._outgoing and self._socket is not None:
            try:
                sent = self._socket.send(self._outgoing[0])
            except BlockingIOError:
                return
            except OSError:
                self._lose()
                return
            piece = self._outgoing.popleft()
            if sent < len(piece):
                self._outgoing.appendleft(piece[sent:])
            self._eat(sent)
        self._shut()

    def _eat(self, size: int) -> None:
        self._eaten += size
        if self._eaten >= CREDIT // 4 and not self._over:
            self._zygote.stream.send(b"w", self._number, CREDIT_BYTES.pack(self._eaten))
            self._eaten = 0

    def _shut(self) -> None:
        """Say the end that the server has said, once all before it is delivered."""
        if self._outgoing or self._socket is None:
            return
        if self._over:
            self._close()
        elif self._server_ended:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._lose()

    def _lose(self) -> None:
        """The program is gone."""
        if self._socket is None:
            return
        self._outgoing.clear()
        if not self._over:
            self._zygote.stream.send(ENDED, self._number, _GONE)
        self._close()

    def _close(self) -> None:
        """The socket. The connection is one of those that there may be until the server has said that it is over."""
        if self._socket is not None:
            self._zygote.loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None
        if self._over:
            self._listener.let_go(self)


def listen(zygote: "Zygote", order: "dict[str, Any]") -> "dict[str, object]":
    """Serve programs at `port` of the loopback from now on."""
    Listener(zygote, order["port"])
    return {"outcome": "exited"}


IN_ZYGOTE = {"listen": listen}

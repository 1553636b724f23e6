"""Runs INSIDE a sandbox. Frames, and the link between an order's worker and the zygote.

A frame is kind (1 byte), id of the order (4), length (4, big-endian) and payload. To the helper: C order (JSON), G go,
I input, E end of input, K kill, W credit. From it: h hello, n opened, r received, o and e output, w credit for input,
x report (JSON, last of its id). Between the zygote and its workers: l, a note (JSON) that goes no further, and X, an x
of one that waits for another order now.

Nothing of an order happens before its G. The server sends that when it has the `r`, so an order for which it sent
none has surely done nothing, whatever became of the helper.
"""

import errno
import select
import struct
from collections import deque
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing typing takes milliseconds
    from collections.abc import Callable
    from socket import socket
    from typing import Any

    Order = Callable[["Link", "dict[str, Any]"], "dict[str, object] | None"]

HEADER = struct.Struct(">cII")
CREDIT_BYTES = struct.Struct(">I")
CHUNK = 64 * 1024
CREDIT = 256 * 1024
MAX_ORDER = 1024 * 1024
MAX_ORDERS = 256
FROM_INSIDE = 1 << 31  # ids with this bit are connections that programs inside opened
MOST_CONNECTIONS = 64
PROXY_PORT = 3128
STAYS = b"X"
ENDED = b"e"  # of a connection from inside: the program sends no more, or, with content, is gone

ERROR_CODES = {
    errno.ENOENT: "file_not_found",
    errno.EISDIR: "is_directory",
    errno.ENOTDIR: "not_a_directory",
    errno.ENOTEMPTY: "not_empty",
    errno.EEXIST: "file_exists",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "no_space",
    errno.EAGAIN: "no_processes",
    errno.ENOMEM: "no_memory",
}


class Killed(Exception):
    """The server said kill, or went away."""


class Link:
    """One order's frames, in its worker. Each message of the socket is one frame; late ones of others are dropped."""

    def __init__(self, channel: "socket", number: int) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._number = number
        self._received: deque[tuple[bytes, bytes]] = deque()
        self._outgoing: deque[bytes] = deque()
        self._eaten = 0
        self.credit = CREDIT
        self.killed = False

    def fileno(self) -> int:
        return self._channel.fileno()

    # Without waiting, for who has more to attend to ------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether a frame waits to be sent. More may be queued, but should not."""
        return bool(self._outgoing)

    def receive(self) -> None:
        """Take what has come; then ask `next`, and `killed`."""
        while True:
            try:
                message = self._channel.recv(HEADER.size + CHUNK)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self.killed = True
                return
            kind, number, _ = HEADER.unpack_from(message)
            if number != self._number:
                continue
            if kind == b"K":
                self.killed = True
                return
            payload = message[HEADER.size :]
            if kind == b"W":
                self.credit += CREDIT_BYTES.unpack(payload)[0]
            else:
                self._received.append((kind, payload))

    def next(self) -> "tuple[bytes, bytes] | None":
        """The next frame that has come: G, I or E."""
        return self._received.popleft() if self._received else None

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        """Queue a frame, and send it if it can be sent now. Output (o, e) costs credit: see that there is some."""
        if kind in (b"o", b"e"):
            self.credit -= len(payload)
        self._outgoing.append(HEADER.pack(kind, self._number, len(payload)) + payload)
        self.push()

    def push(self) -> None:
        while self._outgoing:
            try:
                self._channel.send(self._outgoing[0])
            except BlockingIOError:
                return
            except OSError:
                self.killed = True
                self._outgoing.clear()
                return
            self._outgoing.popleft()

    def eat(self, size: int) -> None:
        """So many bytes of input need no room any more."""
        self._eaten += size
        if self._eaten >= CREDIT // 4:
            self.send(b"w", CREDIT_BYTES.pack(self._eaten))
            self._eaten = 0

    # Waiting, for orders that do one thing after the other; each raises Killed ---------------------------------------

    def write(self, data: bytes, kind: bytes = b"o") -> None:
        """Send `data` as output; waits while the server has not read what was sent before."""
        for start in range(0, len(data), CHUNK):
            piece = data[start : start + CHUNK]
            self._wait_until(partial(self._may_send, len(piece)))
            self.send(kind, piece)
            self.flush()

    def read(self) -> "bytes | None":
        """The next bytes of the input; None at its end."""
        self._wait_until(lambda: bool(self._received))
        kind, payload = self._received.popleft()
        if kind == b"E":
            return None
        self.eat(len(payload))
        return payload

    def check(self) -> None:
        """For who works for long without reading or writing."""
        self.receive()
        if self.killed:
            raise Killed

    def flush(self) -> None:
        """Wait until all that was queued is sent."""
        self._wait_until(lambda: not self._outgoing)

    def say_last(self, kind: bytes, payload: bytes) -> None:
        """Send what ends the order, and read nothing any more: what comes from now on may be of the next."""
        self.flush()
        self.send(kind, payload)
        while self._outgoing:
            select.select([], [self], [])
            self.push()

    def wait_for_credit(self) -> None:
        """Wait until some output may be sent, and what was sent is on its way."""
        self._wait_until(lambda: self.credit > 0 and not self._outgoing)

    def wait_for_go(self) -> None:
        self._wait_until(lambda: bool(self._received))
        if self._received.popleft()[0] != b"G":
            raise Killed

    def _may_send(self, size: int) -> bool:
        return self.credit >= size

    def _wait_until(self, ready: "Callable[[], bool]") -> None:
        self.check()
        while not ready():
            select.select([self], [self] if self._outgoing else [], [])
            self.push()
            self.check()

"""Runs INSIDE a sandbox. What the server is sent of a command's output: its start as it comes, and its end."""

from collections import deque

from moorage.sandboxes.helper.wire import CHUNK, Killed, Link

_STREAMS = 2


class Output:
    """Both streams of one command, in order of arrival.

    What is beyond the start is held here, and only the last of it: so a flood costs the server, and the engine between,
    no more than a long output does.
    """

    def __init__(self, link: Link, keep: int) -> None:
        """`keep`: bytes that the server keeps of the start and of the end. Of the start it shows so many a stream."""
        self._link = link
        self._keep = keep
        self._room = _STREAMS * keep
        self._held: deque[tuple[bytes, bytearray]] = deque()
        self._held_bytes = 0
        self.skipped = 0

    @property
    def most(self) -> int:
        """How many bytes can be taken now; 0 while the server has not read enough of the start: the command waits."""
        if self._room <= 0:
            return CHUNK
        return 0 if self._link.pending else max(0, min(CHUNK, self._link.credit))

    def add(self, kind: bytes, data: bytes) -> None:
        """At most `most` bytes."""
        if self._room > 0:
            self._room -= len(data)
            self._link.send(kind, data)
        else:
            self._hold(kind, data)

    def wait_for_room(self) -> None:
        """Wait until some can be taken; raises Killed."""
        if self._room > 0:
            self._link.wait_for_credit()

    def finish(self) -> None:
        """Send the end, and wait until it is on its way."""
        try:
            for kind, data in self._held:
                self._link.write(bytes(data), kind)
        except Killed:
            return

    def _hold(self, kind: bytes, data: bytes) -> None:
        if self._held and self._held[-1][0] == kind and len(self._held[-1][1]) < CHUNK:
            self._held[-1][1].extend(data)
        else:
            self._held.append((kind, bytearray(data)))
        self._held_bytes += len(data)
        while self._held_bytes - len(self._held[0][1]) > self._keep:
            dropped = len(self._held.popleft()[1])
            self._held_bytes -= dropped
            self.skipped += dropped

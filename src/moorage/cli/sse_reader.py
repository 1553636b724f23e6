"""Server-Sent Events, from bytes as they arrive to frames (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from collections.abc import Iterator
from dataclasses import dataclass

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Frame:
    """One event. `id` is the one written in this frame, None when it has none."""

    event: str
    data: str
    id: str | None = None


class SseReader:
    """Reads one stream. The chunks may be cut anywhere, also inside a character or a line end."""

    def __init__(self) -> None:
        self._buffer = b""
        self._started = False
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """The frames that `chunk` completes. What the stream's end cuts off is never a frame."""
        for line in self._lines(chunk):
            if line:
                self._field(line.decode("utf-8", "replace"))
                continue
            if self._data:
                yield Frame(self._event or "message", "\n".join(self._data), self._id)
            self._event, self._data, self._id = "", [], None

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete, without their ends: CRLF, LF or CR. A CR waits for what follows it."""
        self._buffer += chunk
        if not self._started:
            if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
                return []
            self._started = True
            self._buffer = self._buffer.removeprefix(_BOM)
        end = len(self._buffer) - self._buffer.endswith(b"\r")
        last = max(self._buffer.rfind(b"\n", 0, end), self._buffer.rfind(b"\r", 0, end)) + 1
        whole, self._buffer = self._buffer[:last], self._buffer[last:]
        return whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case _:  # comments, which start with a colon, `retry`, and fields of the future
                return

"""A command's output: decoded as it comes, cleaned for people and Postgres, and bounded in memory."""

import codecs
import re
from collections import deque

from moorage.sandboxes.port import CommandResult, OnOutput, Outcome, StreamName

_STREAMS: dict[bytes, StreamName] = {b"o": "stdout", b"e": "stderr"}
# Control characters but tab, newline and carriage return: NUL breaks Postgres, ESC takes over terminals. Those of one
# byte go before decoding: a table does in microseconds what a pattern does in milliseconds when all is NUL.
_UNWANTED_BYTES = bytes({*range(0x20), 0x7F} - set(b"\t\n\r"))
_UNWANTED_CHARACTERS = re.compile(r"[\x80-\x9f]")


class TextStream:
    """Turns the bytes of one stream into clean text; a character cut between two chunks is put together again."""

    def __init__(self, *, raw: bool = False) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._raw = raw

    def feed(self, data: bytes, *, final: bool = False) -> str:
        if self._raw:
            return self._decoder.decode(data, final)
        text = self._decoder.decode(data.translate(None, _UNWANTED_BYTES), final)
        return text if text.isascii() else _UNWANTED_CHARACTERS.sub("", text)


class KeptOutput:
    """The first and last `keep` bytes of an output of any length, and how long it was."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._head: list[str] = []
        self._head_size = 0
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._cut = 0

    @property
    def truncated(self) -> bool:
        return self._cut > 0

    def add(self, text: str) -> None:
        size = len(text.encode())
        if self._tail_size == 0 and self._head_size + size <= self._keep:
            self._head.append(text)
            self._head_size += size
        elif self._tail_size == 0 and self._head_size < self._keep:
            start, rest = _split(text, self._keep - self._head_size)
            self._head.append(start)
            self._head_size = self._keep
            self._add_tail(rest)
        else:
            self._add_tail(text)

    def skip(self, size: int) -> None:
        """So many bytes before the end were not even sent."""
        self._cut += size

    def _add_tail(self, text: str) -> None:
        self._tail.append(text)
        self._tail_size += len(text.encode())
        while self._tail_size - (first := len(self._tail[0].encode())) >= self._keep:
            self._tail.popleft()
            self._tail_size -= first
            self._cut += first
        if (excess := self._tail_size - self._keep) > 0:
            dropped, rest = _split(self._tail[0], excess)
            self._tail[0] = rest
            self._tail_size -= len(dropped.encode())
            self._cut += len(dropped.encode())

    def text(self) -> str:
        head, tail = "".join(self._head), "".join(self._tail)
        return f"{head}\n... [{self._cut} bytes cut here] ...\n{tail}" if self._cut else head + tail


class CommandOutput:
    """Both streams of one command, shown as they come and kept within bounds."""

    def __init__(self, keep: int, on_output: OnOutput | None, *, raw: bool) -> None:
        self.bytes = 0
        self._kept = KeptOutput(keep)
        self._text = {kind: TextStream(raw=raw) for kind in _STREAMS}
        self._on_output = on_output

    def add(self, kind: bytes, data: bytes) -> None:
        """`kind`: o for stdout, e for stderr."""
        self.bytes += len(data)
        self._show(kind, self._text[kind].feed(data))

    def skip(self, size: int) -> None:
        """So many bytes, beyond the first and before the last that are kept, are not added."""
        self.bytes += size
        self._kept.skip(size)

    def result(self, outcome: Outcome, exit_code: int | None) -> CommandResult:
        for kind in _STREAMS:
            self._show(kind, self._text[kind].feed(b"", final=True))
        return CommandResult(exit_code, self._kept.text(), self._kept.truncated, outcome, self.bytes)

    def _show(self, kind: bytes, text: str) -> None:
        if text:
            self._kept.add(text)
            if self._on_output:
                self._on_output(_STREAMS[kind], text)


def _split(text: str, size: int) -> tuple[str, str]:
    """`text` cut after `size` bytes or, inside a character, just before it."""
    data = text.encode()
    start = data[:size].decode(errors="ignore")
    return start, data[len(start.encode()) :].decode()

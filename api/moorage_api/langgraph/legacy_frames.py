"""Frames of the legacy SSE: CRLF lines, and ids from which a client goes on exactly where it was.

One event of the log may become several frames: the id of a frame is `{seq}-{place}`, the event's seq and the frame's
place among those of this event, from 0. With the same modes an event always becomes the same frames.
"""

import re
from typing import Any

import orjson

from moorage.errors import InvalidPayload

type FrameId = tuple[int, int]

START: FrameId = (0, -1)
ALL_OF_IT = 2**31
_FRAME_ID = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,9}))?")


def frame_id(text: str | None) -> FrameId:
    """What `Last-Event-ID` names. The clients' words for the start, `-`, `-1` and `0`, are the start, as is nothing.

    A bare number is the id that the core API gives an event. Raises InvalidPayload for anything else.
    """
    if text in (None, "", "-", "-1", "0", "0-0"):
        return START
    match = _FRAME_ID.fullmatch(text or "")
    if match is None:
        raise InvalidPayload("Last-Event-ID takes the id of an event of this stream, or - for its start")
    place = match[2]
    return int(match[1]), int(place) if place is not None else ALL_OF_IT


class FrameWriter:
    """Collects the frames of one batch of events; those up to `after` are counted, and not sent."""

    def __init__(self, after: FrameId = START) -> None:
        self._after = after
        self._seq = 0
        self._place = -1
        self._parts: list[bytes] = []

    def begin(self, seq: int) -> None:
        """The next frames are of the event with this seq."""
        self._seq = seq
        self._place = -1

    def add(self, name: bytes, data: bytes, *, always: bool = False) -> None:
        """One frame. With `always` it is sent even if `after` says that the client has it."""
        self._place += 1
        if always or (self._seq, self._place) > self._after:
            self._parts.append(b"event: %b\r\ndata: %b\r\nid: %d-%d\r\n\r\n" % (name, data, self._seq, self._place))

    @property
    def sends_next(self) -> bool:
        """Whether the client does not have the next frame yet: else `skip` will do."""
        return (self._seq, self._place + 1) > self._after

    def skip(self) -> None:
        """Count a frame that the client has."""
        self._place += 1

    def add_json(self, name: bytes, data: Any) -> None:
        self.add(name, orjson.dumps(data))

    def take(self) -> bytes:
        """What was collected, as one chunk."""
        chunk = b"".join(self._parts)
        self._parts.clear()
        return chunk


def frame_name(mode: str, ns: tuple[str, ...]) -> bytes:
    """An event's name: the mode, and the namespace of a sub-graph behind it."""
    return "|".join((mode, *ns)).encode()

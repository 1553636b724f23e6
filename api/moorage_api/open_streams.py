"""How many streams a user has open at this server: each costs memory and, while it catches up, time."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from moorage.errors import LimitExceeded
from moorage.ids import UserId

_RETRY_SECONDS = 5


class TooManyStreams(LimitExceeded):
    code = "stream_limit"


class OpenStreams:
    """Counts them. SSE streams, requests that wait for a run, WebSockets and their subscriptions are one each."""

    def __init__(self, most: int) -> None:
        """`most` of a user; 0: no limit."""
        self._most = most
        self._open = Counter[UserId]()

    @contextmanager
    def one(self, user_id: UserId) -> Generator[None]:
        """Count one while it is open; raises TooManyStreams."""
        if self._most and self._open[user_id] >= self._most:
            raise TooManyStreams(
                f"You have {self._most} streams open at this server: close some first", retry_after=_RETRY_SECONDS
            )
        self._open[user_id] += 1
        try:
            yield
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

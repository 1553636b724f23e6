"""How many connections to the outside there may be at once, over all sandboxes that this process serves."""

import resource
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Self

from moorage.ids import UserId

_MOST = 1024
_OF_FILES = 4  # a connection is an open file; this part of those that there may be is the sandboxes'
_OF_ALL = 4  # and this part of all connections one user's


class EgressFull(Exception):
    """As many are open as may be; the text says whose."""


class EgressRoom:
    """At most `most` connections, and a quarter of them for one user's sandboxes: nobody takes all of it."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._most_of_user = max(1, most // _OF_ALL)
        self._open: Counter[UserId | None] = Counter()

    @classmethod
    def of_this_process(cls) -> Self:
        """1024, or a quarter of the files that this process may have open when that is less."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(_MOST if files == resource.RLIM_INFINITY else max(1, min(_MOST, files // _OF_FILES)))

    @contextmanager
    def one_for(self, user: UserId | None) -> Generator[None]:
        """Room for one connection of this user's sandboxes, until the end of the block; raises EgressFull."""
        if self._open.total() >= self._most:
            raise EgressFull("All sandboxes together have as many connections as they may: try again later")
        if self._open[user] >= self._most_of_user:
            raise EgressFull("Your sandboxes together have as many connections as they may: try again later")
        self._open[user] += 1
        try:
            yield
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

"""What the store said a moment ago about a token or a key, so that not every request asks it."""

import time
from collections.abc import Awaitable, Callable

_SECONDS = 1.0
_LIMIT = 10_000


class Recent[V]:
    """Answers kept for a second. What this process changes counts at once, what another one changes within that."""

    def __init__(self) -> None:
        self._known: dict[str | bytes, tuple[float, V]] = {}
        self._changes = 0

    async def get(self, name: str | bytes, ask: Callable[[], Awaitable[V | None]]) -> V | None:
        """What `ask` answered lately, or answers now. A None is not kept."""
        now = time.monotonic()
        known = self._known.get(name)
        if known is not None and now - known[0] < _SECONDS:
            return known[1]
        changes = self._changes
        answer = await ask()
        if answer is not None and changes == self._changes:  # else it may be older than a change made meanwhile
            if len(self._known) >= _LIMIT:
                self._known.clear()
            self._known[name] = (now, answer)
        return answer

    def forget(self) -> None:
        self._changes += 1
        self._known.clear()

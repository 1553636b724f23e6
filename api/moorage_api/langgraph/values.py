"""The graph's state as it was at each step, folded from what the log keeps of how it changed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

type Values = dict[str, Any]
type LoadState = Callable[[str], Awaitable[Values]]
"""The root's values in the checkpoint with this id, in the wire's JSON."""

_MESSAGES = "messages"


class StateFold:
    """Current values per namespace, from the `values` changes of `graph` events in the order of the log.

    A change says what was added, replaced and dropped since the one before. One with `from` begins at a checkpoint: it
    is loaded, unless the fold stands there already.
    """

    def __init__(self, load: LoadState) -> None:
        self._load = load
        self._values: dict[tuple[str, ...], Values] = {}
        self._stands_at: str | None = None

    async def apply(self, ns: Sequence[str], change: Mapping[str, Any]) -> Values:
        """The namespace's values after `change`. They are the fold's own: encode them before the next change."""
        place = tuple(ns)
        if "from" in change:
            self._values[place] = await self._begin(change["from"])
        if not place:  # a pause may tell of results that no checkpoint has yet
            self._stands_at = None
        values = self._values.setdefault(place, {})
        if (messages := _messages(values.get(_MESSAGES), change)) is not None:
            values[_MESSAGES] = messages
        values.update(change.get("set", {}))
        return values

    def stands_at(self, checkpoint_id: str) -> None:
        """The root's values are those of this checkpoint now."""
        self._stands_at = checkpoint_id

    async def at(self, checkpoint_id: str) -> Values:
        """The root's values in a checkpoint, where no change has been told yet."""
        known = self._values.get(())
        return known if known is not None else await self._load(checkpoint_id)

    def values(self, ns: Sequence[str] = ()) -> Values | None:
        """What is known of a namespace; None when nothing was told of it."""
        return self._values.get(tuple(ns))

    async def _begin(self, checkpoint_id: str | None) -> Values:
        if checkpoint_id is None:
            return {}
        known = self._values.get(())
        if known is not None and checkpoint_id == self._stands_at:
            return known
        return dict(await self._load(checkpoint_id))


def _messages(before: list[Any] | None, change: Mapping[str, Any]) -> list[Any] | None:
    """The messages after `change`; None when it does not touch them."""
    new: list[Any] | None = change.get(_MESSAGES)
    if change.get("reset"):
        return list(new or [])
    gone = frozenset[str](change.get("gone", ()))
    if new is None and not gone:
        return None
    kept = {message["id"]: message for message in before or () if message["id"] not in gone}
    kept.update((message["id"], message) for message in new or ())
    return list(kept.values())

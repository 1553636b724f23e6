"""Which threads have work, in whichever process, and which are there at all: who has a say in their sandboxes."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from moorage.ids import ThreadId

type SomeThreads = Callable[[Collection[ThreadId]], Awaitable[set[ThreadId]]]
"""Those of the given threads of which something is true."""


class Work(Protocol):
    """Asks over all processes; raises Unavailable."""

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those that have a queued or running run."""
        ...

    async def existing(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        """Those that are there, or about to be: what is of others may be removed."""
        ...

    def hold_idle(self, thread_ids: Collection[ThreadId]) -> AbstractAsyncContextManager[set[ThreadId]]:
        """Those that have none, and get none before the end of the block: new runs wait, so make it short.

        Nor those whose sandbox is used for long outside of runs, by whichever process.
        """
        ...

    def in_use(self, thread_id: ThreadId) -> AbstractAsyncContextManager[None]:
        """Tells that its sandbox is used, until the end of the block. Never raises anything of its own."""
        ...


class NoWork:
    """Every thread is there, and none ever has a run."""

    async def busy(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        return set(thread_ids) - set(thread_ids)

    async def existing(self, thread_ids: Collection[ThreadId]) -> set[ThreadId]:
        return set(thread_ids)

    @asynccontextmanager
    async def hold_idle(self, thread_ids: Collection[ThreadId]) -> AsyncGenerator[set[ThreadId]]:
        yield set(thread_ids)

    @asynccontextmanager
    async def in_use(self, thread_id: ThreadId) -> AsyncGenerator[None]:  # noqa: ARG002 -- the port's
        yield

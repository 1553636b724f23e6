"""What this process knows of one thread's sandbox, and the helpers that it has open in it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from moorage.ids import ThreadId, UserId, owner_of
from moorage.sandboxes.port import Bounds, Channel, Sandbox, StaleClaim

type KillAll = Callable[[], Awaitable[None]]


class OpenSandbox(Sandbox, Protocol):
    """A sandbox through one helper."""

    @property
    def lost(self) -> bool:
        """Whether the helper is gone: no order will reach it any more."""
        ...

    async def close(self) -> None:
        """End the helper."""
        ...


class Connect(Protocol):
    """Talks to a helper that was just started; raises SandboxGone when it does not answer.

    `profile` is what the sandbox was made as; None outside of runs, when it is whatever it was.
    """

    async def __call__(
        self, thread_id: ThreadId, channel: Channel, bounds: Bounds, *, profile: str | None, kill_all: KillAll
    ) -> OpenSandbox: ...


@dataclass(slots=True, eq=False)
class Helper:
    """One open helper. `users` count what goes through it; a retired one is closed by its last."""

    sandbox: OpenSandbox
    users: int = 0
    retired: bool = False

    @asynccontextmanager
    async def in_use(self) -> AsyncGenerator[OpenSandbox]:
        """Keeps it open when it is replaced meanwhile."""
        self.users += 1
        try:
            yield self.sandbox
        finally:
            self.users -= 1
            if self.retired and not self.users:
                await self.sandbox.close()


@dataclass(slots=True, eq=False)
class Place:
    """`profile` is what the sandbox was last made sure to be; None: whatever it is. `token`: the newest claim's here.

    `running`: it uses memory, as far as we know; `ours`: this process made use of it. `to_empty`: a helper was lost,
    and what it ran may go on.
    """

    thread_id: ThreadId
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    helper: Helper | None = None
    profile: str | None = None
    token: int = 0
    running: bool = False
    ours: bool = False
    to_empty: bool = False
    users: int = 0
    last_used: float = 0.0

    @property
    def owner(self) -> UserId | None:
        return owner_of(self.thread_id)

    @property
    def is_free(self) -> bool:
        """Whether it runs and nothing here uses it."""
        return self.running and not self.users and not self.lock.locked()

    @property
    def is_forgettable(self) -> bool:
        """Nobody waits for an unlocked lock."""
        return not self.running and not self.users and not self.lock.locked()

    def admit(self, token: int | None) -> None:
        """Raise StaleClaim when a newer claim used the sandbox here; the provider looks beyond this process."""
        if token is None:
            return
        if token < self.token:
            raise StaleClaim("Another worker has this run now: nothing was done.")
        self.token = token

    def serves(self, profile: str | None, *, instead_of: OpenSandbox | None) -> bool:
        """Whether the open helper will do."""
        helper = self.helper
        if helper is None or helper.sandbox.lost or helper.sandbox is instead_of:
            return False
        return profile is None or profile == self.profile

    async def let_go(self, *, at_once: bool = False) -> None:
        """Open a new helper next time; what still goes through this one ends first, unless it is lost."""
        helper, self.helper = self.helper, None
        if helper is None:
            return
        self.to_empty = self.to_empty or helper.sandbox.lost
        helper.retired = True
        if at_once or not helper.users or helper.sandbox.lost:
            await helper.sandbox.close()

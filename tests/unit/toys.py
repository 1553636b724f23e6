"""Sandboxes of a kind that exists in tests only: entries in dictionaries, shared by all servers that are given them."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, cast

from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.place import KillAll
from moorage.sandboxes.port import (
    USER_FULL,
    Bounds,
    Channel,
    CommandResult,
    Outcome,
    SandboxesFull,
    SandboxGone,
    SandboxInfo,
    SandboxStats,
    SandboxUnavailable,
    Shortcoming,
    StaleClaim,
)

DONE = CommandResult(0, "done\n", False, Outcome.EXITED, 5)
NOTHING = SandboxStats(None, None, None, None, None, None)


class ToyHelper:
    """A helper's channel, and the sandbox through it. A command is done at once, if the helper lives."""

    def __init__(self, toys: "Toys", thread_id: ThreadId) -> None:
        self._toys = toys
        self.id: str = thread_id
        self.lost = False
        self.closed = False
        self.kill_all: KillAll | None = None

    @property
    def files(self) -> Any:
        raise NotImplementedError

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        return b""

    async def close(self) -> Any:
        self.closed = self.lost = True
        return ""

    async def run(self, command: str, **_: object) -> CommandResult:
        self._toys.fail(command)
        if self.lost:
            raise SandboxGone("gone")
        return DONE

    async def write_file(self, path: str, content: bytes) -> bool:
        raise NotImplementedError

    async def read_file(self, path: str, *, limit: int) -> bytes:
        raise NotImplementedError


class Toys:
    """The provider. `fail` is asked before each call; `running` holds the profile of each sandbox that runs.

    `dead` are those that stopped, but not by `pause`; those that are `stuck` never come to an end of that, and those
    that are `broken` refuse it.
    """

    name: Literal["docker"] = "docker"
    isolation_note = None

    def __init__(self, *, most: int = 100, most_per_user: int = 100) -> None:
        self.running: dict[ThreadId, str] = {}
        self.dead: set[ThreadId] = set()
        self.stuck: set[ThreadId] = set()
        self.broken: set[ThreadId] = set()
        self.folders: set[ThreadId] = set()
        self.helpers: list[ToyHelper] = []
        self.tokens: dict[ThreadId, int] = {}
        self.fail: Callable[[str], None] = lambda _: None
        self.most = most
        self.most_per_user = most_per_user

    async def check(self) -> list[Shortcoming]:
        return []

    async def prepare_folder(self, thread_id: ThreadId, *, profile: str = "default") -> None:
        self.folders.add(thread_id)

    async def ensure(self, thread_id: ThreadId, *, profile: str | None, fencing_token: int | None = None) -> Bounds:
        self.fail("ensure")
        self._admit(thread_id, fencing_token)
        if thread_id not in self.running:
            if len(self.running) >= self.most:
                raise SandboxesFull("as many run as may")
            if sum(owner_of(other) == owner_of(thread_id) for other in self.running) >= self.most_per_user:
                raise SandboxesFull("as many of yours run as may", code=USER_FULL)
        elif profile is not None and self.running[thread_id] != profile:
            self._lose_helpers(thread_id)
        self.running[thread_id] = profile or self.running.get(thread_id, "default")
        self.dead.discard(thread_id)
        self.folders.add(thread_id)
        return Bounds()

    async def open_helper(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> Channel:
        self.fail("open_helper")
        self._admit(thread_id, fencing_token)
        if thread_id not in self.running:
            raise SandboxGone("gone")
        self.helpers.append(ToyHelper(self, thread_id))
        return self.helpers[-1]

    async def kill_all(self, thread_id: ThreadId, *, fencing_token: int | None = None) -> None:
        self.fail("kill_all")
        self._admit(thread_id, fencing_token)
        self._lose_helpers(thread_id)

    async def pause(self, thread_id: ThreadId) -> None:
        self.fail("pause")
        if thread_id in self.stuck:
            await asyncio.Event().wait()
        if thread_id in self.broken:
            raise SandboxUnavailable("the engine does not manage to")
        self.running.pop(thread_id, None)
        self.dead.discard(thread_id)
        self._lose_helpers(thread_id)

    async def remove(self, thread_id: ThreadId, *, files: bool) -> None:
        self.fail("remove")
        await self.pause(thread_id)
        if files:
            self.folders.discard(thread_id)

    async def list(self, *, folders: bool = False, thread_id: ThreadId | None = None) -> list[SandboxInfo]:
        self.fail("list")
        known = {*self.running, *self.dead, *(self.folders if folders else ())}
        if thread_id is not None:
            known &= {thread_id}
        return [SandboxInfo(item, item in self.running, self.running.get(item, "default")) for item in known]

    async def stats(self, thread_id: ThreadId) -> SandboxStats:
        return NOTHING

    async def close(self) -> None: ...

    def lose(self, thread_id: ThreadId) -> None:
        """The container vanishes, as if by `docker rm --force`."""
        self.running.pop(thread_id, None)
        self._lose_helpers(thread_id)

    def die(self, thread_id: ThreadId) -> None:
        """The container stops, as if by `docker kill`: it is there, and does not run."""
        self.lose(thread_id)
        self.dead.add(thread_id)

    def open_helpers(self, thread_id: ThreadId) -> int:
        return sum(helper.id == thread_id and not helper.lost for helper in self.helpers)

    def _lose_helpers(self, thread_id: ThreadId) -> None:
        for helper in self.helpers:
            if helper.id == thread_id:
                helper.lost = True

    def _admit(self, thread_id: ThreadId, token: int | None) -> None:
        if token is not None:
            if token < self.tokens.get(thread_id, 0):
                raise StaleClaim("a newer claim was here")
            self.tokens[thread_id] = token


async def connect(
    thread_id: ThreadId, channel: Channel, bounds: Bounds, *, profile: str | None, kill_all: KillAll
) -> ToyHelper:
    helper = cast("ToyHelper", channel)
    helper.kill_all = kill_all
    return helper

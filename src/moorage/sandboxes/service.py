"""One sandbox per thread: made at its first use, made again when it vanished, stopped when idle."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.port import (
    KEEP_BYTES,
    CommandResult,
    OnOutput,
    Sandbox,
    SandboxGone,
    SandboxLimits,
    SandboxProvider,
    SandboxSpec,
)
from moorage.sandboxes.workspace import Workspaces
from moorage.telemetry import get_logger

_DISK_THREADS = 4
_SWEEP_SECONDS = 30.0

log = get_logger(__name__)

type ExistingThreads = Callable[[Collection[ThreadId]], Awaitable[set[ThreadId]]]


@dataclass(slots=True)
class _Place:
    """What we know of one thread's sandbox. `ref` is None while it has none that we know of."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sandbox: Sandbox | None = None
    ref: str | None = None
    users: int = 0
    last_used: float = 0.0


class Sandboxes:
    """Hands out sandboxes by thread id. `idle_seconds` after its last command a sandbox is stopped; its files stay."""

    def __init__(
        self,
        provider: SandboxProvider,
        workspaces: Workspaces,
        *,
        limits: SandboxLimits | None = None,
        idle_seconds: float = 900,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._workspaces = workspaces
        self._limits = limits or SandboxLimits()
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._places: dict[ThreadId, _Place] = {}
        self._disk = ThreadPoolExecutor(_DISK_THREADS, thread_name_prefix="workspaces")

    @property
    def provider(self) -> SandboxProvider:
        return self._provider

    async def acquire(self, thread_id: ThreadId) -> Sandbox:
        """The thread's sandbox. Costs nothing until it is used; raises InvalidInput for what is no thread id."""
        if owner_of(thread_id) is None:
            raise InvalidInput("This is not a thread id.")
        return _ThreadSandbox(thread_id, self)

    async def release(self, thread_id: ThreadId) -> None:
        """Stop the thread's sandbox now; the next use wakes it up."""
        place = self._places.get(thread_id)
        if place is None:
            return
        async with place.lock:
            await self._pause(place)

    async def delete(self, thread_id: ThreadId) -> None:
        """Remove the thread's sandbox and all its files. Succeeds when there are none."""
        place = self._places.setdefault(thread_id, _Place())
        async with place.lock:
            for info in await self._provider.list():
                if info.thread_id == thread_id:
                    await self._provider.delete(info.ref)
            place.sandbox = place.ref = None
            await self._on_disk(lambda: self._workspaces.delete(thread_id))
        self._places.pop(thread_id, None)

    async def reconcile(self, existing: ExistingThreads) -> int:
        """Remove the sandboxes whose thread is gone, by the answer of `existing`; answers how many there were.

        Those of living threads that still run, from before a restart, are stopped when idle like any other.
        """
        found = [info for info in await self._provider.list() if info.thread_id not in self._places]
        alive = await existing({info.thread_id for info in found})
        orphans = [info for info in found if info.thread_id not in alive]
        for info in orphans:
            await self._provider.delete(info.ref)
        for info in found:
            if info.running and info.thread_id in alive:
                self._places.setdefault(info.thread_id, _Place(ref=info.ref, last_used=self._clock()))
        return len(orphans)

    async def sweep(self) -> int:
        """Stop the sandboxes that have been idle for too long; answers how many."""
        limit = self._clock() - self._idle_seconds
        idle = [place for place in self._places.values() if _is_idle(place, limit)]
        for place in idle:
            async with place.lock:
                if _is_idle(place, limit):
                    await self._pause(place)
        return len(idle)

    async def keep_sweeping(self) -> None:
        """Sweep until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await self.sweep()
            except AppError as error:
                log.warning("sandbox_sweep_failed", reason=error.detail)

    async def close(self) -> None:
        """Stop all sandboxes that this process woke up. The provider's own resources are its owner's to close."""
        results = await asyncio.gather(*(self._pause(place) for place in self._places.values()), return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException) and not isinstance(error, AppError):
                raise error
        self._disk.shutdown(wait=False, cancel_futures=True)

    async def wake(self, thread_id: ThreadId, *, instead_of: Sandbox | None = None) -> Sandbox:
        """The running sandbox of the thread: the known one unless it is `instead_of`, which was found dead."""
        place = self._places.setdefault(thread_id, _Place())
        async with place.lock:
            if place.sandbox is None or place.sandbox is instead_of:
                spec = await self._on_disk(lambda: self._spec(thread_id))
                place.ref = await self._provider.create(spec)
                place.sandbox = await self._provider.connect(place.ref)
            return place.sandbox

    @contextmanager
    def in_use(self, thread_id: ThreadId) -> Generator[None]:
        """Keeps the sweeper away."""
        place = self._places.setdefault(thread_id, _Place())
        place.users += 1
        try:
            yield
        finally:
            place.users -= 1
            place.last_used = self._clock()

    def _spec(self, thread_id: ThreadId) -> SandboxSpec:
        owner = owner_of(thread_id)
        if owner is None:
            raise InvalidInput("This is not a thread id.")
        workspace = self._workspaces.open_workspace(thread_id)
        return SandboxSpec(thread_id, owner, workspace, self._workspaces.open_shared(owner), self._limits)

    async def _pause(self, place: _Place) -> None:
        place.sandbox, ref, place.ref = None, place.ref, None
        if ref is not None:
            await self._provider.pause(ref)

    async def _on_disk[T](self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)


class _ThreadSandbox:
    """The Sandbox of one thread, whichever container serves it at the moment."""

    def __init__(self, thread_id: ThreadId, sandboxes: Sandboxes) -> None:
        self._thread_id = thread_id
        self._sandboxes = sandboxes

    @property
    def id(self) -> str:
        return self._thread_id

    async def run(
        self,
        command: str,
        *,
        time_limit: float,
        on_output: OnOutput | None = None,
        stdin: bytes | None = None,
        keep: int = KEEP_BYTES,
        raw: bool = False,
    ) -> CommandResult:
        return await self._use(
            lambda sandbox: sandbox.run(
                command, time_limit=time_limit, on_output=on_output, stdin=stdin, keep=keep, raw=raw
            )
        )

    async def write_file(self, path: str, content: bytes) -> bool:
        return await self._use(lambda sandbox: sandbox.write_file(path, content))

    async def read_file(self, path: str, *, limit: int) -> bytes:
        return await self._use(lambda sandbox: sandbox.read_file(path, limit=limit))

    async def _use[T](self, action: Callable[[Sandbox], Awaitable[T]]) -> T:
        """Do it, in a new sandbox when the known one turns out to be gone: nothing had been started in that one."""
        with self._sandboxes.in_use(self._thread_id):
            sandbox = await self._sandboxes.wake(self._thread_id)
            with suppress(SandboxGone):
                return await action(sandbox)
            return await action(await self._sandboxes.wake(self._thread_id, instead_of=sandbox))


def _is_idle(place: _Place, limit: float) -> bool:
    return place.ref is not None and place.users == 0 and place.last_used < limit

"""One sandbox per thread: made at its first use, made again when it vanished, stopped when idle.

Several processes may share the sandboxes of an installation. A thread has one active run, so commands come from one
of them at a time; the others keep their hands off while the thread is busy.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
    SandboxUnavailable,
)
from moorage.sandboxes.workspace import Workspaces
from moorage.telemetry import get_logger

_DISK_THREADS = 4
_SWEEP_SECONDS = 30.0
_SWEEPS_PER_RECONCILIATION = 2
_ENGINE_SECONDS = 15.0
_ENGINE_PAUSE_SECONDS = 0.25
_TRIES = 4
_PAUSE_SECONDS = 0.1

log = get_logger(__name__)

type SomeThreads = Callable[[Collection[ThreadId]], Awaitable[set[ThreadId]]]
"""Those of the given threads of which something is true."""


async def _none(_: Collection[ThreadId]) -> set[ThreadId]:
    return set()


@dataclass(slots=True)
class _Place:
    """What we know of one thread's sandbox. `ref` is None while it has none that we know of."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sandbox: Sandbox | None = None
    ref: str | None = None
    users: int = 0
    last_used: float = 0.0


class Sandboxes:
    """Hands out sandboxes by thread id. `idle_seconds` after its last command a sandbox is stopped; its files stay.

    `busy` says which threads have a queued or running run in any process: their sandboxes are left alone.
    """

    def __init__(
        self,
        provider: SandboxProvider,
        workspaces: Workspaces,
        *,
        limits: SandboxLimits | None = None,
        idle_seconds: float = 900,
        busy: SomeThreads = _none,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._workspaces = workspaces
        self._limits = limits or SandboxLimits()
        self._idle_seconds = idle_seconds
        self._busy = busy
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

    async def copy_files(self, source: ThreadId, target: ThreadId) -> None:
        """Give `target`, which has no files yet, a copy of the files of `source`. Raises WorkspaceNotCopied."""
        await self._on_disk(lambda: self._workspaces.copy(source, target))

    async def kill_leftovers(self, thread_id: ThreadId) -> None:
        """Kill all that runs in the thread's sandbox, whichever process started it; the next use wakes it up.

        Costs a look when nothing runs. Raises SandboxUnavailable.
        """
        place = self._places.setdefault(thread_id, _Place())
        async with place.lock:
            place.sandbox = place.ref = None
            await patiently(lambda: self._pause_all(thread_id))

    async def reconcile(self, existing: SomeThreads) -> int:
        """Remove the sandboxes whose thread is gone, by the answer of `existing`; answers how many there were.

        Those of living threads that run, left by a process that ended, are stopped when idle like any other.
        """
        found = await self._provider.list()
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
        idle = [(thread_id, place) for thread_id, place in self._places.items() if _is_idle(place, limit)]
        stopped = 0
        for thread_id, place in idle:
            async with place.lock:
                if await self._busy([thread_id]):
                    place.last_used = self._clock()
                elif _is_idle(place, limit):
                    await self._pause(place)
                    stopped += 1
        self._forget_unused()
        return stopped

    async def keep_sweeping(self, existing: SomeThreads) -> None:
        """Sweep every half minute and reconcile every minute, until cancelled."""
        sweeps = 0
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            sweeps += 1
            try:
                await self.sweep()
                if sweeps % _SWEEPS_PER_RECONCILIATION == 0 and (removed := await self.reconcile(existing)):
                    log.info("orphans_removed", count=removed)
            except AppError as error:
                log.warning("sandbox_sweep_failed", reason=error.detail)

    async def close(self) -> None:
        """Stop the sandboxes that no run uses. The provider's own resources are its owner's to close."""
        running = {thread_id: place for thread_id, place in self._places.items() if place.ref is not None}
        try:
            busy = await self._busy(running.keys()) if running else set[ThreadId]()
        except AppError as error:
            log.warning("sandboxes_left_running", reason=error.detail)
            busy = set(running)
        idle = [place for thread_id, place in running.items() if thread_id not in busy]
        for error in await asyncio.gather(*map(self._pause, idle), return_exceptions=True):
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

    async def restart_unless_shared(self, thread_id: ThreadId) -> None:
        """Stop the thread's sandbox if only one command wants it: for one in which nothing can be started."""
        if (place := self._places.get(thread_id)) and place.users == 1:
            await self.release(thread_id)

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

    async def _pause_all(self, thread_id: ThreadId) -> None:
        for info in await self._provider.list():
            if info.thread_id == thread_id and info.running:
                await self._provider.pause(info.ref)

    def _forget_unused(self) -> None:
        """Nobody waits for an unlocked lock, so such a place can go."""
        unused = [key for key, place in self._places.items() if place.ref is None and not place.users]
        for key in unused:
            if not self._places[key].lock.locked():
                del self._places[key]

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
            return await patiently(lambda: self._try(action))

    async def _try[T](self, action: Callable[[Sandbox], Awaitable[T]]) -> T:
        gone: Sandbox | None = None
        for tried in range(_TRIES - 1):
            sandbox = None
            try:
                sandbox = await self._sandboxes.wake(self._thread_id, instead_of=gone)
                return await action(sandbox)
            except SandboxGone:
                gone = sandbox or gone
            if tried:  # it runs, and yet starts nothing
                await self._sandboxes.restart_unless_shared(self._thread_id)
                await asyncio.sleep(_PAUSE_SECONDS * 2**tried)
        return await action(await self._sandboxes.wake(self._thread_id, instead_of=gone))


async def patiently[T](action: Callable[[], Awaitable[T]]) -> T:
    """Do it, again and again for 15 s while the engine does not answer: it may be restarting. Nothing ran then."""
    deadline = time.monotonic() + _ENGINE_SECONDS
    while True:
        try:
            return await action()
        except SandboxUnavailable as error:
            if error.code != "no_engine" or time.monotonic() > deadline:
                raise
        await asyncio.sleep(_ENGINE_PAUSE_SECONDS)


def _is_idle(place: _Place, limit: float) -> bool:
    return place.ref is not None and place.users == 0 and place.last_used < limit

"""One sandbox per thread: made at its first use, made again when it vanished, reached through one helper per process.

Several processes may share the sandboxes of an installation. A thread has one active run, so commands come from one
of them at a time; the others keep their hands off while the thread is busy, and reach files through helpers of their
own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.place import Connect, Helper, OpenSandbox, Place
from moorage.sandboxes.places import Places, all_of
from moorage.sandboxes.port import (
    Bounds,
    Sandbox,
    SandboxesFull,
    SandboxGone,
    SandboxProvider,
    ThreadDeleted,
    fencing_token,
)
from moorage.sandboxes.routed import RoutedSandbox
from moorage.sandboxes.trees import Trees
from moorage.sandboxes.waiting import Line, patiently
from moorage.sandboxes.work import NoWork, SomeThreads, Work
from moorage.telemetry import get_logger

_SWEEP_SECONDS = 30.0
_SWEEPS_PER_RECONCILIATION = 2
_TRIES = 4
_PAUSE_SECONDS = 0.1
_CLOSE_SECONDS = 15.0

log = get_logger(__name__)


class Sandboxes:
    """Hands out sandboxes by thread id. `idle_seconds` after its last command a sandbox is stopped; its files stay.

    `work` says which threads have a queued or running run in any process: their sandboxes are left alone. When as many
    run as may, the one that was idle for longest is stopped, or else the caller waits up to `wait_seconds`.
    """

    def __init__(
        self,
        provider: SandboxProvider,
        connect: Connect,
        *,
        idle_seconds: float = 900,
        wait_seconds: float = 60,
        work: Work | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._provider = provider
        self._connect = connect
        self._idle_seconds = idle_seconds
        self._work = work or NoWork()
        self._places = Places(provider, self._work, clock=clock)
        self._line = Line(wait_seconds=wait_seconds)

    @property
    def provider(self) -> SandboxProvider:
        return self._provider

    async def acquire(self, thread_id: ThreadId, *, profile: str | None = None) -> Sandbox:
        """The thread's sandbox, under this profile; None: whichever it has. Costs nothing until it is used.

        Raises InvalidInput for what is no thread id.
        """
        if owner_of(thread_id) is None:
            raise InvalidInput("This is not a thread id.")
        return RoutedSandbox(thread_id, self, profile)

    async def has_files(self, thread_id: ThreadId) -> bool:
        """Whether the thread ever used a sandbox. Starts none."""
        return self.is_awake(thread_id) or bool(await self._provider.list(folders=True, thread_id=thread_id))

    def is_awake(self, thread_id: ThreadId) -> bool:
        """Whether this process used the thread's sandbox, which still runs as far as it knows."""
        place = self._places.find(thread_id)
        return place is not None and place.ours and place.running

    async def trees(self, thread_id: ThreadId, *, profile: str | None = None) -> Trees:
        """The thread's workspace as a whole. Costs nothing until it is used."""
        return (await self.acquire(thread_id, profile=profile)).trees

    async def release(self, thread_id: ThreadId) -> None:
        """Stop the thread's sandbox now; the next use wakes it up."""
        if place := self._places.find(thread_id):
            async with place.lock:
                await self._places.pause(place)
            self._line.move()

    async def delete(self, thread_id: ThreadId) -> None:
        """Remove the thread's sandbox and all its files. Succeeds when there are none."""
        place = self._places.get(thread_id)
        async with place.lock:
            await place.let_go(at_once=True)
            await self._provider.remove(thread_id, files=True)
            place.running = False
        self._places.forget(thread_id)
        self._line.move()

    async def kill_leftovers(self, thread_id: ThreadId) -> None:
        """Kill all that runs in the thread's sandbox, whichever process started it, in the name of the newest claim.

        From then on older claims reach the sandbox no more. Raises SandboxUnavailable.
        """
        place, token = self._places.get(thread_id), fencing_token.get()
        async with place.lock:
            place.admit(token)
            await patiently(lambda: self._provider.kill_all(thread_id, fencing_token=token))
            await place.let_go()
            place.to_empty = False

    async def close(self) -> None:
        """End the helpers, and stop the sandboxes that no run uses. The provider's own resources are its owner's."""
        await self._line.close()
        places = list(self._places)
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await all_of(place.let_go(at_once=True) for place in places)
                await self._places.stop_free(place for place in places if place.ours)
        except TimeoutError:
            log.warning("sandboxes_left_running", reason=f"they did not stop within {_CLOSE_SECONDS:g} s")
        except AppError as error:
            log.warning("sandboxes_left_running", reason=error.detail)

    # Looking after them ----------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Stop the sandboxes that have been idle for too long; answers how many."""
        stopped = await self._places.stop_idle(self._idle_seconds)
        if stopped:
            self._line.move()
        return stopped

    async def reconcile(self, existing: SomeThreads) -> int:
        """Remove the sandboxes whose thread is gone, by the answer of `existing`; answers how many."""
        return await self._places.reconcile(existing)

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

    # Using one -------------------------------------------------------------------------------------------------------

    async def use[T](
        self, thread_id: ThreadId, action: Callable[[OpenSandbox], Awaitable[T]], *, profile: str | None = None
    ) -> T:
        """Do it in the thread's sandbox, and in a new one when that turns out to be gone: nothing had been started."""

        async def act(helper: Helper) -> T:
            async with helper.in_use() as sandbox:
                return await action(sandbox)

        async with self._in_use(thread_id):
            return await patiently(lambda: self._try(thread_id, act, profile))

    @asynccontextmanager
    async def open[T](
        self, thread_id: ThreadId, what: Callable[[OpenSandbox], AbstractAsyncContextManager[T]]
    ) -> AsyncGenerator[T]:
        """Something that the thread's sandbox opens, such as a stream, until the end of the block."""
        async with AsyncExitStack() as stack:

            async def enter(helper: Helper) -> T:
                sandbox = await stack.enter_async_context(helper.in_use())
                return await stack.enter_async_context(what(sandbox))

            await stack.enter_async_context(self._in_use(thread_id))
            yield await patiently(lambda: self._try(thread_id, enter, None))

    @asynccontextmanager
    async def _in_use(self, thread_id: ThreadId) -> AsyncGenerator[None]:
        """Nothing stops it meanwhile, in this process or another."""
        with self._places.in_use(thread_id):
            async with self._work.in_use(thread_id):
                yield

    async def _try[T](self, thread_id: ThreadId, action: Callable[[Helper], Awaitable[T]], profile: str | None) -> T:
        gone: OpenSandbox | None = None
        tried = 0
        while True:
            try:
                helper = await self._wake(thread_id, profile, instead_of=gone)
                gone = helper.sandbox
                return await action(helper)
            except SandboxGone:
                tried += 1
                if tried == _TRIES:
                    raise
            if tried > 1:  # it runs, and yet starts nothing
                await self._restart_unless_shared(thread_id)
                await asyncio.sleep(_PAUSE_SECONDS * 2**tried)

    async def _wake(self, thread_id: ThreadId, profile: str | None, *, instead_of: OpenSandbox | None) -> Helper:
        """An open helper: the known one unless it is `instead_of`, which was found dead."""
        place = self._places.get(thread_id)
        async with place.lock:
            place.admit(fencing_token.get())
            if place.helper is not None and place.serves(profile, instead_of=instead_of):
                return place.helper
            return await self._open_helper(place, profile, instead_of)

    async def _open_helper(self, place: Place, profile: str | None, instead_of: OpenSandbox | None) -> Helper:
        """The caller holds the place's lock."""
        thread_id, token = place.thread_id, fencing_token.get()
        if place.helper is not None and place.helper.sandbox is instead_of and place.users == 1:
            place.to_empty = True
        await place.let_go()
        if place.to_empty:
            await self._kill_all(thread_id)
            place.to_empty = False
        bounds = await self._line.take(place.owner, partial(self._ensure, place, profile, token), past=place.running)
        place.running = place.ours = True
        place.profile = profile
        await self._refuse_if_deleted(place)
        channel = await self._provider.open_helper(thread_id, fencing_token=token)
        try:
            kill_all = partial(self._kill_all, thread_id)
            sandbox = await self._connect(thread_id, channel, bounds, profile=profile, kill_all=kill_all)
        except BaseException:
            await channel.close()
            raise
        place.helper = Helper(sandbox)
        return place.helper

    async def _refuse_if_deleted(self, place: Place) -> None:
        """Who asks for a file may have seen the thread before it was deleted: what was just made is removed again."""
        if place.thread_id not in await self._work.existing([place.thread_id]):
            await self._provider.remove(place.thread_id, files=True)
            place.running = False
            raise ThreadDeleted

    async def _ensure(self, place: Place, profile: str | None, token: int | None) -> Bounds:
        while True:  # more may run than may: those of servers that were killed, or a limit that was lowered since
            try:
                return await self._provider.ensure(place.thread_id, profile=profile, fencing_token=token)
            except SandboxesFull as error:
                if not await self._places.make_room(place, error):
                    raise

    async def _kill_all(self, thread_id: ThreadId) -> None:
        """Outside of a run, only when none is going on: it may be another process that works there."""
        if await self._may_kill(thread_id):
            await self._provider.kill_all(thread_id, fencing_token=fencing_token.get())

    async def _may_kill(self, thread_id: ThreadId) -> bool:
        return fencing_token.get() is not None or not await self._work.busy([thread_id])

    async def _restart_unless_shared(self, thread_id: ThreadId) -> None:
        """Stop the thread's sandbox if only one command wants it."""
        if self._places.get(thread_id).users == 1 and await self._may_kill(thread_id):
            await self.release(thread_id)

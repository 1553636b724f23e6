"""Threads for a blocking SDK: bounded, and none of the event loop's own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BlockingPool:
    """At most `threads` blocking calls at once; the others wait in line without holding up the event loop."""

    def __init__(self, threads: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run[T](self, call: Callable[[], T], *, abandon: Callable[[T], object] | None = None) -> T:
        """The result of `call`. When the caller is cancelled, `abandon` gets a result that comes too late."""
        future = self._threads.submit(call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if abandon and not future.cancelled():
                future.add_done_callback(lambda done: _abandon(done, abandon))
            raise

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _abandon[T](done: Future[T], abandon: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        abandon(done.result())

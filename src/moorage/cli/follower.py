"""Follows runs over a network that may break: every event once, in order, until the run ends."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from moorage.cli.api_client import ApiClient, ApiProblem, Event, Unreachable

_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 2.0
_SERVER_ERRORS = 500

type OpenStream = Callable[[], AbstractContextManager[Iterator[Event]]]


class Follower:
    """Starts or joins runs of one session and hands their events to `show`."""

    def __init__(
        self,
        client: ApiClient,
        thread_id: str,
        *,
        after: int,
        show: Callable[[Event], None],
        notice: Callable[[str], None],
        patience: float = 60.0,
    ) -> None:
        """`after` is the last seq that needs no showing. Without a server for `patience` seconds it gives up."""
        self._client = client
        self._thread_id = thread_id
        self._seq = after
        self._show = show
        self._notice = notice
        self._patience = patience

    def send(self, message: str) -> str:
        """Start a run with a message, follow it, and answer its status. Sent again if need be, it is taken once."""
        key = uuid.uuid4().hex
        return self._follow(_Run(), lambda: self._client.chat(self._thread_id, message, idempotency_key=key))

    def resume(self, decisions: Sequence[dict[str, Any]]) -> str:
        """Answer approvals, follow the run that continues, and answer its status. Raises ApiProblem when refused."""
        try:
            run = _Run(self._client.resume(self._thread_id, decisions))
        except Unreachable:
            run = self._resume_again(decisions)
        return self._follow(run, self._events)

    def join(self) -> str:
        """Follow whatever runs now to its end, and answer its status."""
        return self._follow(_Run(anything=True), self._events)

    def _events(self) -> AbstractContextManager[Iterator[Event]]:
        return self._client.events(self._thread_id, after=self._seq)

    def _resume_again(self, decisions: Sequence[dict[str, Any]]) -> "_Run":
        """The reply was lost: either it counted, and the same decisions are refused now, or it is given again."""
        for _ in _waits(self._patience):
            try:
                return _Run(self._client.resume(self._thread_id, decisions))
            except Unreachable:
                continue
            except ApiProblem as problem:
                if problem.code not in ("interrupt_decided", "nothing_pending"):
                    raise
                return _Run(anything=True)
        raise Unreachable("The server did not come back: whether it took the decision is not known")

    def _follow(self, run: "_Run", first: OpenStream) -> str:
        opened = first
        for reset in _waits(self._patience):
            before = self._seq
            try:
                with opened() as events:
                    status = self._read(run, events)
                if status is not None:
                    return status
            except (Unreachable, ApiProblem) as error:
                if isinstance(error, ApiProblem) and error.status < _SERVER_ERRORS:
                    raise
                if self._seq == before:  # a mere break is mended without a word
                    self._notice(f"{error.detail}; trying again")
            if self._seq > before:
                opened = self._events
                reset()
        raise Unreachable(f"The server did not come back within {self._patience:.0f} s; the run may still go on")

    def _read(self, run: "_Run", events: Iterator[Event]) -> str | None:
        """Show what is new; the run's status at its end, None when the stream ended before."""
        for event in events:
            if event.seq is None:
                self._closing(event)
                continue
            if event.seq <= self._seq:
                continue
            self._seq = event.seq
            if run.owns(event):
                self._show(event)
                if event.type == "run_end":
                    return event.text("status")
        return None

    def _closing(self, event: Event) -> None:
        match event.text("reason"):
            case "unauthorized":
                raise ApiProblem(401, "This log-in is not valid any more: log in again", code="unauthenticated")
            case "gap":
                self._seq = max(self._seq, int(event.data.get("last_seq", 0)))
                self._notice("Some older events are not stored any more")
            case _:
                return


class _Run:
    """Tells one run's events from those of the session's other runs, which never overlap it."""

    def __init__(self, run_id: str | None = None, *, anything: bool = False) -> None:
        self._id = run_id
        self._anything = anything
        self._current: str | None = None

    def owns(self, event: Event) -> bool:
        run_id = event.text("run_id")
        if self._id is None and event.type == "message_received" and not self._anything:
            self._id = run_id  # the first event of the run that our message started
        if event.type == "agent_start" and event.is_root:
            self._current = run_id
        mine = (run_id or self._current) == self._id or (event.type == "decision" and self._current is None)
        if event.type == "run_end":
            self._current = None
        return mine or self._anything


def _waits(patience: float) -> Iterator[Callable[[], None]]:
    """Attempts, with growing pauses between them, for `patience` seconds since the last call of what is yielded."""
    wait, deadline = _FIRST_WAIT_SECONDS, time.monotonic() + patience

    def reset() -> None:
        nonlocal wait, deadline
        wait, deadline = _FIRST_WAIT_SECONDS, time.monotonic() + patience

    while True:
        yield reset
        if time.monotonic() + wait > deadline:
            return
        time.sleep(wait)
        wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

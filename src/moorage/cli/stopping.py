"""How a process ends within 30 seconds of being asked to, whatever hangs."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from moorage.telemetry import get_logger

_SECONDS = 29.0  # 25 for what runs, the rest for closing
_EXIT_FORCED = 1

log = get_logger(__name__)


def on_signals(stop: Callable[[], object]) -> None:
    """The first SIGTERM or SIGINT asks what goes on to end; a second SIGINT does not wait for it."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop()
        exit_in_time()
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def exit_in_time() -> None:
    """From now on the process has 29 seconds. Then it is gone: all that counts is in the database by then."""
    timer = threading.Timer(_SECONDS, _give_up)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    log.error("stop_forced", seconds=_SECONDS)
    os._exit(_EXIT_FORCED)

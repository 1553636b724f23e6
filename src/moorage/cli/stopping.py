"""How a process ends within 30 seconds of being asked to, whatever hangs."""

import os
import threading

from moorage.telemetry import get_logger

_SECONDS = 29.0  # 25 for what runs, the rest for closing
_EXIT_FORCED = 1

log = get_logger(__name__)


def exit_in_time() -> None:
    """From now on the process has 29 seconds. Then it is gone: all that counts is in the database by then."""
    timer = threading.Timer(_SECONDS, _give_up)
    timer.daemon = True
    timer.start()


def _give_up() -> None:
    log.error("stop_forced", seconds=_SECONDS)
    os._exit(_EXIT_FORCED)

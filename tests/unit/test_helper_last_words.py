"""What an order's process said last reaches the server, though it ended before it had read all that it was told."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.faults.waiting import eventually

from moorage.sandboxes.helper.wire import CREDIT_BYTES, HEADER

# An order's process that ends with something unread, while the helper's first process has not read its report yet.
_HELPER = """
import os, select, signal
from moorage.sandboxes.helper.zygote import main
from moorage.sandboxes.helper.wire import Link

say = Link.send

def say_and_end(link, kind, payload=b""):
    if kind in (b"x", b"X"):
        say(link, b"o", b"over")
        select.select([link], [], [])
        os.kill(os.getppid(), signal.SIGSTOP)
        say(link, b"x", payload)
        os._exit(0)
    say(link, kind, payload)

Link.send = say_and_end
main()
"""
_ORDER = {"do": "whole_files.read", "path": "/there is no such file", "limit": 1 << 20, "cwd": "/"}


@pytest.fixture
def helper() -> Generator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", _HELPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_the_report_of_an_order_that_ended_with_something_unread_is_sent(helper: subprocess.Popen[bytes]):
    assert _read(helper)[0] == b"h"
    _tell(helper, b"C", json.dumps(_ORDER).encode())
    assert _read(helper)[0] == b"r"
    _tell(helper, b"G")
    assert _read(helper) == (b"o", b"over")
    _tell(helper, b"W", CREDIT_BYTES.pack(1))

    async def has_ended() -> bool:
        return any(_state(pid) == "Z" for pid in _children(helper.pid))

    await eventually(has_ended, seconds=10, what="the order's process has ended")
    os.kill(helper.pid, signal.SIGCONT)
    kind, report = _read(helper)
    assert (kind, json.loads(report)["outcome"]) == (b"x", "exited")


def _tell(helper: subprocess.Popen[bytes], kind: bytes, payload: bytes = b"") -> None:
    assert helper.stdin
    helper.stdin.write(HEADER.pack(kind, 1, len(payload)) + payload)
    helper.stdin.flush()


def _read(helper: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    assert helper.stdout
    kind, _, size = HEADER.unpack(helper.stdout.read(HEADER.size))
    return kind, helper.stdout.read(size)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _state(pid: str) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

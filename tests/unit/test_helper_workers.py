"""The two ends of a worker's socket inside a sandbox: what is said at the very moment when an order ends."""

import json
import os
import socket
from collections.abc import Generator
from typing import Any

import pytest

from moorage.sandboxes.helper.jobs import Job
from moorage.sandboxes.helper.wire import CREDIT_BYTES, HEADER, STAYS, Link
from moorage.sandboxes.helper.worker import Worker
from moorage.sandboxes.helper.zygote import Loop

Ends = tuple[socket.socket, socket.socket]


def frame(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


@pytest.fixture
def ends() -> Generator[Ends]:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with first, second:
        yield first, second


class TestTheWorkersEnd:
    def test_what_is_late_of_another_order_is_dropped(self, ends: Ends) -> None:
        link = Link(ends[0], 2)
        for late in (frame(b"K", 1), frame(b"I", 1, b"late"), frame(b"G", 2)):
            ends[1].send(late)
        link.wait_for_go()
        assert not link.killed
        assert link.next() is None

    def test_the_next_order_is_not_lost_however_soon_it_comes_after_the_last_word(self, ends: Ends) -> None:
        following = frame(b"C", 2, b"{}")

        class Answered:
            """A socket whose other end answers before one can do anything else."""

            setblocking, recv, fileno = ends[0].setblocking, ends[0].recv, ends[0].fileno

            def send(self, data: bytes) -> None:
                ends[0].send(data)
                ends[1].send(following)

        channel: Any = Answered()
        Link(channel, 1).say_last(STAYS, b"{}")
        assert ends[0].recv(100) == following


class Zygote:
    """What a worker needs of it, written down."""

    def __init__(self) -> None:
        self.loop, self.stream = Loop(), self
        self.full = False
        self.addressees: dict[int, Worker] = {}
        self.said: list[object] = []

    def relay(self, data: bytes) -> None:
        self.said.append(data)

    def report(self, number: int, report: object) -> None:
        self.said.append((number, report))

    def fork(self, job: Job, sent: list[bytes]) -> None:
        self.said.append((job.number, sent))

    def hold_workers(self) -> None: ...


class TestTheZygotesEnd:
    @pytest.fixture
    def zygote(self, ends: Ends) -> Zygote:
        """With one worker, whose process is this one's, and an order for it."""
        zygote: Any = Zygote()
        job = Job(1, json.dumps({"do": "whole_files.read"}).encode())
        zygote.addressees[1] = Worker(zygote, os.getpid(), ends[0], job, [])
        return zygote

    def test_a_report_is_heard_though_something_came_too_late_for_the_worker(self, zygote: Zygote, ends: Ends) -> None:
        worker, last = zygote.addressees[1], frame(b"x", 1, b"{}")
        worker.take(b"G", b"")
        ends[1].recv(100)
        worker.take(b"W", CREDIT_BYTES.pack(1))
        ends[1].send(last)
        ends[1].close()
        zygote.loop.run_once(0)
        assert zygote.said == [last]

    def test_a_word_to_go_that_was_not_read_is_for_another_worker(self, zygote: Zygote, ends: Ends) -> None:
        zygote.addressees[1].take(b"G", b"")
        ends[1].close()
        zygote.loop.run_once(0)
        assert zygote.said == [(1, [frame(b"G", 1)])]

    def test_one_that_may_have_been_read_is_not(self, zygote: Zygote, ends: Ends) -> None:
        zygote.addressees[1].take(b"G", b"")
        zygote.addressees[1].take(b"I", b"input")
        ends[1].close()
        zygote.loop.run_once(0)
        assert zygote.said == [(1, {"outcome": "killed", "clean": True})]

"""A run's events arrive once and in order over a network that breaks at every step."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from moorage.cli.api_client import ApiClient, ApiProblem, Event, Unreachable
from moorage.cli.follower import Follower

THREAD = "alice-550e8400-e29b-41d4-a716-446655440000"
RUN, OTHER = "run-1", "run-2"

type Answer = Callable[[httpx.Request], httpx.Response]


class Breaking(httpx.SyncByteStream):
    """A body that ends by a broken connection."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("connection reset")


class Server:
    """Answers with the given answers, one after the other, and keeps the requests."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return next(self._answers)(request)


def frame(seq: int, kind: str, **data: Any) -> bytes:
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def started(seq: int, run_id: str = RUN) -> bytes:
    return frame(seq, "agent_start", run_id=run_id, agent="agent")


def received(seq: int, run_id: str = RUN) -> bytes:
    return frame(seq, "message_received", run_id=run_id, content="hi")


def text(seq: int, delta: str) -> bytes:
    return frame(seq, "content_stream", message_id="m", content_delta=delta, agent="agent")


def ended(seq: int, run_id: str = RUN, status: str = "success") -> bytes:
    return frame(seq, "run_end", run_id=run_id, status=status)


def closed(reason: str, last_seq: int) -> bytes:
    return f"event: stream_closed\ndata: {json.dumps({'reason': reason, 'last_seq': last_seq})}\n\n".encode()


def stream(*frames: bytes) -> Answer:
    return lambda _: httpx.Response(200, content=b"".join(frames))


def broken(*frames: bytes) -> Answer:
    return lambda _: httpx.Response(200, stream=Breaking(b"".join(frames)))


def problem(status: int, code: str) -> Answer:
    return lambda _: httpx.Response(status, json={"detail": "no", "code": code})


def refuse_connection(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused", request=request)


def follow(server: Server, *, after: int = 0, patience: float = 5) -> tuple[Follower, list[Event]]:
    seen: list[Event] = []
    client = ApiClient("http://server", transport=httpx.MockTransport(server))
    return Follower(client, THREAD, after=after, show=seen.append, notice=lambda _: None, patience=patience), seen


def seqs(events: list[Event]) -> list[int | None]:
    return [event.seq for event in events]


def test_an_unbroken_stream_is_read_to_the_end_of_its_run() -> None:
    server = Server(stream(received(1), started(2), text(3, "a"), ended(4, status="interrupted")))
    follower, seen = follow(server)
    assert follower.send("hi") == "interrupted"
    assert seqs(seen) == [1, 2, 3, 4]


def test_a_broken_stream_goes_on_after_the_last_id() -> None:
    server = Server(
        broken(received(1), started(2), text(3, "a"), b"id: 4\nevent: content_stream\nda"),
        stream(text(4, "b"), ended(5)),
    )
    follower, seen = follow(server)
    assert follower.send("hi") == "success"
    assert "".join(event.text("content_delta") for event in seen) == "ab"
    assert server.requests[1].url.path == f"/api/sessions/{THREAD}/events"
    assert server.requests[1].headers["Last-Event-ID"] == "3"


def test_events_that_come_twice_are_shown_once() -> None:
    server = Server(broken(received(1), started(2), text(3, "a")), stream(started(2), text(3, "a"), ended(4)))
    follower, seen = follow(server)
    follower.send("hi")
    assert seqs(seen) == [1, 2, 3, 4]


def test_a_message_whose_answer_was_lost_is_sent_again_with_the_same_key() -> None:
    server = Server(refuse_connection, broken(b": heartbeat\n\n"), stream(received(1), started(2), ended(3)))
    follower, _ = follow(server)
    assert follower.send("hi") == "success"
    assert {request.method for request in server.requests} == {"POST"}
    assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 1


def test_a_server_that_restarts_is_waited_for() -> None:
    server = Server(
        stream(received(1), started(2), closed("server_restart", 2)),
        refuse_connection,
        problem(503, "unavailable"),
        stream(ended(3, status="error")),
    )
    follower, _ = follow(server)
    assert follower.send("hi") == "error"


def test_other_runs_of_the_session_are_not_shown() -> None:
    server = Server(
        broken(received(4)),
        stream(text(5, "not ours"), ended(6, OTHER), started(7), text(8, "ours"), received(9, OTHER), ended(10)),
    )
    follower, seen = follow(server, after=3)
    follower.send("hi")
    assert seqs(seen) == [4, 7, 8, 10]


def test_a_resumed_run_is_followed_from_where_the_reader_was() -> None:
    answered = httpx.Response(200, json={"success": True, "message": "", "run_id": RUN})
    server = Server(lambda _: answered, stream(frame(9, "decision", type="approve"), started(10), ended(11)))
    follower, seen = follow(server, after=8)
    assert follower.resume([{"type": "approve", "interrupt_id": "i"}]) == "success"
    assert seqs(seen) == [9, 10, 11]
    assert server.requests[1].headers["Last-Event-ID"] == "8"


def test_a_decision_whose_answer_was_lost_is_not_taken_for_a_refused_one() -> None:
    server = Server(refuse_connection, problem(409, "interrupt_decided"), stream(started(5), ended(6)))
    follower, _ = follow(server, after=4)
    assert follower.resume([{"type": "approve", "interrupt_id": "i"}]) == "success"


def test_a_refused_decision_is_the_callers_to_handle() -> None:
    follower, _ = follow(Server(problem(422, "invalid_decision")))
    with pytest.raises(ApiProblem, match="no"):
        follower.resume([{"type": "edit", "interrupt_id": "i"}])


def test_a_login_that_ended_is_not_tried_again() -> None:
    follower, _ = follow(Server(stream(received(1), started(2), closed("unauthorized", 2))))
    with pytest.raises(ApiProblem, match="log in again"):
        follower.send("hi")


def test_a_server_that_stays_away_is_given_up() -> None:
    follower, _ = follow(Server(*[refuse_connection] * 9), patience=0.5)
    with pytest.raises(Unreachable, match="did not come back"):
        follower.send("hi")

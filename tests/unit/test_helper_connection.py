"""The server's end of a helper's stream: orders beside one another, and a helper that says what no helper says."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.unit.helper_stub import HELLO, StubHelper, frame, report

from moorage.sandboxes import connection as module
from moorage.sandboxes.helper.wire import CHUNK, CREDIT, CREDIT_BYTES, FROM_INSIDE, HEADER
from moorage.sandboxes.orders import OpenOrder
from moorage.sandboxes.port import Outcome, SandboxGone, StartedTooLate, start_by

ORDER = {"do": "commands.run"}
INSIDE = FROM_INSIDE | 1

NONSENSE = {
    "a frame too large": HEADER.pack(b"o", 1, CHUNK + 1),
    "no frame at all": b"\xff" * 64,
    "a frame of no known kind": frame(b"?", 1),
    "a report that is no JSON": frame(b"x", 1, b"{"),
    "a report of no known outcome": report(1, outcome="splendid"),
    "a report without end": frame(b"x", 1, b"[" * 60_000),
    "a number without end": frame(b"x", 1, b'{"outcome":' + b"9" * 60_000 + b"}"),
    "more output than was allowed": frame(b"o", 1, b"x" * CHUNK) * (CREDIT // CHUNK + 1),
    "a credit of another size": frame(b"w", 1, b"\x00"),
    "words after the last": report(1) + frame(b"o", 1, b"x"),
    "a connection that nobody wants": frame(b"n", INSIDE),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a helper that is silent is given up soon."""
    for name in ("_HELLO_SECONDS", "_START_SECONDS", "_KILL_SECONDS"):
        monkeypatch.setattr(module, name, 0.05)


@pytest.fixture
def too_late() -> Generator[None]:
    token = start_by.set(None)
    yield
    start_by.reset(token)


async def read_all(talk: OpenOrder) -> bytes:
    return b"".join([data async for _, data in talk])


class TestOrders:
    async def test_two_at_once_get_each_its_own(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        seen: dict[int, bytes] = {1: b"", 2: b""}

        async def give(number: int) -> int | None:
            def add(_: bytes, data: bytes) -> None:
                seen[number] += data

            return (await connection.order(ORDER, on_data=add, time_limit=5)).exit_code

        orders = asyncio.gather(give(1), give(2))
        await helper.hears(b"G", number=2)
        helper.say(frame(b"o", 2, b"two ") + frame(b"o", 1, b"one ") + frame(b"o", 2, b"too") + report(2, exit_code=2))
        helper.say(frame(b"o", 1, b"only") + report(1, exit_code=1))
        assert await orders == [1, 2]
        assert seen == {1: b"one only", 2: b"two too"}
        await connection.close()

    async def test_frames_may_come_in_any_pieces(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        pieces: list[bytes] = []
        order = asyncio.create_task(connection.order(ORDER, on_data=lambda _, data: pieces.append(data), time_limit=5))
        await helper.hears(b"G")
        for byte in frame(b"o", 1, b"slowly") + report(1, exit_code=3):
            helper.say(bytes([byte]))
        assert (await order).exit_code == 3
        assert b"".join(pieces) == b"slowly"
        await connection.close()

    async def test_a_slow_reader_gets_no_more_than_it_was_allowed_and_holds_up_nobody(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        async with connection.stream(ORDER) as slow:
            helper.say(frame(b"o", 1, b"x" * CHUNK) * (CREDIT // CHUNK))
            order = asyncio.create_task(connection.order(ORDER, time_limit=5))
            await helper.hears(b"G", number=2)
            helper.say(report(2))
            assert (await order).outcome is Outcome.EXITED
            assert b"W" not in helper.kinds(1)
            helper.say(report(1))
            await anext(slow)
            await anext(slow)
            assert CREDIT_BYTES.unpack(await helper.hears(b"W")) == (CHUNK,)
            assert len(await read_all(slow)) == CREDIT - 2 * CHUNK
        await connection.close()

    async def test_input_waits_for_credit(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, payload=b"x" * (CREDIT + 10), time_limit=5))
        await helper.hears_input(CREDIT)
        assert helper.input_size == CREDIT
        helper.say(frame(b"w", 1, CREDIT_BYTES.pack(10)))
        await helper.hears(b"E")
        assert helper.input_size == CREDIT + 10
        helper.say(report(1))
        await order
        await connection.close()

    async def test_input_that_fails_ends_the_order_and_is_told(self) -> None:
        helper = StubHelper()
        connection = await helper.open()

        async def chunks() -> AsyncIterator[bytes]:
            yield b"some"
            raise ConnectionResetError("the client left")

        with pytest.raises(ConnectionResetError):
            await connection.order(ORDER, payload=chunks(), time_limit=5)
        assert helper.kinds(1) == b"CGIK"
        await connection.close()

    async def test_input_is_not_touched_before_the_order_has_begun(self) -> None:
        helper = StubHelper(accepts=False)
        connection = await helper.open()
        touched = False

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal touched
            touched = True
            yield b""

        with pytest.raises(SandboxGone):
            await connection.order(ORDER, payload=chunks(), time_limit=5)
        assert not touched
        await connection.close()

    async def test_a_cancelled_order_is_killed_before_the_caller_goes_on(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"G")
        order.cancel()
        await asyncio.wait([order])
        assert order.cancelled()
        assert helper.kinds(1) == b"CGK"
        assert not connection.lost
        await connection.close()

    async def test_one_that_belongs_to_another_loop_is_refused(self) -> None:
        helper = StubHelper()
        connection = await helper.open()

        def elsewhere() -> None:
            asyncio.run(connection.order(ORDER, time_limit=5))

        with pytest.raises(RuntimeError, match="event loop"):
            await asyncio.to_thread(elsewhere)
        await connection.close()


class TestBeginning:
    async def test_without_the_word_to_go_nothing_was_done(self) -> None:
        helper = StubHelper(accepts=False)
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"C")
        helper.hang_up()
        with pytest.raises(SandboxGone):
            await order
        assert b"G" not in helper.kinds(1)

    async def test_after_it_the_order_is_lost(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"G")
        helper.hang_up()
        found = await order
        assert (found.outcome, found.clean) == (Outcome.LOST, False)

    async def test_a_helper_that_is_gone_gets_no_orders(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        helper.hang_up()
        await connection.close()
        with pytest.raises(SandboxGone):
            await connection.order(ORDER, time_limit=5)

    async def test_one_that_does_not_answer_is_given_up(self) -> None:
        helper = StubHelper(accepts=False)
        connection = await helper.open()
        with pytest.raises(SandboxGone):
            await connection.order(ORDER, time_limit=5)
        assert connection.lost
        await connection.close()
        assert helper.closed

    async def test_a_process_that_was_frozen_between_order_and_answer_starts_nothing(self, too_late: None) -> None:
        helper = StubHelper(accepts=False)
        connection = await helper.open()
        start_by.set(time.monotonic() + 1000)
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"C")
        order.get_context().run(start_by.set, time.monotonic() - 1)
        helper.say(frame(b"r", 1))
        with pytest.raises(StartedTooLate):
            await order
        assert helper.kinds(1) == b"CK"
        await connection.close()

    async def test_too_late_is_not_even_said(self, too_late: None) -> None:
        helper = StubHelper()
        connection = await helper.open()
        start_by.set(time.monotonic() - 1)
        with pytest.raises(StartedTooLate):
            await connection.order(ORDER, time_limit=5)
        assert helper.heard == []
        await connection.close()


class TestEnding:
    async def test_a_helper_that_does_not_obey_is_given_up_and_others_hear_of_it(self) -> None:
        helper = StubHelper(obeys=False)
        connection = await helper.open()
        mine, other = (asyncio.create_task(connection.order(ORDER, time_limit=5)) for _ in range(2))
        await helper.hears(b"G", number=2)
        mine.cancel()
        assert (await other).outcome is Outcome.LOST
        await asyncio.wait([mine])
        await connection.close()
        assert helper.closed

    async def test_the_time_is_up_for_a_helper_that_takes_nothing_any_more_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So stopped by what it runs, which writes on: what was allowed it in return would be sent for ever."""
        monkeypatch.setattr(module, "_LATE_SECONDS", 0.0)
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=0.2))
        await helper.hears(b"G")
        helper.takes = False
        helper.say(frame(b"o", 1, b"x" * CHUNK) * 2)
        await helper.hears(b"W")
        assert (await asyncio.wait_for(order, 30)).outcome is Outcome.TIMED_OUT
        assert connection.lost

    async def test_who_must_clean_up_is_told_whatever_the_end(self) -> None:
        for last in (report(1, clean=False), b"", frame(b"x", 1, b"nonsense")):
            helper, calls = StubHelper(), 0

            async def clean_up() -> None:
                nonlocal calls
                calls += 1

            connection = await helper.open()
            async with connection.stream(ORDER, on_unclean=clean_up) as talk:
                helper.say(last)
                await read_all(talk)
            assert calls == 1
            await connection.close()

    async def test_nobody_cleans_up_after_an_order_that_ended_well(self) -> None:
        helper = StubHelper()
        connection = await helper.open()

        async def clean_up() -> None:
            raise AssertionError

        async with connection.stream(ORDER, on_unclean=clean_up) as talk:
            helper.say(report(1))
            await read_all(talk)
        await connection.close()

    async def test_closing_ends_every_order(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"G")
        await connection.close()
        assert (await order).outcome is Outcome.LOST
        assert helper.closed


class TestDistrust:
    @pytest.mark.parametrize("first", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(b"h", 0, b"[]"), frame(b"r", 1)])
    async def test_what_does_not_say_hello_is_closed(self, first: bytes) -> None:
        helper = StubHelper()
        helper.say(first)
        with pytest.raises(SandboxGone):
            await module.HelperConnection.open(helper)
        assert helper.closed

    async def test_what_never_says_hello_is_closed(self) -> None:
        helper = StubHelper()
        with pytest.raises(SandboxGone):
            await module.HelperConnection.open(helper)
        assert helper.closed

    async def test_what_the_engine_says_instead_is_passed_on(self) -> None:
        helper = StubHelper()
        helper.say(b"OCI runtime exec failed: no such executable: python3")
        with pytest.raises(SandboxGone, match="no such executable"):
            await module.HelperConnection.open(helper)

    @pytest.mark.parametrize("last_words", [True, False])
    async def test_what_it_says_instead_is_passed_on_as_text_that_harms_nobody(self, last_words: bool) -> None:
        """Postgres takes no NUL, and terminals obey escapes."""
        helper = StubHelper()
        helper.say(b"broken\0 \x1b[31mhelper")
        helper.complaint = "broken\0 \x1b[31mhelper" if last_words else ""
        with pytest.raises(SandboxGone, match=r"broken \[31mhelper"):
            await module.HelperConnection.open(helper)

    async def test_paths_of_the_host_in_that_are_for_the_log_only(self) -> None:
        helper = StubHelper()
        helper.say(b"bwrap: Can't find source path /srv/workspaces/al/al-1: No such file")
        with capture_logs() as logs, pytest.raises(SandboxGone, match=r"source path \(a path\): No such file") as gone:
            await module.HelperConnection.open(helper)
        assert "/srv" not in gone.value.detail
        assert "/srv/workspaces/al/al-1" in logs[-1]["said"]

    @pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE.keys())
    async def test_nonsense_ends_the_connection_and_its_orders(self, nonsense: bytes) -> None:
        helper = StubHelper()
        connection = await helper.open()
        orders = [asyncio.create_task(connection.order(ORDER, time_limit=5)) for _ in range(2)]
        await helper.hears(b"G", number=2)
        helper.say(nonsense)
        assert (await orders[1]).outcome is Outcome.LOST
        await asyncio.wait(orders)
        await connection.close()
        assert helper.closed

    async def test_more_pieces_than_anybody_sends_end_the_connection(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        async with connection.stream(ORDER) as talk:
            helper.say((frame(b"o", 1, b"x") + frame(b"e", 1, b"x")) * 40_000)
            with pytest.raises(SandboxGone):
                await connection.order(ORDER, time_limit=5)
        assert talk.result.outcome is Outcome.LOST
        await connection.close()
        assert helper.closed

    async def test_frames_of_orders_that_nobody_gave_are_dropped(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"G")
        helper.say(frame(b"o", 77, b"x") + report(0) + frame(b"o", INSIDE, b"x") + report(1, exit_code=4))
        assert (await order).exit_code == 4
        await connection.close()

    @pytest.mark.parametrize("number", [1, 77])
    @pytest.mark.parametrize("kind", [b"r", b"w", b"o"])
    async def test_who_says_nothing_without_end_is_not_listened_to(self, kind: bytes, number: int) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=60))
        await helper.hears(b"G")
        nothing = frame(kind, number, CREDIT_BYTES.pack(0) if kind == b"w" else b"")
        while not connection.lost:
            helper.say(nothing * 1000)
            await asyncio.sleep(0)
        assert (await order).outcome is Outcome.LOST

    async def test_a_report_is_believed_in_its_bounds_only(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        await helper.hears(b"G")
        helper.say(report(1, exit_code=-(2**80), error="<b>\x1b[31m", clean="yes"))
        found = await order
        assert (found.exit_code, found.error, found.clean) == (None, "unknown", True)
        await connection.close()

    @given(st.lists(st.binary(max_size=200), max_size=20))
    def test_no_bytes_at_all_do_harm(self, pieces: list[bytes]) -> None:
        async def listen() -> None:
            helper = StubHelper()
            connection = await helper.open()
            order = asyncio.create_task(connection.order(ORDER, time_limit=5))
            await helper.hears(b"G")
            for piece in pieces:
                helper.say(piece)
            helper.hang_up()
            await order
            await connection.close()
            assert helper.closed

        asyncio.run(listen())


class TestConnectionsFromInside:
    async def test_are_served_both_ways_and_closed(self) -> None:
        helper = StubHelper()

        async def echo(talk: OpenOrder) -> None:
            async for _, data in talk:
                await talk.send(data.upper())

        connection = await helper.open(on_connection=echo)
        helper.say(frame(b"n", INSIDE) + frame(b"o", INSIDE, b"hello"))
        assert await helper.hears(b"I", number=INSIDE) == b"HELLO"
        helper.say(report(INSIDE))
        await connection.close()

    async def test_who_serves_one_hangs_up_by_coming_to_an_end(self) -> None:
        helper = StubHelper()

        async def refuse(talk: OpenOrder) -> None:
            await talk.send(b"no")

        connection = await helper.open(on_connection=refuse)
        helper.say(frame(b"n", INSIDE))
        await helper.hears(b"K", number=INSIDE)
        assert helper.kinds(INSIDE) == b"IK"
        await connection.close()

    async def test_too_many_end_the_connection(self) -> None:
        helper = StubHelper()

        async def wait_for_ever(talk: OpenOrder) -> None:
            await read_all(talk)

        connection = await helper.open(on_connection=wait_for_ever)
        helper.say(b"".join(frame(b"n", FROM_INSIDE | number) for number in range(65)))
        order = asyncio.create_task(connection.order(ORDER, time_limit=5))
        with pytest.raises(SandboxGone):
            await order
        await connection.close()
        assert helper.closed

    async def test_those_that_are_over_count_until_the_helper_takes_the_word(self) -> None:
        """Else one that takes nothing could have any number of them wait here to be closed."""
        helper = StubHelper()

        async def leave(_: OpenOrder) -> None: ...

        connection = await helper.open(on_connection=leave)
        helper.takes = False
        for number in range(1 + 64):  # the first is being hung up on
            helper.say(frame(b"n", FROM_INSIDE | number))
            await asyncio.sleep(0.001)
        assert not connection.lost
        helper.say(frame(b"n", FROM_INSIDE | 65))
        await asyncio.sleep(0.001)
        assert connection.lost
        await connection.close()


class TestOthersHaveTheirTurn:
    @pytest.mark.parametrize("flood", [frame(b"o", 1, b"x") + frame(b"e", 1, b"x"), frame(b"w", 1, bytes(4))])
    async def test_among_many_small_frames(self, flood: bytes) -> None:
        helper = StubHelper()
        connection = await helper.open()
        order = asyncio.create_task(connection.order(ORDER, time_limit=60))
        await helper.hears(b"G")
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while not order.done():
                turns += 1
                await asyncio.sleep(0)

        others = asyncio.create_task(take_turns())
        helper.say(flood * 4000)
        helper.say(report(1))
        await asyncio.wait([order, others])
        assert turns >= 4000 // 1000
        await connection.close()

    async def test_while_much_that_has_come_is_read(self) -> None:
        helper = StubHelper()
        connection = await helper.open()
        turns = 0

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with connection.stream(ORDER) as talk:
            helper.say((frame(b"o", 1, b"x") + frame(b"e", 1, b"x")) * 5000 + report(1))
            async for _ in talk:
                break
            others = asyncio.create_task(take_turns())
            assert len(await read_all(talk)) == 9999
            others.cancel()
        assert turns >= 9999 // 1500
        await connection.close()


def test_the_hello_of_the_stub_is_one() -> None:
    assert HEADER.unpack_from(HELLO) == (b"h", 0, len(HELLO) - HEADER.size)

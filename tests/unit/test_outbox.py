import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.agent.stream import Delta
from moorage.claims import Claim, ClaimLost
from moorage.events import EventType, RunEvent, run_event
from moorage.ids import RunId, ThreadId, UserId
from moorage.runs import outbox as module
from moorage.runs.outbox import Outbox, coalesce

CLAIM = Claim(RunId("r"), ThreadId("alice-550e8400-e29b-41d4-a716-446655440000"), UserId("alice"), 1)
NEVER = 60.0  # a window that no test waits for
END = run_event(EventType.TODO_UPDATE, {"todos": []})

deltas = st.builds(
    Delta,
    st.sampled_from("ab"),
    st.just("agent"),
    st.none() | st.just("call_1"),
    st.text(max_size=3),
    st.text(max_size=2),
)
events = st.builds(lambda number: run_event(EventType.TODO_UPDATE, {"n": number}), st.integers(0, 9))


class Frames:
    """A log that keeps what each append stored, and can be made to wait or to refuse."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[list[RunEvent]] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()
        self.refusal: Exception | None = None

    async def append(self, claim: Claim, events: Sequence[RunEvent]) -> None:
        assert claim == CLAIM
        await self.open.wait()
        if self.refusal:
            raise self.refusal
        self.frames.put_nowait(list(events))

    async def next(self) -> list[RunEvent]:
        async with asyncio.timeout(2):
            return await self.frames.get()


@pytest.fixture
def log() -> Frames:
    return Frames()


@pytest.fixture
async def outbox(log: Frames) -> AsyncGenerator[Outbox]:
    """An outbox whose window never ends by itself, sending."""
    found = Outbox(log, CLAIM, window=lambda: NEVER)  # pyright: ignore[reportArgumentType]
    sending = asyncio.create_task(found.send())
    yield found
    sending.cancel()
    await asyncio.wait([sending])


def delta(text: str, message_id: str = "m") -> Delta:
    return Delta(message_id, "agent", None, text)


def texts(frame: Sequence[RunEvent]) -> list[str]:
    return [json.loads(event.data).get("content_delta", event.type.value) for event in frame]


@given(st.lists(deltas | events))
def test_joining_deltas_keeps_every_text_in_its_place(items: list[Delta | RunEvent]) -> None:
    def flat(items: Sequence[Delta | RunEvent]) -> list[tuple[object, ...]]:
        """Character by character, so that how they were joined does not show."""
        seen: list[tuple[object, ...]] = []
        for item in items:
            if isinstance(item, Delta):
                seen += [(item.message_id, item.parent_call_id, char) for char in item.text]
            elif item.type is EventType.CONTENT_STREAM:
                data = json.loads(item.data)
                seen += [(data["message_id"], data.get("parent_call_id"), char) for char in data["content_delta"]]
            else:
                seen.append((item.data,))
        return seen

    storable = [_storable(item) for item in items]
    assert flat(list(coalesce(storable))) == flat(storable)


def _storable(item: Delta | RunEvent) -> Delta | RunEvent:
    if isinstance(item, RunEvent):
        return item
    return Delta(item.message_id, item.agent, item.parent_call_id, item.text.replace("\x00", ""), item.thinking)


@given(st.lists(deltas | events))
def test_neighbours_of_one_message_become_one_event(items: list[Delta | RunEvent]) -> None:
    joined = [json.loads(event.data) if event.type is EventType.CONTENT_STREAM else {} for event in coalesce(items)]
    for one, other in itertools.pairwise(joined):
        if one and other:
            assert (one["message_id"], one.get("parent_call_id")) != (other["message_id"], other.get("parent_call_id"))


@given(st.lists(deltas, min_size=1))
def test_reasoning_is_joined_as_well(items: list[Delta]) -> None:
    told = [json.loads(event.data).get("thinking_delta", "") for event in coalesce(list(items))]
    assert "".join(told) == "".join(item.thinking for item in items).replace("\x00", "")


async def test_the_first_delta_goes_out_at_once(log: Frames, outbox: Outbox) -> None:
    await outbox.put(delta("a"))
    assert texts(await log.next()) == ["a"]


async def test_later_deltas_wait_for_one_another(log: Frames, outbox: Outbox) -> None:
    await outbox.put(delta("a"))
    await log.next()
    for text in "bcd":
        await outbox.put(delta(text))
    await outbox.put(END)
    assert texts(await log.next()) == ["bcd", "todo_update"]


async def test_any_other_event_is_not_delayed(log: Frames, outbox: Outbox) -> None:
    for _ in range(3):
        await outbox.put(END)
        assert texts(await log.next()) == ["todo_update"]


async def test_the_first_delta_after_another_event_goes_out_at_once(log: Frames, outbox: Outbox) -> None:
    await outbox.put(END)
    await log.next()
    await outbox.put(delta("a"))
    assert texts(await log.next()) == ["a"]


async def test_what_comes_while_the_log_writes_is_one_frame(log: Frames, outbox: Outbox) -> None:
    log.open.clear()
    await outbox.put(END)
    await asyncio.sleep(0)
    for item in (delta("a"), delta("b"), END, delta("c")):
        await outbox.put(item)
    log.open.set()
    assert texts(await log.next()) == ["todo_update"]
    assert texts(await log.next()) == ["ab", "todo_update", "c"]


async def test_closing_stores_what_waits_and_ends(log: Frames) -> None:
    outbox = Outbox(log, CLAIM, window=lambda: NEVER)  # pyright: ignore[reportArgumentType]
    async with asyncio.timeout(2), asyncio.TaskGroup() as group:
        group.create_task(outbox.send())
        await outbox.put(delta("a"))
        await log.next()
        await outbox.put(delta("b"))
        outbox.close()
    assert texts(await log.next()) == ["b"]


async def test_closing_an_outbox_that_said_nothing_ends_it(log: Frames) -> None:
    outbox = Outbox(log, CLAIM, window=lambda: NEVER)  # pyright: ignore[reportArgumentType]
    outbox.close()
    await asyncio.wait_for(outbox.send(), 2)
    assert log.frames.empty()


async def test_a_log_that_refuses_ends_sending(log: Frames) -> None:
    outbox = Outbox(log, CLAIM, window=lambda: NEVER)  # pyright: ignore[reportArgumentType]
    log.refusal = ClaimLost("gone")
    await outbox.put(delta("a"))
    with pytest.raises(ClaimLost):
        await asyncio.wait_for(outbox.send(), 2)


async def test_an_agent_far_ahead_of_the_log_waits(
    log: Frames, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HIGH_WATER", 10)
    log.open.clear()
    await outbox.put(END)
    await asyncio.sleep(0)

    async def talk() -> None:
        for _ in range(25):
            await outbox.put(delta("x"))

    talking = asyncio.create_task(talk())
    done, _ = await asyncio.wait([talking], timeout=0.05)
    assert not done
    log.open.set()
    await asyncio.wait_for(outbox.put(END), 2)
    await asyncio.wait_for(talking, 2)

"""Who waits for room: what becomes of one is nothing to the others."""

import asyncio

import pytest

from moorage.ids import UserId
from moorage.sandboxes import waiting
from moorage.sandboxes.port import SandboxesFull, fencing_token
from moorage.sandboxes.waiting import Line

ALICE, BOB = UserId("alice"), UserId("bob")


class Attempts:
    """What it is asked for is refused at first, then goes wrong or takes for ever, and then is done."""

    def __init__(self, *, broken: bool = False, endless: bool = False) -> None:
        self.tried = 0
        self.again, self.cancelled = asyncio.Event(), False
        self._broken, self._endless = broken, endless

    async def __call__(self) -> str:
        self.tried += 1
        if self.tried == 1:
            raise SandboxesFull("as many run as may")
        self.again.set()
        if self._broken:
            raise RuntimeError("a mistake")
        if self._endless:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled = True
        return "done"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_ROUND_SECONDS", 0.001)


async def test_a_mistake_is_told_to_whom_it_concerns() -> None:
    line = Line(wait_seconds=30)
    mine = asyncio.create_task(line.take(ALICE, Attempts(broken=True)))
    other = asyncio.create_task(line.take(BOB, Attempts()))
    with pytest.raises(RuntimeError, match="a mistake"):
        await mine
    assert await other == "done"


async def test_what_is_started_for_one_who_leaves_holds_up_nobody() -> None:
    line, mine = Line(wait_seconds=30), Attempts(endless=True)
    waits = asyncio.create_task(line.take(ALICE, mine))
    other = asyncio.create_task(line.take(BOB, Attempts()))
    await mine.again.wait()
    waits.cancel()
    assert await asyncio.wait_for(other, 10) == "done"
    assert mine.cancelled


async def test_each_is_served_in_their_own_name() -> None:
    line = Line(wait_seconds=30)
    tried: list[int | None] = []

    async def attempt() -> int | None:
        tried.append(fencing_token.get())
        if len(tried) == 1:
            raise SandboxesFull("as many run as may")
        return fencing_token.get()

    async def wait(token: int) -> int | None:
        fencing_token.set(token)
        return await line.take(ALICE, attempt)

    assert await asyncio.gather(wait(1), wait(2)) == [1, 2]

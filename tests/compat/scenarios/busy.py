"""A second run on a thread that is busy."""

from collections.abc import AsyncIterator

from tests.compat.wire import Wire, numbers, script, text

type Facts = AsyncIterator[tuple[str, str]]

SLOW = numbers(30)
SECOND = script(then="second")


async def reject(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    first = await wire.running(thread, SLOW)
    reply = await wire.create(thread, SECOND, multitask_strategy="reject")
    yield "`reject`: the second run is", str(reply.status_code)
    yield "`reject`: the first run ends as", await wire.until_run(thread, first)
    yield "`reject`: who spoke", await _speakers(wire, thread)


async def enqueue(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    first = await wire.running(thread, SLOW)
    second = (await wire.create(thread, SECOND, multitask_strategy="enqueue")).json()
    yield "`enqueue`: the second run is at first", second["status"]
    yield "`enqueue`: the first run ends as", await wire.until_run(thread, first)
    yield "`enqueue`: the second run ends as", await wire.until_run(thread, second["run_id"])
    yield "`enqueue`: who spoke", await _speakers(wire, thread)


async def by_default(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.running(thread, SLOW)
    second = (await wire.create(thread, SECOND)).json()
    yield "no strategy: the second run is at first", second["status"]
    yield "no strategy: the run object says", str(second["multitask_strategy"])
    await wire.until_run(thread, second["run_id"])


async def interrupt(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    first = await wire.running(thread, SLOW)
    second = (await wire.create(thread, SECOND, multitask_strategy="interrupt")).json()["run_id"]
    yield "`interrupt`: the second run ends as", await wire.until_run(thread, second)
    yield "`interrupt`: the first run ended as", await wire.until_run(thread, first)
    yield "`interrupt`: who spoke", await _speakers(wire, thread)
    yield "`interrupt`: the thread is then", (await wire.settled(thread))["status"]


async def rollback(wire: Wire) -> Facts:
    thread = await wire.new_thread()
    await wire.wait(thread, script(then="before"))
    first = await wire.running(thread, SLOW)
    second = (await wire.create(thread, SECOND, multitask_strategy="rollback")).json()["run_id"]
    yield "`rollback`: the second run ends as", await wire.until_run(thread, second)
    yield "`rollback`: the first run is then", await wire.until_run(thread, first)
    yield "`rollback`: what the model said", ", ".join(await _answers(wire, thread))
    yield "`rollback`: what the humans said", f"{len(await wire.said(thread))} messages"


async def _answers(wire: Wire, thread: str) -> list[str]:
    return [text(message) for message in await wire.messages(thread) if message["type"] == "ai"]


async def _speakers(wire: Wire, thread: str) -> str:
    return ", ".join(message["type"] for message in await wire.messages(thread))


SCENARIOS = (reject, enqueue, by_default, interrupt, rollback)

"""Answers to what waits: right ones, wrong ones, two at once, and ones that nothing waits for."""

import asyncio
import uuid
from collections.abc import AsyncIterator

from tests.compat.scenarios.pausing import APPROVE, ONE, TWO
from tests.compat.wire import Json, Wire, command, failure, interrupts, script

type Facts = AsyncIterator[tuple[str, str]]

BOGUS: Json = {"type": "bogus"}


async def malformed(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    yield "a decision of an unknown type", failure(await wire.resume(thread, BOGUS))
    yield "... the thread is then", await _standing(wire, thread)
    yield "... and the right decision", failure(await wire.resume(thread, APPROVE))
    yield "... the command ran", str("hi" in await wire.tool_results(thread))


async def wrong_count(wire: Wire) -> Facts:
    thread = await _paused(wire, TWO)
    yield "one decision for two calls", failure(await wire.resume(thread, APPROVE))
    yield "... the thread is then", await _standing(wire, thread)
    yield "... and two decisions", failure(await wire.resume(thread, APPROVE, APPROVE))
    yield "... tool results", ", ".join(sorted(await wire.tool_results(thread))) or "none"


async def not_an_object(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    yield '`resume: "yes"`', failure(await wire.wait(thread, None, command={"resume": "yes"}))
    yield "... the thread is then", await _standing(wire, thread)


async def edited(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    action = {"name": "execute", "args": {"command": "echo changed"}}
    yield "`edit`", failure(await wire.resume(thread, {"type": "edit", "edited_action": action}))
    results = await wire.tool_results(thread)
    yield "... what ran", ", ".join(results).splitlines()[-1] if results else "nothing"


async def edited_wrongly(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    action = {"name": "execute", "args": {"nonsense": 1}}
    yield (
        "`edit` with arguments that do not fit",
        failure(await wire.resume(thread, {"type": "edit", "edited_action": action})),
    )
    yield "... the thread is then", await _standing(wire, thread)


async def responded(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    yield "`respond`", failure(await wire.resume(thread, {"type": "respond", "message": "it says 4"}))
    yield "... the tool result is", ", ".join(await wire.tool_results(thread))


async def empty_input_beside(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    yield "a decision beside `input: {}`", failure(await wire.resume(thread, APPROVE, input={}))
    yield "... the command ran", str("hi" in await wire.tool_results(thread))


async def by_interrupt_id(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    pending = interrupts(await wire.settled(thread))[0]["id"]
    answer = {pending: {"decisions": [APPROVE]}}
    yield "`resume: {interrupt id: decisions}`", failure(await wire.wait(thread, None, command={"resume": answer}))
    yield "... the command ran", str("hi" in await wire.tool_results(thread))


async def unknown_interrupt(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    command_ = {"resume": {"0" * 32: {"decisions": [APPROVE]}}}
    yield "an answer to an unknown interrupt id", failure(await wire.wait(thread, None, command=command_))
    yield "... the thread is then", await _standing(wire, thread)
    strict = await wire.wait(thread, None, command=command_, strict_resume=True)
    yield "the same with `strict_resume`", failure(strict)
    yield "... the thread is then", await _standing(wire, thread)


async def twice_at_once(wire: Wire) -> Facts:
    file = f"probe-{uuid.uuid4().hex}"
    thread = await _paused(wire, script(command(f"echo x >> {file}; wc -l < {file}")))
    answers = await asyncio.gather(wire.resume(thread, APPROVE), wire.resume(thread, APPROVE))
    yield "two answers to one interrupt at once", " and ".join(sorted(map(failure, answers)))
    await wire.settled(thread)
    await wire.wait(thread, script(command(f"cat {file} | wc -l")))
    await wire.resume(thread, APPROVE)
    yield "... the command ran", f"{(await wire.tool_results(thread))[-1]} times"


async def again(wire: Wire) -> Facts:
    thread = await _paused(wire, ONE)
    await wire.resume(thread, APPROVE)
    before = len(await wire.messages(thread))
    yield "the same answer again, when nothing is pending", failure(await wire.resume(thread, APPROVE))
    yield "... with `strict_resume`", failure(await wire.resume(thread, APPROVE, strict_resume=True))
    yield "... new messages", str(len(await wire.messages(thread)) - before)
    yield "... the thread is then", await _standing(wire, thread)


async def _paused(wire: Wire, message: str) -> str:
    thread = await wire.new_thread()
    await wire.wait(thread, message)
    return thread


async def _standing(wire: Wire, thread: str) -> str:
    found = await wire.settled(thread)
    return f"{found['status']}, {len(interrupts(found))} pending"


SCENARIOS = (
    malformed, wrong_count, not_an_object, edited, edited_wrongly, responded, empty_input_beside, by_interrupt_id,
    unknown_interrupt, twice_at_once, again,
)  # fmt: skip

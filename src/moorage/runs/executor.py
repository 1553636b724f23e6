"""Executes one claimed run: streams its agent into the event log, and decides how it ended."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from moorage.agent.context import RunContext
from moorage.agent.failures import problem_of
from moorage.agent.journal import Journal
from moorage.agent.runner import AgentRun, AgentRunner
from moorage.assistants import Assistant
from moorage.claims import Claim, ClaimLost, StopReason
from moorage.errors import AppError
from moorage.ids import ThreadId, UserId
from moorage.runs.outbox import Outbox
from moorage.runs.ports import EventLog, RunQueue
from moorage.runs.run import ClaimedRun, Outcome, RunKind, RunStatus
from moorage.sandboxes.port import fencing_token
from moorage.telemetry import get_logger

_MIN_WINDOW = 0.02
_MAX_WINDOW = 0.25
_WINDOW_PER_RUN = 0.001

log = get_logger(__name__)

type OpenJournal = Callable[[ClaimedRun], Awaitable[Journal]]
type KillLeftovers = Callable[[ThreadId], Awaitable[None]]
type BeforeEnd = Callable[[Claim], Awaitable[None]]


class LoadAssistant(Protocol):
    """Answers a user's assistant, or the system's, with what a run's context changes of it."""

    async def __call__(
        self, owner: UserId, assistant_id: str, context: Mapping[str, Any] | None = None, /
    ) -> Assistant: ...


@dataclass(frozen=True, slots=True)
class RunLimits:
    """`max_steps` model calls and `timeout_seconds` per attempt; a token budget of 0 is none."""

    max_steps: int
    timeout_seconds: float
    token_budget: int = 0


class Execution:
    """A run in progress, in a task of its own so that nobody's disconnect can cancel it."""

    def __init__(self, run: ClaimedRun) -> None:
        self.run = run
        self.stop_reason: StopReason | None = None
        self.task: asyncio.Task[Outcome | None] | asyncio.Task[None] | None = None
        self.usage: dict[str, int] = {}
        self._agent: AgentRun | None = None
        self._draining = False

    def stop(self, reason: StopReason) -> None:
        """Cancel the agent, its tools included; the first reason given is the one that counts."""
        if self.stop_reason is None:
            self.stop_reason = reason
            if self.task is not None:
                self.task.cancel()

    def drain(self) -> None:
        """Let the agent finish the step it is in, and no other."""
        self._draining = True
        if self._agent is not None:
            self._agent.drain()

    def entered(self, agent: AgentRun) -> None:
        """The agent is about to run."""
        self._agent = agent
        if self._draining:
            agent.drain()


class Executor:
    """Executes claimed runs. Knows nothing of who claims them or who reads along."""

    def __init__(
        self,
        runner: AgentRunner,
        event_log: EventLog,
        queue: RunQueue,
        limits: RunLimits,
        *,
        open_journal: OpenJournal,
        load_assistant: LoadAssistant,
        kill_leftovers: KillLeftovers,
        before_end: BeforeEnd | None = None,
    ) -> None:
        """`kill_leftovers` ends what a lost worker may have left running in a thread's sandbox.

        `before_end` may look at what a run that was not stopped has done, while nothing else runs in its thread. What
        goes wrong with that is logged.
        """
        self._runner = runner
        self._log = event_log
        self._queue = queue
        self._limits = limits
        self._open_journal = open_journal
        self._load_assistant = load_assistant
        self._kill_leftovers = kill_leftovers
        self._before_end = before_end
        self._active = 0

    async def execute(self, execution: Execution) -> None:
        """Run to the end and write the outcome, or hand the run back when it may not go on here.

        A claim lost on the way is not an error: another worker writes the outcome.
        """
        self._active += 1
        claim = execution.run.claim
        try:
            outcome = await self._outcome(execution)
            if outcome is None:
                await self._queue.release(claim)
                log.info("run_handed_back", run_id=claim.run_id)
            else:
                await self._see_off(execution)
                await self._finish(execution.run, outcome)
        except ClaimLost:
            log.warning("claim_lost", run_id=claim.run_id)
        except AppError as error:
            log.error("run_not_finished", run_id=claim.run_id, code=error.code, detail=error.detail)
        finally:
            self._active -= 1

    async def _see_off(self, execution: Execution) -> None:
        """Who stops the run now only stops this."""
        if self._before_end is None or execution.stop_reason is not None:
            return
        claim = execution.run.claim
        task = execution.task = asyncio.create_task(_as_run(self._before_end, claim))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        if not task.cancelled() and (error := task.exception()) is not None:  # not to cost the run its outcome
            log.error("before_end_failed", run_id=claim.run_id, exc_info=error)

    async def _finish(self, run: ClaimedRun, outcome: Outcome) -> None:
        try:
            await self._queue.finish(run.claim, outcome)
        except AppError:
            raise
        except Exception as error:  # noqa: BLE001 -- the same place: what the run leaves behind cannot be stored
            await self._queue.finish(run.claim, replace(_failed(error, run), usage=outcome.usage))

    async def _outcome(self, execution: Execution) -> Outcome | None:
        """How the run ended; None when it did not."""
        execution.task = asyncio.create_task(self._drive(execution))
        if execution.stop_reason is not None:
            execution.task.cancel()
        deadline = asyncio.timeout(self._limits.timeout_seconds)
        try:
            async with deadline:
                return await execution.task
        except TimeoutError as error:
            failed = _timed_out(self._limits) if deadline.expired() else _failed(error, execution.run)
            return replace(failed, usage=execution.usage)
        except asyncio.CancelledError:
            if execution.stop_reason is None:
                execution.stop_reason = StopReason.SHUTDOWN
                await asyncio.wait([execution.task])
            if execution.stop_reason is StopReason.SHUTDOWN:
                return None
            return Outcome(RunStatus.CANCELLED, usage=execution.usage)
        except ClaimLost:
            raise
        except Exception as error:  # noqa: BLE001 -- one of the three places: whatever a run dies of, it must end
            return replace(_failed(error, execution.run), usage=execution.usage)

    async def _drive(self, execution: Execution) -> Outcome | None:
        """In a task of its own, so that the token is this run's and its tools' only."""
        run, limits = execution.run, self._limits
        fencing_token.set(run.claim.fencing_token)
        if run.taken_over:
            await self._kill_leftovers(run.claim.thread_id)
        journal = await self._open_journal(run)
        context = RunContext(journal, max_steps=limits.max_steps, token_budget=limits.token_budget)
        changes = run.input.get("graph", {}).get("context")
        assistant = await self._load_assistant(run.claim.owner_id, run.assistant_id, changes)
        outbox = Outbox(self._log, run.claim, window=self._window)
        if run.kind is RunKind.UPDATE:
            events, values = await self._runner.update(run.claim, assistant, run.input, context, outbox.saved)
            await self._log.append(run.claim, events)
            return Outcome(RunStatus.SUCCESS, values=values)
        agent = self._runner.start(
            run.claim,
            assistant,
            run.input,
            context,
            on_saved=outbox.saved,
            attempt=run.claim.generation,
            fresh=run.fresh,
            blank=run.blank,
            base_checkpoint_id=run.base_checkpoint_id,
        )
        execution.entered(agent)
        try:
            await _stream(agent, outbox)
        finally:
            execution.usage = context.usage
        if agent.drained:
            return None
        status = RunStatus.INTERRUPTED if agent.interrupts or agent.paused else RunStatus.SUCCESS
        return Outcome(status, interrupts=agent.interrupts, usage=context.usage, values=agent.values)

    def _window(self) -> float:
        return min(_MAX_WINDOW, _MIN_WINDOW + _WINDOW_PER_RUN * self._active)


async def _as_run(before_end: BeforeEnd, claim: Claim) -> None:
    """In a task of its own, so that the token is this run's only."""
    fencing_token.set(claim.fencing_token)
    await before_end(claim)


async def _stream(agent: AgentRun, outbox: Outbox) -> None:
    """Everything that the agent says, into the log."""
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(outbox.send())
            try:
                async with aclosing(agent.events()) as events:
                    async for item in events:
                        await outbox.put(item)
            except BaseException as error:  # noqa: BLE001 -- what was said before must be stored; raised again below
                failure = error
            outbox.close()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if failure is not None:
        raise failure


def _timed_out(limits: RunLimits) -> Outcome:
    seconds = f"{limits.timeout_seconds:g}"
    problem = {"code": "run_timeout", "detail": f"The run took longer than {seconds} s (RUN_TIMEOUT_SECONDS)"}
    return Outcome(RunStatus.TIMEOUT, error=problem)


def _failed(error: Exception, run: ClaimedRun) -> Outcome:
    problem: dict[str, Any] | None = problem_of(error)
    if problem is None:
        log.exception("run_failed", run_id=run.claim.run_id, thread_id=run.claim.thread_id)
        problem = {"code": "internal_error", "detail": "The run failed inside the server; its log says why"}
    else:
        log.warning("run_failed", run_id=run.claim.run_id, thread_id=run.claim.thread_id, code=problem["code"])
    return Outcome(RunStatus.ERROR, error=problem)

import pytest
from tests.fake_agent import FakeAgent, call, calls

from moorage.agent.context import RunContext, StepLimitReached, TokenBudgetReached
from moorage.agent.failures import problem_of

LIST = calls(call("ls", "c1", path="/workspace"))


def limited(agent: FakeAgent, *, steps: int = 100, tokens: int = 0) -> FakeAgent:
    agent.context = RunContext(agent.journal, max_steps=steps, token_budget=tokens)
    return agent


async def test_a_run_may_make_as_many_model_calls_as_its_limit_says() -> None:
    agent = limited(FakeAgent({"go": [LIST, LIST, "done"]}), steps=3)
    await agent.say("go")
    assert agent.context.usage["model_calls"] == 3


async def test_one_model_call_more_ends_the_run_with_its_code() -> None:
    agent = limited(FakeAgent({"go": [LIST, LIST, LIST, "done"]}), steps=3)
    with pytest.raises(StepLimitReached) as caught:
        await agent.say("go")
    assert len(agent.model.seen) == 3
    assert (problem_of(caught.value) or {})["code"] == "step_limit"


async def test_sub_agents_count_against_the_same_limit() -> None:
    delegate = calls(call("task", "t1", description="sub", subagent_type="general-purpose"))
    agent = limited(FakeAgent({"go": [delegate, "done"], "sub": [LIST, LIST, LIST, "done"]}), steps=3)
    with pytest.raises(StepLimitReached):
        await agent.say("go")
    assert len(agent.model.seen) == 3


async def test_a_token_budget_ends_the_run_before_the_next_call() -> None:
    agent = limited(FakeAgent({"go": [LIST]}), tokens=30)
    with pytest.raises(TokenBudgetReached):
        await agent.say("go")
    assert agent.context.usage == {"model_calls": 2, "input_tokens": 20, "output_tokens": 10, "total_tokens": 30}


async def test_the_limit_is_per_run_not_per_thread() -> None:
    agent = limited(FakeAgent({"go": [LIST, "done"]}), steps=2)
    await agent.say("go")
    await limited(agent, steps=2).say("go")


async def test_a_thread_goes_on_after_a_run_that_hit_its_limit() -> None:
    agent = limited(FakeAgent({"go": [LIST], "hi": ["hello"]}), steps=2)
    with pytest.raises(StepLimitReached):
        await agent.say("go")
    await limited(agent).say("hi")
    assert agent.model.seen[-1][-1].text == "hi"

"""What an assistant's choice of tools and approvals does to calls, whatever its model tries."""

from typing import Any

import pytest
from tests.fake_agent import FakeAgent, agents, call, calls, data

from moorage.agent.prompt import system_prompt
from moorage.assistants import AGENT_TOOLS, GRAPHS, SUBAGENT_TOOLS, Assistant, get_assistant

APPROVE = {"type": "approve"}
TASK = call("task", "t1", description="inner", subagent_type="general-purpose")


def assistant(graph_id: str = "agent", **context: Any) -> Assistant:
    return Assistant("00000000-0000-4000-8000-000000000000", "mine", graph_id, context=context)


def agent(*made: Any, inner: Any = "ok", allow_auto: bool = False, **context: Any) -> FakeAgent:
    """An agent of an assistant with this context, that makes these calls when told to go."""
    script = {"go": [calls(*made), "done"], "inner": [inner, "inner done"]}
    return FakeAgent(script, assistant=assistant(**context), allow_auto=allow_auto)


async def test_all_tools_are_offered_by_default() -> None:
    made = FakeAgent({})
    await made.say("hello")
    assert made.model.offered == AGENT_TOOLS


async def test_the_model_is_offered_the_chosen_tools_only() -> None:
    made = agent(tools=["ls", "execute"])
    await made.say("hello")
    assert made.model.offered == {"ls", "execute"}


@pytest.mark.parametrize("context", [{"tools": ["ls"]}, {"approvals": {"execute": "deny"}}])
async def test_a_tool_that_was_not_given_is_refused_without_asking_anybody(context: dict[str, Any]) -> None:
    made = agent(call("execute", "c1", command="ls"), **context)
    events = await made.say("go")
    assert made.asked == {}
    assert made.sandbox.ran == []
    assert "not available" in made.told["c1"]
    assert [item["status"] for item in data(events, "tool_result")] == ["error"]


async def test_reading_tools_that_were_not_given_are_refused_too() -> None:
    made = agent(call("ls", "c1", path="/"), tools=["execute"])
    await made.say("go")
    assert "not available" in made.told["c1"]


async def test_a_tool_that_is_taken_away_while_its_call_waits_does_not_run() -> None:
    made = agent(call("execute", "c1", command="ls"))
    await made.say("go")
    made.assistant = assistant(tools=["ls"])
    await made.answer(c1=APPROVE)
    assert made.sandbox.ran == []
    assert "not available" in made.told["c1"]


async def test_what_only_reads_asks_where_the_assistant_wants_it_to() -> None:
    made = agent(call("ls", "c1", path="/workspace"), approvals={"ls": "ask"})
    await made.say("go")
    assert made.asked == {"c1": {"path": "/workspace"}}
    events = await made.answer(c1=APPROVE)
    assert [item["status"] for item in data(events, "tool_result")] == ["success"]


async def test_a_task_that_asks_can_hold_calls_that_ask() -> None:
    inner = calls(call("execute", "c2", command="ls"))
    made = agent(TASK, inner=inner, approvals={"task": "ask"})
    await made.say("go")
    await made.answer(t1=APPROVE)
    assert made.asked == {"c2": {"command": "ls"}}
    await made.answer(c2=APPROVE)
    assert made.sandbox.ran == ["ls"]
    assert made.told == {"t1": "inner done"}


async def test_a_sub_agent_has_no_tools_that_its_assistant_has_not() -> None:
    made = agent(TASK, inner=calls(call("execute", "c2", command="ls")), tools=["ls", "task"])
    await made.say("go")
    assert made.asked == {}
    assert made.sandbox.ran == []


async def test_a_named_sub_agent_has_its_own_tools_and_they_ask() -> None:
    helper = {"name": "runner", "description": "Runs things.", "tools": ["execute"]}
    task = call("task", "t1", description="inner", subagent_type="runner")
    made = agent(task, inner=calls(call("execute", "c2", command="ls")), tools=["task"], subagents=[helper])
    await made.say("go")
    assert made.model.offered == {"execute"}
    assert made.asked == {"c2": {"command": "ls"}}


async def test_a_sub_agent_may_be_called_as_the_general_one() -> None:
    helper = {"name": "general-purpose", "description": "Mine.", "tools": ["ls"]}
    made = agent(TASK, inner="inner done", subagents=[helper])
    await made.say("go")
    assert made.told == {"t1": "inner done"}


async def test_a_command_runs_without_asking_where_assistant_and_operator_allow_it() -> None:
    made = agent(call("execute", "c1", command="ls"), approvals={"execute": "allow"}, allow_auto=True)
    events = await made.say("go")
    assert made.sandbox.ran == ["ls"]
    [decision] = data(events, "decision")
    assert (decision["type"], decision["decided_via"]) == ("approve", "assistant")


async def test_what_the_operator_no_longer_allows_asks_again() -> None:
    made = agent(call("execute", "c1", command="ls"), approvals={"execute": "allow"}, allow_auto=False)
    await made.say("go")
    assert made.asked == {"c1": {"command": "ls"}}


async def test_the_instruction_comes_before_the_shared_prompt() -> None:
    made = agent(instruction="Speak like a pirate.", tools=["ls"])
    await made.say("hello")
    system = made.model.seen[0][0].text
    assert system.startswith("Speak like a pirate.\n\nYou are an agent")
    assert "Tools: ls works on files." in system


@pytest.mark.parametrize("graph_id", GRAPHS)
async def test_every_graph_of_the_system_answers_with_its_tools(graph_id: str) -> None:
    made = FakeAgent({}, assistant=get_assistant(graph_id))
    await made.say("hello")
    wanted = GRAPHS[graph_id].configuration.tools
    assert made.model.offered == (AGENT_TOOLS if wanted is None else wanted)


async def test_the_orchestrator_hands_work_to_its_specialists_whose_calls_ask() -> None:
    task = call("task", "t1", description="inner", subagent_type="coding")
    script = {"go": [calls(task), "done"], "inner": [calls(call("execute", "c2", command="make")), "made"]}
    made = FakeAgent(script, assistant=get_assistant("orchestrator"))
    await made.say("go")
    assert made.model.offered == SUBAGENT_TOOLS
    assert made.asked == {"c2": {"command": "make"}}
    await made.answer(c2=APPROVE)
    assert made.told == {"t1": "made"}


def test_assistants_that_differ_only_in_name_share_an_agent_and_others_do_not() -> None:
    first = agents().get(assistant(tools=["ls"]))
    named = Assistant("11111111-0000-4000-8000-000000000000", "another", "agent", context={"tools": ["ls"]})
    assert agents().get(named) is first
    assert agents().get(assistant(tools=["ls"], approvals={"ls": "ask"})) is not first
    assert agents().get(assistant(tools=["ls"], instruction="x")) is not first
    assert agents().get(assistant(tools=["ls"], subagents=[{"name": "a", "description": "b"}])) is not first
    assert agents().get(assistant("coding", tools=["ls"])) is not first


async def test_no_user_s_assistants_push_out_the_system_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.agent.graph._CACHE_LIMIT", 1)
    made = agents(99_999)
    own, first = made.get(get_assistant("agent")), made.get(assistant(tools=["ls"]))
    await made.prepare(assistant(tools=["glob"]))
    assert made.get(get_assistant("agent")) is own
    assert made.get(assistant(tools=["ls"])) is not first


def test_an_agent_without_tools_is_told_so() -> None:
    assert "You have no tools" in system_prompt(frozenset(), workspace="/w", shared="/s", command_seconds=60)


def test_an_agent_with_all_tools_is_told_of_all() -> None:
    prompt = system_prompt(AGENT_TOOLS, workspace="/w", shared="/s", command_seconds=60)
    assert "- Tools: ls, read_file, write_file, edit_file, delete, glob and grep work on files; execute runs" in prompt
    assert prompt.count("/w") == 2
    assert "there is no network" in prompt


def test_an_agent_with_a_way_out_is_told_where_it_leads() -> None:
    prompt = system_prompt(
        AGENT_TOOLS, workspace="/w", shared="/s", command_seconds=60, reachable=("pypi.org:443", "*.example.org:443")
    )
    assert "only these can be reached: pypi.org:443, *.example.org:443" in prompt
    assert "no network" not in prompt

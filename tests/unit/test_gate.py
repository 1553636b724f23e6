from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from deepagents.backends.protocol import ExecuteResponse
from langchain_core.messages import AIMessage, InvalidToolCall
from tests.fake_agent import FakeAgent, call, calls, data, kinds

from moorage.ids import ThreadId, UserId
from moorage.rules import Effect, Match, Rule

APPROVE = {"type": "approve"}
MALFORMED = AIMessage(
    "", invalid_tool_calls=[InvalidToolCall(name="execute", args='{"command": }', id="c1", error=None)]
)


def execute(command: str, call_id: str = "c1") -> Any:
    return call("execute", call_id, command=command)


async def stopped(*made: Any) -> FakeAgent:
    """An agent that was asked to make these calls in one turn."""
    agent = FakeAgent({"go": [calls(*made), "done"]})
    await agent.say("go")
    return agent


async def test_a_command_waits_for_a_human() -> None:
    agent = await stopped(execute("ls"))
    assert agent.asked == {"c1": {"command": "ls"}}
    assert agent.sandbox.ran == []


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("execute", {"command": "ls"}),
        ("write_file", {"file_path": "/workspace/a", "content": "x"}),
        ("edit_file", {"file_path": "/workspace/a", "old_string": "x", "new_string": "y"}),
        ("delete", {"file_path": "/workspace/a"}),
    ],
)
async def test_every_tool_that_changes_something_asks_first(tool: str, args: dict[str, Any]) -> None:
    assert (await stopped(call(tool, "c1", **args))).asked == {"c1": args}


@pytest.mark.parametrize(
    ("tool", "args"),
    [
        ("ls", {"path": "/workspace"}),
        ("read_file", {"file_path": "/workspace/a"}),
        ("glob", {"pattern": "*"}),
        ("grep", {"pattern": "x"}),
        ("write_todos", {"todos": [{"content": "x", "status": "pending"}]}),
    ],
)
async def test_what_only_reads_is_not_asked(tool: str, args: dict[str, Any]) -> None:
    agent = await stopped(call(tool, "c1", **args))
    assert agent.asked == {}
    assert list(agent.told) == ["c1"]


async def test_the_question_says_what_a_human_needs_to_know() -> None:
    agent = await stopped(call("write_file", "c1", file_path="/workspace/a", content="x"))
    [asked] = agent.reader.interrupts.values()
    assert asked.description == "Write the file /workspace/a"
    assert asked.facts == {"sandbox": "paper"}
    assert asked.allowed_decisions == ["approve", "edit", "reject", "respond"]
    assert asked.args_schema["additionalProperties"] is False
    assert set(asked.args_schema["properties"]) == {"file_path", "content"}


async def test_an_approved_call_runs_as_it_was_made() -> None:
    agent = await stopped(execute("ls"))
    events = await agent.answer(c1=APPROVE)
    assert agent.sandbox.ran == ["ls"]
    [result] = data(events, "tool_result")
    assert (result["call_id"], result["status"]) == ("c1", "success")
    assert "executed_input" not in result


async def test_an_edited_call_runs_as_edited_and_the_model_is_told() -> None:
    agent = await stopped(execute("rm -rf /"))
    events = await agent.answer(c1={"type": "edit", "args": {"command": "ls"}})
    assert agent.sandbox.ran == ["ls"]
    assert agent.told["c1"].startswith("The user changed this call")
    assert '{"command": "ls"}' in agent.told["c1"]
    assert data(events, "tool_result")[0]["executed_input"] == {"command": "ls"}


async def test_a_rejected_call_never_runs_and_the_model_is_told_why() -> None:
    agent = await stopped(execute("ls"))
    events = await agent.answer(c1={"type": "reject", "message": "too risky"})
    assert agent.sandbox.ran == []
    assert "rejected" in agent.told["c1"]
    assert "too risky" in agent.told["c1"]
    assert data(events, "tool_result")[0]["status"] == "rejected"


async def test_an_answer_in_place_of_the_call_is_its_result() -> None:
    agent = await stopped(execute("date"))
    events = await agent.answer(c1={"type": "respond", "message": "it is Monday"})
    assert agent.sandbox.ran == []
    assert agent.told == {"c1": "it is Monday"}
    assert data(events, "tool_result")[0]["status"] == "success"


async def test_parallel_calls_are_asked_and_answered_one_by_one() -> None:
    agent = await stopped(execute("a", "c1"), execute("b", "c2"), execute("c", "c3"))
    assert set(agent.asked) == {"c1", "c2", "c3"}
    await agent.answer(c2=APPROVE)
    assert agent.sandbox.ran == ["b"]
    assert set(agent.asked) == {"c1", "c3"}
    await agent.answer(c1={"type": "reject", "message": ""}, c3=APPROVE)
    assert agent.sandbox.ran == ["b", "c"]
    assert set(agent.told) == {"c1", "c2", "c3"}


async def test_the_same_answer_twice_runs_the_call_once() -> None:
    agent = await stopped(execute("a", "c1"), execute("b", "c2"))
    first = {item.id: APPROVE for item in agent.reader.interrupts.values() if item.call_id == "c1"}
    await agent.resume(first)
    await agent.resume(first)
    assert agent.sandbox.ran == ["a"]


async def test_a_call_that_the_tool_would_refuse_is_not_shown_to_humans() -> None:
    agent = await stopped(call("execute", "c1", cmd="ls"))
    assert agent.asked == {}
    assert "command" in agent.told["c1"]


async def test_a_tool_that_does_not_exist_is_answered() -> None:
    agent = await stopped(call("launch_rocket", "c1"))
    assert agent.asked == {}
    assert "launch_rocket" in agent.told["c1"]


async def test_arguments_that_are_not_json_are_answered_so_that_the_model_tries_again() -> None:
    agent = FakeAgent({"go": [MALFORMED, calls(execute("ls", "c2")), "done"]})
    events = await agent.say("go")
    assert "not valid JSON" in data(events, "tool_result")[0]["result"]
    assert agent.asked == {"c2": {"command": "ls"}}


async def test_a_call_that_was_cut_short_is_not_taken_for_a_whole_one() -> None:
    cut = calls(execute("ls", "c1"), execute("rm -rf /workspace/bui", "c2"))
    agent = FakeAgent({"go": [cut.model_copy(update={"response_metadata": {"finish_reason": "length"}}), "done"]})
    await agent.say("go")
    assert agent.asked == {"c1": {"command": "ls"}}
    await agent.answer(c1=APPROVE)
    assert "not valid JSON" in agent.told["c2"]


async def test_good_calls_beside_a_malformed_one_still_count() -> None:
    both = MALFORMED.model_copy(update={"tool_calls": [execute("ls", "c2")]})
    agent = FakeAgent({"go": [both, "done"]})
    await agent.say("go")
    assert agent.asked == {"c2": {"command": "ls"}}
    await agent.answer(c2=APPROVE)
    assert set(agent.told) == {"c1", "c2"}


@pytest.mark.parametrize(
    ("said", "shown"), [("a\x00b", "ab"), ("a\ud800b", "a?b"), ("a\u202eb", "a\u202eb"), ("\x1b[2Kls", "\x1b[2Kls")]
)
async def test_what_the_human_sees_is_what_runs(said: str, shown: str) -> None:
    agent = await stopped(execute(said))
    assert agent.asked == {"c1": {"command": shown}}
    await agent.answer(c1=APPROVE)
    assert agent.sandbox.ran == [shown]


async def test_a_number_out_of_range_is_the_models_mistake_not_the_runs_end() -> None:
    agent = await stopped(call("execute", "c1", command="ls", timeout=10**30))
    assert "c1" in agent.asked or "c1" in agent.told


async def test_arguments_nested_without_end_do_not_end_the_run() -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    agent = await stopped(call("execute", "c1", command=deep))
    assert "c1" in agent.told


async def test_huge_arguments_are_refused_before_a_human_sees_them() -> None:
    agent = await stopped(call("write_file", "c1", file_path="/workspace/a", content="x" * 300_000))
    assert agent.asked == {}
    assert "larger than" in agent.told["c1"]


async def test_of_two_plans_in_one_turn_the_first_counts() -> None:
    todos = [{"content": "first", "status": "pending"}]
    agent = await stopped(
        call("write_todos", "c1", todos=todos),
        call("write_todos", "c2", todos=[{"content": "second", "status": "pending"}]),
    )
    assert agent.asked == {}
    assert "once per turn" in agent.told["c2"]
    state = await agent.graph.aget_state({"configurable": {"thread_id": "t"}})
    assert state.values["todos"] == todos


async def test_a_command_that_fails_is_an_error_with_its_exit_code() -> None:
    agent = await stopped(execute("false"))
    agent.sandbox.answers["false"] = ExecuteResponse(output="boom", exit_code=3)
    [result] = data(await agent.answer(c1=APPROVE), "tool_result")
    assert (result["status"], result["exit_code"]) == ("error", 3)
    assert "boom" in result["result"]


async def test_a_sub_agents_command_asks_as_well() -> None:
    agent = FakeAgent(
        {
            "go": [calls(call("task", "t1", description="sub", subagent_type="general-purpose")), "done"],
            "sub": [calls(execute("ls")), "sub done"],
        }
    )
    await agent.say("go")
    assert agent.asked == {"c1": {"command": "ls"}}
    await agent.answer(c1=APPROVE)
    assert agent.sandbox.ran == ["ls"]
    assert agent.told == {"t1": "sub done"}


async def test_after_a_cancelled_approval_the_model_sees_a_result_for_every_call() -> None:
    agent = await stopped(execute("ls"), call("ls", "c2", path="/workspace"))
    events = await agent.say("never mind")
    assert set(agent.told) == {"c1", "c2"}
    assert agent.sandbox.ran == []
    assert kinds(events)[-1] == "message_complete"


# What a human should look at twice -----------------------------------------------------------------------------------


def rule(effect: Effect, tool: str, match: Match, pattern: dict[str, Any]) -> Rule:
    made = datetime.now(UTC)
    return Rule("r", ThreadId("t"), UserId("alice"), effect, tool, match, pattern, None, made, None)


async def stopped_under(found: Rule, *made: Any) -> FakeAgent:
    agent = FakeAgent({"go": [calls(*made), "done"]})
    agent.journal.rules.append(found)
    agent.sandbox.answers = {f"realpath -mz -- {IN_SRC}": ExecuteResponse(output=f"{IN_SRC}\x00", exit_code=0)}
    await agent.say("go")
    return agent


IN_SRC = "/workspace/src/a"
ALLOW_RM = rule(Effect.ALLOW, "execute", Match.PREFIX, {"tokens": ["rm"]})
ALLOW_SRC = rule(Effect.ALLOW, "write_file", Match.PATH, {"path": "/workspace/src"})


async def test_the_question_warns_of_risky_shapes_and_hidden_text() -> None:
    agent = await stopped(execute("rm -rf a\u200bb", "c1"), execute("ls", "c2"))
    facts = {item.call_id: item.facts for item in agent.reader.interrupts.values()}
    assert facts["c1"]["risks"] == ["deletes_recursively"]
    assert facts["c1"]["warnings"][0]["field"] == "command"
    assert facts["c2"] == {"sandbox": "paper"}


async def test_a_rule_lets_no_risky_command_through() -> None:
    agent = await stopped_under(ALLOW_RM, execute("rm -rf a", "c1"), execute("rm a", "c2"))
    assert agent.asked == {"c1": {"command": "rm -rf a"}}
    assert agent.sandbox.ran == ["rm a"]


async def test_a_rule_lets_no_hidden_text_through() -> None:
    fine, hiding = {"file_path": IN_SRC, "content": "x"}, {"file_path": IN_SRC, "content": "x\u202ey"}
    agent = await stopped_under(ALLOW_SRC, call("write_file", "c1", **hiding), call("write_file", "c2", **fine))
    assert agent.asked == {"c1": hiding}


async def test_a_rule_that_denies_still_decides_on_a_risky_command() -> None:
    agent = await stopped_under(replace(ALLOW_RM, effect=Effect.DENY), execute("rm -rf a"))
    assert agent.asked == {}
    assert "rejected" in agent.told["c1"]

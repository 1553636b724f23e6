"""What assistants may be configured with, and by which ids the system's own go."""

from typing import Any

import pytest
from tests.fake_agent import agents

from moorage.agent.graph_views import GraphViews
from moorage.agent.models import UnknownModel
from moorage.assistants import (
    AGENT_TOOLS,
    GATED_TOOLS,
    GRAPHS,
    SYSTEM_ASSISTANTS,
    Assistant,
    AssistantChange,
    InvalidContext,
    ModelNotAllowed,
    Policy,
    ToolApproval,
    UnknownAssistant,
    UnknownProfile,
    get_assistant,
    wire_assistant_id,
)
from moorage.assistants.policy import AutoApprovalNotAllowed
from moorage.errors import InvalidPayload

LANGGRAPHS_OWN = "fe096781-5601-53d2-b2f6-0d3403f7e9ca"
MINE = "00000000-0000-4000-8000-000000000000"


def assistant(graph_id: str = "agent", **context: Any) -> Assistant:
    return Assistant(MINE, "mine", graph_id, context=context)


def refusal(**context: Any) -> str:
    with pytest.raises(InvalidContext) as caught:
        _ = assistant(**context).configuration
    return caught.value.detail


def test_the_agent_has_the_id_that_langgraph_servers_give_it() -> None:
    assert wire_assistant_id("agent") == LANGGRAPHS_OWN
    assert get_assistant(LANGGRAPHS_OWN) is get_assistant("agent")


def test_users_ids_are_shown_as_they_are() -> None:
    assert wire_assistant_id(MINE) == MINE


def test_who_asks_for_an_unknown_assistant_is_told_which_there_are() -> None:
    with pytest.raises(UnknownAssistant, match="agent, orchestrator, coding, web, file, deep"):
        get_assistant("nobody")


def test_all_of_the_system_s_say_that_they_are() -> None:
    assert list(SYSTEM_ASSISTANTS) == list(GRAPHS)
    assert all(item.metadata == {"created_by": "system"} for item in SYSTEM_ASSISTANTS.values())


def test_the_benchmark_s_assistant_is_what_it_was() -> None:
    assert get_assistant("deep").configuration == GRAPHS["deep"].configuration
    assert get_assistant("deep").configuration.model == "scripted:bench"


def test_what_a_context_leaves_out_is_as_its_graph_has_it() -> None:
    made = assistant("file", model="openai:gpt-5-mini").configuration
    assert made.model == "openai:gpt-5-mini"
    assert made.tools == GRAPHS["file"].configuration.tools
    assert made.instruction == GRAPHS["file"].configuration.instruction


def test_an_empty_list_of_tools_is_no_tools() -> None:
    assert assistant(tools=[]).configuration.tools == frozenset()


def test_approvals_are_read_as_what_they_mean() -> None:
    made = assistant(approvals={"ls": "ask", "delete": "deny"}).configuration
    assert made.approvals == {("ls", ToolApproval.ASK), ("delete", ToolApproval.DENY)}


@pytest.mark.parametrize(
    "key", ["colour", "thread_id", "run_id", "user_id", "checkpoint_id", "checkpoint_ns", "__pregel_resuming"]
)
def test_a_key_that_is_none_of_a_context_is_refused_by_name(key: str) -> None:
    assert refusal(**{key: "x"}).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({"tools": ["rm"]}, "tools: Value error, unknown tool"),
        ({"approvals": {"rm": "ask"}}, "approvals: Value error, unknown tool"),
        ({"approvals": {"ls": "maybe"}}, "approvals.ls: "),
        ({"sandbox_profile": "../huge"}, "sandbox_profile: "),
        ({"model": "gpt-5"}, "model: "),
        ({"model": "openai:../../admin"}, "model: "),
        ({"model": "openai:x y"}, "model: "),
        ({"subagents": [{"name": "a", "description": "b", "tools": ["task"]}]}, "subagents.0.tools: "),
        ({"subagents": [{"name": "A b", "description": "b"}]}, "subagents.0.name: "),
        ({"subagents": [{"name": "a", "description": "b"}] * 2}, "different names"),
        ({"subagents": [{"name": f"a{n}", "description": "b"} for n in range(9)]}, "subagents: "),
        ({"instruction": "x" * 32_001}, "instruction: "),
    ],
)
def test_what_cannot_be_is_refused_and_named(context: dict[str, Any], named: str) -> None:
    assert named in refusal(**context)


def test_a_refusal_does_not_repeat_what_was_given() -> None:
    assert "s3cret" not in refusal(model="s3cret", api_key="s3cret")


def test_only_the_models_that_the_operator_names_may_be_chosen() -> None:
    policy = Policy(frozenset({"openai:gpt-5-mini", "anthropic:*"}))
    policy.check(assistant(model="openai:gpt-5-mini"))
    policy.check(assistant(model="anthropic:claude-sonnet-4-5"))
    policy.check(assistant())
    for model in ("openai:gpt-5", "ollama:qwen3", "anthropic_vertex:x", "scripted:bench"):
        with pytest.raises(ModelNotAllowed):
            policy.check(assistant(model=model))


def test_a_sub_agent_s_model_must_be_allowed_too() -> None:
    helper = {"name": "a", "description": "b", "model": "ollama:qwen3"}
    with pytest.raises(ModelNotAllowed):
        Policy().check(assistant(subagents=[helper]))


def test_a_graph_s_own_model_needs_nobody_s_leave() -> None:
    Policy().check(assistant("deep", instruction="Be quick."))


def test_a_model_that_cannot_be_had_is_refused_when_it_is_chosen() -> None:
    def missing(_: str) -> None:
        raise UnknownModel("needs a key")

    with pytest.raises(InvalidPayload, match="needs a key") as caught:
        Policy(frozenset({"openai:*"}), check_usable=missing).check(assistant(model="openai:x"))
    assert caught.value.code == "unknown_model"


def test_tools_that_ask_may_be_let_through_only_where_the_operator_permits_it() -> None:
    with pytest.raises(AutoApprovalNotAllowed, match="execute"):
        Policy().check(assistant(approvals={"execute": "allow"}))
    Policy().check(assistant(approvals={"ls": "allow"}))
    Policy(allow_auto=True).check(assistant(approvals={"execute": "allow"}))


def test_only_the_operator_s_sandbox_profiles_may_be_named() -> None:
    policy = Policy(profiles=frozenset({"default", "large"}))
    policy.check(assistant(sandbox_profile="large"))
    with pytest.raises(UnknownProfile, match="there are: default, large"):
        policy.check(assistant(sandbox_profile="huge"))


def test_a_change_keeps_what_it_does_not_name_and_adds_to_the_metadata() -> None:
    before = Assistant(MINE, "mine", "agent", "old", {"tools": ["ls"]}, {}, {"a": 1})
    after = AssistantChange(name="ours", metadata={"b": 2}).apply(before)
    assert (after.name, after.description, after.context) == ("ours", "old", {"tools": ["ls"]})
    assert after.metadata == {"a": 1, "b": 2}


async def test_the_drawing_shows_the_tools_that_there_are() -> None:
    drawn = await GraphViews(agents()).draw(get_assistant("agent"), xray=True)
    [tools] = [node for node in drawn["nodes"] if node["id"] == "tools"]
    assert set(tools["metadata"]["__tools"]) == AGENT_TOOLS
    assert {"source": "model", "target": "tools", "conditional": True} in drawn["edges"]


async def test_the_drawing_leaves_out_tools_that_the_assistant_has_not() -> None:
    drawn = await GraphViews(agents()).draw(assistant(tools=["ls", "execute"], approvals={"execute": "deny"}))
    [tools] = [node for node in drawn["nodes"] if node["id"] == "tools"]
    assert tools["metadata"]["__tools"] == ["ls"]


async def test_the_tools_are_those_that_the_model_is_offered_and_tell_which_of_them_ask() -> None:
    tools = await GraphViews(agents()).tools(get_assistant("agent"))
    assert [tool.name for tool in tools] == sorted(AGENT_TOOLS)
    assert {tool.name for tool in tools if tool.asks} == GATED_TOOLS
    execute = next(tool for tool in tools if tool.name == "execute")
    assert execute.description
    assert execute.input_schema["properties"]["command"]["type"] == "string"
    assert "runtime" not in execute.input_schema["properties"]
    chosen = assistant(tools=["ls", "execute", "delete"], approvals={"ls": "ask", "delete": "deny"})
    assert [(tool.name, tool.asks) for tool in await GraphViews(agents()).tools(chosen)] == [
        ("execute", True), ("ls", True),
    ]  # fmt: skip


async def test_the_schemas_tell_the_state_and_what_may_be_configured() -> None:
    schemas = await GraphViews(agents()).schemas(get_assistant("agent"))
    assert {"messages", "todos"} <= set(schemas["state_schema"]["properties"])
    assert "messages" in schemas["input_schema"]["properties"]
    assert set(schemas["context_schema"]["properties"]) == {
        "model", "instruction", "tools", "approvals", "subagents", "sandbox_profile",
    }  # fmt: skip
    assert "journal" not in str(schemas["context_schema"])

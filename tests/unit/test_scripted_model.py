"""The scripts as pure functions: messages in, the next model message out; and the wire's pure shapes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.testing.conversation import ChatRequest, Conversation, read_conversation
from moorage.testing.reply import Answer, Failure, Fault, Flaky, Reply
from moorage.testing.scripts import SCRIPTS, answer
from moorage.testing.wire import pieces

TOOLS = ["ls", "read_file", "write_file", "edit_file", "delete", "glob", "grep", "execute", "write_todos", "task"]
REJECTED = "The user rejected this execute call; it was not run. Do not repeat it unless the user asks for it."


class Chat:
    """A conversation with one script: `ask`, then `returns` the results of the calls it made."""

    def __init__(self, script: str, tools: list[str] = TOOLS) -> None:
        self.script, self.tools, self.messages = script, tools, list[dict[str, Any]]()

    def ask(self, text: str) -> Answer:
        self.messages.append({"role": "user", "content": text})
        return self._next()

    def returns(self, *results: str) -> Answer:
        for call, result in zip(self.messages[-1]["tool_calls"], results, strict=True):
            self.messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return self._next()

    def read(self) -> Conversation:
        tools = [{"type": "function", "function": {"name": name}} for name in self.tools]
        body = {"model": self.script, "messages": self.messages, "tools": tools}
        return read_conversation(ChatRequest.model_validate(body))

    def _next(self) -> Answer:
        said = answer(self.script, self.read())
        if isinstance(said, Reply):
            calls = [
                {
                    "id": call.id or f"c{len(self.messages)}.{i}",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for i, call in enumerate(said.calls)
            ]
            self.messages.append({"role": "assistant", "content": said.text or None, "tool_calls": calls})
        return said


def reply(said: Answer) -> Reply:
    assert isinstance(said, Reply)
    return said


def calls(said: Answer) -> list[tuple[str, dict[str, Any]]]:
    return [(call.name, json.loads(call.arguments)) for call in reply(said).calls]


def names(said: Answer) -> list[str]:
    return [name for name, _ in calls(said)]


def test_hello_greets_with_the_users_words() -> None:
    assert "the tide is out" in reply(Chat("hello").ask("the tide is out")).text


def test_hello_says_what_was_said_first_when_there_is_a_history() -> None:
    chat = Chat("hello")
    chat.ask("my boat is blue")
    assert (
        'We have spoken before (1 earlier message); you first said: "my boat is blue"' in reply(chat.ask("and?")).text
    )


def test_write_and_run_writes_then_runs_then_quotes_the_output() -> None:
    chat = Chat("write-and-run")
    assert names(chat.ask("go")) == ["write_file"]
    assert calls(chat.returns("Updated file /workspace/hello.py")) == [("execute", {"command": "python hello.py"})]
    text = reply(chat.returns("The sum is 5050.\n[Command succeeded with exit code 0]")).text
    assert "```\nThe sum is 5050.\n```" in text


def test_write_and_run_answers_a_later_question_from_the_messages() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns("Updated file /workspace/hello.py")
    chat.returns("a number nobody could guess: 7213")
    later = reply(chat.ask("what did you write?"))
    assert not later.calls
    assert "/workspace/hello.py" in later.text
    assert "7213" in later.text


def test_write_and_run_plays_again_when_asked_to() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns("Updated file /workspace/hello.py")
    chat.returns("5050")
    assert names(chat.ask("again, please")) == ["write_file"]


def test_a_question_with_again_in_it_is_still_a_question() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns(REJECTED)
    said = reply(chat.ask("what did you write again?"))
    assert not said.calls
    assert "You rejected my `write_file` call" in said.text


def test_a_file_that_could_not_be_written_is_not_remembered_as_written() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns("Error: no space left")
    assert "could not be written" in reply(chat.ask("what did you write?")).text


def test_a_rejected_file_ends_the_scene_without_a_claim_of_success() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    said = reply(chat.returns(REJECTED))
    assert not said.calls
    assert "nothing" in said.text


def test_a_rejected_command_ends_the_demo_without_a_claim_of_success() -> None:
    chat = Chat("demo")
    chat.ask("hi")
    chat.returns("Updated todo list")
    chat.returns("Updated file /workspace/hello.py")
    said = reply(chat.returns(REJECTED))
    assert not said.calls
    assert "you rejected the command" in said.text


def test_the_demo_plans_writes_runs_closes_the_plan_and_tells_how_to_connect_a_real_model() -> None:
    chat = Chat("demo")
    assert names(chat.ask("hi")) == ["write_todos"]
    assert names(chat.returns("Updated todo list")) == ["write_file"]
    assert names(chat.returns("Updated file /workspace/hello.py")) == ["execute"]
    assert names(chat.returns("5050\n[Command succeeded with exit code 0]")) == ["write_todos"]
    assert "LLM_MODEL" in reply(chat.returns("Updated todo list")).text


def test_the_demo_does_without_a_plan_when_that_tool_is_not_offered() -> None:
    assert names(Chat("demo", ["write_file", "execute"]).ask("hi")) == ["write_file"]


def test_the_demo_speaks_chinese_to_those_who_do() -> None:
    assert "脚本模型" in reply(Chat("demo").ask("你好")).text


def test_the_demos_program_is_valid_and_prints_a_sum(capsys: pytest.CaptureFixture[str]) -> None:
    for greeting in ("hi", "你好"):
        chat = Chat("demo", ["write_file", "execute"])
        ((_, args),) = calls(chat.ask(greeting))
        exec(compile(args["content"], "hello.py", "exec"), {})  # noqa: S102
        assert "5050" in capsys.readouterr().out


def test_a_changed_command_is_told_as_it_ran() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns("Updated file /workspace/hello.py")
    notice = 'The user changed this call before it ran. Executed instead with: {"command": "python -V"}\n'
    text = reply(chat.returns(f"{notice}Python 3.13\n[Command succeeded with exit code 0]")).text
    assert "You changed the command" in text
    assert "`python -V`" in text
    assert "```\nPython 3.13\n```" in text


def test_a_failed_command_is_not_called_a_success() -> None:
    chat = Chat("write-and-run")
    chat.ask("go")
    chat.returns("Updated file /workspace/hello.py")
    assert "did not succeed" in reply(chat.returns("no such file\n[Command failed with exit code 2]")).text


def test_parallel_makes_three_calls_and_reports_each() -> None:
    chat = Chat("parallel")
    assert names(chat.ask("go")) == ["execute", "execute", "ls"]
    text = reply(chat.returns("one", "two", "[]")).text
    assert all(line in text for line in ("- execute: one", "- execute: two", "- ls: []"))


def test_subagent_hands_over_a_job_that_the_subagent_recognises() -> None:
    parent = Chat("subagent")
    ((name, args),) = calls(parent.ask("go"))
    assert (name, args["subagent_type"]) == ("task", "general-purpose")
    child = Chat("subagent")
    assert names(child.ask(args["description"])) == ["write_file"]
    assert names(child.returns("Updated file")) == ["execute"]
    assert "4 report.txt" in reply(child.returns("4 report.txt")).text
    assert "four words" in reply(parent.returns("four words")).text


@pytest.mark.parametrize(("message", "count"), [("go", 2000), ("go n=7", 7), ("", 2000)])
def test_long_counts_as_far_as_the_message_says(message: str, count: int) -> None:
    assert reply(Chat("long").ask(message)).text.split() == [str(number) for number in range(1, count + 1)]


def test_slow_takes_its_pause_from_the_message() -> None:
    said = reply(Chat("slow").ask("n=3 d=0.02"))
    assert (said.text, said.pause) == ("1 2 3", 0.02)


def test_calls_plays_the_users_list_call_by_call() -> None:
    chat = Chat("calls")
    script = {
        "calls": [{"name": "ls", "args": {"path": "/"}}, {"name": "execute", "args": {"command": "pwd"}}],
        "then": "ok",
    }
    assert calls(chat.ask(json.dumps(script))) == [("ls", {"path": "/"})]
    assert calls(chat.returns("[]")) == [("execute", {"command": "pwd"})]
    assert reply(chat.returns("/workspace")) == Reply("ok")


def test_a_list_inside_calls_means_calls_in_parallel() -> None:
    ls = {"name": "ls", "args": {"path": "/"}}
    chat = Chat("calls")
    assert len(reply(chat.ask(json.dumps({"calls": [[ls, ls], ls], "then": "ok"}))).calls) == 2
    assert len(reply(chat.returns("[]", "[]")).calls) == 1


@pytest.mark.parametrize(
    "message",
    ["hello", "[]", "{}", '{"calls": 1}', '{"calls": ["ls"]}', '{"calls": [{"name": "ls"}]}', '{"calls": [[]]}'],
)
def test_calls_says_what_it_expects_when_the_message_is_something_else(message: str) -> None:
    said = reply(Chat("calls").ask(message))
    assert not said.calls
    assert "I expect" in said.text


def test_malformed_arguments_are_mended_on_the_next_turn() -> None:
    chat = Chat("malformed-args")
    with pytest.raises(ValueError, match="property name"):
        calls(chat.ask("go"))
    assert calls(chat.returns("Error: not JSON")) == [("execute", {"command": "echo mended"})]
    assert "mended" in reply(chat.returns("mended")).text


def test_unknown_tool_recovers_with_text() -> None:
    chat = Chat("unknown-tool")
    assert names(chat.ask("go"))[0] not in TOOLS
    assert not reply(chat.returns("Error: no such tool")).calls


def test_repeat_never_stops_calling() -> None:
    chat = Chat("repeat")
    said = chat.ask("go")
    for _ in range(30):
        assert names(said) == ["ls"]
        said = chat.returns("[]")


def test_repeated_ids_join_each_result_to_the_newest_call() -> None:
    chat = Chat("repeat-ids")
    assert reply(chat.ask("go")).calls[0].id == "call_1"
    assert reply(chat.returns("first")).calls[0].id == "call_1"
    chat.returns("second")
    assert [result.args["command"] for result in chat.read().results] == ["echo first", "echo second"]


def test_hidden_unicode_is_in_the_command() -> None:
    ((_, args),) = calls(Chat("hidden-unicode").ask("go"))
    assert {"\u200b", "\u202e"} <= set(args["command"])


@pytest.mark.parametrize(
    ("script", "status"), [("always-429", 429), ("error-500", 500), ("error-401", 401), ("nonsense", 404)]
)
def test_failing_scripts_answer_with_their_status(script: str, status: int) -> None:
    said = Chat(script).ask("go")
    assert isinstance(said, Failure)
    assert said.status == status


@pytest.mark.parametrize(("script", "status"), [("flaky-429", 429), ("flaky-500", 500)])
def test_flaky_scripts_hold_a_failure_and_a_reply(script: str, status: int) -> None:
    said = Chat(script).ask("go")
    assert isinstance(said, Flaky)
    assert said.failure.status == status


@pytest.mark.parametrize(
    ("script", "fault"), [("stalled", Fault.STALLED), ("stalled-start", Fault.SILENT), ("cut", Fault.CUT)]
)
def test_broken_scripts_plan_their_fault(script: str, fault: Fault) -> None:
    assert reply(Chat(script).ask("go")).fault is fault


def test_an_unknown_script_is_answered_with_the_names_of_those_there_are() -> None:
    said = Chat("nonsense").ask("go")
    assert isinstance(said, Failure)
    assert all(name in said.message for name in SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_calls_a_tool_when_none_is_offered(script: str) -> None:
    said = Chat(script, tools=[]).ask("summarise the conversation")
    assert not (isinstance(said, Reply) and said.calls)


@settings(max_examples=50)
@given(st.text())
def test_deltas_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


def test_chinese_streams_in_more_than_one_delta() -> None:
    assert len(pieces("目前还没有连接真正的语言模型。")) > 4

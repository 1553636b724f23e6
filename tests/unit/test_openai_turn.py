"""A run's events as an OpenAI answer: what is said, what is reasoning, and what a lost worker leaves behind."""

from typing import Any

import orjson
import pytest

from moorage.errors import InvalidInput
from moorage.events import EventType, StoredEvent
from moorage.ids import RunId, ThreadId
from moorage_api.openai.request import ChatMessage, newly_said, whole_conversation
from moorage_api.openai.turn import Piece, Turn
from moorage_api.openai.wording import approval_needed, step_begins

START = (EventType.AGENT_START, {"agent": "agent"})


def event(kind: EventType, data: dict[str, Any]) -> StoredEvent:
    return StoredEvent(ThreadId("alice-x"), 1, RunId("run"), kind, orjson.dumps(data))


def words(message_id: str, text: str, **more: Any) -> tuple[EventType, dict[str, Any]]:
    return EventType.CONTENT_STREAM, {"message_id": message_id, "content_delta": text, **more}


def complete(message_id: str, text: str, **more: Any) -> tuple[EventType, dict[str, Any]]:
    return EventType.MESSAGE_COMPLETE, {"message_id": message_id, "final_content": text, **more}


def end(status: str = "success", **usage: int) -> tuple[EventType, dict[str, Any]]:
    return EventType.RUN_END, {"status": status, "usage": usage}


def read(*events: tuple[EventType, dict[str, Any]]) -> tuple[Turn, str, str]:
    """The turn, and all that it said and reasoned."""
    turn = Turn()
    pieces = [turn.read(event(*item)) for item in events]
    return turn, "".join(piece.content for piece in pieces), "".join(piece.reasoning for piece in pieces)


def test_the_deltas_make_the_message_once() -> None:
    turn, said, _ = read(START, words("m", "Hel"), words("m", "lo"), complete("m", "Hello"), end(input_tokens=3))
    assert said == turn.text == "Hello"
    assert turn.usage is not None
    assert (turn.usage.input_tokens, turn.usage.output_tokens) == (3, 0)


def test_a_message_that_was_not_streamed_is_said_whole() -> None:
    turn, said, _ = read(START, complete("m", "Hello"), end())
    assert said == turn.text == "Hello"


def test_two_messages_of_a_turn_stand_apart() -> None:
    turn, said, _ = read(
        START, words("a", "First."), complete("a", "First."), words("b", "Then."), complete("b", "Then.")
    )
    assert said == turn.text == "First.\n\nThen."


def test_what_a_lost_worker_left_unfinished_is_marked_in_a_stream_and_left_out_of_a_whole_answer() -> None:
    again = (EventType.AGENT_START, {"agent": "agent", "attempt": 2})
    turn, said, _ = read(START, words("a", "Half of"), again, words("b", "All of it."), complete("b", "All of it."))
    assert said == "Half of\n\n[The answer was cut off and begins anew.]\n\nAll of it."
    assert turn.text == "All of it."


def test_what_was_finished_before_a_worker_was_lost_stays() -> None:
    again = (EventType.AGENT_START, {"agent": "agent", "attempt": 2})
    turn, said, _ = read(START, words("a", "One."), complete("a", "One."), again, complete("b", "Two."))
    assert said == turn.text == "One.\n\nTwo."


def test_thinking_and_steps_are_reasoning() -> None:
    call = {"call_id": "c", "tool_name": "execute", "tool_input": {"command": "ls"}}
    result = {"call_id": "c", "status": "error", "exit_code": 2, "result": "no"}
    turn, said, reasoned = read(
        START,
        words("m", "", thinking_delta="Hm."),
        (EventType.TOOL_CALL, call),
        (EventType.TOOL_RESULT, result),
    )
    assert (said, turn.text) == ("", "")
    assert reasoned == 'Hm.\n[execute] {"command": "ls"}\n[execute] error, exit code 2\n'


def test_a_sub_agents_words_are_not_the_answer() -> None:
    _, said, reasoned = read(
        START,
        (EventType.AGENT_START, {"agent": "helper", "attempt": 1, "parent_call_id": "t"}),
        words("s", "Mine.", parent_call_id="t"),
        complete("s", "Mine.", parent_call_id="t"),
        (EventType.TOOL_CALL, {"call_id": "c", "tool_name": "ls", "tool_input": {}, "parent_call_id": "t"}),
    )
    assert (said, reasoned) == ("", "\n[ls] {}\n")


def test_what_the_client_gave_as_history_is_not_said_again() -> None:
    assert read(complete("given", "Earlier."), START, complete("m", "Now."))[1] == "Now."


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([(EventType.ERROR, {"code": "step_limit", "detail": "Too many"}), end("error")], ("step_limit", "Too many")),
        ([end("timeout")], ("run_failed", "The run ended with an error")),
        ([end("cancelled")], None),
    ],
)
def test_how_a_run_fails_is_kept(events: list[tuple[EventType, dict[str, Any]]], error: Any) -> None:
    assert read(START, *events)[0].error == error


def test_a_cancelled_run_says_so() -> None:
    assert read(START, words("m", "Half"), end("cancelled"))[1] == "Half\n\n[This run was cancelled.]"


def test_events_of_no_interest_add_nothing() -> None:
    assert Turn().read(event(EventType.TODO_UPDATE, {"todos": []})) == Piece()


def test_what_the_model_wrote_does_not_end_the_block_that_shows_it() -> None:
    item = {"id": "i", "tool_name": "execute", "tool_input": {"command": "```\nhi ````"}, "digest": "d"}
    said = approval_needed([item], base_url="http://h", thread_id="t")
    assert said.count("`````") == 2


def test_what_hides_in_the_arguments_is_told() -> None:
    warning = {"field": "command", "characters": ["U+200B ZERO WIDTH SPACE"], "count": 2}
    item = {"id": "i", "tool_name": "execute", "tool_input": {}, "digest": "d", "facts": {"warnings": [warning]}}
    said = approval_needed([item], base_url="http://h", thread_id="t")
    assert "Careful: `command` holds 2 hidden characters (U+200B ZERO WIDTH SPACE)." in said


def test_what_nobody_sees_is_shown_as_what_it_is() -> None:
    arguments = {"command": "ls \u202e#\u200b 你好"}
    item = {"id": "i", "tool_name": "execute", "tool_input": arguments, "digest": "d"}
    said = approval_needed([item], base_url="http://h", thread_id="t")
    assert r"ls \u202e#\u200b 你好" in said
    assert r"ls \u202e#" in step_begins("execute", arguments)


def test_long_arguments_are_shortened() -> None:
    assert len(step_begins("write_file", {"content": "x" * 10_000})) < 400


def message(role: Any, content: Any) -> ChatMessage:
    return ChatMessage(role=role, content=content)


def test_what_is_new_is_what_the_user_said_last() -> None:
    talk = [message("user", "a"), message("assistant", "b"), message("user", "c"), message("user", "d")]
    assert newly_said(talk) == "c\n\nd"
    with pytest.raises(InvalidInput):
        newly_said(talk[:2])
    with pytest.raises(InvalidInput):
        newly_said([message("user", "x" * 60_000), message("user", "y" * 60_000)])


def test_instructions_go_before_the_conversation() -> None:
    talk = [message("user", "a"), message("developer", "x"), message("assistant", "b"), message("system", "y")]
    found = whole_conversation([*talk, message("user", "c")])
    assert [(item["type"], item["content"]) for item in found] == [
        ("system", "x\n\ny"), ("human", "a"), ("ai", "b"), ("human", "c"),
    ]  # fmt: skip
    assert len({item["id"] for item in found}) == 4

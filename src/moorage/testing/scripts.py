"""The scripts of the scripted model: from what was said so far to what the model says next. Pure functions."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import cast

from moorage.testing.conversation import Conversation, parse_object
from moorage.testing.reply import Answer, Failure, Fault, Flaky, Reply, ToolCall, call
from moorage.testing.write_and_run import play_demo, play_write_and_run, quote

type Script = Callable[[Conversation], Answer]

SUBAGENT_MARK = "[scripted sub-agent]"
HUGE_COMMAND = "yes moorage | head -c 300000000"
HIDDEN_COMMAND = "echo visible\u200b # \u202egnp.tac\u202c"
_MAX_TOKENS = 100_000
_QUOTED_WORDS = 200


def answer(script: str, conversation: Conversation) -> Answer:
    """The next message of the script of this name; an OpenAI-shaped 404 failure if there is none.

    Like a real model, it calls no tool when the request offers none, as summaries and titles do.
    """
    if script not in _SCRIPTS:
        names = ", ".join(sorted(_SCRIPTS))
        message = f"The model `{script}` does not exist. The scripted model knows: {names}"
        return Failure(404, "invalid_request_error", "model_not_found", message, param="model")
    planned = _SCRIPTS[script][1](conversation)
    if isinstance(planned, Reply) and planned.calls and not conversation.tools:
        return Reply("This request offers no tools, so the script has nothing to call.")
    return planned


def _say_hello(conversation: Conversation) -> Reply:
    greeting = f'Hello! You said: "{conversation.said[:_QUOTED_WORDS]}". I am a scripted model and follow a script.'
    earlier = conversation.users[:-1]
    if not earlier:
        return Reply(greeting)
    messages = "1 earlier message" if len(earlier) == 1 else f"{len(earlier)} earlier messages"
    return Reply(f'{greeting} We have spoken before ({messages}); you first said: "{earlier[0][:_QUOTED_WORDS]}".')


def _tell_instruction(conversation: Conversation) -> Reply:
    instruction = conversation.system.partition("\n")[0][:_QUOTED_WORDS]
    return Reply(f'I was told: "{instruction}". My tools: {", ".join(sorted(conversation.tools)) or "none"}.')


def _call_in_parallel(conversation: Conversation) -> Reply:
    return _steps(
        conversation,
        lambda: Reply(
            "Three things at once.",
            (call("execute", command="echo one"), call("execute", command="echo two"), call("ls", path="/workspace")),
        ),
        lambda: Reply(f"All three have answered.\n{_summary(conversation)}"),
    )


def _delegate(conversation: Conversation) -> Reply:
    if SUBAGENT_MARK in conversation.said:
        return _work_for_the_parent(conversation)
    job = f"{SUBAGENT_MARK} Write /workspace/report.txt, count its words, and answer with the count."
    return _steps(
        conversation,
        lambda: Reply("I hand this to a sub-agent.", (call("task", description=job, subagent_type="general-purpose"),)),
        lambda: Reply(f"The sub-agent came back.\n{_summary(conversation)}"),
    )


def _work_for_the_parent(conversation: Conversation) -> Reply:
    if any(result.rejected for result in conversation.results):
        return Reply("The user rejected a step, so I stopped.")
    return _steps(
        conversation,
        lambda: Reply(calls=(call("write_file", file_path="/workspace/report.txt", content="four words, no more\n"),)),
        lambda: Reply(calls=(call("execute", command="wc -w report.txt"),)),
        lambda: Reply(f"I wrote report.txt and counted its words.\n{_summary(conversation)}"),
    )


def _count_up(conversation: Conversation, *, tokens: int, pause: float) -> Reply:
    """Numbers as tokens, so that a gap or a copy in a stream shows."""
    wanted = conversation.find_number("n")
    count = min(tokens if wanted is None else int(wanted), _MAX_TOKENS)
    waited = conversation.find_number("d")
    return Reply(" ".join(str(number) for number in range(1, count + 1)), pause=pause if waited is None else waited)


def _reason(_: Conversation) -> Reply:
    return Reply(
        "The sum is 5050.", reasoning="Pairs from both ends make 101 each, and there are fifty pairs, so 50 times 101."
    )


def _break(fault: Fault) -> Script:
    return lambda _: Reply("These few words still get through, and the rest never does.", fault=fault)


def _send_malformed_arguments(conversation: Conversation) -> Reply:
    return _steps(
        conversation,
        lambda: Reply(calls=(ToolCall("execute", '{"command": "echo broken", oops}'),)),
        lambda: Reply("My arguments were not JSON. Again.", (call("execute", command="echo mended"),)),
        lambda: Reply(f"The second call was right.\n{_summary(conversation)}"),
    )


def _call_unknown_tool(conversation: Conversation) -> Reply:
    return _steps(
        conversation,
        lambda: Reply(calls=(call("search_the_web", query="moorage"),)),
        lambda: Reply(f"There is no such tool, so I go on without it.\n{_summary(conversation)}"),
    )


def _flood(conversation: Conversation) -> Reply:
    return _steps(
        conversation,
        lambda: Reply(calls=(call("execute", command=HUGE_COMMAND),)),
        lambda: Reply(f"I was shown {sum(len(result.content) for result in conversation.results)} characters of it."),
    )


def _run(command: str) -> Script:
    return lambda conversation: _steps(
        conversation,
        lambda: Reply(calls=(call("execute", command=command),)),
        lambda: Reply(f"The command came back.\n{_summary(conversation)}"),
    )


def _repeat_for_ever(_: Conversation) -> Reply:
    return Reply(calls=(call("ls", path="/workspace"),))


def _repeat_call_ids(conversation: Conversation) -> Reply:
    return _steps(
        conversation,
        lambda: Reply(calls=(ToolCall("execute", '{"command": "echo first"}', id="call_1"),)),
        lambda: Reply(calls=(ToolCall("execute", '{"command": "echo second"}', id="call_1"),)),
        lambda: Reply(f"Both calls had the same id.\n{_summary(conversation)}"),
    )


def _play_calls(conversation: Conversation) -> Reply:
    steps = _read_calls(conversation.said)
    if steps is None:
        return Reply(
            'I expect a message such as {"calls": [{"name": "execute", "args": {"command": "pwd"}}], "then": "Done."}; '
            "a list in place of a call means calls in parallel."
        )
    calls, closing = steps
    return Reply(calls=calls[conversation.turn]) if conversation.turn < len(calls) else closing


def _read_calls(said: str) -> tuple[list[tuple[ToolCall, ...]], Reply] | None:
    """The calls of each turn and the closing words; None if the message is not of the shape."""
    script = parse_object(said)
    if script is None or not isinstance(script.get("calls"), list):
        return None
    turns = [_read_turn(item) for item in cast("list[object]", script["calls"])]
    if any(turn is None for turn in turns):
        return None
    pause = script.get("pause")
    closing = Reply(str(script.get("then", "Done.")), pause=pause if isinstance(pause, int | float) else 0)
    return [turn for turn in turns if turn], closing


def _read_turn(item: object) -> tuple[ToolCall, ...] | None:
    calls = [_read_call(one) for one in (cast("list[object]", item) if isinstance(item, list) else [item])]
    return None if not calls or None in calls else tuple(one for one in calls if one is not None)


def _read_call(item: object) -> ToolCall | None:
    match item:
        case {"name": str(name), "args": dict()}:
            return ToolCall(name, json.dumps(cast("dict[str, object]", item)["args"]))
        case _:
            return None


def _steps(conversation: Conversation, *steps: Callable[[], Reply]) -> Reply:
    return steps[min(conversation.turn, len(steps) - 1)]()


def _summary(conversation: Conversation) -> str:
    return "\n".join(f"- {result.tool}: {quote(result)}" for result in conversation.results)


_RATE_LIMITED = Failure(
    429, "requests", "rate_limit_exceeded", "Rate limit reached for this scripted model.", retry_after=0.05
)
_SERVER_ERROR = Failure(500, "server_error", None, "The server had an error while processing your request.")
_BAD_KEY = Failure(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided.")

_SCRIPTS: Mapping[str, tuple[str, Script]] = MappingProxyType(
    {
        "hello": ("greets, quotes you, and remembers what you first said", _say_hello),
        "told": ("quotes the first line of its instruction, and names its tools", _tell_instruction),
        "demo": ("a plan, a file, a command, a summary, in English or Chinese: what a newcomer sees", play_demo),
        "write-and-run": ("writes hello.py, runs it, quotes its output; answers later questions", play_write_and_run),
        "parallel": ("three tool calls in one message: two execute, one ls", _call_in_parallel),
        "subagent": ("a sub-agent writes a file and runs a command", _delegate),
        "long": ("counts to 2000 (or `n=500`) as fast as it can", lambda c: _count_up(c, tokens=2000, pause=0)),
        "slow": ("counts to 50 (`n=`) with 0.1 s (`d=`) between numbers", lambda c: _count_up(c, tokens=50, pause=0.1)),
        "reasoning": ("streams reasoning_content, then text", _reason),
        "flaky-429": ("429 on the first attempt, then as hello", lambda c: Flaky(_RATE_LIMITED, _say_hello(c))),
        "always-429": ("429 always, with retry-after", lambda _: _RATE_LIMITED),
        "flaky-500": ("500 on the first attempt, then as hello", lambda c: Flaky(_SERVER_ERROR, _say_hello(c))),
        "error-500": ("500 always", lambda _: _SERVER_ERROR),
        "error-401": ("401 always: a wrong key", lambda _: _BAD_KEY),
        "stalled": ("a few words, then silence on an open connection", _break(Fault.STALLED)),
        "stalled-start": ("not one byte of an answer", _break(Fault.SILENT)),
        "cut": ("a few words, then the connection closes inside the body", _break(Fault.CUT)),
        "malformed-args": ("a tool call whose arguments are not JSON, then the right one", _send_malformed_arguments),
        "unknown-tool": ("calls a tool that does not exist, then recovers", _call_unknown_tool),
        "huge-output": ("a command that prints 300 MB", _flood),
        "hidden-unicode": ("a command with zero-width and direction-override characters", _run(HIDDEN_COMMAND)),
        "long-command": ("a command that sleeps for 600 s", _run("sleep 600")),
        "repeat": ("calls ls for ever", _repeat_for_ever),
        "repeat-ids": ("uses the tool call id call_1 in every turn", _repeat_call_ids),
        "calls": (
            'plays the user\'s message, {"calls":[{"name","args"},...],"then":"text","pause":0.1}, call by call',
            _play_calls,
        ),
    }
)

SCRIPTS: Mapping[str, str] = MappingProxyType({name: description for name, (description, _) in _SCRIPTS.items()})

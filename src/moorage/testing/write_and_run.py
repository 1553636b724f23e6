"""The scene that newcomers see: write a program, run it, read its output back; in English or Chinese.

Everything in it is real but the model, and it says so. It believes the tool results: a rejected step ends it, a changed
command is reported as changed, and a later question is answered from the messages alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from moorage.testing.conversation import Conversation, ToolResult
from moorage.testing.reply import Reply, ToolCall, call

PATH = "/workspace/hello.py"
COMMAND = "python hello.py"
_QUOTED_CHARACTERS = 1500
_AGAIN = ("again", "再来", "再一次", "重来")


@dataclass(frozen=True, slots=True)
class Phrases:
    """One language's lines; `{name}` fields are filled in by the scene."""

    program: str
    todos: tuple[str, str, str]
    opening: str
    before_write: str
    before_run: str
    succeeded: str
    failed: str
    changed: str
    write_rejected: str
    run_rejected: str
    write_failed: str
    remember: str
    wrote: str
    ran: str
    was_rejected: str
    closing: str


ENGLISH = Phrases(
    program='''"""Adds the numbers from 1 to 100, as young Gauss once had to."""

print("Hello from your own sandbox!")
print(f"The sum of 1 to 100 is {sum(range(1, 101))}.")
''',
    todos=("Write a small program", "Run it in the sandbox", "Tell what it printed"),
    opening=(
        "Welcome! No language model is connected yet, so I am a **scripted model**: I play one fixed scene. The "
        "sandbox, the files and your approvals in it are real. I will write a small program and run it."
    ),
    before_write="First the program. It is not written until you approve it; you can change it, too.",
    before_run="The file is there. Now I would like to run it, again with your approval.",
    succeeded="Done. `{command}` ran in your sandbox and printed:\n\n```\n{output}\n```",
    failed="`{command}` ran but did not succeed:\n\n```\n{output}\n```",
    changed="You changed the command before it ran.",
    write_rejected="Understood: you rejected the file, so I have written nothing and will run nothing.",
    run_rejected="Understood: you rejected the command, so it was not run. The file `{path}` is still there.",
    write_failed="The file could not be written, so there is nothing to run:\n\n```\n{output}\n```",
    remember="This is what our conversation holds:",
    wrote="- I wrote `{path}`: {output}",
    ran="- I ran `{command}`, which printed:\n\n```\n{output}\n```",
    was_rejected="- You rejected my `{tool}` call, so it did not happen.",
    closing=(
        "To talk to a real model, set `LLM_MODEL` (for example `openai:gpt-5-mini`) and `LLM_API_KEY`, then restart "
        "the server. Until then you can ask me what I did, or say `again`."
    ),
)

CHINESE = Phrases(
    program='''"""计算 1 到 100 的和，就像少年高斯当年那样。"""

print("你好，这里是你自己的沙箱！")
print(f"1 到 100 的和是 {sum(range(1, 101))}。")
''',
    todos=("编写一个小程序", "在沙箱中运行它", "报告它的输出"),
    opening=(
        "欢迎！目前还没有连接真正的语言模型，我是一个**脚本模型**，只会演示一个固定的场景；但其中的沙箱、文件和审批都是"
        "真实的。我会写一个小程序，然后运行它。"
    ),
    before_write="先写程序。在您批准之前不会写入任何内容，您也可以修改它。",
    before_run="文件已经写好。现在我想运行它，同样需要您的批准。",
    succeeded="完成。`{command}` 已在您的沙箱中运行，输出如下：\n\n```\n{output}\n```",
    failed="`{command}` 已运行，但没有成功：\n\n```\n{output}\n```",
    changed="您在运行前修改了命令。",
    write_rejected="明白：您拒绝了写入文件，所以我没有写任何内容，也不会运行任何命令。",
    run_rejected="明白：您拒绝了这条命令，所以它没有运行。文件 `{path}` 仍然保留。",
    write_failed="文件没有写成功，所以没有可以运行的程序：\n\n```\n{output}\n```",
    remember="根据我们之前的对话：",
    wrote="- 我写了 `{path}`：{output}",
    ran="- 我运行了 `{command}`，输出如下：\n\n```\n{output}\n```",
    was_rejected="- 您拒绝了 `{tool}` 调用，所以它没有执行。",
    closing=(
        "要使用真正的模型，请设置 `LLM_MODEL`（例如 `openai:gpt-5-mini`）和 `LLM_API_KEY`，然后重启服务器。在此之前，"
        "您可以问我做了什么，或者说“再来一次”。"
    ),
)


def play_demo(conversation: Conversation) -> Reply:
    """The whole scene with a plan, in the language of the user's message."""
    phrases = CHINESE if conversation.in_chinese else ENGLISH
    if _asks_about_the_past(conversation):
        return Reply(f"{_recall(conversation, phrases)}\n\n{phrases.closing}")
    if (problem := _problem(conversation, phrases)) is not None:
        return Reply(f"{problem}\n\n{phrases.closing}")
    return _turn(conversation, _demo_steps(conversation, phrases))


def play_write_and_run(conversation: Conversation) -> Reply:
    """The bare scene: write, run, tell."""
    if _asks_about_the_past(conversation):
        return Reply(_recall(conversation, ENGLISH))
    if (problem := _problem(conversation, ENGLISH)) is not None:
        return Reply(problem)
    return _turn(
        conversation,
        [
            lambda: Reply("I will write a small program and run it.", (_write(ENGLISH),)),
            lambda: Reply(calls=(call("execute", command=COMMAND),)),
            lambda: Reply(_tell(conversation, ENGLISH)),
        ],
    )


def quote(result: ToolResult) -> str:
    """What a tool printed, short enough to repeat."""
    output = result.output
    if len(output) <= _QUOTED_CHARACTERS:
        return output
    return f"{output[:_QUOTED_CHARACTERS]}\n... ({len(output)} characters in all)"


def _demo_steps(conversation: Conversation, phrases: Phrases) -> list[Callable[[], Reply]]:
    scene: list[Callable[[], Reply]] = [
        lambda: Reply(phrases.before_write, (_write(phrases),)),
        lambda: Reply(phrases.before_run, (call("execute", command=COMMAND),)),
    ]
    ending: list[Callable[[], Reply]] = [lambda: Reply(f"{_tell(conversation, phrases)}\n\n{phrases.closing}")]
    if "write_todos" not in conversation.tools:
        return [lambda: Reply(f"{phrases.opening}\n\n{phrases.before_write}", (_write(phrases),)), scene[1], *ending]
    return [
        lambda: Reply(phrases.opening, (_plan(phrases, "in_progress", "pending", "pending"),)),
        *scene,
        lambda: Reply(calls=(_plan(phrases, "completed", "completed", "completed"),)),
        *ending,
    ]


def _turn(conversation: Conversation, steps: list[Callable[[], Reply]]) -> Reply:
    return steps[min(conversation.turn, len(steps) - 1)]()


def _write(phrases: Phrases) -> ToolCall:
    return call("write_file", file_path=PATH, content=phrases.program)


def _plan(phrases: Phrases, *states: str) -> ToolCall:
    todos = [{"content": content, "status": state} for content, state in zip(phrases.todos, states, strict=True)]
    return call("write_todos", todos=todos)


def _problem(conversation: Conversation, phrases: Phrases) -> str | None:
    """Why the scene ends here: a human said no, or the file is not there."""
    written, ran = conversation.find_result("write_file"), conversation.find_result("execute")
    if written is not None and written.rejected:
        return phrases.write_rejected
    if written is not None and written.failed:
        return phrases.write_failed.format(output=quote(written))
    if ran is not None and ran.rejected:
        return phrases.run_rejected.format(path=PATH)
    return None


def _tell(conversation: Conversation, phrases: Phrases) -> str:
    result = conversation.find_result("execute")
    if result is None:
        return phrases.failed.format(command=COMMAND, output="?")
    told = (phrases.failed if result.failed else phrases.succeeded).format(
        command=_command(result), output=quote(result)
    )
    return f"{phrases.changed} {told}" if result.executed_args else told


def _asks_about_the_past(conversation: Conversation) -> bool:
    said = conversation.said.lower()
    wants_more = any(word in said for word in _AGAIN) and not said.rstrip().endswith(("?", "？"))
    return any(_is_step(result) for result in conversation.earlier) and not wants_more


def _recall(conversation: Conversation, phrases: Phrases) -> str:
    return "\n".join(
        [phrases.remember, *(_memory(result, phrases) for result in conversation.earlier if _is_step(result))]
    )


def _is_step(result: ToolResult) -> bool:
    return result.tool in ("write_file", "execute")


def _memory(result: ToolResult, phrases: Phrases) -> str:
    if result.rejected:
        return phrases.was_rejected.format(tool=result.tool)
    if result.tool == "write_file" and result.failed:
        return f"- {phrases.write_failed.format(output=quote(result))}"
    if result.tool == "write_file":
        path = (result.executed_args or result.args).get("file_path", PATH)
        return phrases.wrote.format(path=path, output=quote(result))
    return phrases.ran.format(command=_command(result), output=quote(result))


def _command(result: ToolResult) -> str:
    return (result.executed_args or result.args).get("command", COMMAND)

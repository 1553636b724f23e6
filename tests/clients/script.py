"""What tests say to the agent, and what they read in its answers."""

import json
from typing import Any

AGENT = "agent"
LIST = ("ls", {"path": "/workspace"})
APPROVE = {"type": "approve"}


def write(name: str = "notes.txt", content: str = "from the agent\n") -> tuple[str, dict[str, str]]:
    """A call that asks a human first."""
    return ("write_file", {"file_path": f"/workspace/{name}", "content": content})


def read(name: str = "notes.txt") -> tuple[str, dict[str, str]]:
    return ("read_file", {"file_path": f"/workspace/{name}"})


def execute(command: str) -> tuple[str, dict[str, str]]:
    return ("execute", {"command": command})


def say(*calls: Any, then: str = "done", pause: float = 0) -> dict[str, Any]:
    """A graph's input that has the scripted model make these calls (a list of them in parallel), then answer.

    `pause` is the number of seconds between the words of the answer.
    """
    script = {"calls": [_call(item) for item in calls], "then": then, "pause": pause}
    return {"messages": [{"role": "user", "content": json.dumps(script)}]}


def _call(item: Any) -> Any:
    return [_call(part) for part in item] if isinstance(item, list) else {"name": item[0], "args": item[1]}


def resume(*decisions: dict[str, Any]) -> dict[str, Any]:
    """The command with which a client answers one batched request."""
    return {"resume": {"decisions": list(decisions)}}


SLOW = say(then=" ".join(str(number) for number in range(600)), pause=0.1)
"""A run that lasts a minute, unless somebody stops it."""


def texts(values: Any) -> list[str]:
    """What was said, as `type: text`, without the tools' results."""
    said = [(one["type"], text(one)) for one in values["messages"] if one["type"] != "tool"]
    return [f"{kind}: {words}" for kind, words in said if words]


def tool_results(values: Any) -> list[str]:
    return [text(one) for one in values["messages"] if one["type"] == "tool"]


def text(message: Any) -> str:
    """A message's text, whether its content is a string or blocks, as runs of the protocol's third version keep it."""
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return "".join(block["text"] for block in blocks if block["type"] == "text")

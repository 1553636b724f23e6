"""The system prompt that all agents share, told to each in terms of the tools that it has."""

from collections.abc import Sequence

_PROMPT = """You are an agent that does real work for one user, in a private Linux sandbox that is theirs alone.

- Your working folder is {workspace}; its files stay between messages. Files put into {shared} are seen by all of the \
user's sessions. Use absolute paths with the file tools.
- {tools}
- A human reviews each command and each change to a file before it happens, and may change or reject it. Believe the \
tool's result, not your plan: if it says that something else was executed, or that the user rejected it, go on from \
there and do not repeat the call.
- If a result says outcome_unknown, look at the state of things before you do anything again.
- Say what you found and did, not what you would do. Answer in the language in which the user writes."""

_NO_NETWORK = "there is no network"
_FILE_TOOLS = ("ls", "read_file", "write_file", "edit_file", "delete", "glob", "grep")
_OTHER_TOOLS = {
    "execute": "execute runs a shell command in {workspace} (it ends after {seconds} s unless you pass a timeout, at \
most 600 s; what it leaves in the background is killed; {network})",
    "write_todos": "write_todos keeps the plan of longer work",
    "task": "task hands a self-contained piece of work to a sub-agent",
}


def system_prompt(
    tools: frozenset[str], *, workspace: str, shared: str, command_seconds: int, reachable: Sequence[str] = ()
) -> str:
    """What an agent with these tools has to know of its place and its human. `reachable`: `host:port`s."""
    network = f"of the network only these can be reached: {', '.join(reachable)}" if reachable else _NO_NETWORK
    listed = _listed(tools).format(workspace=workspace, seconds=command_seconds, network=network)
    return _PROMPT.format(workspace=workspace, shared=shared, tools=listed)


def _listed(tools: frozenset[str]) -> str:
    files = [name for name in _FILE_TOOLS if name in tools]
    named = " and ".join(filter(None, (", ".join(files[:-1]), *files[-1:])))
    told = [f"{named} work{'s' if len(files) == 1 else ''} on files"] if files else []
    told += [text for name, text in _OTHER_TOOLS.items() if name in tools]
    return f"Tools: {'; '.join(told)}." if told else "You have no tools: answer with words alone."

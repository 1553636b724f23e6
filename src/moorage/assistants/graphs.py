"""The configurations that come with the server. Whoever saves an assistant starts from one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from moorage.assistants.configuration import READ_ONLY_TOOLS, SUBAGENT_TOOLS, Configuration, SubAgent
from moorage.errors import NotFound

_ORCHESTRATOR = """You lead a team of specialists and answer to the user for what they do.

- Split the request into pieces that stand on their own, note them with write_todos when there are several, and hand \
each to the specialist it suits with task. Pieces that do not need one another can be handed out together.
- A specialist sees nothing of this conversation: tell it everything it needs, which files to use, and what to report.
- Look at what came back, in the files where it matters, before you build on it. Then answer the user in one piece."""

_CODING = """You write, change and test programs.

- Read the code around a change before you make it, and follow its style.
- Make the smallest change that does what is asked. Run the tests, or the program, and believe what they say.
- Report what you changed, how you checked it, and what you could not check."""

_WEB = """You build and examine what is made for the web: pages, styles, scripts, feeds, saved pages and API answers.

- The sandbox has no network. Work on what is in the files, and say plainly what you would have to fetch.
- Write markup that is valid and accessible, and check what you can check without a browser.
- Name the file, or the address noted in it, that each fact comes from."""

_FILE = """You find, sort, read and write files.

- Look before you change: list, search and read, then edit. Prefer edit_file to writing a whole file again.
- Never delete or overwrite what was not asked for. You have no shell.
- Report the paths that you made, changed or deleted, one per line."""

_FILE_TOOLS = frozenset(
    {"ls", "read_file", "write_file", "edit_file", "delete", "glob", "grep", "write_todos"},
)


@dataclass(frozen=True, slots=True)
class Graph:
    """A configuration that comes with the server."""

    graph_id: str
    description: str
    configuration: Configuration


class UnknownGraph(NotFound):
    code = "unknown_graph"

    def __init__(self) -> None:
        super().__init__(f"No such graph. There are: {', '.join(GRAPHS)}")


_CODER = SubAgent("coding", "Writes, changes, runs and tests programs in the sandbox.", _CODING, tools=SUBAGENT_TOOLS)
_WEBBER = SubAgent(
    "web", "Builds and examines web pages, styles, scripts, feeds and saved API answers.", _WEB, tools=SUBAGENT_TOOLS
)
_FILER = SubAgent("file", "Finds, sorts, reads and writes files, without a shell.", _FILE, tools=_FILE_TOOLS)


def _specialist(agent: SubAgent, tools: frozenset[str] | None = None) -> Graph:
    return Graph(agent.name, agent.description, Configuration(instruction=agent.instruction, tools=tools))


GRAPHS: Mapping[str, Graph] = MappingProxyType(
    {
        graph.graph_id: graph
        for graph in (
            Graph("agent", "A general agent with a sandbox of its own.", Configuration()),
            Graph(
                "orchestrator",
                "Hands work to specialists for code, the web and files, and answers for them.",
                Configuration(instruction=_ORCHESTRATOR, tools=READ_ONLY_TOOLS, subagents=(_CODER, _WEBBER, _FILER)),
            ),
            _specialist(_CODER),
            _specialist(_WEBBER),
            _specialist(_FILER, _FILE_TOOLS),
            Graph("deep", "Answers from a script in this process: for benchmarks.", Configuration("scripted:bench")),
        )
    }
)


def get_graph(graph_id: str) -> Graph:
    """The graph of this name; raises UnknownGraph, naming those there are."""
    if graph := GRAPHS.get(graph_id):
        return graph
    raise UnknownGraph

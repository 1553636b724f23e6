"""The agents that the official server serves while it is compared: `langgraph dev` in this folder.

`agent` asks before `execute`, `write_file` and `edit_file` in one batch, `per_call` one by one, `deep` never.
"""

import sys
import tempfile
from pathlib import Path

from deepagents import create_deep_agent
from deepagents.backends import LocalShellBackend
from langchain.agents.middleware import HumanInTheLoopMiddleware, TodoListMiddleware

sys.path.insert(0, str(Path(__file__).parent))
from scripted import Scripted

_GATED = {"execute": True, "write_file": True, "edit_file": True}
_FOLDER = LocalShellBackend(tempfile.mkdtemp(prefix="peer-"), virtual_mode=True)

_TODOS = TodoListMiddleware()

agent = create_deep_agent(Scripted(), backend=_FOLDER, middleware=[_TODOS], interrupt_on=_GATED)
per_call = create_deep_agent(
    Scripted(), backend=_FOLDER, middleware=[_TODOS, HumanInTheLoopMiddleware(_GATED, interrupt_mode="per_call")]
)
deep = create_deep_agent(Scripted(), middleware=[_TODOS])

"""`python -m tests.contract.sandboxes.other_server KIND INSTALLATION FOLDER THREAD COMMAND`: another server's command.

Prints how the command ended.
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

from tests.contract.sandboxes.harness import LIMITS, Kind, new_provider

from moorage.ids import ThreadId
from moorage.sandboxes.service import Sandboxes
from moorage.sandboxes.workspace import Workspaces


async def main(kind: str, installation: str, folder: str, thread_id: str, command: str) -> None:
    workspaces = Workspaces(Path(folder, "workspaces"), Path(folder, "shared"))
    provider = new_provider(cast(Kind, kind), workspaces, installation)
    sandbox = await Sandboxes(provider, workspaces, limits=LIMITS).acquire(ThreadId(thread_id))
    print((await sandbox.run(command, time_limit=300)).outcome.value)  # noqa: T201 -- what the test waits for


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

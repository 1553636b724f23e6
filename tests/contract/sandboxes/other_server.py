"""`python -m tests.contract.sandboxes.other_server KIND INSTALLATION FOLDER THREAD TOKEN COMMAND`: another server.

Prints how the command ended.
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

from tests.contract.sandboxes.harness import Kind, connect, new_folders, new_provider

from moorage.ids import ThreadId
from moorage.sandboxes.port import fencing_token
from moorage.sandboxes.service import Sandboxes


async def main(kind: str, installation: str, folder: str, thread_id: str, token: str, command: str) -> None:
    fencing_token.set(int(token))
    provider = new_provider(cast(Kind, kind), new_folders(Path(folder)), installation)
    sandbox = await Sandboxes(provider, connect).acquire(ThreadId(thread_id))
    print((await sandbox.run(command, time_limit=300)).outcome.value)  # noqa: T201 -- what the test waits for


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

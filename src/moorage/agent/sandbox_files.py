"""A thread's files as approvals need them: what is in one, and where a path really leads."""

import shlex

from deepagents.backends.protocol import SandboxBackendProtocol

from moorage.agent.backend import BoundSandbox
from moorage.ids import ThreadId
from moorage.sandboxes.port import PathError
from moorage.sandboxes.service import Sandboxes


class SandboxFiles:
    """Files of whichever thread's run calls, read inside its sandbox: nothing there can point outside."""

    def __init__(self, backend: SandboxBackendProtocol) -> None:
        self._backend = backend

    async def read(self, path: str) -> bytes | None:
        """The file's bytes, None when there is none; raises PathError with the code that says why not."""
        [found] = await self._backend.adownload_files([path])
        if found.error == "file_not_found":
            return None
        if found.error is not None:
            raise PathError(f"{path} cannot be read: {found.error}", code=found.error)
        return found.content

    async def resolve(self, path: str) -> str | None:
        """The path without links, also of a file that is not there yet; None when nobody can say."""
        found = await self._backend.aexecute(f"realpath -mz -- {shlex.quote(path)}")
        resolved = found.output.split("\x00")[0]
        return resolved if found.exit_code == 0 and resolved.startswith("/") else None


class ThreadFiles:
    """The same outside of any run, for the thread that is named."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    async def read(self, thread_id: ThreadId, path: str) -> bytes | None:
        return await (await self._of(thread_id)).read(path)

    async def resolve(self, thread_id: ThreadId, path: str) -> str | None:
        return await (await self._of(thread_id)).resolve(path)

    async def _of(self, thread_id: ThreadId) -> SandboxFiles:
        return SandboxFiles(BoundSandbox(await self._sandboxes.acquire(thread_id)))

"""deepagents' view of our sandboxes: its file tools and its `execute`, routed by the run's thread."""

import asyncio
import shlex
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from typing import Any

from deepagents.backends.protocol import (
    DeleteResult,
    ExecuteOffloadResult,
    ExecuteResponse,
    FileDownloadResponse,
    FileUploadResponse,
    WriteResult,
)
from deepagents.backends.sandbox import BaseSandbox
from langgraph.config import get_config

from moorage.errors import InvalidInput
from moorage.ids import ThreadId
from moorage.sandboxes.port import (
    OUTPUT_LIMIT_BYTES,
    CommandResult,
    Outcome,
    PathError,
    Sandbox,
    SandboxesFull,
    StreamName,
)
from moorage.sandboxes.service import Sandboxes

MAX_FILE_BYTES = 25 * 1024 * 1024
_FILE_TOOL_KEEP_BYTES = 1024 * 1024  # deepagents' read answers with up to 500 KiB, in base64 and JSON
_TIMEOUT_EXIT_CODE = 124

type ToolOutputSink = Callable[[StreamName, str], None]

tool_output_sink: ContextVar[ToolOutputSink | None] = ContextVar("tool_output_sink", default=None)
"""Where the running `execute` call's live output goes; set around each tool call."""

created_files: ContextVar[set[str] | None] = ContextVar("created_files", default=None)
"""The files that the running tool call made anew: deepagents says of each write that it updated the file."""


class SandboxBackend(BaseSandbox):
    """deepagents' protocol over one Sandbox. Subclasses say which, call by call.

    The asynchronous methods are the real ones. The synchronous ones run them on `loop` (default: the loop this was made
    on) and must not be called from it.
    """

    def __init__(
        self,
        *,
        default_time_limit: float = 60,
        max_time_limit: float = 600,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._default_time_limit = default_time_limit
        self._max_time_limit = max_time_limit
        self._loop = loop or _running_loop()

    @abstractmethod
    async def _sandbox(self) -> Sandbox:
        """The sandbox that this call is for."""

    async def aexecute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:  # noqa: ASYNC109
        """Run one of deepagents' own helper commands. Its output is data: more is kept, and NULs mean something."""
        sandbox, limit = await self._sandbox(), self._limit(timeout)
        return await _respond(sandbox.run(command, time_limit=limit, keep=_FILE_TOOL_KEEP_BYTES, raw=True), limit)

    async def aexecute_with_offload(
        self,
        command: str,
        capture_path: str,  # noqa: ARG002
        *,
        max_inline_bytes: int,  # noqa: ARG002
        max_capture_bytes: int | None = None,  # noqa: ARG002
        timeout: int | None = None,  # noqa: ASYNC109
    ) -> ExecuteOffloadResult:
        """Run what the model asked for with its `execute` tool: the one call whose output is shown live."""
        sandbox, limit = await self._sandbox(), self._limit(timeout)
        response = await _respond(sandbox.run(command, time_limit=limit, on_output=tool_output_sink.get()), limit)
        return ExecuteOffloadResult(offloaded=False, response=response)

    async def awrite(self, file_path: str, content: str) -> WriteResult:
        """Write a file in one go: the sandbox makes its parent folders."""
        sandbox, data = await self._sandbox(), content.encode("utf-8", "replace")
        if len(data) > MAX_FILE_BYTES:
            return WriteResult(error=f"Failed to write file '{file_path}': file_too_large")
        try:
            created = await sandbox.write_file(file_path, data)
        except PathError as error:
            return WriteResult(error=f"Failed to write file '{file_path}': {error.code}")
        except SandboxesFull as error:
            return WriteResult(error=f"Failed to write file '{file_path}': {_in_words(error)}")
        if created and (files := created_files.get()) is not None:
            files.add(file_path)
        return WriteResult(path=file_path)

    async def aupload_files(self, files: Sequence[tuple[str, bytes]]) -> list[FileUploadResponse]:
        sandbox = await self._sandbox()
        return [await _upload(sandbox, path, content) for path, content in files]

    async def adownload_files(self, paths: Sequence[str]) -> list[FileDownloadResponse]:
        sandbox = await self._sandbox()
        return [await _download(sandbox, path) for path in paths]

    async def adelete(self, file_path: str) -> DeleteResult:
        """Remove a file or a folder with all it holds."""
        path = shlex.quote(file_path)
        found = await self.aexecute(f"test -e {path} || test -L {path}")
        if found.exit_code == 1:
            return DeleteResult(error=f"Error: '{file_path}' not found")
        removed = await self.aexecute(f"rm -rf -- {path}")
        if removed.exit_code == 0:
            return DeleteResult(path=file_path)
        return DeleteResult(error=f"Error deleting file '{file_path}': {removed.output.strip() or 'unknown error'}")

    def execute(self, command: str, *, timeout: int | None = None) -> ExecuteResponse:
        return self._wait_for(self.aexecute(command, timeout=timeout))

    def execute_with_offload(
        self,
        command: str,
        capture_path: str,
        *,
        max_inline_bytes: int,
        max_capture_bytes: int | None = None,
        timeout: int | None = None,
    ) -> ExecuteOffloadResult:
        return self._wait_for(
            self.aexecute_with_offload(
                command,
                capture_path,
                max_inline_bytes=max_inline_bytes,
                max_capture_bytes=max_capture_bytes,
                timeout=timeout,
            )
        )

    def upload_files(self, files: list[tuple[str, bytes]]) -> list[FileUploadResponse]:
        return self._wait_for(self.aupload_files(files))

    def download_files(self, paths: list[str]) -> list[FileDownloadResponse]:
        return self._wait_for(self.adownload_files(paths))

    def write(self, file_path: str, content: str) -> WriteResult:
        return self._wait_for(self.awrite(file_path, content))

    def delete(self, file_path: str) -> DeleteResult:
        return self._wait_for(self.adelete(file_path))

    def _limit(self, wished: int | None) -> float:
        return min(wished if wished and wished > 0 else self._default_time_limit, self._max_time_limit)

    def _wait_for[T](self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._loop is _running_loop():
            work.close()
            raise RuntimeError("the synchronous methods need the loop of the server, and must be called outside of it")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class ThreadSandbox(SandboxBackend):
    """One instance for all threads: each call goes to the sandbox of the run that makes it, under this profile."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        *,
        profile: str | None = None,
        default_time_limit: float = 60,
        max_time_limit: float = 600,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(default_time_limit=default_time_limit, max_time_limit=max_time_limit, loop=loop)
        self._sandboxes = sandboxes
        self._profile = profile

    @property
    def id(self) -> str:
        return f"{self._sandboxes.provider.name}-threads"

    async def _sandbox(self) -> Sandbox:
        thread_id = get_config().get("configurable", {}).get("thread_id", "")
        return await self._sandboxes.acquire(ThreadId(thread_id), profile=self._profile)


class BoundSandbox(SandboxBackend):
    """Always the same sandbox, outside of any run."""

    def __init__(
        self,
        sandbox: Sandbox,
        *,
        default_time_limit: float = 60,
        max_time_limit: float = 600,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(default_time_limit=default_time_limit, max_time_limit=max_time_limit, loop=loop)
        self._bound = sandbox

    @property
    def id(self) -> str:
        return self._bound.id

    async def _sandbox(self) -> Sandbox:
        return self._bound


async def _upload(sandbox: Sandbox, path: str, content: bytes) -> FileUploadResponse:
    if len(content) > MAX_FILE_BYTES:
        return FileUploadResponse(path=path, error="file_too_large")
    try:
        await sandbox.write_file(path, content)
    except PathError as error:
        return FileUploadResponse(path=path, error=error.code)
    return FileUploadResponse(path=path)


async def _download(sandbox: Sandbox, path: str) -> FileDownloadResponse:
    try:
        return FileDownloadResponse(path=path, content=await sandbox.read_file(path, limit=MAX_FILE_BYTES))
    except PathError as error:
        return FileDownloadResponse(path=path, error=error.code)


async def _respond(running: Awaitable[CommandResult], limit: float) -> ExecuteResponse:
    try:
        return _response(await running, limit)
    except InvalidInput as error:
        return ExecuteResponse(output=f"Error: {error.detail}", exit_code=2)
    except SandboxesFull as error:
        return ExecuteResponse(output=f"Error: {_in_words(error)}", exit_code=1)


def _in_words(error: SandboxesFull) -> str:
    return f"{error.detail} Nothing was started or changed; it may work later, when another sandbox has become idle."


def _response(result: CommandResult, limit: float) -> ExecuteResponse:
    match result.outcome:
        case Outcome.EXITED:
            return ExecuteResponse(output=result.output, exit_code=result.exit_code, truncated=result.truncated)
        case Outcome.TIMED_OUT:
            note, code = f"Command timed out after {limit:g} s; its processes were killed.", _TIMEOUT_EXIT_CODE
        case Outcome.OUTPUT_LIMIT:
            megabytes = OUTPUT_LIMIT_BYTES // (1024 * 1024)
            note, code = f"Command killed: it wrote more than {megabytes} MiB of output.", result.exit_code
        case Outcome.OUT_OF_MEMORY:
            note, code = "Command killed: the sandbox ran out of memory.", result.exit_code
        case Outcome.DISK_FULL:
            note, code = "Command killed: the workspace is full. Delete files before writing more.", result.exit_code
        case Outcome.LOST:
            note, code = "The sandbox died while the command ran; it may have had effects.", result.exit_code
    output = f"{result.output.rstrip()}\n{note}".lstrip()
    return ExecuteResponse(output=output, exit_code=code, truncated=result.truncated)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

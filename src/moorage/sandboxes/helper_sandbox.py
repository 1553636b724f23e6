"""A sandbox reached through its helper."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from moorage.errors import AppError, InvalidInput
from moorage.ids import ThreadId
from moorage.sandboxes.connection import HelperConnection, OnConnection
from moorage.sandboxes.file_access import HelperFiles
from moorage.sandboxes.output import CommandOutput
from moorage.sandboxes.port import (
    FILE_SECONDS,
    KEEP_BYTES,
    MAX_COMMAND_BYTES,
    OUTPUT_LIMIT_BYTES,
    Bounds,
    Channel,
    CommandResult,
    OnOutput,
    Outcome,
    PathError,
    SandboxDied,
    SandboxUnavailable,
)
from moorage.sandboxes.reports import Report
from moorage.sandboxes.tree_access import HelperTrees

_OVERSHOOT = 1024 * 1024  # what may have been under way when a command was found to write too much
_LONGEST_PATH = 4096
_PATH_ERRORS = {
    "file_not_found": "There is no such file.",
    "is_directory": "This is a directory, not a file.",
    "not_a_directory": "A part of the path is not a directory.",
    "permission_denied": "The sandbox's user may not do this here.",
    "invalid_path": "This is not the path of a regular file.",
    "file_exists": "There is a file where a directory is needed.",
    "file_too_large": "The file is larger than allowed.",
    "no_space": "The disk is full or the file is larger than allowed.",
}
_NO_PROCESSES = "The sandbox ran out of processes: too many ran in it at once.\n"
_FULL = "The workspace is full: files can be deleted, but not written.\n"

type KillAll = Callable[[], Awaitable[None]]


async def _nothing() -> None: ...


class HelperSandbox:
    """One thread's `Sandbox` through one helper; `lost` when that is gone."""

    def __init__(
        self,
        thread_id: ThreadId,
        connection: HelperConnection,
        *,
        bounds: Bounds,
        kill_all: KillAll = _nothing,
        workspace: str = "/workspace",
        shared: str = "/shared",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`kill_all` empties the sandbox: called, once, when a command's processes may live on.

        `environment` is added to that of commands.
        """
        self._thread_id = thread_id
        self.connection = connection
        self.workspace = workspace
        self.shared = shared
        self._kill_all = kill_all
        self.files = HelperFiles(connection, workspace=workspace, shared=shared, bounds=bounds)
        self.trees = HelperTrees(connection, workspace=workspace, bounds=bounds)
        self._rlimits = dict(bounds.rlimits)
        self._bounds = {"path": workspace, "disk_bytes": bounds.disk_bytes, "max_files": bounds.max_files}
        self._environment = dict(environment or {})
        self._emptying: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        thread_id: ThreadId,
        channel: Channel,
        bounds: Bounds,
        kill_all: KillAll,
        *,
        workspace: str = "/workspace",
        shared: str = "/shared",
        environment: Mapping[str, str] | None = None,
        on_connection: OnConnection | None = None,
    ) -> "HelperSandbox":
        """Over the channel of a helper that was just started; raises SandboxGone when it does not answer."""
        return cls(
            thread_id,
            await HelperConnection.open(channel, on_connection=on_connection),
            bounds=bounds,
            kill_all=kill_all,
            workspace=workspace,
            shared=shared,
            environment=environment,
        )

    @property
    def id(self) -> str:
        return self._thread_id

    @property
    def lost(self) -> bool:
        return self.connection.lost

    async def close(self) -> None:
        """End the helper, and the commands that it runs. From now on, emptying the sandbox is the caller's part."""
        self._closed = True
        await self.connection.close()

    async def run(
        self,
        command: str,
        *,
        time_limit: float,
        on_output: OnOutput | None = None,
        stdin: bytes | None = None,
        keep: int = KEEP_BYTES,
        raw: bool = False,
    ) -> CommandResult:
        _check_command(command)
        output = CommandOutput(keep, on_output, raw=raw)
        report = await self._run(
            self.command_order(command, time_limit=time_limit, has_stdin=stdin is not None, keep=keep), output, stdin
        )
        output.skip(report.skipped)
        if report.full:
            output.add(b"e", _FULL.encode())
        if report.no_processes:
            output.add(b"e", _NO_PROCESSES.encode())
        elif report.error:
            output.add(b"e", f"The command could not be started: {report.error}\n".encode())
        return output.result(report.outcome, 126 if report.error else report.exit_code)

    async def write_file(self, path: str, content: bytes) -> bool:
        _check_path(path)
        order = {"do": "whole_files.write", "path": path, "cwd": "/", "bounds": self._bounds}
        report = await self.connection.order(order, payload=content, time_limit=FILE_SECONDS)
        _raise_for(report)
        return report.created

    async def read_file(self, path: str, *, limit: int) -> bytes:
        _check_path(path)
        content = bytearray()

        def add(_kind: bytes, data: bytes) -> None:
            content.extend(data)
            if len(content) > limit:
                raise PathError(_PATH_ERRORS["file_too_large"], code="file_too_large")

        order = {"do": "whole_files.read", "path": path, "limit": limit, "cwd": "/"}
        report = await self.connection.order(order, on_data=add, time_limit=FILE_SECONDS)
        _raise_for(report)
        return bytes(content)

    def command_order(
        self, command: str, *, time_limit: float, has_stdin: bool = False, keep: int = OUTPUT_LIMIT_BYTES
    ) -> dict[str, Any]:
        """The order for a command, for who wants its output as it is and at their own pace.

        Of an output of more than 3 times `keep` bytes, some between the first 2 and the last of them may be missing.
        """
        return {
            "do": "commands.run",
            "command": command,
            "cwd": self.workspace,
            "stdin": has_stdin,
            "time_limit": time_limit,
            "output_limit": OUTPUT_LIMIT_BYTES,
            "keep": keep,
            "rlimits": self._rlimits,
            "bounds": self._bounds,
            "env": self._environment,
        }

    async def _run(self, order: dict[str, Any], output: CommandOutput, stdin: bytes | None) -> Report:
        async with self.connection.stream(
            order, payload=stdin, time_limit=order["time_limit"], on_unclean=self._empty
        ) as talk:
            async for kind, data in talk:
                output.add(kind, data)
                if output.bytes > OUTPUT_LIMIT_BYTES + _OVERSHOOT:  # no helper of ours lets it come to that
                    return Report(Outcome.OUTPUT_LIMIT)
        return talk.result

    async def _empty(self) -> None:
        """Kill everything in the sandbox: the last resort. Files stay."""
        if self._closed:
            return
        if self._emptying is None:
            self._emptying = asyncio.create_task(self._try_to_empty())
        await self._emptying

    async def _try_to_empty(self) -> None:
        try:
            await self._kill_all()
        except AppError:  # whoever wants the sandbox next has to empty it first, and is told why that fails
            await self.connection.close()


def _check_command(command: str) -> None:
    try:
        data = command.encode()
    except UnicodeEncodeError:
        raise InvalidInput("The command is not valid text.", code="invalid_command") from None
    if b"\0" in data or not data.strip():
        raise InvalidInput("The command is empty or holds a NUL character.", code="invalid_command")
    if len(data) > MAX_COMMAND_BYTES:
        raise InvalidInput(f"The command is longer than {MAX_COMMAND_BYTES} bytes.", code="command_too_long")


def _check_path(path: str) -> None:
    if not path.startswith("/") or "\0" in path or len(path) > _LONGEST_PATH:
        raise PathError("A path must be absolute, and one that a kernel takes.", code="invalid_path")


def _raise_for(report: Report) -> None:
    if report.error in _PATH_ERRORS:
        raise PathError(_PATH_ERRORS[report.error], code=report.error)
    if report.error:
        raise SandboxUnavailable(f"The sandbox is out of resources: {report.error}.")
    if report.outcome != Outcome.EXITED:
        raise SandboxDied("The sandbox died during the file operation.")

"""A sandbox reached through a supervisor: everything but how one is launched, which is the adapters' part.

`supervisor.py` runs inside and says how the frames look.
"""

import asyncio
import json
import struct
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moorage.errors import AppError, InvalidInput
from moorage.sandboxes.output import KeptOutput, TextStream
from moorage.sandboxes.port import (
    FILE_SECONDS,
    KEEP_BYTES,
    MAX_COMMAND_BYTES,
    OUTPUT_LIMIT_BYTES,
    CommandResult,
    OnOutput,
    Outcome,
    PathError,
    SandboxDied,
    SandboxGone,
    SandboxUnavailable,
    StartedTooLate,
    StreamName,
    start_by,
)

_SOURCE = Path(__file__).with_name("supervisor.py").read_bytes()
# The source comes first over stdin: as an argument it would fill the agent's every `ps`.
_BOOTSTRAP = "import os;s=b''\nwhile len(s)<{0}:s+=os.read(0,{0}-len(s)) or os._exit(1)\nexec(s)".format(len(_SOURCE))
SUPERVISOR_ARGV = ("python3", "-I", "-S", "-c", _BOOTSTRAP)

_HEADER = struct.Struct(">cI")
_CHUNK = 64 * 1024
_START_SECONDS = 10.0
_KILL_SECONDS = 1.2
_STREAMS: dict[bytes, StreamName] = {b"o": "stdout", b"e": "stderr"}
_PATH_ERRORS = {
    "file_not_found": "There is no such file.",
    "is_directory": "This is a directory, not a file.",
    "permission_denied": "The sandbox's user may not do this here.",
    "invalid_path": "This is not the path of a regular file.",
    "file_too_large": "The file is larger than allowed.",
    "no_space": "The disk is full or the file is larger than allowed.",
}

_NO_PROCESSES = "The sandbox ran out of processes: too many ran in it at once.\n"

_MAX_FRAME = 1024 * 1024

type OnData = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What a supervisor says at the end. `clean`: it has seen every process of the command die."""

    outcome: Outcome
    exit_code: int | None = None
    error: str | None = None
    clean: bool = True
    created: bool = False
    no_processes: bool = False

    @classmethod
    def parse(cls, payload: bytes) -> "Report":
        """Raises ValueError for anything that a supervisor does not say."""
        match json.loads(payload):
            case {"outcome": "killed"}:
                return cls(Outcome.LOST)
            case {"outcome": str(outcome), **rest}:
                code, error = rest.get("exit_code"), rest.get("error")
                return cls(
                    Outcome(outcome),
                    exit_code=code if isinstance(code, int) else None,
                    error=str(error) if error else None,
                    clean=rest.get("clean") is not False,
                    created=rest.get("created") is True,
                    no_processes=rest.get("no_processes") is True or error == "no_processes",
                )
            case _:
                raise ValueError("no report")


class Channel(Protocol):
    """A running supervisor's stdin and stdout."""

    async def send(self, data: bytes) -> None:
        """Returns when there is room for more; a supervisor that is gone is no error."""
        ...

    async def receive(self) -> bytes:
        """The next bytes, b"" at the end. May be cancelled and called again."""
        ...

    async def close(self) -> str:
        """Let go of it; answers what it complained about, at most 2000 characters."""
        ...


class Launcher(Protocol):
    """Where supervisors run: one container, or one set of namespaces per command."""

    async def launch(self) -> Channel:
        """Start a supervisor; raises SandboxGone when there is nothing to start it in, or SandboxUnavailable."""
        ...

    async def reset(self) -> None:
        """The last resort: kill everything in the sandbox, and make it usable again. Files stay."""
        ...


class SupervisedSandbox:
    """The Sandbox of both adapters."""

    def __init__(
        self, sandbox_id: str, launcher: Launcher, *, workspace: str, rlimits: Mapping[str, int] | None = None
    ) -> None:
        """`rlimits` bounds each process of a command, where nothing stronger does: {"NPROC": 256, ...}."""
        self._id = sandbox_id
        self._launcher = launcher
        self._workspace = workspace
        self._rlimits = dict(rlimits or {})

    @property
    def id(self) -> str:
        return self._id

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
        output = _Output(keep, on_output, raw=raw)
        order = {
            "do": "run",
            "command": command,
            "stdin": stdin is not None,
            "output_limit": OUTPUT_LIMIT_BYTES,
            "rlimits": self._rlimits,
        }
        report = await self._carry_out(order, time_limit, payload=stdin, on_data=output.add)
        if report.no_processes:
            output.add(b"e", _NO_PROCESSES.encode())
        elif report.error:
            output.add(b"e", f"The command could not be started: {report.error}\n".encode())
        return output.result(report.outcome, 126 if report.error else report.exit_code)

    async def write_file(self, path: str, content: bytes) -> bool:
        _check_path(path)
        report = await self._carry_out({"do": "write", "path": path}, FILE_SECONDS, payload=content)
        _raise_for(report)
        return report.created

    async def read_file(self, path: str, *, limit: int) -> bytes:
        _check_path(path)
        content = bytearray()

        def add(_kind: bytes, data: bytes) -> None:
            content.extend(data)
            if len(content) > limit:
                raise PathError(_PATH_ERRORS["file_too_large"], code="file_too_large")

        report = await self._carry_out({"do": "read", "path": path, "limit": limit}, FILE_SECONDS, on_data=add)
        _raise_for(report)
        return bytes(content)

    async def _carry_out(
        self, order: dict[str, Any], time_limit: float, *, payload: bytes | None = None, on_data: OnData | None = None
    ) -> Report:
        """The supervisor's report on `order`; raises SandboxGone when it could not be given."""
        order = {**order, "cwd": self._workspace, "time_limit": time_limit}
        talk = _Conversation(await self._launcher.launch(), on_data)
        try:
            _check_in_time()  # the last moment: giving the order waits for nothing
            async with asyncio.timeout(time_limit + _START_SECONDS):
                await talk.hold(order, payload)
        except TimeoutError:
            talk.report = Report(Outcome.TIMED_OUT, clean=False)
        finally:
            await _to_the_end(self._clean_up(talk))
        if talk.report is None and not talk.started:
            raise SandboxGone(f"The sandbox could not start a command. {talk.complaint}".strip())
        return talk.report or Report(Outcome.LOST)

    async def _clean_up(self, talk: "_Conversation") -> None:
        """Make sure that nothing of the command lives on, whatever became of it."""
        if talk.report is None:
            await talk.kill()
        talk.complaint = await talk.channel.close() or talk.unread
        if talk.report is None or not talk.report.clean:
            with suppress(AppError):  # when this fails too, the next use of the sandbox says why
                await self._launcher.reset()


def _check_in_time() -> None:
    if (latest := start_by.get()) is not None and time.monotonic() > latest:
        raise StartedTooLate("The command was not started in time.")


class _Conversation:
    """One order, and what came back."""

    def __init__(self, channel: Channel, on_data: OnData | None) -> None:
        self.channel = channel
        self.started = False
        self.report: Report | None = None
        self.complaint = ""
        self._on_data = on_data
        self._received = bytearray()

    @property
    def unread(self) -> str:
        """What came instead of frames: an engine says there why it could not start the supervisor."""
        return self._received[:500].decode(errors="replace").strip()

    async def hold(self, order: dict[str, Any], payload: bytes | None) -> None:
        """Give the order and listen until the report, or until the other side is gone."""
        await self.channel.send(_SOURCE + _frame(b"C", json.dumps(order).encode()))
        feeding = asyncio.create_task(self._feed(payload)) if payload is not None else None
        try:
            await self._listen()
        finally:
            if feeding:
                feeding.cancel()
                await asyncio.wait([feeding])

    async def kill(self) -> None:
        """Ask for everything to be killed, and wait a little for the report that it is."""
        self._on_data = None
        with suppress(TimeoutError):
            async with asyncio.timeout(_KILL_SECONDS):
                await self.channel.send(_frame(b"K"))
                await self._listen()

    async def _feed(self, payload: bytes) -> None:
        view = memoryview(payload)
        for start in range(0, len(view), _CHUNK):
            await self.channel.send(_frame(b"I", bytes(view[start : start + _CHUNK])))
        await self.channel.send(_frame(b"E"))

    async def _listen(self) -> None:
        while self.report is None and (data := await self.channel.receive()):
            self._received += data
            try:
                while self.report is None and (frame := self._next_frame()):
                    self._take(*frame)
            except ValueError:  # no supervisor of ours: as good as gone
                return

    def _next_frame(self) -> tuple[bytes, bytes] | None:
        if len(self._received) < _HEADER.size:
            return None
        kind, size = _HEADER.unpack_from(self._received)
        if size > _MAX_FRAME:
            raise ValueError("frame too large")
        if len(self._received) < _HEADER.size + size:
            return None
        payload = bytes(self._received[_HEADER.size : _HEADER.size + size])
        del self._received[: _HEADER.size + size]
        return kind, payload

    def _take(self, kind: bytes, payload: bytes) -> None:
        if kind == b"x":
            self.report = Report.parse(payload)
        elif kind == b"r":
            self.started = True
        elif self._on_data and kind in _STREAMS:
            self._on_data(kind, payload)


class _Output:
    """Both streams of one command."""

    def __init__(self, keep: int, on_output: OnOutput | None, *, raw: bool) -> None:
        self._kept = KeptOutput(keep)
        self._text = {kind: TextStream(raw=raw) for kind in _STREAMS}
        self._on_output = on_output
        self._bytes = 0

    def add(self, kind: bytes, data: bytes) -> None:
        self._bytes += len(data)
        self._show(kind, self._text[kind].feed(data))

    def result(self, outcome: Outcome, exit_code: int | None) -> CommandResult:
        for kind in _STREAMS:
            self._show(kind, self._text[kind].feed(b"", final=True))
        return CommandResult(exit_code, self._kept.text(), self._kept.truncated, outcome, self._bytes)

    def _show(self, kind: bytes, text: str) -> None:
        if text:
            self._kept.add(text)
            if self._on_output:
                self._on_output(_STREAMS[kind], text)


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end even when the caller is cancelled meanwhile, and only then let the caller go."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled:
        raise cancelled


def _frame(kind: bytes, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


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
    if not path.startswith("/") or "\0" in path:
        raise PathError("A path must be absolute.", code="invalid_path")


def _raise_for(report: Report) -> None:
    if report.error in _PATH_ERRORS:
        raise PathError(_PATH_ERRORS[report.error], code=report.error)
    if report.error:
        raise SandboxUnavailable(f"The sandbox is out of resources: {report.error}.")
    if report.outcome != Outcome.EXITED:
        raise SandboxDied("The sandbox died during the file operation.")

"""What a sandbox costs: commands against `docker exec` on the same engine, the first one, files, and memory.

    .venv/bin/python tests/bench/sandboxes.py                  Docker
    .venv/bin/python tests/bench/sandboxes.py --bubblewrap     the same without an engine, and without `docker exec`

Prints one JSON object. Times in milliseconds, sizes in MiB. The two ways to run a command alternate.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker

from moorage.ids import ThreadId, UserId, new_thread_id
from moorage.runtime.providers import open_sandbox_kind
from moorage.sandboxes.files import Root
from moorage.sandboxes.helper_sandbox import HelperSandbox
from moorage.sandboxes.place import KillAll, OpenSandbox
from moorage.sandboxes.port import Bounds, Channel, Sandbox, SandboxProvider
from moorage.sandboxes.service import Sandboxes
from moorage.settings import Settings

_OWNER = UserId("alice")
_MIB = 1024 * 1024
_FILE_MIB = 25
_FILES = 8
_AT_ONCE = 64
_NEW_THREADS = 8
_PATIENCE_SECONDS = 30
_FLOOD_COMMANDS = 300


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--bubblewrap", action="store_true")
    parser.add_argument("--runtime", help="such as runsc")
    parser.add_argument("--floods", action="store_true", help="nothing but the floods")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    async with _sandboxes(arguments, warm=0) as (sandboxes, provider):
        figures["provider"] = provider.name
        thread_id = new_thread_id(_OWNER)
        sandbox = await sandboxes.acquire(thread_id)
        await _true(sandbox)
        figures |= await _commands(sandbox, None if arguments.bubblewrap else _container(thread_id), arguments.commands)
        figures["64_at_once_ms"] = await _median(lambda: _at_once(sandbox), 5)
        figures |= await _files(sandbox)
        figures["first_command_cold_ms"] = await _first_commands(sandboxes, pause=None)
        if not arguments.bubblewrap:
            figures["idle_sandbox_mib"] = await _idle_memory(sandboxes, provider)
        figures["floods"] = await _floods(sandboxes)
    if not arguments.bubblewrap and not arguments.runtime:
        async with _sandboxes(arguments, warm=2) as (sandboxes, provider):
            await _true(await sandboxes.acquire(new_thread_id(_OWNER)))  # from now on one stands ready for this user
            figures["first_command_warm_ms"] = await _first_commands(sandboxes, pause=_until_warm)
    figures["http"] = await asyncio.to_thread(_http, arguments)
    print(json.dumps(figures))


def _http(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same files through a whole server, to be compared with the helper's stream."""
    settings = {"SANDBOX": "bubblewrap" if arguments.bubblewrap else "docker"}
    if arguments.runtime:
        settings["SANDBOX_RUNTIME"] = arguments.runtime
    command = [sys.executable, "-m", "tests.bench.http_files"]
    repository = Path(__file__).parents[2]
    return json.loads(subprocess.check_output(command, env={**os.environ, **settings}, cwd=repository))


@asynccontextmanager
async def _sandboxes(arguments: argparse.Namespace, *, warm: int) -> AsyncGenerator[tuple[Sandboxes, SandboxProvider]]:
    with _open_folder() as name:
        settings = Settings(
            workspace_root=Path(name, "workspaces"),
            shared_dir=Path(name, "shared"),
            sandbox="bubblewrap" if arguments.bubblewrap else "docker",
            sandbox_runtime=arguments.runtime,
            sandbox_warm=warm,
        )
        async with AsyncExitStack() as stack:
            kind = await stack.enter_async_context(
                open_sandbox_kind(settings, installation=f"bench{uuid.uuid4().hex[:8]}")
            )
            sandboxes = Sandboxes(kind.provider, _connect)
            stack.push_async_callback(_remove_all, sandboxes, kind.provider)
            yield sandboxes, kind.provider


@contextmanager
def _open_folder() -> Generator[str]:
    with tempfile.TemporaryDirectory(prefix="moorage-bench-") as name:
        Path(name).chmod(0o711)  # agents must be able to enter
        yield name


async def _connect(
    thread_id: ThreadId, channel: Channel, bounds: Bounds, *, profile: str | None, kill_all: KillAll
) -> OpenSandbox:
    del profile
    return await HelperSandbox.open(thread_id, channel, bounds, kill_all, workspace="/workspace", shared="/shared")


async def _remove_all(sandboxes: Sandboxes, provider: SandboxProvider) -> None:
    for info in await provider.list(folders=True):
        await sandboxes.delete(info.thread_id)
    await sandboxes.close()


def _container(thread_id: ThreadId) -> str:
    names = subprocess.run(
        ["docker", "ps", "--filter", f"name={thread_id}", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return names.stdout.strip()


async def _commands(sandbox: Sandbox, container: str | None, count: int) -> dict[str, Any]:
    """A command in a warm sandbox, and the same by the engine's own exec, through its API as a server would."""
    ours: list[float] = []
    theirs: list[float] = []
    execute = _engine_exec(container) if container else None
    for number in range(count):
        ours.append(await _timed(lambda: _true(sandbox)))
        if execute and number % 4 == 0:
            theirs.append(await _timed(lambda: asyncio.to_thread(execute)))
    found: dict[str, Any] = {"command_ms": _spread(ours)}
    if theirs:
        found["docker_exec_ms"] = _spread(theirs)
        found["docker_exec_over_command"] = round(statistics.median(theirs) / statistics.median(ours), 1)
    writing = [await _timed(lambda: sandbox.write_file("/workspace/small", b"x" * 1000)) for _ in range(count // 4)]
    reading = [await _timed(lambda: sandbox.read_file("/workspace/small", limit=2000)) for _ in range(count // 4)]
    return {**found, "write_file_ms": _spread(writing), "read_file_ms": _spread(reading)}


def _engine_exec(container: str) -> Callable[[], None]:
    client: Any = docker.from_env()  # pyright: ignore[reportUnknownMemberType]
    found = client.containers.get(container)

    def execute() -> None:
        code, _ = found.exec_run(["/bin/sh", "-c", "true"])
        assert code == 0

    return execute


async def _at_once(sandbox: Sandbox) -> None:
    await asyncio.gather(*(_true(sandbox) for _ in range(_AT_ONCE)))


async def _files(sandbox: Sandbox) -> dict[str, Any]:
    """200 MiB up and down, in files as large as uploads may be, streamed."""
    started = time.perf_counter()
    for number in range(_FILES):
        await sandbox.files.write(Root.WORKSPACE, f"f{number}", _chunks(), limit=_FILE_MIB * _MIB)
    up = time.perf_counter() - started
    started = time.perf_counter()
    size = 0
    for number in range(_FILES):
        async with sandbox.files.open(Root.WORKSPACE, f"f{number}") as opened:
            async for chunk in opened.chunks:
                size += len(chunk)
    down = time.perf_counter() - started
    assert size == _FILES * _FILE_MIB * _MIB
    return {"upload_mib_per_s": round(size / _MIB / up), "download_mib_per_s": round(size / _MIB / down)}


async def _chunks() -> AsyncIterator[bytes]:
    part = bytes(range(256)) * 256
    for _ in range(_FILE_MIB * _MIB // len(part)):
        yield part


async def _first_commands(
    sandboxes: Sandboxes, *, pause: Callable[[Sandboxes], Awaitable[None]] | None
) -> dict[str, float]:
    times: list[float] = []
    for _ in range(_NEW_THREADS):
        if pause:
            await pause(sandboxes)
        times.append(await _timed(partial(_true, await sandboxes.acquire(new_thread_id(_OWNER)))))
    return _spread(times)


async def _until_warm(_: Sandboxes) -> None:
    """Containers that stand ready call themselves so; the newest needs a moment for its helper."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        names = await asyncio.to_thread(
            subprocess.check_output,
            ["docker", "ps", "--filter", "name=warm-", "--format", "{{.Names}}"],
            text=True,
        )
        if names.count("bench") >= 1:
            await asyncio.sleep(1)
            return
        await asyncio.sleep(0.05)
    raise SystemExit("no container came to stand ready")


async def _idle_memory(sandboxes: Sandboxes, provider: SandboxProvider) -> float:
    """By the engine's own count, after one command."""
    thread_id = new_thread_id(_OWNER)
    await _true(await sandboxes.acquire(thread_id))
    return round(((await provider.stats(thread_id)).memory_bytes or 0) / _MIB, 1)


async def _floods(sandboxes: Sandboxes) -> dict[str, Any]:
    """A second tenant's commands while the first one floods: p95 with, over p95 without; and this process's memory."""
    bad = await sandboxes.acquire(new_thread_id(UserId("mallory")))
    good = await sandboxes.acquire(new_thread_id(_OWNER))
    await asyncio.gather(_true(bad), _true(good))
    floods = {
        "output_1gb": "head -c 1000000000 /dev/zero",
        "output_1gb_of_lines": "yes | head -c 1000000000",
        "fork_bomb": "f(){ f|f& }; f; while :; do :; done",
        "memory_bomb": "python3 -c 'x=[]\nwhile 1: x.append(bytearray(10**7))'",
        "disk_fill": "head -c 3000000000 /dev/zero > /workspace/fill",
        "inode_fill": "i=0; while mkdir /workspace/d$i; do i=$((i+1)); done",
        "64_busy": "for i in $(seq 64); do sh -c 'while :; do :; done' & done; sleep 8",
    }
    found: dict[str, Any] = {}
    for name, command in floods.items():
        before = _resident()
        calm = _p95([await _timed(lambda: _true(good)) for _ in range(_FLOOD_COMMANDS)])
        flood = asyncio.create_task(_again_and_again(bad, command))
        await asyncio.sleep(0.2)
        times = [await _timed(lambda: _true(good)) for _ in range(_FLOOD_COMMANDS)]
        flood.cancel()
        await asyncio.wait([flood])
        next_command = await _timed(lambda: bad.run("rm -rf /workspace/*; true", time_limit=60))
        found[name] = {
            "others_p95_over_calm": round(_p95(times) / calm, 2),
            "calm_p95_ms": calm,
            "memory_grew_mib": round((_resident() - before) / _MIB, 1),
            "next_command_ms": round(next_command, 1),
        }
    return found


async def _again_and_again(sandbox: Sandbox, command: str) -> None:
    while True:
        await sandbox.run(command, time_limit=8)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def _true(sandbox: Sandbox) -> None:
    result = await sandbox.run("true", time_limit=30)
    assert result.exit_code == 0, result


async def _timed(action: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await action()
    return (time.perf_counter() - started) * 1000


async def _median(action: Callable[[], Awaitable[object]], times: int) -> float:
    return round(statistics.median([await _timed(action) for _ in range(times)]), 1)


def _spread(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {"p50": round(statistics.median(ordered), 2), "p99": round(ordered[int(len(ordered) * 0.99)], 2)}


def _p95(times: list[float]) -> float:
    return round(sorted(times)[int(len(times) * 0.95)], 2)


if __name__ == "__main__":
    asyncio.run(main())

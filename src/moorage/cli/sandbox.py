"""`moorage sandbox`: what an operator sees of sandboxes and does to them; also beside a running server."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer

from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.cli.sandbox_access import with_provider, with_threads
from moorage.cli.sandbox_build import build
from moorage.errors import Conflict, NotFound
from moorage.ids import ThreadId, owner_of
from moorage.sandboxes.operating import Operating, SandboxBusy
from moorage.sandboxes.places import vanished
from moorage.sandboxes.port import SandboxInfo, SandboxProvider, SandboxStats

app = typer.Typer(
    add_completion=False,
    help="List, measure and stop sandboxes, and clear up after vanished threads.",
    no_args_is_help=True,
)
app.command()(build)


def _thread(text: str) -> ThreadId:
    if owner_of(text) is None:
        raise typer.BadParameter("must be a thread id, such as alice-550e8400-e29b-41d4-a716-446655440000")
    return ThreadId(text)


Thread = Annotated[str, typer.Argument(metavar="THREAD", callback=_thread)]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per line")]


@app.command("list")
def list_sandboxes(
    everything: Annotated[bool, typer.Option("--all", help="Also threads whose sandbox is stopped")] = False,
    as_json: AsJson = False,
) -> None:
    """List the sandboxes that run, newest first."""
    found = with_provider(lambda provider: provider.list(folders=everything))
    found.sort(key=lambda info: (info.started_at is None, -(info.started_at or _LONG_AGO).timestamp(), info.thread_id))
    if as_json:
        _print_json(_shown(info) for info in found if everything or info.running)
        return
    rows = [
        (info.thread_id, "running" if info.running else "stopped", _profile(info) or "-", _since(info.started_at))
        for info in found
        if everything or info.running
    ]
    _print_table(("THREAD", "STATE", "PROFILE", "FOR"), rows)


@app.command()
def stop(
    thread: Thread,
    force: Annotated[bool, typer.Option("--force", help="Even while a run uses it: its command is lost")] = False,
) -> None:
    """Stop a sandbox: what runs in it ends, its files stay. The next use starts it again."""
    with_threads(lambda provider, threads: _stop(provider, threads, ThreadId(thread), force=force))
    typer.echo(f"The sandbox of {thread} is stopped.")


@app.command()
def gc(
    yes: Annotated[bool, typer.Option("--yes", help="Remove them. Their files cannot be had back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Name the sandboxes and workspaces whose thread or user is gone from the database, and remove them with --yes.

    The folders must be this database's alone: another database's threads are unknown to it.
    """

    def tell(info: SandboxInfo) -> None:
        if as_json:
            _print_json([{**_shown(info), "removed": yes}])
        else:
            typer.echo(info.thread_id)

    count = with_threads(lambda provider, threads: _collect(provider, threads, remove=yes, tell=tell))
    if as_json:
        return
    if not count:
        typer.echo("Nothing is left of vanished threads.")
    elif yes:
        typer.echo(f"{count} removed, with their files.")
    else:
        typer.echo(f"{count} belong to no thread. Remove them, with their files, by `moorage sandbox gc --yes`.")


@app.command()
def logs(thread: Thread) -> None:
    """Tell what happened to a thread's sandbox lately: made, stopped, killed, out of memory."""
    for line in with_provider(lambda provider: _log(provider, ThreadId(thread))):
        typer.echo(line)


@app.command()
def stats(
    thread: Annotated[str | None, typer.Argument(metavar="[THREAD]", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Tell what the sandboxes that run, or one of them, use now."""
    wanted = None if thread is None else _thread(thread)
    found = with_provider(lambda provider: _measure(provider, wanted))
    if as_json:
        _print_json({"thread_id": thread_id, **_measured(used)} for thread_id, used in found)
        return
    rows = [
        (
            thread_id,
            _size(used.memory_bytes),
            _number(used.processes),
            "-" if used.cpu_seconds is None else f"{used.cpu_seconds:.1f} s",
            "-" if used.disk_bytes is None else f"{_size(used.disk_bytes)} of {_size(used.disk_limit_bytes)}",
            _number(used.oom_kills),
        )
        for thread_id, used in found
    ]
    _print_table(("THREAD", "MEMORY", "PROCESSES", "CPU", "DISK", "OUT OF MEMORY"), rows)


async def _stop(provider: SandboxProvider, threads: BusyThreads, thread_id: ThreadId, *, force: bool) -> None:
    await _find(provider, thread_id)
    try:
        await Operating(provider, threads).stop(thread_id, force=force)
    except SandboxBusy:
        raise Conflict("A run of this thread is going on or about to: cancel it first, or stop with --force") from None


async def _collect(
    provider: SandboxProvider, threads: BusyThreads, *, remove: bool, tell: Callable[[SandboxInfo], None]
) -> int:
    """Answers how many; each is told once it is removed, so that who breaks off knows how far it came."""
    found = await vanished(provider, threads.existing)
    for info in found:
        if remove:
            await provider.remove(info.thread_id, files=True)
        tell(info)
    return len(found)


async def _measure(provider: SandboxProvider, wanted: ThreadId | None) -> list[tuple[ThreadId, SandboxStats]]:
    if wanted is not None:
        await _find(provider, wanted)
        return [(wanted, await provider.stats(wanted))]
    running = sorted(info.thread_id for info in await provider.list() if info.running)
    async with asyncio.TaskGroup() as tasks:  # the provider bounds how many are looked at together
        measured = [tasks.create_task(provider.stats(thread_id)) for thread_id in running]
    return [(thread_id, task.result()) for thread_id, task in zip(running, measured, strict=True)]


async def _log(provider: SandboxProvider, thread_id: ThreadId) -> Sequence[str]:
    log = (await provider.stats(thread_id)).log
    if not log:
        await _find(provider, thread_id)
    return log


async def _find(provider: SandboxProvider, thread_id: ThreadId) -> None:
    """Raises NotFound for a thread that has neither a sandbox nor files: most likely a slip of the pen."""
    if not await provider.list(folders=True, thread_id=thread_id):
        raise NotFound(f"{thread_id} has no sandbox and no workspace: `moorage sandbox list --all` names those that do")


def _shown(info: SandboxInfo) -> dict[str, Any]:
    return {
        "thread_id": info.thread_id,
        "running": info.running,
        "profile": _profile(info),
        "started_at": info.started_at,
    }


def _profile(info: SandboxInfo) -> str | None:
    """None when it is not known: what starts next decides."""
    return info.profile if info.started_at else None


def _measured(used: SandboxStats) -> dict[str, Any]:
    return {
        "memory_bytes": used.memory_bytes,
        "processes": used.processes,
        "cpu_seconds": used.cpu_seconds,
        "oom_kills": used.oom_kills,
        "disk_bytes": used.disk_bytes,
        "disk_limit_bytes": used.disk_limit_bytes,
    }


_LONG_AGO = datetime.fromtimestamp(0, UTC)
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def _since(moment: datetime | None) -> str:
    if moment is None:
        return "-"
    minutes = int((datetime.now(UTC) - moment).total_seconds() // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _size(count: int | None) -> str:
    if count is None:
        return "-"
    size, unit = float(count), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if unit < 2 else f"{size:.1f} {_UNITS[unit]}"


def _number(count: int | None) -> str:
    return "-" if count is None else str(count)


def _print_json(items: Iterable[dict[str, Any]]) -> None:
    for item in items:
        typer.echo(orjson.dumps(item))


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

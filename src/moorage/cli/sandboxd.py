"""`moorage sandboxd`: the broker that alone talks to the container engine."""

import grp
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from moorage.adapters.sandboxd.assembly import broker_socket, open_broker
from moorage.cli.open_files import allow_many_open_files
from moorage.cli.stopping import on_signals
from moorage.cli.terminal import EXIT_USAGE, explained, settings_or_exit
from moorage.errors import InvalidInput
from moorage.settings import Settings
from moorage.telemetry import get_logger, set_up_logging

log = get_logger(__name__)


def sandboxd(
    socket: Annotated[
        Path | None, typer.Option(help="The socket to serve at, instead of SANDBOX_BROKER.", show_default=False)
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(help="The group, by name or number, that may use the socket. Not set: this process's own."),
    ] = None,
) -> None:
    """Make sandboxes for servers and workers that have no right to use the container engine, until stopped.

    It takes their SANDBOX_* settings, WORKSPACE_ROOT and SHARED_DIR, but needs no database and no secret. Only this
    process's own user and those in SANDBOX_BROKER_UIDS are heard; they can ask for sandboxes by thread and profile,
    and for nothing else. What runs in sandboxes goes on when the broker ends.

    Exit codes: 0 stopped; 1 failed, or sandboxes do not work here; 2 wrong usage or settings.
    """
    settings = settings_or_exit(sandbox_broker=socket)
    set_up_logging(level=settings.log_level)
    try:
        path, gid = broker_socket(settings), _group_id(group)
    except InvalidInput as error:
        typer.secho(f"moorage: {error.detail}", err=True, fg="red")
        raise typer.Exit(EXIT_USAGE) from None
    allow_many_open_files()
    with explained():
        uvloop.run(_serve(settings, path, gid))


async def _serve(settings: Settings, path: Path, group: int | None) -> None:
    async with open_broker(settings, path, group=group) as stop:
        on_signals(stop.set)
        typer.echo(f"Moorage sandboxd is ready: {path}")
        await stop.wait()
    log.info("stopped")


def _group_id(group: str | None) -> int | None:
    if group is None or group.isdecimal():
        return int(group) if group else None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidInput(f"There is no group {group}.") from None

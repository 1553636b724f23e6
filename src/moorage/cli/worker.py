"""`moorage worker`: executes runs, and serves nobody."""

import typer
import uvloop

from moorage.cli.open_files import allow_many_open_files
from moorage.cli.stopping import on_signals
from moorage.cli.terminal import EXIT_USAGE, explained, settings_or_exit
from moorage.runtime import open_runtime
from moorage.settings import Settings
from moorage.telemetry import get_logger, set_up_logging

log = get_logger(__name__)


def worker() -> None:
    """Execute the runs of DATABASE_URL beside its servers, until stopped. Takes the same settings as they do."""
    settings = settings_or_exit()
    set_up_logging(level=settings.log_level)
    if settings.database_url is None:
        typer.echo(
            "moorage: a worker shares a database with servers: set DATABASE_URL to theirs. With its own Postgres, "
            "`moorage serve` executes runs itself",
            err=True,
        )
        raise typer.Exit(EXIT_USAGE)
    allow_many_open_files()
    with explained():
        uvloop.run(_work(settings))


async def _work(settings: Settings) -> None:
    async with open_runtime(settings) as runtime:
        on_signals(runtime.stop_accepting)
        log.info("worker_started", worker=runtime.worker_name)
        typer.echo(f"Moorage worker is ready: {runtime.worker_name}")
        await runtime.intake.wait_closed()
    log.info("stopped")

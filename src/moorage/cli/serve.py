"""`moorage serve`: the server, with all it needs."""

from typing import Annotated

import typer
import uvloop

from moorage.cli.open_files import allow_many_open_files
from moorage.cli.stopping import exit_in_time
from moorage.cli.terminal import EXIT_USAGE, explained, settings_or_exit
from moorage.runtime import Runtime, open_runtime
from moorage.settings import Settings
from moorage.telemetry import get_logger, set_up_logging
from moorage_api.server import bind
from moorage_api.server import serve as serve_http

log = get_logger(__name__)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one [PORT, 8000]")] = None,
    worker: Annotated[bool, typer.Option(help="Execute runs too, or leave them to `moorage worker`")] = True,
) -> None:
    """Serve until stopped. Without settings: embedded Postgres, Docker if an engine answers, the scripted model."""
    settings = settings_or_exit(host=host, port=port)
    set_up_logging(level=settings.log_level)
    if not worker and settings.database_url is None:
        typer.echo("moorage: --no-worker leaves runs to the workers of a database: set DATABASE_URL", err=True)
        raise typer.Exit(EXIT_USAGE)
    allow_many_open_files()
    with explained():
        uvloop.run(_serve(settings, work=worker))


async def _serve(settings: Settings, *, work: bool) -> None:
    with bind(settings.host, settings.port) as listener:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        async with open_runtime(settings, work=work) as runtime:
            setup_token = await runtime.identity.create_setup_link_if_first_start()
            await serve_http(
                runtime,
                listener,
                on_ready=lambda: _announce(runtime, url, setup_token),
                on_stop=exit_in_time,
            )
    log.info("stopped")


def _announce(runtime: Runtime, url: str, setup_token: str | None) -> None:
    sandbox = runtime.sandbox_kind + (f" ({runtime.sandbox_note})" if runtime.sandbox_note else "")
    lines = [f"Moorage is running at {url}", f"  model:   {runtime.model_name}", f"  sandbox: {sandbox}"]
    if runtime.model_name.startswith("scripted:"):
        lines.append(
            "  This is the SCRIPTED model: it plays a script and thinks nothing. Set LLM_MODEL for a real one."
        )
    if not runtime.executes:
        lines.append("  worker:  none here: runs wait for a `moorage worker` on this database")
    if setup_token is not None:
        lines.append(f"  First start: make yourself admin, once, at {url}/app/setup?token={setup_token}")
        lines.append(f'  or: curl -X POST {url}/api/auth/setup -H "content-type: application/json" \\')
        lines.append(f'        -d \'{{"token":"{setup_token}","username":"...","password":"..."}}\'')
    lines.append(f"  API docs: {url}/docs   Talk to it: moorage chat --url {url}")
    typer.echo("\n".join(lines))

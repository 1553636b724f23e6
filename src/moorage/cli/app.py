"""The command's parts, put together. Each part is imported when it is asked for: the server's take seconds."""

from importlib import import_module
from importlib.metadata import version as installed_version
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

# The function, or the Typer of sub-commands, that makes up a command.
_COMMANDS = {
    "serve": "moorage.cli.serve:serve",
    "worker": "moorage.cli.worker:worker",
    "sandboxd": "moorage.cli.sandboxd:sandboxd",
    "chat": "moorage.cli.chat:chat",
    "demo": "moorage.cli.demo:demo",
    "doctor": "moorage.cli.doctor:doctor",
    "migrate": "moorage.cli.migrate:migrate",
    "openapi": "moorage.cli.openapi:openapi",
    "sandbox": "moorage.cli.sandbox:app",
    "user": "moorage.cli.user:app",
}


class _LazyCommands(TyperGroup):
    """Commands that are imported by name."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        target = _COMMANDS.get(cmd_name)
        if target is None:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = target.partition(":")
        part = getattr(import_module(module), attribute)
        if not isinstance(part, typer.Typer):
            single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
            single.command(cmd_name)(part)
            part = single
        command = get_command(part)
        command.name = cmd_name
        return command


app = typer.Typer(
    cls=_LazyCommands,
    name="moorage",
    help="Agents that do real work, in a sandbox per conversation, with a human's approval.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 something must be installed first; "
    "4 (chat) an approval waits and nobody can be asked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _group() -> None:
    """Keeps `version` a command although it is the only one registered here."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"moorage {installed_version('moorage')}")

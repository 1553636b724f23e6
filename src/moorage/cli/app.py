"""The command's parts, put together."""

from importlib.metadata import version as installed_version

import typer

from moorage.cli import chat, demo, doctor, migrate, serve, user

app = typer.Typer(
    name="moorage",
    help="Agents that do real work, in a sandbox per conversation, with a human's approval.",
    epilog="Exit codes: 0 done; 1 failed; 2 wrong usage or settings; 3 something must be installed first; "
    "4 (chat) an approval waits and nobody can be asked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.add_typer(user.app, name="user")


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"moorage {installed_version('moorage')}")

"""`moorage user`: accounts, directly in the database; also beside a running server."""

from typing import Annotated

import orjson
import typer

from moorage.cli import user_keys
from moorage.cli.accounts import with_identity
from moorage.cli.asking import new_password
from moorage.identity import Identity, User

app = typer.Typer(
    add_completion=False, help="Create, list, disable and enable users, and set their passwords.", no_args_is_help=True
)
app.add_typer(user_keys.app, name="key")

Name = Annotated[str, typer.Argument(metavar="NAME")]
FromStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin's first line")]


@app.command()
def create(
    name: Name,
    admin: Annotated[bool, typer.Option("--admin", help="May administer this server")] = False,
    password_stdin: FromStdin = False,
) -> None:
    """Create a user. The password is asked for twice, or read from stdin."""
    password = new_password(from_stdin=password_stdin)
    with_identity(lambda identity: identity.create_user(name, password, is_admin=admin))
    typer.echo(f"Created {'the admin' if admin else 'the user'} {name}.")


@app.command()
def passwd(name: Name, password_stdin: FromStdin = False) -> None:
    """Set a user's password; whoever is logged in as that user is logged out."""
    password = new_password(from_stdin=password_stdin)
    with_identity(lambda identity: identity.set_password(name, password))
    typer.echo(f"The password of {name} is changed.")


@app.command()
def disable(name: Name) -> None:
    """Keep a user out, at once; sessions and files stay."""
    with_identity(lambda identity: identity.set_active(name, active=False))
    typer.echo(f"{name} is disabled.")


@app.command()
def enable(name: Name) -> None:
    """Let a disabled user in again."""
    with_identity(lambda identity: identity.set_active(name, active=True))
    typer.echo(f"{name} is enabled.")


@app.command("list")
def list_users(as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line")] = False) -> None:
    """List all users."""
    for user in with_identity(_all_users):
        if as_json:
            shown = {"user_id": user.user_id, "admin": user.is_admin, "active": user.is_active}
            typer.echo(orjson.dumps({**shown, "created_at": user.created_at}))
        else:
            marks = "".join([" admin" * user.is_admin, " disabled" * (not user.is_active)])
            typer.echo(f"{user.user_id:<32} {user.created_at:%Y-%m-%d}{marks}")


async def _all_users(identity: Identity) -> list[User]:
    page = await identity.list_users()
    users = page.items
    while page.next_cursor:
        page = await identity.list_users(cursor=page.next_cursor)
        users += page.items
    return users

"""`moorage user key`: users' API keys."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import orjson
import typer

from moorage.cli.accounts import with_identity
from moorage.identity import Identity, Scope
from moorage.identity.keys import DEFAULT_LIFETIME
from moorage.identity.principal import ApiKey

app = typer.Typer(add_completion=False, help="Create, list and revoke users' API keys.", no_args_is_help=True)

User = Annotated[str, typer.Argument(metavar="USER")]


@app.command()
def create(
    user: User,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for")],
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do, repeated; all by default")] = None,
    days: Annotated[int, typer.Option(min=0, max=3650, help="How long it lasts; 0: for ever")] = DEFAULT_LIFETIME.days,
) -> None:
    """Create a key and print it: nobody can show it again."""
    lifetime = timedelta(days=days) if days else None
    typer.echo(with_identity(lambda identity: _create(identity, user, name, scope or list(Scope), lifetime)))


@app.command("list")
def list_keys(
    user: User, as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line")] = False
) -> None:
    """List a user's keys, latest first."""
    for key in with_identity(lambda identity: _keys(identity, user)):
        scopes = sorted(key.scopes)
        if as_json:
            typer.echo(orjson.dumps({**_shown(key), "scopes": scopes}))
        else:
            until = f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "for ever"
            used = f"{key.last_used_at:%Y-%m-%d}" if key.last_used_at else "never"
            typer.echo(f"{key.key_id} {key.prefix}... {','.join(scopes)} {until}, last used {used}: {key.name}")


@app.command()
def revoke(user: User, key_id: Annotated[UUID, typer.Argument(metavar="KEY_ID", help="As `list` shows it")]) -> None:
    """Revoke a key; servers notice within a second."""
    with_identity(lambda identity: _revoke(identity, user, key_id))
    typer.echo(f"The key {key_id} is revoked.")


async def _create(identity: Identity, user: str, name: str, scopes: Sequence[Scope], lifetime: timedelta | None) -> str:
    found = await identity.get(user)
    _, key = await identity.keys.create(found.user_id, name, scopes=scopes, lifetime=lifetime)
    return key


async def _keys(identity: Identity, user: str) -> list[ApiKey]:
    found = await identity.get(user)
    page = await identity.keys.search(found.user_id, limit=100)
    keys = page.items
    while page.next_cursor:
        page = await identity.keys.search(found.user_id, limit=100, cursor=page.next_cursor)
        keys += page.items
    return keys


async def _revoke(identity: Identity, user: str, key_id: UUID) -> None:
    await identity.keys.revoke((await identity.get(user)).user_id, key_id)


def _shown(key: ApiKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "prefix": key.prefix,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
    }

"""The database, the operator's or our own, and what needs nothing else: accounts, and a name for this installation."""

import asyncio
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from moorage.adapters.embedded_postgres import open_embedded_postgres
from moorage.adapters.postgres.api_keys import PostgresKeyStore
from moorage.adapters.postgres.identifier import database_identifier
from moorage.adapters.postgres.migrate import is_up_to_date, migrate
from moorage.adapters.postgres.pool import Database, open_database
from moorage.adapters.postgres.users import PostgresUserStore
from moorage.errors import Unavailable
from moorage.identity import Identity, TokenSigner
from moorage.settings import Settings


@asynccontextmanager
async def open_identity(settings: Settings) -> AsyncGenerator[Identity]:
    """Only what the user commands need."""
    async with open_postgres(settings) as url, open_database(url, min_size=1, max_size=4) as database:
        yield make_identity(settings, database)


@asynccontextmanager
async def open_postgres(settings: Settings) -> AsyncGenerator[str]:
    """The URL of a migrated database: the operator's, or that of the embedded server, started here."""
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        if not await asyncio.to_thread(is_up_to_date, url):
            raise Unavailable("The database is not up to date: run `moorage migrate`", code="not_migrated")
        yield url
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    async with open_embedded_postgres(settings.data_dir) as url:
        await asyncio.to_thread(migrate, url)
        yield url


def make_identity(settings: Settings, database: Database) -> Identity:
    return Identity(
        PostgresUserStore(database),
        TokenSigner(_secret_key(settings), lifetime=timedelta(hours=settings.access_token_expire_hours)),
        PostgresKeyStore(database),
        registration_open=settings.registration_open,
        clock=lambda: datetime.now(UTC),
    )


async def installation_of(settings: Settings, url: str) -> str:
    """What the processes that share a database and its workspaces call themselves on a container engine.

    Nothing is kept for it: servers and workers anywhere derive the same. The workspaces' folder, as the engine's
    machine names it, tells a copy of the database apart from its original.
    """
    workspaces = settings.sandbox_host_workspace_root or str(settings.workspace_root.absolute())
    known = "\n".join([await asyncio.to_thread(database_identifier, url), workspaces])
    return hashlib.sha256(known.encode()).hexdigest()[:16]


def webhook_secret(settings: Settings) -> bytes:
    """What users' keys for webhooks are made from: derived (RFC 5869), it tells nothing of the signing key."""
    if settings.webhook_secret is not None:
        return settings.webhook_secret.get_secret_value().encode()
    derived = HKDF(SHA256(), length=32, salt=None, info=b"moorage webhooks v1")
    return derived.derive(_secret_key(settings).encode())


def _secret_key(settings: Settings) -> str:
    """The configured key; on loopback, without one, a random one that is kept in the data folder."""
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    return _kept_random(settings.data_dir / "secret_key")


def _kept_random(path: Path) -> str:
    """What the file holds: made of 384 random bits the first time, readable by this user only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        key = secrets.token_urlsafe(48)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key

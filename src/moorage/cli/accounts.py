"""The accounts, for commands: directly in the database, also beside a running server."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from moorage.adapters.embedded_postgres import find_running_embedded_postgres
from moorage.cli.terminal import explained, settings_or_exit
from moorage.identity import Identity
from moorage.runtime import open_identity
from moorage.settings import Settings
from moorage.telemetry import set_up_logging


def with_identity[T](work: Callable[[Identity], Awaitable[T]]) -> T:
    """What `work` answers of the accounts; errors are explained, and end the process."""
    settings = settings_or_exit()
    set_up_logging(level="WARNING")

    async def run() -> T:
        async with _identity(settings) as identity:
            return await work(identity)

    with explained():
        return asyncio.run(run())


@asynccontextmanager
async def _identity(settings: Settings) -> AsyncGenerator[Identity]:
    """The accounts. With the embedded Postgres: by the socket of a running server's, else started for the moment."""
    if settings.database_url is None:
        url = await asyncio.to_thread(find_running_embedded_postgres, settings.data_dir)
        if url is not None:
            settings = settings.model_copy(update={"database_url": SecretStr(url)})
    async with open_identity(settings) as identity:
        yield identity

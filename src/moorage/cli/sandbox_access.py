"""The sandboxes of a server, for commands beside it: by the same provider, and with the threads of its database."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from pydantic import SecretStr

from moorage.adapters.embedded_postgres import find_running_embedded_postgres
from moorage.adapters.postgres.busy_threads import BusyThreads
from moorage.adapters.postgres.pool import open_database
from moorage.cli.terminal import explained, settings_or_exit
from moorage.runtime import open_postgres, open_sandbox_provider
from moorage.sandboxes.port import SandboxProvider
from moorage.settings import Settings
from moorage.telemetry import set_up_logging


def with_provider[T](work: Callable[[SandboxProvider], Awaitable[T]]) -> T:
    """What `work` answers of the sandboxes; errors are explained, and end the process."""

    async def run(settings: Settings, stack: AsyncExitStack) -> T:
        if settings.sandbox_broker is None:
            settings = await _with_database(settings, stack)
        return await work(await stack.enter_async_context(open_sandbox_provider(settings)))

    return _run(run)


def with_threads[T](work: Callable[[SandboxProvider, BusyThreads], Awaitable[T]]) -> T:
    """The same, with what the database knows of their threads."""

    async def run(settings: Settings, stack: AsyncExitStack) -> T:
        settings = await _with_database(settings, stack)
        assert settings.database_url is not None  # noqa: S101 -- set just above
        url = settings.database_url.get_secret_value()
        database = await stack.enter_async_context(open_database(url, min_size=1, max_size=2))
        return await work(await stack.enter_async_context(open_sandbox_provider(settings)), BusyThreads(database))

    return _run(run)


def _run[T](work: Callable[[Settings, AsyncExitStack], Awaitable[T]]) -> T:
    settings = settings_or_exit()
    set_up_logging(level="ERROR")

    async def run() -> T:
        async with AsyncExitStack() as stack:
            return await work(settings, stack)

    with explained():
        return asyncio.run(run())


async def _with_database(settings: Settings, stack: AsyncExitStack) -> Settings:
    """The settings with the URL of the embedded Postgres: a running server's, else one started for the moment."""
    if settings.database_url is not None:
        return settings
    url = await asyncio.to_thread(find_running_embedded_postgres, settings.data_dir)
    if url is None:
        url = await stack.enter_async_context(open_postgres(settings))
    return settings.model_copy(update={"database_url": SecretStr(url)})

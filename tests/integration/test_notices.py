"""Notices between processes, on a real Postgres."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from psycopg import AsyncConnection

from moorage.adapters.postgres.notices import Notices, notify
from moorage.adapters.postgres.pool import Database


class Heard:
    """What a callback was told, in order."""

    def __init__(self) -> None:
        self.texts: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        return await asyncio.wait_for(self.texts.get(), 10)


@asynccontextmanager
async def listening(notices: Notices) -> AsyncGenerator[None]:
    running = asyncio.create_task(notices.run_forever())
    await asyncio.wait_for(notices.listening.wait(), 10)
    yield
    running.cancel()
    await asyncio.wait([running])


async def say(database: Database, kind: str, text: str, *, process: str = "another") -> None:
    async with database.system_transaction() as connection:
        await notify(connection, kind, text, process=process)


@pytest.fixture
async def heard(database_url: str) -> AsyncGenerator[Heard]:
    """Listens for "work"; has heard the "" of its first connection."""
    found, notices = Heard(), Notices(database_url)
    notices.listen("work", found.texts.put_nowait)
    async with listening(notices):
        assert await found.next() == ""
        yield found


async def test_a_notice_arrives_with_its_text(database: Database, heard: Heard) -> None:
    await say(database, "work", "run-1 and more")
    assert await heard.next() == "run-1 and more"


async def test_another_kind_is_not_heard(database: Database, heard: Heard) -> None:
    await say(database, "stop", "run-1 cancelled")
    await say(database, "work", "after")
    assert await heard.next() == "after"


async def test_a_notice_of_a_transaction_that_failed_is_never_sent(database: Database, heard: Heard) -> None:
    async def fail() -> None:
        async with database.system_transaction() as connection:
            await notify(connection, "work", "never")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await say(database, "work", "after")
    assert await heard.next() == "after"


@pytest.mark.parametrize("text", ["x" * 8000, "汉" * 3000])
async def test_a_text_that_is_too_long_says_only_that_something_happened(
    database: Database, heard: Heard, text: str
) -> None:
    await say(database, "work", text)
    assert await heard.next() == ""


async def test_own_notices_are_left_out_for_who_does_not_want_them(database: Database, database_url: str) -> None:
    all_of_them, foreign, notices = Heard(), Heard(), Notices(database_url, process="me")
    notices.listen("events", all_of_them.texts.put_nowait)
    notices.listen("events", foreign.texts.put_nowait, own=False)
    async with listening(notices):
        await say(database, "events", "mine", process="me")
        await say(database, "events", "theirs")
        assert [await all_of_them.next() for _ in range(3)] == ["", "mine", "theirs"]
        assert [await foreign.next() for _ in range(2)] == ["", "theirs"]


async def test_a_lost_connection_is_made_again_and_everybody_told_to_poll(
    database: Database, database_url: str, heard: Heard
) -> None:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'moorage notices' AND datname = current_database()"
        )
    assert await heard.next() == ""
    await say(database, "work", "again")
    assert await heard.next() == "again"

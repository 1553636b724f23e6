"""The real clients, unpatched, against a whole server: real Postgres, a real sandbox, the scripted model.

`TEST_LANGGRAPH_URL` names another server of the LangGraph wire to run them against, such as the official one with the
scripted agents of tests/compat: what fails only there is where Moorage means to do better.
"""

import os
import uuid
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.client import LangGraphClient, SyncLangGraphClient
from tests.api.harness import PASSWORD, make_settings, running

ELSEWHERE = os.environ.get("TEST_LANGGRAPH_URL")


@dataclass(frozen=True)
class Account:
    """A user, and the headers that say who they are."""

    url: str
    user_id: str
    headers: dict[str, str]


if ELSEWHERE:

    @pytest.fixture(scope="module")
    def url() -> str:
        return ELSEWHERE

else:

    @pytest.fixture(scope="module")
    async def url(database_url: str, public_tmp_path: Path) -> AsyncGenerator[str]:
        """Where a server is that has nothing in it."""
        async with running(
            make_settings(public_tmp_path / uuid.uuid4().hex, database_url, sandbox="bubblewrap")
        ) as server:
            yield server.url


async def new_account(url: str) -> Account:
    name = f"user-{uuid.uuid4().hex[:12]}"
    if ELSEWHERE:
        return Account(url, name, {})
    who = {"username": name, "password": PASSWORD}
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        (await http.post("/api/auth/register", json=who)).raise_for_status()
        reply = (await http.post("/api/auth/login", json=who)).raise_for_status()
    return Account(url, name, {"authorization": f"Bearer {reply.json()['access_token']}"})


@pytest.fixture(scope="module")
async def account(url: str) -> Account:
    """One user for a file: two passwords' hashes would be most of what a test costs."""
    return await new_account(url)


@pytest.fixture
async def client(account: Account) -> AsyncGenerator[LangGraphClient]:
    async with get_client(url=account.url, api_key=None, headers=account.headers) as found:
        yield found


@pytest.fixture
def sync_client(account: Account) -> Generator[SyncLangGraphClient]:
    with get_sync_client(url=account.url, api_key=None, headers=account.headers) as found:
        yield found

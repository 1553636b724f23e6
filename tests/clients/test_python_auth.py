"""How the Python SDK says who calls: a bearer token, or an API key in `x-api-key`."""

import uuid
from typing import Any

import httpx
import pytest
from langgraph_sdk import get_client
from langgraph_sdk.client import LangGraphClient
from langgraph_sdk.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from tests.clients.conftest import ELSEWHERE, Account, new_account
from tests.clients.script import AGENT, say, texts

pytestmark = pytest.mark.skipif(ELSEWHERE is not None, reason="keys and users are Moorage's own")


@pytest.fixture
async def account(url: str) -> Account:
    """A user of each test's own."""
    return await new_account(url)


async def new_key(account: Account, **asked: Any) -> str:
    async with httpx.AsyncClient(base_url=account.url, headers=account.headers) as http:
        reply = await http.post("/api/auth/keys", json={"name": "clients", **asked})
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]


async def test_an_api_key_does_what_its_owner_may(account: Account, client: LangGraphClient):
    key = await new_key(account)
    async with get_client(url=account.url, api_key=key) as keyed:
        thread_id = (await keyed.threads.create())["thread_id"]
        values: Any = await keyed.runs.wait(thread_id, AGENT, input=say(then="with a key"))
    assert texts(values)[-1] == "ai: with a key"
    assert (await client.threads.get(thread_id))["status"] == "idle"


async def test_an_api_key_is_read_from_the_environment(account: Account, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LANGGRAPH_API_KEY", await new_key(account))
    async with get_client(url=account.url) as keyed:
        assert await keyed.threads.search() == []


async def test_an_api_key_opens_the_streams_of_the_third_version(account: Account):
    key = await new_key(account)
    for headers, transport in (({}, "sse"), ({"x-api-key": key}, "websocket")):
        async with get_client(url=account.url, api_key=key) as keyed:
            asked: Any = {"assistant_id": AGENT, "headers": headers, "transport": transport}
            async with keyed.threads.stream(**asked) as thread:
                await thread.run.start(input=say(then="streamed"))
                assert texts(await thread.output)[-1] == "ai: streamed"


async def test_a_key_that_may_only_look_starts_nothing(account: Account, client: LangGraphClient):
    thread_id = (await client.threads.create())["thread_id"]
    async with get_client(url=account.url, api_key=await new_key(account, scopes=["read"])) as keyed:
        assert [one["thread_id"] for one in await keyed.threads.search()] == [thread_id]
        with pytest.raises(PermissionDeniedError):
            await keyed.runs.create(thread_id, AGENT, input=say())


@pytest.mark.parametrize(
    "who",
    [
        {"api_key": None},
        {"api_key": None, "headers": {"authorization": "Bearer nonsense"}},
        {"api_key": "nonsense"},
    ],
)
async def test_nobody_is_let_in_without_a_name(url: str, who: dict[str, Any]):
    async with get_client(url=url, **who) as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.threads.search()


async def test_what_is_a_strangers_is_not_there(url: str, client: LangGraphClient):
    thread_id = str(uuid.uuid4())
    await client.threads.create(thread_id=thread_id)
    stranger = await new_account(url)
    async with get_client(url=url, api_key=None, headers=stranger.headers) as other:
        with pytest.raises(NotFoundError):
            await other.threads.get(thread_id)
        assert await other.threads.search() == []
        mine = await other.threads.create(thread_id=thread_id)
        assert mine["thread_id"] == thread_id

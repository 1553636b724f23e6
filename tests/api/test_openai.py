"""The agent as an OpenAI model, called with OpenAI's own client over real HTTP."""

import uuid
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai import AsyncOpenAI
from tests.api.harness import PASSWORD, NewUser, Server, User, make_settings, read_events, running

NewClient = Callable[..., AsyncOpenAI]
SAY = [{"role": "user", "content": "Hello there"}]


@pytest.fixture
async def new_client(server: Server) -> AsyncGenerator[NewClient]:
    clients: list[AsyncOpenAI] = []

    def make(key: str, **options: Any) -> AsyncOpenAI:
        clients.append(AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=60, **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


@pytest.fixture
def client(alice: User, new_client: NewClient) -> AsyncOpenAI:
    """With alice's access token as its key."""
    return new_client(alice.client.headers["authorization"].removeprefix("Bearer "))


def calls(*items: tuple[str, dict[str, Any]], then: str = "done") -> list[dict[str, str]]:
    """A message that has the scripted model make these calls."""
    script = {"calls": [{"name": name, "args": args} for name, args in items], "then": then}
    return [{"role": "user", "content": orjson.dumps(script).decode()}]


def says(text: str) -> list[dict[str, str]]:
    return calls(then=text)


async def answered(client: AsyncOpenAI, messages: Any, **request: Any) -> tuple[Any, str]:
    """The completion, and the thread that it is in."""
    raw = await client.chat.completions.with_raw_response.create(model="agent", messages=messages, **request)
    return raw.parse(), raw.headers["x-thread-id"]


async def streamed(client: AsyncOpenAI, messages: Any, **request: Any) -> list[Any]:
    stream = await client.chat.completions.create(model="agent", messages=messages, stream=True, **request)
    return [chunk async for chunk in stream]


def content(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def reasoning(chunks: list[Any]) -> str:
    found = [(chunk.choices[0].delta.model_extra or {}).get("reasoning_content") for chunk in chunks if chunk.choices]
    return "".join(part for part in found if part)


# Answers --------------------------------------------------------------------------------------------------------


async def test_a_whole_answer(client: AsyncOpenAI) -> None:
    completion, thread_id = await answered(client, says("Forty-two."))
    [choice] = completion.choices
    assert (choice.message.content, choice.finish_reason) == ("Forty-two.", "stop")
    assert completion.model == "agent"
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0
    assert thread_id.startswith("alice-")


async def test_a_streamed_answer(client: AsyncOpenAI) -> None:
    chunks = await streamed(client, says("Forty-two."), stream_options={"include_usage": True})
    assert content(chunks) == "Forty-two."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_usage_is_streamed_only_when_asked_for(client: AsyncOpenAI) -> None:
    chunks = await streamed(client, says("Hi."))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


async def test_a_stream_ends_with_done(alice: User) -> None:
    body = {"model": "agent", "messages": SAY, "stream": True}
    reply = await alice.client.post("/v1/chat/completions", json=body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text.endswith("data: [DONE]\n\n")


async def test_steps_are_told_as_reasoning(client: AsyncOpenAI) -> None:
    messages = calls(("ls", {"path": "/workspace"}), then="Looked.")
    chunks = await streamed(client, messages)
    assert content(chunks) == "Looked."
    assert reasoning(chunks) == '\n[ls] {"path": "/workspace"}\n[ls] success\n'
    completion, _ = await answered(client, messages)
    assert completion.choices[0].message.model_extra["reasoning_content"] == reasoning(chunks).strip()


# Threads --------------------------------------------------------------------------------------------------------


async def test_the_thread_that_is_named_knows_what_was_said_before(client: AsyncOpenAI, alice: User) -> None:
    first, thread_id = await answered(client, says("One."))
    history = [*says("One."), {"role": "assistant", "content": first.choices[0].message.content}, *says("Two.")]
    second, same = await answered(client, history, extra_headers={"X-Thread-Id": thread_id})
    assert (second.choices[0].message.content, same) == ("Two.", thread_id)
    stored = (await alice.client.get(f"/api/sessions/{thread_id}/messages")).json()["items"]
    assert [item["role"] for item in stored] == ["user", "assistant", "user", "assistant"]


async def test_a_thread_may_be_named_by_a_uuid_of_the_clients_own(client: AsyncOpenAI, alice: User) -> None:
    mine = str(uuid.uuid4())
    for _ in range(2):
        _, thread_id = await answered(client, says("Yes."), extra_headers={"X-Thread-Id": mine})
        assert thread_id == mine
    session = (await alice.client.get(f"/api/sessions/alice-{mine}")).json()
    assert session["turn_count"] == 2


async def test_a_new_thread_begins_with_the_whole_conversation(client: AsyncOpenAI, alice: User) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
        {"role": "assistant", "content": "A ship."},
        *says("Understood."),
    ]
    completion, thread_id = await answered(client, messages)
    assert completion.choices[0].message.content == "Understood."
    stored = (await alice.client.get(f"/api/sessions/{thread_id}/messages")).json()["items"]
    assert [item["content"] for item in stored][:2] == ["Who are you?", "A ship."]
    assert [item["role"] for item in stored] == ["user", "assistant", "user", "assistant"]


async def test_another_users_thread_is_403_and_one_that_is_gone_404(client: AsyncOpenAI, new_user: NewUser) -> None:
    bob = await new_user("bob")
    theirs = await bob.new_session()
    for thread_id in (theirs, "nonsense"):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await answered(client, SAY, extra_headers={"X-Thread-Id": thread_id})
        assert refused.value.code == "thread_access_denied"
    with pytest.raises(openai.NotFoundError):
        await answered(client, SAY, extra_headers={"X-Thread-Id": f"alice-{uuid.uuid4()}"})


# Approvals ------------------------------------------------------------------------------------------------------


async def test_what_waits_for_approval_ends_the_turn_and_says_how_to_answer(
    client: AsyncOpenAI, alice: User, server: Server
) -> None:
    messages = calls(("execute", {"command": "echo approved > it.txt"}), then="It ran.")
    chunks = await streamed(client, messages, extra_headers={"X-Thread-Id": (mine := str(uuid.uuid4()))})
    [approval] = (await alice.client.get("/api/approvals", params={"thread_id": f"alice-{mine}"})).json()["items"]
    said = content(chunks)
    assert "`execute`" in said
    assert "echo approved > it.txt" in said
    assert f"{server.url}/api/approvals/{approval['id']}" in said
    assert f"{server.url}/app/threads/alice-{mine}" in said
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_message_to_a_thread_that_waits_is_409_unless_it_rejects(client: AsyncOpenAI, server: Server) -> None:
    _, thread_id = await answered(client, calls(("execute", {"command": "true"})))
    there = {"X-Thread-Id": thread_id}
    with pytest.raises(openai.ConflictError) as refused:
        await answered(client, says("Well?"), extra_headers=there)
    assert refused.value.code == "approval_pending"
    assert f"{server.url}/app/threads/{thread_id}" in refused.value.message
    assert refused.value.response.headers["x-should-retry"] == "false"
    body = {"multitask_strategy": "reject_and_continue"}
    completion, _ = await answered(client, says("Never mind."), extra_headers=there, extra_body=body)
    assert completion.choices[0].message.content == "Never mind."


async def test_what_came_of_an_approval_is_told_in_the_next_turn(client: AsyncOpenAI, alice: User) -> None:
    _, thread_id = await answered(client, calls(("execute", {"command": "echo 5050"}), then="I ran it."))
    await alice.resume(thread_id, action="continue")
    completion, _ = await answered(client, says("As before."), extra_headers={"X-Thread-Id": thread_id})
    assert completion.choices[0].message.content == "As before."
    stored = (await alice.client.get(f"/api/sessions/{thread_id}/messages")).json()["items"]
    assert "5050" in next(item["content"] for item in stored if item["role"] == "tool")


# Streams that end early, and runs that fail ---------------------------------------------------------------------


async def test_going_away_does_not_stop_the_run(client: AsyncOpenAI, alice: User) -> None:
    slow = orjson.dumps({"calls": [], "then": "one two three four five", "pause": 0.05}).decode()
    mine = str(uuid.uuid4())
    stream = await client.chat.completions.create(
        model="agent",
        messages=[{"role": "user", "content": slow}],
        stream=True,
        extra_headers={"X-Thread-Id": mine},
    )
    await anext(aiter(stream))
    await stream.close()
    async with alice.client.stream("GET", f"/api/sessions/alice-{mine}/events") as reply:
        async for event in read_events(reply):
            if event.type == "run_end":
                assert event.data["status"] == "success"
                break


async def test_a_run_that_fails_is_an_error_that_clients_do_not_repeat(
    database_url: str, public_tmp_path: Path
) -> None:
    settings = make_settings(public_tmp_path / uuid.uuid4().hex, database_url, llm_model="scripted:error-401")
    async with running(settings) as server, httpx.AsyncClient(base_url=server.url) as http:
        account = {"username": "dora", "password": PASSWORD}
        await http.post("/api/auth/register", json=account)
        token = (await http.post("/api/auth/login", json=account)).json()["access_token"]
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key=token) as client:
            with pytest.raises(openai.InternalServerError) as failed:
                await answered(client, SAY)
            assert failed.value.code == "model_unauthorized"
            with pytest.raises(openai.APIError, match="key"):
                await streamed(client, SAY)
        sessions = (await http.get("/api/sessions", headers={"authorization": f"Bearer {token}"})).json()["items"]
        assert [session["turn_count"] for session in sessions] == [1, 1]


# Who, and which model -------------------------------------------------------------------------------------------


async def test_an_api_key_is_a_key(alice: User, new_client: NewClient) -> None:
    made = (await alice.client.post("/api/auth/keys", json={"name": "openai", "scopes": ["read", "run"]})).json()
    completion, _ = await answered(new_client(made["key"]), says("Hello."))
    assert completion.choices[0].message.content == "Hello."


@pytest.mark.parametrize("key", ["sk-of-another-service", "mrg_" + "x" * 43])
async def test_a_key_of_nobody_is_401(new_client: NewClient, key: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        await answered(new_client(key), SAY)


async def test_assistants_are_models(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert "agent" in [model.id for model in models]
    assert (await client.models.retrieve("agent")).object == "model"


async def test_a_saved_assistant_is_a_model_by_id_and_by_name(client: AsyncOpenAI, alice: User) -> None:
    saved = (await alice.client.post("/assistants", json={"graph_id": "agent", "name": "Ship's cook"})).json()
    models = {model.id: model async for model in client.models.list()}
    assert models[saved["assistant_id"]].model_extra == {"name": "Ship's cook"}
    for name in (saved["assistant_id"], "Ship's cook"):
        completion = await client.chat.completions.create(model=name, messages=says("Aye."))  # type: ignore[arg-type]
        assert (completion.model, completion.choices[0].message.content) == (name, "Aye.")


async def test_an_unknown_model_is_404(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="gpt-5", messages=SAY)  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("gpt-5")


# What is not supported ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("tools", [{"type": "function", "function": {"name": "f"}}]), ("n", 2), ("logprobs", True), ("stop", "END"),
        ("response_format", {"type": "json_object"}), ("tool_choice", "required"), ("logit_bias", {"1": 2}),
        ("modalities", ["text", "audio"]), ("top_logprobs", 3),
    ],
)  # fmt: skip
async def test_what_cannot_be_honoured_is_refused_by_name(client: AsyncOpenAI, param: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await answered(client, SAY, extra_body={param: value})
    assert (refused.value.param, refused.value.code) == (param, "unsupported_parameter")


async def test_an_unknown_parameter_is_refused_by_name(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await answered(client, SAY, extra_body={"top_k": 1})
    assert (refused.value.param, refused.value.code) == ("top_k", "unknown_parameter")


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": ""}],
        [{"role": "system", "content": "Be brief."}],
        [*SAY, {"role": "assistant", "content": "Hello."}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]}],
        [{"role": "tool", "content": "4", "tool_call_id": "x"}],
        [{"role": "user", "content": "x" * 100_001}],
    ],
)
async def test_messages_that_cannot_be_answered_are_400(client: AsyncOpenAI, messages: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await answered(client, messages)
    assert refused.value.type == "invalid_request_error"
    assert refused.value.message


@pytest.mark.parametrize(("body", "status"), [(b"{", 422), (b'"%s"' % (b"x" * 1024 * 1024), 413), (b"[]", 400)])
async def test_a_body_that_nobody_can_read_is_refused_in_the_same_shape(alice: User, body: bytes, status: int) -> None:
    headers = {"content-type": "application/json"}
    reply = await alice.client.post("/v1/chat/completions", content=body, headers=headers)
    assert reply.status_code == status
    assert reply.json()["error"]["type"] == "invalid_request_error"


async def test_what_has_no_effect_is_named_in_the_answer(client: AsyncOpenAI) -> None:
    harmless: dict[str, Any] = {
        "temperature": 0.2,
        "max_tokens": 5,
        "n": 1,
        "tools": [],
        "response_format": {"type": "text"},
    }
    raw = await client.chat.completions.with_raw_response.create(
        model="agent",
        messages=says("Five words are not enough here."),
        extra_body=harmless,  # type: ignore[arg-type]
    )
    assert raw.headers["x-ignored-parameters"] == "max_tokens, temperature"
    assert raw.parse().choices[0].message.content == "Five words are not enough here."
